"""The texts of files as stretches of their bytes: opened, a part held out, and read in pieces."""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from throughtime.errors import UserError, reason
from throughtime.tasks.downloads import HEAD, not_plain
from throughtime.tasks.encodings import cannot_decode, check_encoding, is_binary, marked
from throughtime.tasks.source import name_of

BLOCK = 1 << 20  # bytes read at a time
PARTS, LEAST = 10, 1000  # of a file that is held out in blocks: how many at most, and how many bytes of each at least


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` of a file, which stand for characters as `encoding` says. returns: whether a carriage return alone
    ends a line, as in a file that has no other end. option: how the options begin that errors name."""

    path: Path
    start: int
    end: int
    encoding: str = "utf-8"
    returns: bool = False
    option: str = "--data."

    @property
    def size(self) -> int:
        """In bytes."""
        return self.end - self.start

    @property
    def name(self) -> str:
        """What the user calls it."""
        return name_of(self.path)


def open_files(
    paths: Iterable[Path], encoding: str | None = None, option: str = "--data.", *, raw: bool = False
) -> list[Span]:
    """Whole files, checked.

    Args: encoding: of a file that has no byte-order mark; None: UTF-8. raw: read their bytes as they are, of any kind of file.
    Raises: UserError where one is missing, a folder, empty, not readable, or plainly no text.
    """
    spans = []
    asked = "utf-8" if encoding is None else check_encoding(encoding, option)
    for path in paths:
        try:
            if path.is_dir():
                raise UserError(f"{path}: is a folder; name the files in it")
            if path.exists() and not path.is_file():
                raise UserError(f"{path}: is a pipe or a device, and has to be read twice; pipe it in and name -")
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(HEAD)
        except OSError as error:
            raise UserError(f"{path}: cannot read it: {reason(error)}") from error
        found, start = marked(head) or (asked, 0)
        if raw and found != "utf-8":
            found, start = "utf-8", 0
        if size <= start:
            raise UserError(f"{name_of(path)}: is empty")
        if not raw and (told := not_plain(head)) is not None:
            raise UserError(f"{name_of(path)}: is {told[0]}, not plain text; {told[1]}, or use --model.tokens bytes")
        span = Span(path, start, size, found, option=option)
        spans.append(span if raw else replace(span, returns=_ends_by_returns(span)))
    return spans


def _ends_by_returns(span: Span) -> bool:
    """Whether the lines of a file end with a carriage return alone: it has some, and no \\n."""
    returns = False
    for text in _decoded(span, "replace"):
        if "\n" in text:
            return False
        returns = returns or "\r" in text
    return returns


class _Wrong(Exception):
    """A byte that is no text, by its number in the file, and what the decoder said of it; None of a NUL."""

    def __init__(self, byte: int, error: UnicodeDecodeError | None) -> None:
        super().__init__(byte)
        self.byte, self.error = byte, error


def _decoded(span: Span, errors: str) -> Iterator[str]:
    """The text of a span, a block of bytes at a time. Raises: _Wrong, where errors are strict."""
    decoder = codecs.getincrementaldecoder(span.encoding)(errors)
    place = span.start
    with span.path.open("rb") as file:
        file.seek(place)
        while place < span.end and (block := file.read(min(BLOCK, span.end - place))):
            at, wrong = place - len(decoder.getstate()[0]), None
            place += len(block)
            try:
                text = decoder.decode(block, final=place >= span.end)
            except UnicodeDecodeError as error:
                text, wrong = error.object[: error.start].decode(span.encoding), error
            if errors == "strict" and "\0" in text:
                raise _Wrong(at + len(text[: text.index("\0")].encode(span.encoding)), None)
            if wrong is not None:
                raise _Wrong(at + wrong.start, wrong)
            yield text


def hold_out(spans: list[Span], share: float, *, blocks: bool = False) -> tuple[list[Span], list[Span]]:
    """Cut the last `share` off every file, at the end of a line where one is near, never inside a character. blocks: off each of
    up to PARTS parts of a file, so that what is held out is from all over it."""
    train, held = [], []
    for span in spans:
        count = max(min(PARTS, int(span.size * share) // LEAST), 1) if blocks else 1
        ends = [_cut(span, span.start + span.size * i // count) for i in range(1, count)]
        for start, end in itertools.pairwise([span.start, *ends, span.end]):
            part = replace(span, start=start, end=end)
            cut = _cut(part, start + int(part.size * (1 - share)))
            train.append(replace(span, start=start, end=cut))
            held.append(replace(span, start=cut, end=end))
    return [s for s in train if s.size], [s for s in held if s.size]


def _cut(span: Span, at: int) -> int:
    """Where a span can be cut, from byte `at` on: after the end of a line where one is near, else before a character."""
    decoder = codecs.getincrementaldecoder(span.encoding)("replace")
    with span.path.open("rb") as file:
        if span.encoding == "utf-8":  # whose characters can be told from their middle
            file.seek(at)
            near = file.read(min(4, max(span.end - at, 0)))
            at += next((i for i, byte in enumerate(near) if byte & 0xC0 != 0x80), len(near))
        else:
            place = span.start
            file.seek(place)
            while place < at:
                block = file.read(min(BLOCK, at - place))
                decoder.decode(block)
                place += len(block)
            while decoder.getstate()[0] and at < span.end:
                decoder.decode(file.read(1))
                at += 1
        file.seek(at)
        near = file.read(min(max(span.size // 100, 200), BLOCK // 16, max(span.end - at - 1, 0)))
    decoder.reset()
    place = at
    for byte in near:
        place += 1
        if decoder.decode(bytes([byte])).endswith("\r" if span.returns else "\n") and not decoder.getstate()[0]:
            return place
    return at


def read_blocks(span: Span, *, raw: bool = False) -> Iterator[str]:
    """The text of a span in pieces, each ended before white space where it has any. Line ends become \\n.

    Args: raw: keep bytes that are not UTF-8 (as surrogates, which `Tokens` of bytes writes back).
    Raises: UserError where it is binary or does not fit its encoding, with line and byte.
    """
    rest = ""
    try:
        for text in _decoded(span, "surrogateescape" if raw else "strict"):
            text, rest = rest + text, ""
            if not raw:
                kept = text.rstrip("\r")  # whose \n may come
                text, rest = kept, text[len(kept) :]
                if "\r" in text:
                    text = text.replace("\r", "\n") if span.returns else re.sub("\r+\n", "\n", text)
            if (cut := max(_last_newlines(text), text.rfind(" "))) > 0:  # keep back what may be half a word
                text, rest = text[:cut], text[cut:] + rest
            if text:
                yield text
    except _Wrong as wrong:
        raise _no_text(span, wrong) from wrong.error
    if rest:
        yield rest.replace("\r", "\n") if span.returns else rest


def _no_text(span: Span, wrong: _Wrong) -> UserError:
    """What to raise for bytes that are no text."""
    place, also = f"{span.name}:{_line(span, wrong.byte)}", "; --model.tokens bytes takes any file"
    if wrong.error is not None:
        return cannot_decode(place, wrong.byte, wrong.error, span.encoding, span.option, also)
    with span.path.open("rb") as file:
        file.seek(max(wrong.byte - 64, 0) // 2 * 2)
        return is_binary(place, wrong.byte, file.read(128), span.option, also)


def _line(span: Span, byte: int) -> int:
    """On which line of the file a byte stands."""
    before = replace(span, start=0, end=byte)
    return 1 + sum(text.count("\r" if span.returns else "\n") for text in _decoded(before, "replace"))


def _last_newlines(text: str) -> int:
    """Where the last run of newlines begins: cutting before it keeps the end of a paragraph whole."""
    at = text.rfind("\n")
    while at > 0 and text[at - 1] == "\n":
        at -= 1
    return at
