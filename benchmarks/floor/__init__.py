"""The least that a read can cost: what the benchmarks hold this project's reads against."""
