"""Text files as one long array of tokens on disk, and the batches that walk along it.

Shapes: T time, B batch.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.config import STDIN
from throughtime.errors import UserError, reason
from throughtime.runs import replacing, write_text
from throughtime.tasks.tokens import START, Tokens

BLOCK = 1 << 20  # bytes read at a time


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` of a file."""

    path: Path
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def name(self) -> str:
        """What the user calls it: standard input has been copied to a file of that name."""
        return STDIN if self.path.name == STDIN else str(self.path)


def open_files(paths: Iterable[Path]) -> list[Span]:
    """Whole files, checked. Raises: UserError where one is missing, a folder, empty or not readable."""
    spans = []
    for path in paths:
        try:
            if path.is_dir():
                raise UserError(f"{path}: is a folder; name the files in it")
            if path.exists() and not path.is_file():
                raise UserError(f"{path}: is a pipe or a device, and has to be read twice; pipe it in and name -")
            size = path.stat().st_size
            with path.open("rb") as file:
                start = 3 if file.read(3) == codecs.BOM_UTF8 else 0
        except OSError as error:
            raise UserError(f"{path}: cannot read it: {reason(error)}") from error
        if size <= start:
            raise UserError(f"{Span(path, 0, 0).name}: is empty")
        spans.append(Span(path, start, size))
    return spans


def hold_out(spans: list[Span], share: float) -> tuple[list[Span], list[Span]]:
    """Cut the last `share` off every file, at the end of a line where one is near, never inside a character."""
    train, held = [], []
    for span in spans:
        cut = span.start + int(span.size * (1 - share))
        with span.path.open("rb") as file:
            file.seek(cut)
            near = file.read(min(BLOCK // 16, max(span.end - cut, 0)))
        newline = near.find(b"\n", 0, max(len(near) - 1, 0))
        if newline >= 0 and newline + 1 <= max(span.size // 100, 200):
            cut += newline + 1
        else:
            cut += next((i for i, byte in enumerate(near) if byte & 0xC0 != 0x80), len(near))
        train.append(Span(span.path, span.start, cut))
        held.append(Span(span.path, cut, span.end))
    return [s for s in train if s.size], [s for s in held if s.size]


def read_blocks(span: Span, *, raw: bool = False) -> Iterator[str]:
    """The text of a span in pieces, each ended before white space where it has any. Line ends become \\n.

    Args: raw: keep bytes that are not UTF-8 (as surrogates, which `Tokens` of bytes writes back).
    Raises: UserError where it is binary or not UTF-8, with line and byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape" if raw else "strict")
    rest, place, line = "", span.start, 1
    with span.path.open("rb") as file:
        if span.start > 3 and not raw:
            line += _lines_before(file, span.start)
        file.seek(span.start)
        while place < span.end:
            block = file.read(min(BLOCK, span.end - place))
            if not block:
                break
            if not raw and b"\0" in block:
                at = block.index(b"\0")
                raise UserError(
                    f"{span.name}:{line + block.count(10, 0, at)}: byte {place + at} is NUL: this is a binary file, not "
                    f"text; --model.tokens bytes takes any file"
                )
            held = len(decoder.getstate()[0])
            try:
                text = rest + decoder.decode(block, final=place + len(block) >= span.end)
            except UnicodeDecodeError as error:
                at = error.start - held
                raise UserError(
                    f"{span.name}:{line + block.count(10, 0, max(at, 0))}: byte {place + at} (0x{error.object[error.start]:02x}) "
                    f"is not UTF-8; save the file as UTF-8, or use --model.tokens bytes"
                ) from error
            line += block.count(b"\n")
            place += len(block)
            if not raw:
                if text.endswith("\r") and place < span.end:
                    text, rest = text[:-1], "\r"
                else:
                    rest = ""
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            else:
                rest = ""
            if place < span.end:  # keep back what may be half a word
                cut = max(_last_newlines(text), text.rfind(" "))
                if cut > 0:
                    text, rest = text[:cut], text[cut:] + rest
            if text:
                yield text
    if rest:
        yield rest


def _last_newlines(text: str) -> int:
    """Where the last run of newlines begins: cutting before it keeps the end of a paragraph whole."""
    at = text.rfind("\n")
    while at > 0 and text[at - 1] == "\n":
        at -= 1
    return at


def _lines_before(file: Any, end: int) -> int:
    file.seek(0)
    lines, place = 0, 0
    while place < end:
        block = file.read(min(BLOCK, end - place))
        lines, place = lines + block.count(b"\n"), place + len(block)
    return lines


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
) -> Corpus:
    """Tokenise files once into `path`, a piece at a time.

    Args: unit: what a document is: "file", "line" or "paragraph". advance: told the bytes read.
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
                    advance(len(block.encode("utf-8", "surrogateescape")))
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
        return {"epoch": self.epoch, "place": self.place}

    def restore(self, state: dict[str, int]) -> None:
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
