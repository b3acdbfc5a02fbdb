"""The derived index: records of a topic, embedded and found by meaning. All of it can be rebuilt from the log."""
