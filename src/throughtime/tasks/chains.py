"""What pieces cost without a network: chains of counts, to compare with.

Shapes: T moments, V symbols.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from throughtime.tasks.moments import END, KEYS, Array
from throughtime.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from throughtime.tasks.music_data import Written

SHARE = 1.0  # how many symbols those after which few were seen are taken to have been seen after
HALF = 0.5  # counts that a key begins with


class Chains(NamedTuple):
    """Counts of training pieces.

    after: how often each symbol came after each other in a moment, [V + 1, V]; the last row: began one. The first moments of pieces
    are not counted. struck: of each key, how often it was there (1) or not (0) after a moment in which it was there or not, [KEYS,
    2, 2].
    """

    after: Array
    struck: Array

    @classmethod
    def of(cls, pieces: Iterable[Written], symbols: int) -> Chains:
        """Those of pieces as they are written. symbols: V."""
        after, struck = np.zeros((symbols + 1, symbols)), np.zeros((KEYS, 2, 2))
        for piece in pieces:
            np.add.at(after, _pairs(piece, symbols), 1)
            roll = _roll(piece)
            for before in (0, 1):
                for now in (0, 1):
                    struck[:, before, now] += ((roll[:-1] == before) & (roll[1:] == now)).sum(0)
        return cls(after, struck)

    def nats(self, piece: Written) -> float:
        """-log p of all moments but the first, each symbol told from the one before it in its moment: a chain of notes without a
        memory of earlier moments. A symbol after which few were seen is helped by what all symbols are followed by."""
        read, goals = _pairs(piece, self.after.shape[1])
        general = (self.after.sum(0) + HALF) / (self.after.sum() + HALF * self.after.shape[1])
        seen = self.after.sum(1)
        p = (self.after[read, goals] + SHARE * general[goals]) / (seen[read] + SHARE)
        return float(-np.log(p).sum())

    def key_nats(self, piece: Written) -> float:
        """-log p of all moments but the first, of each key by itself told from the moment before: a Markov chain a key."""
        roll = _roll(piece)
        counts = self.struck + HALF
        p = counts / counts.sum(2, keepdims=True)
        return float(-np.log(p[np.arange(KEYS), roll[:-1], roll[1:]]).sum())

    def save(self, path: Path) -> None:
        """Write them to a file."""
        import torch

        write_tensors(path, {name: torch.from_numpy(x.astype(np.int32)) for name, x in self._asdict().items()}, {})

    @classmethod
    def open(cls, path: Path) -> Chains:
        """What `save` wrote."""
        tensors: dict[str, Any] = read_tensors(path)[0]
        return cls(*(tensors[name].double().numpy() for name in cls._fields))


def _pairs(piece: Written, symbols: int) -> tuple[Array, Array]:
    """Each symbol and each end of all moments but the first, after what it came: V at the beginning of a moment."""
    counts = np.diff(piece.starts)[1:]
    own = piece.symbols[piece.starts[1] :]
    ends = counts.cumsum() if len(counts) else counts
    goals = np.insert(own, ends, END)
    read = np.insert(own, ends - counts, symbols)
    return read, goals


def _roll(piece: Written) -> Array:
    """Which keys are there in each moment, [T, KEYS], 0 or 1."""
    roll = np.zeros((len(piece), KEYS), dtype=np.int64)
    moment = np.repeat(np.arange(len(piece)), np.diff(piece.starts))
    key = (piece.symbols >= 1) & (piece.symbols <= KEYS)
    roll[moment[key], piece.symbols[key] - 1] = 1
    return roll
