"""A day of faults of an embedding provider, in minutes."""
