"""Batch → online store: read a source, check its rows, write the latest row of each entity; fill new row layouts."""
