"""What an export is made of, and the check of what was written beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.reading import Reading
from throughtime.exporting.running import RunningBlocks, check_reading, check_running
from throughtime.exporting.stack import Stack


@dataclass(frozen=True)
class Export:
    """What is written: a stack under a name, as source or as an object; of a model that reads tokens, how, its own log p,
    and what a document of it is."""

    stack: Stack
    name: str
    int8: bool
    source: bool = False
    reading: Reading | None = None
    log_p: Callable[[Tensor], Tensor] | None = None
    documents: str = "file"

    @property
    def note(self) -> str:
        """What a header says of the numbers."""
        return "Weights in eight bits, each output's with a scale of its own." if self.int8 else ""

    @property
    def right(self) -> Stack:
        """What it is set beside: the stack, as eight bits tell it where weights are of eight bits."""
        return evaluated(self.stack, int8=True, rounded=not self.source) if self.int8 else self.stack

    def check(self, running: Callable[[bool], RunningBlocks], what: str) -> float:
        """Set what was written beside the reference. running: makes what is run; given True, reading tokens.

        Returns: the largest difference. Raises: UserError where it differs by more than rounding.
        """
        right = self.right
        worst = check_running(running(False), right, what)
        if self.reading is not None and self.log_p is not None:
            read = check_reading(running(True), right, self.reading, what, int8=self.int8, log_p=self.log_p)
            worst = max(worst, read)
        return worst
