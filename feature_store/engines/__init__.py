"""What reads, sorts and partitions offline data: sources, checked rows, and the engines behind one seam."""
