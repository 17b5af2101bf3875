"""Pieces of music under a path: MIDI, ABC and JSON of frames, a file or a folder of them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from throughtime.errors import UserError
from throughtime.files import files_below
from throughtime.tasks.base import Advance, ignore
from throughtime.tasks.midi import BEGINS, read_midi
from throughtime.tasks.pieces import Piece, Settled, on_piano, tell_settled
from throughtime.tasks.rolls import read_rolls
from throughtime.tasks.source import Source

MIDI, ABC, ROLLS = (
    (".mid", ".midi", ".kar"),
    (".abc",),
    (".json",),
)  # how the names of files end, perhaps with .gz behind
TEXT = ".txt"  # is ABC where it begins so
SUFFIXES = (*MIDI, *ABC, *ROLLS)
LOOKED_AT = 100  # lines of a text in which a tune of ABC begins


def read_pieces(
    given: Path | str | Source,
    *,
    encoding: str | None = None,
    option: str = "--data.",
    repeats: bool = True,
    part: str | None = None,
    advance: Advance = ignore,
) -> list[Piece]:
    """The pieces of a file, of all files in a folder and those below it in order of their names, or of an open source.

    What a file is, is told by how it begins, then by its name: MIDI (.mid, .midi, .kar), ABC (.abc; .txt that begins so), JSON of
    frames (.json); each may be packed (.gz). Of a folder the files that cannot be read are left out: a warning names the first,
    says why, and how many they are.

    Args: given: a path, `<stdin>` too, or a source of which nothing has been read. encoding: of texts; None: UTF-8. option: how the
        options that errors name begin. repeats: whether the repeats of ABC are played. part: of files that are divided only that
        one, `train`, `valid` or `test`; None: all of them, which know their part. advance: is told the share of the files that has
        been read.
    Returns: one or more pieces.
    Raises: UserError in one line with place and fix where a single file cannot be read, a folder holds none that can, or no file
        has the part.
    """
    source = Source.of(given, encoding, option)
    settled: Settled = {}
    if source.folder is None:
        pieces = [on_piano(piece, settled) for piece in _read(source, repeats, settled)]
        advance(1.0)
    else:
        paths = [path for path in files_below(source.folder) if path.is_file() and _suffix(path) in (*SUFFIXES, TEXT)]
        pieces, wrong = [], list[str]()
        for path in paths:
            try:
                file = Source.of(path, encoding, option)
                if file.suffix != TEXT or _is_abc(file):
                    pieces += [on_piano(piece, settled) for piece in _read(file, repeats, settled)]
            except UserError as error:
                wrong.append(str(error))
            advance(1 / len(paths))
        _tell_left_out(source.folder, wrong, bool(pieces))
    tell_settled(settled)
    found = [piece for piece in pieces if part is None or piece.part in ("", part)]
    if not found:
        there = ", ".join(dict.fromkeys(piece.part for piece in pieces))
        raise UserError(f"{source.name}: has no part {part!r}; there are: {there}")
    return found


def _tell_left_out(folder: Path, wrong: list[str], some: bool) -> None:
    """Warn of the files of a folder that cannot be read. Raises: UserError where there are no others."""
    if not some and not wrong:
        raise UserError(
            f"{folder}: holds no MIDI ({', '.join(MIDI)}), no ABC (.abc), and no frames (.json); name another folder"
        )
    if not some:
        raise UserError(f"{folder}: none of its {len(wrong):,} files can be read; the first: {wrong[0]}")
    if wrong:
        how = "it is" if len(wrong) == 1 else f"{len(wrong):,} files that cannot be read are"
        warnings.warn(f"{wrong[0]}; {how} left out", stacklevel=3)


def _suffix(path: Path) -> str:
    return Path(path.stem if path.suffix.lower() == ".gz" else path.name).suffix.lower()


def _is_abc(source: Source) -> bool:
    """Whether a text begins as ABC does: with the number of a tune."""
    return any(re.match(r"\ufeff?X:\s*\d", line) for line in source.sample()[:LOOKED_AT])


def _read(source: Source, repeats: bool, settled: Settled) -> list[Piece]:
    """The pieces of a file, by how it begins, then by its name."""
    if data := source.binary(BEGINS):
        return [read_midi(data, source.name, settled)]
    if data is not None:
        raise UserError(f"{source.name}: is empty; copy it again, or take it out")
    if source.suffix in MIDI:
        raise UserError(f"{source.name}: is no MIDI file: it does not begin with {BEGINS.decode()}; name a MIDI file")
    begins = "".join(source.sample()).lstrip("\ufeff \t\n")[:1]
    if source.suffix in ROLLS or (begins in ("[", "{") and source.suffix not in ABC):
        return read_rolls(source)
    if source.suffix in ABC or _is_abc(source):
        from throughtime.tasks.abc import read_abc

        return read_abc(source, repeats=repeats)
    raise UserError(f"{source.name}: begins as no MIDI, ABC or JSON does; name a file of music ({', '.join(SUFFIXES)})")
