"""One project: its settings, its parts behind one object, and what they say together."""
