"""Inputs that are answered whole, as they come in a request: by the task of the model."""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from throughtime.config import build_options
from throughtime.errors import UserError
from throughtime.serve.bodies import History, Inputs
from throughtime.serve.refused import Refused
from throughtime.serve.warned import renamed
from throughtime.tasks.audio import Recording, duration
from throughtime.tasks.base import Trained
from throughtime.tasks.logmel import DEFAULT
from throughtime.tasks.music_files import typed
from throughtime.tasks.pieces import Piece
from throughtime.tasks.scores import read_pieces

NAMED = "inputs."  # and its place: what an input is called
DATA = "data:"  # how a data URL begins (RFC 2397)
FILES = (
    "encoding",
    "pictures",
    "words",
    "language_model",
    "format",
    "rate",
)  # options that name files, or tell of some
Options = dict[str, Any]
Answers = list[dict[str, Any]]


def lines(model: Trained[Any], given: Inputs, options: Options, longest: int) -> Answers:
    """Of lines, each by itself."""
    texts = _texts(given, "a list of lines")
    for number, line in enumerate(texts):
        if "\n" in line or "\r" in line:
            raise Refused(400, f"{NAMED}{number}: holds a line break; give each line by itself")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise Refused(400, f"{NAMED}{number}: character {error.start} is not UTF-8 text") from error
    return list(model.predict([line + "\n" for line in texts], **options))


def series(model: Trained[Any], given: Inputs, options: Options, longest: int) -> Answers:
    """Of series, as one CSV or as rows. What is known ahead, the option `future`, comes so too."""
    with TemporaryDirectory() as folder:
        if (future := options.get("future")) is not None:
            ahead = Path(folder) / "options.future"
            ahead.write_text(as_csv(future, "options.future"), encoding="utf-8")
            options = {**options, "future": str(ahead)}
        chosen = build_options(model.task.predict_options, options)
        source = model.task.source(model.config, io.StringIO(as_csv(given, "inputs"), newline=""), chosen)
        source.name = "inputs"
        with _called({f"{folder}/": ""}):
            return list(model.answers(list(model.items(source, chosen)), chosen))


def recordings(model: Trained[Any], given: Inputs, options: Options, longest: int) -> Answers:
    """Of recordings, files in base64."""
    texts = _texts(given, "a list of recordings, in base64")
    with as_files([_decoded(text, f"{NAMED}{number}") for number, text in enumerate(texts)], longest) as found:
        answers = list(model.predict(found, **options))
    return [values | {"audio": f"{NAMED}{number}"} for number, values in enumerate(answers)]


def pieces(model: Trained[Any], given: Inputs, options: Options, longest: int) -> Answers:
    """Of pieces: notes (C4 E4+G4), or files of MIDI and ABC as data URLs."""
    found: list[Piece] = []
    for number, text in enumerate(_texts(given, "a list of pieces: notes (C4 E4+G4), or data URLs of files")):
        found += _pieces(model, text, name := f"{NAMED}{number}")
        if (notes := sum(map(len, found))) > longest:
            raise Refused(413, f"{name}: makes {notes} notes; up to {longest} in a request")
    return list(model.predict(found, **options))


def piece_of(model: Trained[Any], text: str, name: str, longest: int) -> Piece:
    """A piece that came as notes (C4 E4+G4), or as a file of MIDI or ABC in a data URL. name: where it stood. Raises: Refused,
    UserError where it is none, or has more than `longest` notes."""
    found = _pieces(model, text, name)
    if len(found) != 1:
        raise Refused(400, f"{name}: the file holds {len(found):,} pieces; give one of them")
    if len(found[0]) > longest:
        raise Refused(413, f"{name}: makes {len(found[0])} notes; up to {longest} in a request")
    return found[0]


def _pieces(model: Trained[Any], text: str, name: str) -> list[Piece]:
    if not text.startswith(DATA):
        return [typed(text, name)]
    with _files([_decoded(text, name)], ".txt") as (path,), _called({str(path): name}):
        some = read_pieces(path, repeats=model.config.data.repeats)
    return [replace(piece, place=piece.place.replace(str(path), name)) for piece in some]


WHOLE: dict[str, Callable[[Trained[Any], Inputs, Options, int], Answers]] = {
    **dict.fromkeys(("text", "classify", "tag", "translate"), lines),
    "forecast": series,
    **dict.fromkeys(("transcribe", "classify-audio"), recordings),
    "music": pieces,
}


def answered(model: Trained[Any], given: Inputs, options: Options, longest: int) -> Answers:
    """What a model makes of inputs: objects as `throughtime predict --json` writes them.

    Args: longest: steps that one may have, where they are counted. Raises: Refused, UserError.
    """
    for name in FILES:
        if name in options:
            raise Refused(400, f"options.{name}: tells of files, and the server reads none; leave it out")
    return WHOLE[model.task.name](model, given, options, longest)


@contextmanager
def as_files(parts: Sequence[bytes], longest: int) -> Iterator[list[Recording]]:
    """Recordings as they came, while they are listened to; errors name them `inputs.` and their place. Raises: Refused where one
    is longer than `longest` frames."""
    with _files(parts) as paths, _called({f"{path}": f"{NAMED}{number}" for number, path in enumerate(paths)}):
        most = longest * DEFAULT.hop_ms / 1000
        for number, path in enumerate(paths):
            if (seconds := duration(path)) > most:
                raise Refused(413, f"{NAMED}{number}: lasts {seconds:.1f} s; up to {most:g} s in a request")
        yield [Recording(path) for path in paths]


def as_csv(given: str | History | Inputs, name: str) -> str:
    """A table that came as a CSV or as rows, as a CSV. Raises: Refused where it is none."""
    if isinstance(given, str):
        return given
    if any(isinstance(row, str) for row in given):
        raise Refused(400, f"{name}: give a CSV as one text, or rows by the names of their columns")
    out, rows = io.StringIO(), [row for row in given if isinstance(row, dict)]
    names = list(dict.fromkeys(column for row in rows for column in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _texts(given: Inputs, what: str) -> list[str]:
    if isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise Refused(400, f"inputs: give {what}")
    return [str(one) for one in given]


def _decoded(text: str, name: str) -> bytes:
    """Base64, perhaps as a data URL. Raises: Refused where it is none."""
    head, _, data = text.partition(",") if text.startswith(DATA) else ("base64", "", text)
    try:
        if not head.endswith("base64"):
            raise ValueError("a data URL ends with ;base64 before its comma")
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, f"{name}: is no base64: {error}; send the bytes of a file so") from error


@contextmanager
def _files(parts: Sequence[bytes], suffix: str = "") -> Iterator[list[Path]]:
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}{suffix}" for number in range(len(parts))]
        for path, data in zip(paths, parts, strict=True):
            path.write_bytes(data)
        yield paths


@contextmanager
def _called(names: dict[str, str]) -> Iterator[None]:
    """Errors and warnings speak of what was sent, and not of where it lay meanwhile."""
    try:
        with renamed(names):
            yield
    except UserError as error:
        words = str(error)
        for path, name in names.items():
            words = words.replace(path, name)
        raise Refused(400, words) from error
