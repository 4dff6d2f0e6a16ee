"""Stream views on Spark Structured Streaming: another reader of the topics, the same merges behind the same fences."""
