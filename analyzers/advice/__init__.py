"""What to do with a cluster, from what was measured of it."""
