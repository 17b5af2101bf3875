"""Examples of different length: on disk end to end, batches of about the same length, and a network over all of them.

Shapes: T time, B batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.runs import write_text

if TYPE_CHECKING:
    from throughtime.tasks.base import Batches

POOL = 50  # batches that are sorted by length together
TOKENS = 4096  # of a batch that is scored


class Sequences:
    """Many sequences of whole numbers, end to end."""

    def __init__(self, values: Any, starts: Any) -> None:
        self.values, self.starts = values, starts
        self.lengths = np.diff(starts)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Any:
        return self.values[self.starts[index] : self.starts[index + 1]]

    @classmethod
    def of(cls, sequences: Iterable[Any]) -> Sequences:
        """Of sequences in memory."""
        parts = [np.asarray(s, dtype=np.int32) for s in sequences]
        values = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)
        return cls(values, np.cumsum([0, *map(len, parts)]))

    def save(self, path: Path) -> None:
        """Write them to `path`, and where each begins beside it, as `.json`."""
        np.asarray(self.values, dtype=np.int32).tofile(path)
        write_text(path.with_suffix(".json"), json.dumps(self.starts.tolist()))

    @classmethod
    def open(cls, path: Path) -> Sequences:
        """What `save` wrote, mapped into memory."""
        starts = np.array(json.loads(path.with_suffix(".json").read_text()))
        values = np.memmap(path, np.int32, "r") if starts[-1] else np.zeros(0, dtype=np.int32)
        return cls(values, starts)


def padded(sequences: Sequence[Any], fill: int = 0) -> tuple[Tensor, Tensor]:
    """Sequences as one block [T, B] of int64, T the longest (at least 1), and their lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences], dtype=torch.int64)
    block = np.full((max(1, int(lengths.max())), len(sequences)), fill, dtype=np.int64)
    for i, s in enumerate(sequences):
        block[: len(s), i] = s
    return torch.from_numpy(block), lengths


class Items:
    """Items in memory as `Examples`. lengths: of each, in steps. make: a batch of some of them."""

    def __init__(self, items: Sequence[Any], lengths: Any, make: Callable[[list[Any]], Any]) -> None:
        self.items, self.lengths, self.make = items, lengths, make

    def batch(self, numbers: Iterable[int]) -> Any:
        """Some of the items, as the network takes them."""
        return self.make([self.items[i] for i in numbers])

    def item(self, number: int) -> Any:
        """One of the items."""
        return self.items[number]


class ByLength:
    """Endless batches of whole examples of about the same length; each epoch cuts them anew.

    Args: batch: examples in a batch of all processes. rows: this process's share of each batch.
    """

    def __init__(self, examples: Batches, batch: int, seed: int, rows: slice) -> None:
        self.examples, self.batch, self.seed, self.rows = examples, batch, seed, rows
        # by their first side, then by the next
        sides = np.asarray(examples.lengths).reshape(len(examples.lengths), -1).astype(np.int64)
        self.lengths = sides[:, 0]
        for side in sides.T[1:]:
            self.lengths = self.lengths * (int(side.max(initial=0)) + 1) + side
        self.per_epoch = max(-(-len(self.lengths) // batch), 1)
        self.batch_tokens = int(batch * max(sides[:, -1].mean(), 1))
        self.epoch, self.place = 0, 0
        self._order: tuple[int, Any] | None = None

    def _batches(self) -> Any:
        """The examples of each batch of this epoch, [batches, batch]; the last is filled up from the first."""
        if self._order is None or self._order[0] != self.epoch:
            generator = np.random.default_rng((self.seed, self.epoch))
            order = generator.permutation(len(self.lengths))
            order = np.resize(order, self.per_epoch * self.batch)
            pools = []
            for low in range(0, len(order), POOL * self.batch):
                pool = order[low : low + POOL * self.batch]
                pools.append(pool[np.argsort(self.lengths[pool], kind="stable")])
            # the longest first, as scans take them
            batches = np.fliplr(np.concatenate(pools).reshape(-1, self.batch)).copy()
            self._order = self.epoch, batches[generator.permutation(len(batches))]
        return self._order[1]

    def next(self, device: torch.device) -> tuple[Any, bool]:
        """(a batch, True: nothing is carried from the one before)."""
        if self.place >= self.per_epoch:
            self.epoch, self.place = self.epoch + 1, 0
        mine = self._batches()[self.place][self.rows]
        self.place += 1
        return moved(self.examples.batch(mine), device), True

    def state(self) -> dict[str, int]:
        """The place: the pass through the data, and the batch within it."""
        return {"epoch": self.epoch, "place": self.place}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a place."""
        self.epoch, self.place = state["epoch"], state["place"]


def last_side(lengths: Any) -> Any:
    """The lengths that are answered for, [n], of lengths [n] or [n, sides]."""
    lengths = np.asarray(lengths)
    return lengths.reshape(len(lengths), -1)[:, -1]


def in_order_of_length(lengths: Any, tokens: int = TOKENS) -> Iterator[Any]:
    """The numbers of all examples once, in batches of about so many tokens of their longest side, the longest first."""
    lengths = np.asarray(lengths).reshape(len(lengths), -1).max(1)
    order = np.argsort(-lengths, kind="stable")
    low = 0
    while low < len(order):
        count = max(1, tokens // max(1, int(lengths[order[low]])))
        yield order[low : low + count]
        low += count


def moved(batch: Any, device: torch.device) -> Any:
    """A batch, tensors in tuples, on a device."""
    if isinstance(batch, tuple):
        parts = [moved(part, device) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch.to(device) if isinstance(batch, Tensor) else batch


@contextmanager
def scoring(network: nn.Module) -> Iterator[torch.device]:
    """The network as it scores, without noise and gradients, and afterwards as it was. Yields: the device it is on."""
    training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            yield next(network.parameters()).device
    finally:
        network.train(training)


def over(
    network: nn.Module,
    examples: Batches,
    take: Callable[[Any, Any], None],
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """All examples through a network that scores: `take` is given the numbers of some, and their batch on its device.

    advance: told of each batch, as a share of 1.
    """
    count = max(len(examples.lengths), 1)
    with scoring(network) as device:
        for numbers in in_order_of_length(examples.lengths):
            take(numbers, moved(examples.batch(numbers), device))
            advance(len(numbers) / count)


def summed_nats(
    network: nn.Module, examples: Batches, advance: Callable[[float], None] = lambda _: None
) -> tuple[float, int]:
    """-log p of all that examples are to be answered by, and how many units that is."""
    total, count = 0.0, 0

    def take(_: Any, batch: Any) -> None:
        nonlocal total, count
        nats, n, _state = network(batch, None)
        total, count = total + float(nats), count + int(n)

    over(network, examples, take, advance)
    return total, count
