"""The Spark engine: executors read, check, find the latest rows and write them to Redis; the driver sees counts."""
