"""Sentences of words with tags: CoNLL-U, or two columns and an empty line after each sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from throughtime.errors import UserError
from throughtime.tasks.tables import name_of, read_utf8

COLUMNS = {"upos": 3, "xpos": 4, "feats": 5}
FIELDS = 10  # of a line of CoNLL-U
WORDS = r"\w+(?:['’-]\w+)*|[^\w\s]"


@dataclass
class Sentence:
    """Words and their tags; of CoNLL-U also the lines as they stood. at: which of these each word stands on. numbers: which line of
    the file; file: its name."""

    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    file: str = ""

    def place(self, i: int = 0) -> str:
        """Where word i stands."""
        return f"{self.file}:{self.numbers[i]}"


def read_tagged(paths: Sequence[Path], column: str) -> list[Sentence]:
    """All sentences of some files, tagged. Raises: UserError with file and line."""
    found = []
    for path in paths:
        lines = read_utf8(path).split("\n")
        sentences = list(_sentences(lines, name_of(path), column, path.suffix))
        if not sentences:
            raise UserError(f"{name_of(path)}: no sentence in it")
        found += sentences
    return found


def is_conllu(line: str) -> bool:
    """Whether a line is a word of CoNLL-U: a number and several fields, ten if it is right."""
    return bool(re.match(r"\d+(?:[-.]\d+)?\t.*\t.*\t", line))


def _sentences(lines: Iterable[str], name: str, column: str, suffix: str) -> Iterator[Sentence]:
    lines = list(lines)
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    conllu = suffix == ".conllu" or first.count("\t") == FIELDS - 1
    if conllu:
        yield from from_conllu(lines, name, column)
        return
    if first.count("\t") != 1:
        raise UserError(
            f"{name}:{lines.index(first) + 1 if first else 1}: {first.count(chr(9)) + 1} fields; a line has a word and its tag "
            f"with a tab between them, or the {FIELDS} fields of CoNLL-U"
        )
    now = Sentence()
    for number, line in enumerate([*lines, ""], 1):
        if not line.strip():
            if now.words:
                yield now
            now = Sentence()
            continue
        if line.startswith("#") and "\t" not in line:  # a comment, as in CoNLL-U
            continue
        fields = line.split("\t")
        if len(fields) != 2 or not fields[0].strip() or not fields[1].strip():
            what = f"{len(fields)} fields" if len(fields) != 2 else "an empty field"
            raise UserError(f"{name}:{number}: {what}; a line has a word and its tag with a tab between them")
        now.file = name
        now.numbers.append(number)
        now.words.append(fields[0].strip())
        now.tags.append(fields[1].strip())


def from_conllu(lines: Iterable[str], name: str, column: str | None) -> Iterator[Sentence]:
    """Sentences of CoNLL-U as they come. column: of the tags; None: there need be none, and comments that belong to no sentence
    come as one without words."""
    now = Sentence()
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if not line.strip():
            if now.words or (now.lines and column is None):
                yield now
            now = Sentence()
            continue
        now.lines.append(line)
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != FIELDS:
            raise UserError(
                f"{name}:{number}: {len(fields)} fields; a line of CoNLL-U has {FIELDS}, with tabs between them"
            )
        if not re.fullmatch(r"\d+", fields[0]):  # of several words together, or of one that is not written
            continue
        now.file = name
        now.numbers.append(number)
        now.at.append(len(now.lines) - 1)
        now.words.append(fields[1])
        if column is not None:
            now.tags.append(fields[COLUMNS[column]])
    if now.words or (now.lines and column is None):
        yield now


def from_text(line: str) -> Sentence:
    """A plain sentence, cut into words and signs, as lines of CoNLL-U."""
    words = re.findall(WORDS, line)
    lines = [f"# text = {' '.join(line.split())}"]
    lines += ["\t".join([str(i), word, *["_"] * (FIELDS - 2)]) for i, word in enumerate(words, 1)]
    return Sentence(words, [], lines, list(range(1, len(words) + 1)))


def with_tags(sentence: Sentence, tags: Sequence[str], column: str) -> str:
    """The lines of a sentence with tags put in."""
    lines = list(sentence.lines)
    for at, tag in zip(sentence.at, tags, strict=True):
        fields = lines[at].split("\t")
        fields[COLUMNS[column]] = tag
        lines[at] = "\t".join(fields)
    return "\n".join(lines)
