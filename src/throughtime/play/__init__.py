"""A page to play with a network: what is typed is read step by step, and its past can be changed.

EXAMPLE: the run folder of a small network of characters that comes along.
"""

from pathlib import Path

EXAMPLE = Path(__file__).parent / "shakespeare"
