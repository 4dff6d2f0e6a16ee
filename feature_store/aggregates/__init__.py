"""The pure algebra of windows and tiles, shared by batch, stream, read and training."""
