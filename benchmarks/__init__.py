"""This library beside Feast and beside the floor, in one run on one server. `python -m benchmarks` prints the table."""
