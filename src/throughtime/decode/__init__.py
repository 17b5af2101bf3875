"""Decoding: writing with a network over any step function, and reading off what one trained with CTC has heard."""
