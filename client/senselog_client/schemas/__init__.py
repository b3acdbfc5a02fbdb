"""Message schemas of API key 100, in the JSON format of Apache Kafka's own messages."""
