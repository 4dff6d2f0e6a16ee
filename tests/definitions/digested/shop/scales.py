"""Constants in a file of their own."""

FACTORS = (1.0, 2.0, 1_000)
UNUSED = 3
