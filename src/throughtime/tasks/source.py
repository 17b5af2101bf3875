"""A text as readers take it, line by line: a file, standard input, or texts in memory."""

from __future__ import annotations

import codecs
import gzip
import os
import re
import select
import stat
import weakref
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.config import FRAME, STDIN
from throughtime.errors import UserError, reason
from throughtime.files import standard_input
from throughtime.tasks.downloads import markup, not_plain
from throughtime.tasks.encodings import cannot_decode, check_encoding, is_binary, marked, may_be_marked

CHUNK = 1 << 16  # bytes that are read together
MEMORY = "<lines>"  # what texts in memory are called


def name_of(path: Path) -> str:
    """What the user calls a file: standard input, or a data frame, may have been copied to one of that name."""
    return path.name if path.name in (STDIN, FRAME) else str(path)


def is_frame(given: Any) -> bool:
    """Whether something is a table of pandas, polars or pyarrow, or a column of one."""
    return type(given).__module__.split(".")[0] in ("pandas", "polars", "pyarrow")


@dataclass(frozen=True)
class FrameFile:
    """A frame where a file is expected; named as in errors, where its rows are counted from 1."""

    frame: Any

    def __str__(self) -> str:
        return FRAME

    def write(self, folder: Path) -> Path:
        """Write it into a folder, with commas between. Raises: UserError where narwhals is not installed."""
        from throughtime.tasks.frames import write_frame

        folder.mkdir(exist_ok=True)
        write_frame(self.frame, folder / FRAME)
        return folder / FRAME


class Source(ABC):
    """Lines as they come, each given once; those of a file end with \\n whatever ended them there, the last perhaps with nothing.

    name: what the user calls it. suffix: of a file, in lower case. encoding: that was asked for. folder: where it is one, which
    has no lines. in_memory: whether it is a list of texts. option: how the options begin that errors name. blocks: whether what
    is read of it ends with an empty line, set by the reader that finds it so, for `ready`.
    """

    suffix = ""
    encoding: str | None = None
    folder: Path | None = None
    in_memory = blocks = False

    def __init__(self, name: str, option: str) -> None:
        self.name, self.option = name, option
        self._lines: deque[str] = deque()  # that were read and not given
        self._empty = 0  # of these, how many hold nothing but white space
        self._ended, self._error = False, UserError()

    @classmethod
    def of(
        cls, given: Source | str | Path | Iterable[str], encoding: str | None = None, option: str = "--data."
    ) -> Source:
        """A source of what a user gives.

        Args: given: the path of a file or a folder, or `<stdin>` for standard input; else texts in memory. encoding: of a file that
            has no byte-order mark; None: UTF-8.
        Raises: UserError where the file cannot be opened, or there is no such encoding.
        """
        if isinstance(given, Source):
            return given
        if isinstance(given, str | os.PathLike):
            return _File(Path(given), encoding, option)
        return _Texts(given, option)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._lines and not self._ended:
            self._fill()
        if not self._lines:
            if self._error.args:
                raise self._error
            raise StopIteration
        line = self._lines.popleft()
        self._empty -= not line.strip()
        return line

    def ready(self, block: bool | None = None) -> bool:
        """Whether a line (block: one and all up to the next empty one) can be had without waiting for somebody to write it."""
        block = self.blocks if block is None else block
        while self.folder is None and not self._ended and not (self._empty if block else self._lines):
            if not self._more(block):
                return False
            self._fill()
        return True

    def sample(self, comment: str | None = None) -> list[str]:
        """The lines to come, not taken: up to the first that is not empty and does not begin with `comment`; of a file or a pipe
        also what came together with it."""
        while not self._ended and not any(
            line.strip() and not (comment and line.startswith(comment)) for line in self._lines
        ):
            self._fill()
        if self._error.args and not self._lines:
            raise self._error
        return list(self._lines)

    def text(self) -> str:
        """All that is left of it, each line ended by \\n. Raises: UserError where it holds nothing but white space."""
        text = "".join(line.removesuffix("\n") + "\n" for line in self)
        if not text.strip():
            raise UserError(f"{self.name}: is empty")
        return text

    def binary(self, begins: bytes) -> bytes | None:
        """All of it as it is, where it begins so: it is no text then. b"" where it is an empty file; None, and nothing is taken,
        where it begins in another way, or has begun to be read as text."""
        return None

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._empty += not line.strip()

    @abstractmethod
    def _fill(self) -> None:
        """Take what there is, without waiting for more; only where there is nothing, wait."""

    @abstractmethod
    def _more(self, block: bool) -> bool:
        """Whether `_fill` would not have to wait."""


class _Texts(Source):
    """Texts in memory, or what gives them one by one."""

    in_memory = True

    def __init__(self, texts: Iterable[str], option: str) -> None:
        super().__init__(MEMORY, option)
        self._given, self._ready = iter(texts), getattr(texts, "ready", None)

    def _fill(self) -> None:
        for text in self._given:
            if not isinstance(text, str):
                raise UserError(f"{MEMORY}: takes texts, got {text!r}, a {type(text).__name__}")
            return self._add(text)
        self._ended = True

    def _more(self, block: bool) -> bool:
        return self._ready is None or bool(self._ready(block))


