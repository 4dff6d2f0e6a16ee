"""Rows of Arrow: where they come from, how they are made plain and checked, and what is set aside."""
