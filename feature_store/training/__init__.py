"""Point-in-time joins → training sets."""
