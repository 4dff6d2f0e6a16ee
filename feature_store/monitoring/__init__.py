"""Whether what is served is what was meant: skew between the online store and the offline data."""
