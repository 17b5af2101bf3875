"""What is given to an export and what it gives, by name: for READMEs, test vectors, and the names in files.

Shapes: T time, B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from throughtime.errors import UserError
from throughtime.exporting.stack import Direction, Stack
from throughtime.scanning.call import leaves, map_leaves, tensors_of


@dataclass(frozen=True)
class Named:
    """A tensor: its name, its shape behind [B], the type of its numbers in torch's words, and what it means."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str

    @property
    def width(self) -> int:
        """How many numbers a sequence has of it."""
        size = 1
        for n in self.shape:
            size *= n
        return size


@dataclass(frozen=True)
class Interface:
    """All that goes in and comes out, in order: `x` (or `x0`, `x1` …), `state0` …; `y`, `final0` …."""

    inputs: tuple[Named, ...]
    states: tuple[Named, ...]
    output: Named
    finals: tuple[Named, ...]


def interface_of(stack: Stack) -> Interface:
    """The names and shapes of a stack. Raises: UserError where a step of it fails, or its output is without features."""
    given = leaves(stack.inputs)
    what = [f"input {i} of a step" if len(given) > 1 else "what a step is given" for i in range(len(given))]
    names = [f"x{i}" if len(given) > 1 else "x" for i in range(len(given))]
    try:
        y, _ = stack.run(map_leaves(lambda t: t.unsqueeze(0), stack.inputs), stack.states)
    except Exception as error:  # of a cell of one's own, whatever it is
        raise UserError(f"{stack.name} fails on a batch of 1: {type(error).__name__}: {error}") from error
    meanings = _meanings(stack)

    def rows(prefix: str, words: Callable[[str], str]) -> tuple[Named, ...]:
        pairs = enumerate(zip(stack.states, meanings, strict=True))
        return tuple(Named(f"{prefix}{i}", tuple(t.shape[1:]), _type(t.dtype), words(said)) for i, (t, said) in pairs)

    if 0 in y.shape:
        raise UserError(f"{stack.name} gives an output of {['B', *y.shape[2:]]}, without features".replace("'", ""))
    return Interface(
        tuple(Named(n, tuple(t.shape[1:]), _type(t.dtype), w) for n, t, w in zip(names, given, what, strict=True)),
        rows("state", lambda said: said),
        Named("y", tuple(y.shape[2:]), _type(y.dtype), "the output of the last layer"),
        rows("final", lambda said: f"{said}, after the last step"),
    )


def _type(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")


def _meanings(stack: Stack) -> list[str]:
    """For each tensor of the state, whose it is."""
    said = []
    for number, layer in enumerate(stack.layers):
        for d in layer.directions:
            where = [d.name] if len(stack.directions) == 1 else [f"layer {number}", d.name]
            if len(layer.directions) > 1:
                where.append("backwards" if d.reverse else "forwards")
            said += [", ".join([*where, _part(d, i)]) for i in range(len(tensors_of(d.state)))]
    return said


def _part(direction: Direction, number: int) -> str:
    count = len(tensors_of(direction.state))
    return "its state" if count == 1 else f"tensor {number + 1} of the {count} of its state"
