"""Batch → online: read a source, check it, keep the latest row of each entity, write it; fill new row layouts."""
