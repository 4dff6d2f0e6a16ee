"""Importance, cost, prune plans and their verification: which features a model can do without."""
