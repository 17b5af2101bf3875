"""The laboratory: how far back a cell can learn to remember, measured on made problems. Needs no run folder."""
