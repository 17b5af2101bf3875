"""Decoding: writing with a network, over any step function."""
