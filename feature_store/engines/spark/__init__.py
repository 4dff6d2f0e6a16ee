"""The Spark engine: executors read and check rows, find the latest ones and write them; the driver gets counts only."""
