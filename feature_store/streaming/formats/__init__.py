"""Decoders of messages, one module for each format."""
