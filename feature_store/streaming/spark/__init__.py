"""Streams views with Spark Structured Streaming. Spark reads the topics; merges and fences are those of the workers."""
