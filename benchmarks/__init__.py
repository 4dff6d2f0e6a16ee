"""Ours beside the peer and the floor, in one run on one server. `python -m benchmarks` prints the table."""
