"""Models: a network for a task each, layers plus a head."""
