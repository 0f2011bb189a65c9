"""Kafka: topics, the producing sink, consumers, dead letters, and the schemas of what is sent."""
