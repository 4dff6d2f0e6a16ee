"""What the benchmarks compare this project against."""
