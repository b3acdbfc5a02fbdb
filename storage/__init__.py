"""The durable log: batches and offsets, one WAL shared by all partitions, Kafka's segments behind it."""
