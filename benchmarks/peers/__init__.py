"""The library that the benchmarks compare this project with."""
