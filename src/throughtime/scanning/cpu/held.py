"""Packed weights that wait for the next call, since rounding and packing takes longer than a step with them."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from throughtime.scanning import locks

MOST = 64  # cells of one program whose weights are held

Packed = dict[Any, Tensor]


class Held:
    """For the tensors of a cell, as they are now, what was packed of them: what a change of them makes out of date is dropped.

    A change is seen as PyTorch counts changes: one made through `.data` is not.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[list[Any], Packed]] = OrderedDict()

    def of(self, tensors: Sequence[Tensor]) -> Packed:
        """What is held, to be added to; empty, and not held, where changes are not counted."""
        if any(t.is_inference() for t in tensors):
            return {}
        key = tuple((id(t), t.data_ptr(), t._version) for t in tensors)
        with locks.LOOPS:
            if key not in self._known:
                names = {id(t) for t in tensors}
                for other in [k for k in self._known if names & {part[0] for part in k}]:
                    del self._known[other]  # the same tensors before they were changed
                known = self._known
                gone = [weakref.ref(t, lambda _, key=key: known.pop(key, None)) for t in tensors]  # type: ignore[misc]
                self._known[key] = gone, {}
                if len(self._known) > MOST:
                    self._known.popitem(last=False)
            self._known.move_to_end(key)
            return self._known[key][1]
