"""Training sets, from point-in-time joins or from the served log."""
