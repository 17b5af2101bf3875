"""Which recordings there are, and what is said in them: manifests, plain folders, and those of Kaldi, LibriSpeech, Common Voice."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from throughtime.errors import UserError
from throughtime.files import files_below
from throughtime.tasks.audio import Recording, check_part, duration
from throughtime.tasks.manifests import SUFFIXES, RecordingColumns, located, read_manifest, seconds
from throughtime.tasks.source import Source

TABLES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv")  # how their names end
HEAD = 20  # lines of a table that are looked at first
Keyed = dict[str, tuple[str, str]]  # the name that a line begins with -> its place, and the rest of it


class Layout(NamedTuple):
    """How recordings are laid out, and the file or the folder that says so.

    kind: `audio`: one file. `table`: a manifest of JSON lines, CSV or TSV. `kaldi`: a folder with `wav.scp`. `librispeech`: a
    folder with `*.trans.txt` beside the audio. `folder`: audio files, some perhaps with a `.txt` of the same name beside them.
    """

    kind: Literal["audio", "table", "kaldi", "librispeech", "folder"]
    path: Path


@dataclass(frozen=True)
class _Texts:
    """How text files are read."""

    encoding: str | None
    option: str

    def source(self, path: Path) -> Source:
        return Source.of(path, self.encoding, self.option)

    def keyed(self, path: Path) -> Keyed:
        """The lines of a file, each a name and what belongs to it; nothing where there is no such file."""
        found: Keyed = {}
        if not path.exists():
            return found
        for number, line in enumerate(self.source(path), 1):
            if line.strip():
                name, *rest = line.split(maxsplit=1)
                if name in found:
                    raise UserError(f"{path}:{number}: {name!r} is there twice ({found[name][0]} too); take one out")
                found[name] = f"{path}:{number}", rest[0].strip() if rest else ""
        return found


def layout_of(path: Path | str) -> Layout:
    """How recordings are laid out under a path.

    Raises: UserError where a folder holds none, or several tables of which one has to be named.
    """
    path = Path(path)
    if not path.is_dir():
        return Layout("audio" if path.suffix.lower() in SUFFIXES else "table", path)
    if (path / "wav.scp").exists():
        return Layout("kaldi", path)
    tables = [
        p for p in sorted(path.iterdir()) if p.name.lower().removesuffix(".gz").endswith(TABLES) and p.name[0] != "."
    ]
    named = [p for p in tables if _is_metadata(p)] or tables
    if len(named) > 1:
        raise UserError(f"{path}: holds several tables ({', '.join(p.name for p in named)}); name one of them")
    if named:
        return Layout("table", named[0])
    files = files_below(path)
    if any(p.name.endswith(".trans.txt") for p in files):
        return Layout("librispeech", path)
    if any(p.suffix.lower() in SUFFIXES for p in files):
        return Layout("folder", path)
    raise UserError(f"{path}: holds no audio ({', '.join(SUFFIXES[:4])}, …), and no table ({', '.join(TABLES)})")


def read_recordings(
    path: Path | str,
    *,
    audio: str | None = None,
    text: str | None = None,
    speaker: str | None = None,
    label: str | None = None,
    encoding: str | None = None,
    option: str = "--data.",
    before: Mapping[str, str | None] | None = None,
    wanted: Literal["text", "label"] = "text",
) -> list[Recording]:
    """The recordings under a path, in the order of its table, else by their names; `layout_of` tells how they are found.

    JSON lines have keys and tables columns for `audio` (or `audio_filepath`, `file_name`, `path` …), `text` (`sentence`,
    `transcription` …), `speaker` (`client_id` …), `label`, `offset` and `seconds` (`duration`), both in seconds. Paths there are
    relative to the folder of the table, or to `clips` in it. A table without a header is one in whose first row stands the name
    of an audio file; its columns are called by their numbers. Paths in Kaldi's `wav.scp` are relative to its folder, one of the
    two above, or the current one. A `.txt` beside an audio file holds one transcript. What is guessed, and what is left out
    (texts without a recording, recordings of LibriSpeech without a text), is said by a warning.

    Args: path: a file or a folder; also `<stdin>`. audio, text, speaker, label: which column of a table holds what, by its name or
        number; None: found by the usual names. encoding: of texts; None: UTF-8. option: how the options that errors name begin.
        before: of audio, text, speaker and label, by what names they are looked for before the usual ones. wanted: what is to be
        found beside the audio; the only column that is left is taken for it.
    Returns: one or more. Their files exist, but only those of which a part is named by an offset have been opened.
    Raises: UserError in one line with place, value and fix, where a file is missing or cannot be read, a line names no audio or
        has a time that is no number, a name is there twice, a part begins after the end, a column is asked for that there is
        not, or a line of `wav.scp` is a command, which is never run.
    """
    columns, texts = (
        RecordingColumns(audio, text, speaker, label, option, before or {}, wanted),
        _Texts(encoding, option),
    )
    layout = layout_of(path)
    asked = {"audio": audio, "text": text, "speaker": speaker, "label": label}
    named = next((what for what, column in asked.items() if column is not None), None)
    if named is not None and layout.kind != "table":
        raise UserError(f"{option}{named}-column: {path} is no table and has no columns; leave it out")
    if layout.kind == "table":
        if layout.path != Path(path) and not _is_metadata(layout.path):
            warnings.warn(f"{path}: its recordings are those that {layout.path.name} names", stacklevel=2)
        found = list(read_manifest(layout.path, texts.source(layout.path), columns))
    else:
        read = {"kaldi": _kaldi, "librispeech": _librispeech}.get(layout.kind, _plain)
        found = list(read(layout.path, texts))
    if not found:
        raise UserError(f"{layout.path}: names no recording; name one a line")
    _check_offsets(found)
    return found


def names_recordings(path: Path) -> bool:
    """Whether a path is that of recordings: an audio file, a folder with some in it, or a table whose first rows name some."""
    if path.is_dir():
        return (path / "wav.scp").exists() or any(file.suffix.lower() in SUFFIXES for file in files_below(path))
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        head = Source.of(path).sample()[:HEAD]
    except UserError:  # which is said once it is read
        return False
    cell = re.compile(rf"(?i)({'|'.join(map(re.escape, SUFFIXES))})\s*([\t,;|\"']|$)")
    return sum(cell.search(line) is not None for line in head) > len(head) / HEAD


def recording_of(given: Any) -> Recording:
    """The recording at a path. Raises: UserError where there is none."""
    if not isinstance(given, str | Path):
        raise UserError(f"a recording is given by its path, got a {type(given).__name__}; name an audio file")
    if not Path(given).is_file():
        raise UserError(f"{given}: there is no such recording; name an audio file")
    return Recording(_absolute(Path(given)), place=str(given))


def _is_metadata(path: Path) -> bool:
    return path.name.split(".")[0] == "metadata"


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _check_offsets(found: Iterable[Recording]) -> None:
    lengths: dict[Path, float] = {}
    for one in found:
        if one.offset:
            if one.audio not in lengths:
                lengths[one.audio] = duration(one._replace(offset=0.0, seconds=None))
            check_part(one, lengths[one.audio])


def _left_out(places: Sequence[str], why: str) -> None:
    if places:
        how = "it is" if len(places) == 1 else f"{len(places):,} such are"
        warnings.warn(f"{places[0]}: {why}; {how} left out", stacklevel=2)


def _plain(path: Path, reader: _Texts) -> Iterator[Recording]:
    """An audio file, or those of a folder, with the texts beside them."""
    files = files_below(path) if path.is_dir() else [p for p in (path, path.with_suffix(".txt")) if p.exists()]
    audio = [p for p in files if p.suffix.lower() in SUFFIXES]
    if not audio:
        raise UserError(f"{path}: there is no such file")
    texts = {p.with_suffix(""): p for p in files if p.suffix.lower() == ".txt"}
    for file in audio:
        beside = texts.get(file.with_suffix(""))
        text = None if beside is None else " ".join("".join(reader.source(beside)).split())
        yield Recording(_absolute(file), text, place=str(file))
    heard = {file.with_suffix("") for file in audio}
    _left_out([str(p) for name, p in texts.items() if name not in heard], "no recording is beside this text")


def _librispeech(folder: Path, reader: _Texts) -> Iterator[Recording]:
    """The chapters of a folder, in each the transcripts, a line an utterance, and audio by the same names; the folder above is
    called as the speaker is."""
    chapters: dict[Path, list[Path]] = defaultdict(list)
    for file in files_below(folder):
        chapters[file.parent].append(file)
    spare = []
    for chapter, files in chapters.items():
        audio = {file.stem: file for file in files if file.suffix.lower() in SUFFIXES}
        for file in files:
            lines = reader.keyed(file) if file.name.endswith(".trans.txt") else {}
            for name, (place, text) in lines.items():
                if name not in audio:
                    raise UserError(f"{place}: {name}: no audio of that name is beside it; take the line out")
                yield Recording(_absolute(audio.pop(name)), text, _absolute(chapter).parent.name, place=place)
        spare += [str(file) for file in audio.values()]
    _left_out(spare, "no transcript names this recording")


def _kaldi(folder: Path, reader: _Texts) -> Iterator[Recording]:
    """The utterances of a folder of Kaldi: those of `segments` where there is such a file, else whole recordings."""
    files, texts, speakers = (reader.keyed(folder / name) for name in ("wav.scp", "text", "utt2spk"))
    folders = [folder, *_absolute(folder).parents[:2], Path.cwd()]
    whole = {}
    for name, (place, given) in files.items():
        if given.endswith("|"):
            raise UserError(f"{place}: {given!r} is a command, which is not run; name a file of what it writes")
        whole[name] = Recording(located(place, given, folders), place=place)
    parts = whole
    if (folder / "segments").exists():
        lines = reader.keyed(folder / "segments")
        parts = {name: _segment(place, line, whole) for name, (place, line) in lines.items()}
    for name, part in parts.items():
        text, speaker = (given[name][1] if name in given else None for given in (texts, speakers))
        yield part._replace(text=text, speaker=speaker)
    _left_out([place for name, (place, _) in texts.items() if name not in parts], "no recording is of this name")


def _segment(place: str, line: str, whole: Mapping[str, Recording]) -> Recording:
    """A part of a recording, from a line of `segments` without its name: the recording, begin, end (-1: that of the file)."""
    name, *times = line.split() or [""]
    if name not in whole:
        raise UserError(f"{place}: {name!r} is not in wav.scp; take the line out, or add the recording")
    if len(times) != 2:
        raise UserError(f"{place}: {line!r}; a segment is a recording, where it begins and where it ends, in seconds")
    begin, end = (seconds(place, what, time) for what, time in zip(("begin", "end"), times, strict=True))
    if begin < 0 or (end <= begin and end != -1):
        raise UserError(f"{place}: from {begin:g} to {end:g} s; it takes 0 or more, and an end that is later, or -1")
    return whole[name]._replace(offset=begin, seconds=None if end == -1 else end - begin, place=place)
