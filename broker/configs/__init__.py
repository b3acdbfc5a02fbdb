"""Kafka's configs of topics, brokers, groups and client metrics: how they are defined, described and changed."""