class _File(Source):
    """A file or standard input.

    One whose name ends with .gz is unpacked; its suffix is the one before that. A line ends with \\n or \\r\\n; where a file has no
    \\n, with a carriage return alone. Of a pipe, which may go on for ever, what comes first decides that.
    """

    def __init__(self, path: Path, encoding: str | None, option: str) -> None:
        super().__init__(name_of(path), option)
        self.encoding = encoding
        packed = path.suffix.lower() == ".gz"
        self.suffix = Path(path.stem if packed else path.name).suffix.lower()
        self._encoding = "utf-8" if encoding is None else check_encoding(encoding, option)
        self._rest: list[str] = []  # the pieces of a line whose end has not come
        self._count, self._place = 1, 0  # the number of the line, and of the byte, that come next
        self._head: bytes | None = b""  # the first bytes, until it is known how they are to be read
        self._returns: bool | None = None  # whether a carriage return alone ends a line; None: not known yet
        self._half = False  # whether the \r was given to whose \n may come
        if path.is_dir():
            self.folder = path
            self._stopped(UserError(f"{self.name}: is a folder; name the files in it"))
            return
        try:
            file: Any = standard_input() if str(path) == STDIN else path.open("rb", buffering=0)
        except OSError as error:
            raise UserError(f"{self.name}: cannot read it: {reason(error)}") from error
        self._whole = _is_regular(file)  # it can be read to its end before a line is given
        if str(path) != STDIN:
            weakref.finalize(self, file.close)  # whoever reads may stop before the end
        self._file: Any = gzip.GzipFile(fileobj=file) if packed else file

    def binary(self, begins: bytes) -> bytes | None:
        if self._head is None or self._ended:
            return None
        while len(self._head) < len(begins) and (some := self._read()):
            self._head += some
        if self._head and not self._head.startswith(begins):
            return None
        found, self._ended = [self._head], True
        while some := self._read():
            found.append(some)
        return b"".join(found)

    def _more(self, block: bool) -> bool:
        return self._whole or _readable(self._file)

    def _read(self) -> bytes:
        """The bytes that come next; none at the end."""
        try:
            return bytes(self._file.read1(CHUNK) if hasattr(self._file, "read1") else self._file.read(CHUNK))
        except OSError as error:
            raise UserError(f"{self.name}: cannot read it: {reason(error)}") from error
        except (EOFError, zlib.error) as error:
            raise UserError(f"{self.name}: is gzip, but damaged or cut off: {error}") from error

    def _fill(self) -> None:
        some = self._read()
        self._ended = not some
        if self._head is not None:
            self._head += some
            if not self._ended and may_be_marked(self._head):
                return
            some, self._head = self._begun(self._head), None
        self._decode(some)

    def _begun(self, head: bytes) -> bytes:
        """The first bytes without their mark, once it is known how they are to be read."""
        self._codec, self._place = marked(head) or (self._encoding, 0)
        self._decoder = codecs.getincrementaldecoder(self._codec)()
        head = head[self._place :]
        if (told := not_plain(head) or markup(head.decode(self._codec, "replace"))) is not None:
            raise self._stopped(UserError(f"{self.name}: is {told[0]}, not plain text; {told[1]}"))
        return head

    def _decode(self, some: bytes) -> None:
        """Cut bytes into lines; where some are no text, those before them, and then what to raise."""
        at = self._place - len(self._decoder.getstate()[0])
        self._place += len(some)
        wrong: UnicodeDecodeError | None = None
        try:
            text: str = self._decoder.decode(some, final=self._ended)
        except UnicodeDecodeError as error:
            wrong, text = error, error.object[: error.start].decode(self._codec)
        text, nul, _ = text.partition("\0")
        if wrong is None and not nul:
            self._split(text, self._ended)
            return
        self._split(text, False)
        place = f"{self.name}:{self._count + ''.join(self._rest).count(chr(13))}"
        if nul:
            self._stopped(is_binary(place, at + len(text.encode(self._codec)), some, self.option))
        elif wrong is not None:
            self._stopped(cannot_decode(place, at + wrong.start, wrong, self._codec, self.option))

    def _stopped(self, error: UserError) -> UserError:
        self._ended, self._error = True, error
        return error

    def _split(self, text: str, ended: bool) -> None:
        if self._returns is None:
            if "\n" in text:
                self._returns = False
            elif ended or (not self._whole and re.search(r"\r[^\r]", "".join(self._rest[-1:])[-1:] + text)):
                text, self._returns = "".join(self._rest) + text, True
                self._rest.clear()
        if self._returns:
            if self._half and text.startswith("\n"):
                text = text[1:]
            self._half = text.endswith("\r") if text else self._half
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        *whole, rest = text.split("\n")
        for end in whole:
            self._add("".join([*self._rest, end]).rstrip("\r") + "\n")
            self._rest.clear()
        self._count += len(whole)
        if rest:
            self._rest.append(rest)
        if ended and (last := "".join(self._rest).rstrip("\r")):
            self._add(last)


def _is_regular(file: Any) -> bool:
    """Whether it is a file that has an end, no pipe or terminal."""
    try:
        return stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (OSError, AttributeError):  # a file in memory
        return False


def _readable(source: Any) -> bool:
    """Whether something can be read at once, or the end has come; True where that cannot be known."""
    try:
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError, TypeError):  # a file in memory; a pipe on Windows
        return True
