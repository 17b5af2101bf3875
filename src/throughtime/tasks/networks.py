"""What of a trained model is exported: its networks, what each takes and gives.

Shapes are told by the names of their axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Choice = Callable[[Mapping[str, "Tensor"], Mapping[str, "Tensor"]], "Tensor"]
Draw = Callable[[tuple[int, ...], Mapping[str, int], "torch.Generator"], "Tensor"]


@dataclass(frozen=True)
class Input:
    """One tensor that a network takes.

    axes: a name for each size that is free, a number for one that is not. meaning: in words. draw: of a shape, the sizes of all
    axes and a generator a random example, with which the network is traced and compared.
    """

    name: str
    axes: tuple[str | int, ...]
    meaning: str
    draw: Draw


@dataclass(frozen=True)
class Network:
    """A part of a model that is exported as one graph.

    call: takes tensors in the order of `inputs`, and gives them in that of `outputs`, name -> meaning. module: whose weights it
    uses. carried: outputs that the next call takes, output -> input. fewest: the least that each axis may be, where that is over 1.
    chosen: outputs that are a choice by other outputs, name -> the choice, of the inputs and those outputs by their names: of two
    that are nearly equally likely, rounding may choose another.
    """

    name: str
    module: nn.Module
    call: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[Input, ...]
    outputs: Mapping[str, str]
    carried: Mapping[str, str] = field(default_factory=dict)
    fewest: Mapping[str, int] = field(default_factory=dict)
    chosen: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def axes(self) -> list[str]:
        """The names of the sizes that are free, in the order they come up."""
        return list(dict.fromkeys(axis for given in self.inputs for axis in given.axes if isinstance(axis, str)))

    def example(self, sizes: Mapping[str, int], generator: torch.Generator) -> tuple[Tensor, ...]:
        """Random inputs, in order. sizes: of each of the axes."""
        found = []
        for given in self.inputs:
            shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in given.axes)
            found.append(given.draw(shape, sizes, generator))
        return tuple(found)


def below(limit: int | str, least: int = 0) -> Draw:
    """Whole numbers from `least` on, under a number or the size of an axis."""

    def draw(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
        import torch

        high = sizes[limit] if isinstance(limit, str) else limit
        return torch.randint(least, high, shape, generator=generator)

    return draw


def lengths(axis: str) -> Draw:
    """Lengths from 1 to the size of an axis, the first of which is that size."""

    def draw(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
        import torch

        found = torch.randint(1, sizes[axis] + 1, shape, generator=generator)
        found[0] = sizes[axis]
        return found

    return draw


def normal(shape: tuple[int, ...], sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
    """Numbers of mean 0 and standard deviation 1."""
    import torch

    return torch.randn(shape, generator=generator)


def flat(state: Any) -> list[Tensor]:
    """The tensors of a state in nested tuples, in order."""
    return [tensor for part in state for tensor in flat(part)] if isinstance(state, tuple) else [state]


def like(state: Any, tensors: list[Tensor]) -> Any:
    """Tensors, in order, in the nested tuples of `state`."""
    left = iter(tensors)

    def made(part: Any) -> Any:
        return tuple(made(inner) for inner in part) if isinstance(part, tuple) else next(left)

    return made(state)


def states(example: Any, batch: str = "B") -> tuple[tuple[Input, ...], dict[str, str], dict[str, str]]:
    """The inputs, outputs and what is carried of a state, as `Network` has them. example: of one sequence, [1, ...] each."""
    tensors = flat(example)
    inputs = tuple(
        Input(f"state{i}", (batch, *t.shape[1:]), "a state; zeros at the beginning", normal)
        for i, t in enumerate(tensors)
    )
    outputs = {f"final{i}": f"what `state{i}` is in the next call" for i in range(len(tensors))}
    return inputs, outputs, {f"final{i}": f"state{i}" for i in range(len(tensors))}
