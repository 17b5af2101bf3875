"""The stacks of cells in a network, layer by layer, as a scan of an example goes through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from throughtime.errors import UserError
from throughtime.scanning.observe import Observed, observing
from throughtime.tasks.base import Trained
from throughtime.tasks.look import Look, Stack


@dataclass(frozen=True)
class Layer:
    """One layer of a stack in one direction.

    name: of the module of its cell, from the network. title: what a user may call it: encoder, layer 1, backwards. of: what its
    stack steps through. depth: 0 for the lowest.
    """

    name: str
    title: str
    stack: str
    depth: int
    scan: Observed
    of: Stack

    @property
    def steps(self) -> list[str]:
        """What its steps are called."""
        return self.of.steps.labels[:: self.of.stride]


def has_states(config: Any) -> bool:
    """Whether the network of these settings carries a state."""
    m = config.model
    return getattr(m, "kind", "recurrent") != "transformer" and getattr(m, "cell", None) != "none"


@contextmanager
def looked_into(model: Trained[Any], look: Look, *, gradients: bool = False) -> Iterator[Callable[[], list[Layer]]]:
    """Look into the stacks of an item while the block runs; what it yields tells the layers once it has run.

    Raises: UserError where the network has no recurrent layers.
    """
    if not has_states(model.config):
        what = "a network without a memory" if model.config.model.cell == "none" else "a Transformer"
        raise UserError(f"{model.run.folder}: {what} has no state to look into")
    with observing(gradients=gradients) as scans:
        yield lambda: _layers(scans, model.network, look)


def _layers(scans: list[Observed], network: nn.Module, look: Look) -> list[Layer]:
    names = {id(module): name for name, module in network.named_modules()}
    found: list[Layer] = []
    for scan in scans:
        name = names.get(id(scan.cell), "")
        stack, _, number = name.rpartition(".cells.")
        again = any(layer.name == name for layer in found)  # of a network that reads twice, the first is looked at
        if stack in look.stacks and not again:
            of, module = look.stacks[stack], network.get_submodule(stack)
            cells: Any = module.cells
            directions: Any = module.directions
            depth, several = int(number) // directions, len(cells) > directions
            words = [of.name] if of.name else []
            words += [f"layer {depth + 1}"] if several or not words else []
            words += ["backwards" if scan.reverse else "forwards"] if directions == 2 else []
            found.append(Layer(name, ", ".join(words), stack, depth, scan, of))
    return found
