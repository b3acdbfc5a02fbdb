"""Doors beside the Kafka protocol: REST, health and metrics."""
