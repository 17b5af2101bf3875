"""What each PyTorch operation means in nodes.

A rule takes the `Lowering` and the operation's arguments, tensors as `Symbol`s, and gives a `Symbol` or a tuple of them.
"""

from throughtime.scanning.lowering import RULES
from throughtime.scanning.rules import features, pointwise, products, rounding, shapes

__all__ = ["RULES", "features", "pointwise", "products", "rounding", "shapes"]
