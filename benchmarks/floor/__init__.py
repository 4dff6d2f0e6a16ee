"""The lowest possible cost of a read, with which the benchmarks compare this project's reads."""
