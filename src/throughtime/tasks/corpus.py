"""Text files as one long array of tokens on disk, and the batches that walk along it.

Shapes: T time, B batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.config import STDIN
from throughtime.errors import UserError, reason
from throughtime.runs import replacing, write_text
from throughtime.tasks.spans import BLOCK, Span, read_blocks
from throughtime.tasks.tokens import START, Tokens


def documents_in(block: str, unit: str, at_start: bool) -> Iterator[tuple[str, bool]]:
    """Cut a block where documents begin: (piece, whether it begins one). Unit: "file", "line" or "paragraph"."""
    if unit == "file":
        yield block, at_start
        return
    end = "\n" if unit == "line" else "\n\n"
    place = 0
    while place < len(block):
        found = block.find(end, place)
        stop = len(block) if found < 0 else found + len(end)
        if unit == "paragraph":
            while stop < len(block) and block[stop] == "\n":
                stop += 1
        yield block[place:stop], at_start
        at_start, place = found >= 0, stop


@dataclass(frozen=True)
class Corpus:
    """A text as tokens, in a file mapped into memory; every document begins with START.

    tokens: [n]. characters: of the text, without the starts. unknown: tokens the vocabulary did not know.
    """

    tokens: np.ndarray[Any, Any]
    characters: int
    unknown: int
    starts: int

    @property
    def real(self) -> int:
        """Tokens to be predicted: all but the starts."""
        return len(self.tokens) - self.starts

    def first(self, n: int) -> Corpus:
        """The first `n` tokens, of which `characters` and `unknown` are not known."""
        tokens = self.tokens[:n]
        return Corpus(tokens, 0, 0, int((tokens == START).sum()))


def write_corpus(
    path: Path,
    spans: list[Span],
    tokens: Tokens,
    unit: str,
    advance: Callable[[float], None] = lambda _: None,
    size: int = 1,
) -> Corpus:
    """Tokenise files once into `path`, a piece at a time.

    Args: unit: what a document is: "file", "line" or "paragraph". advance: told of what is read, as a share of `size` bytes.
    """
    characters = unknown = starts = 0
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            for span in spans:
                begins = True
                for block in read_blocks(span, raw=tokens.kind == "bytes"):
                    for piece, first in documents_in(block, unit, begins):
                        if first:
                            starts += 1
                            np.array([START], tokens.dtype).tofile(file)
                        ids = tokens.encode(piece)
                        unknown += int((ids == 0).sum())
                        ids.tofile(file)
                    begins = unit != "file" and block.endswith("\n" if unit == "line" else "\n\n")
                    characters += len(block)
                    advance(len(block.encode(span.encoding, "surrogateescape")) / size)
        write_text(path.with_suffix(".json"), json.dumps([tokens.dtype.__name__, characters, unknown, starts]))
    return open_corpus(path)


def open_corpus(path: Path) -> Corpus:
    """What `write_corpus` wrote, mapped into memory."""
    name, characters, unknown, starts = json.loads(path.with_suffix(".json").read_text())
    return Corpus(np.memmap(path, np.dtype(name), "r"), characters, unknown, starts)


class Lanes:
    """Endless batches: the corpus as `batch` lanes side by side, walked `chunk` steps at a time.

    Each epoch begins at another place (the corpus taken as a ring), so that no two cut it alike. The state is to be carried
    from batch to batch, and to begin anew where `fresh` is said, at the start of an epoch.
    `state` and `restore` say and set the place, for resuming.
    """

    def __init__(self, corpus: Corpus, batch: int, chunk: int, seed: int, rows: slice = slice(None)) -> None:
        self.tokens, self.chunk, self.seed = corpus.tokens, chunk, seed
        self.length = len(corpus.tokens) // batch
        self.lanes = (np.arange(batch, dtype=np.int64) * self.length)[rows]
        self.per_epoch = max(self.length // chunk, 1)
        self.batch_tokens = batch * min(chunk, self.length)
        self.epoch, self.place = 0, 0

    def next(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], bool]:
        """((inputs [T, B], targets [T, B]), fresh)."""
        if self.place >= self.per_epoch:
            self.epoch, self.place = self.epoch + 1, 0
        offset = int(np.random.default_rng((self.seed, self.epoch)).integers(len(self.tokens))) if self.epoch else 0
        first = offset + self.place * self.chunk
        steps = min(self.chunk, self.length)
        where = (first + self.lanes[None, :] + np.arange(steps + 1)[:, None]) % len(self.tokens)
        block = torch.from_numpy(self.tokens[where].astype(np.int64)).to(device)
        fresh = self.place == 0
        self.place += 1
        return (block[:-1], block[1:]), fresh

    def state(self) -> dict[str, int]:
        """The place: the epoch, and the step within it."""
        return {"epoch": self.epoch, "place": self.place}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from a place."""
        self.epoch, self.place = state["epoch"], state["place"]


def walk(corpus: Corpus, lanes: int, chunk: int, warm: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Walk a corpus once: (inputs [T, B], targets [T, B]), every real token a target exactly once.

    One lane is the text from beginning to end. With more, each lane first reads up to `warm` tokens of the one before it, to
    come to its first target with a memory; those targets are START, which is to say: not counted.
    """
    tokens = corpus.tokens
    n = len(tokens) - 1
    lanes = max(1, min(lanes, n))
    warm = 0 if lanes == 1 else min(warm, n // lanes)
    length = -(-n // lanes)
    first = np.arange(lanes, dtype=np.int64) * length - warm
    for place in range(0, warm + length, chunk):
        steps = min(chunk, warm + length - place)
        where = first[None, :] + place + np.arange(steps + 1)[:, None]
        own = (where[1:] > first + warm) & (where[1:] <= np.minimum(first + warm + length, n))
        block = tokens[np.where(where < 0, where + n + 1, where.clip(max=n))].astype(
            np.int64
        )  # the first reads the end
        targets = np.where(own, block[1:], START)
        yield torch.from_numpy(block[:-1]), torch.from_numpy(targets)


def spool(stream: Any, folder: Path) -> Path:
    """Copy standard input to a file in `folder`, so that it can be read twice. Raises: UserError where it cannot be read."""
    path = folder / STDIN
    with replacing(path) as temporary, temporary.open("wb") as file:
        while block := _read(stream):
            file.write(block)
    return path


def _read(stream: Any) -> bytes:
    try:
        return bytes(stream.read(BLOCK))
    except OSError as error:
        raise UserError(f"{STDIN}: cannot read it: {reason(error)}") from error
