"""Sentences of words with tags: CoNLL-U; a word and its tags on a line, as CoNLL-2003 has them; or plain sentences, one a line."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from throughtime.errors import UserError, unknown
from throughtime.tasks.source import Source
from throughtime.tasks.words import HYPHENATED

CONLLU = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
CONLL_2003 = ("word", "pos", "chunk", "ner")
NOT_GIVEN = "_"  # in a column of CoNLL-U, but for FEATS, where it says that a word has none
USUAL = 0.9  # the share of lines as long as each other by which columns are told from sentences, where each has to have a tag
BORDER = "-DOCSTART-"  # how a line begins that parts documents


@dataclass
class Sentence:
    """Words and their tags, None where one is not given. lines: as they stood, and at: on which of these each word stands. numbers:
    on which line of the file; file: its name. form: how it was written: conllu, columns or plain. separator: between columns."""

    words: list[str] = field(default_factory=list)
    tags: list[str | None] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    file: str = ""
    form: str = "plain"
    separator: str = "\t"

    def place(self, i: int = 0) -> str:
        """Where word i stands."""
        return f"{self.file}:{self.numbers[i]}"

    def add(self, line: str, number: int, word: str, tag: str | None) -> None:
        """A word that stands on a line."""
        self.at.append(len(self.lines))
        self.lines.append(line)
        self.numbers.append(number)
        self.words.append(word)
        self.tags.append(tag)


def sentences(
    source: Source, column: str | None = None, *, tagged: bool | None, known: Collection[str] = ()
) -> Iterator[Sentence]:
    """The sentences of a file, of a pipe or of texts in memory.

    Args: column: of the tags: of CoNLL-U its name or its number from 1, UPOS where it is None; of other columns the number, the
        last where it is None; of four also the names of CoNLL-2003. tagged: True: each word has a tag, but where CoNLL-U does not
        give it. None: a tag where there is one; plain sentences too, one a line, an empty line an empty sentence. False: the same,
        and no tag is read. known: the tags that a model gives, by which columns with spaces between them are told from sentences.
        Texts in memory are plain sentences or the lines of CoNLL-U.
    Yields: in their order; where tagged is not True, comments and borders of documents by themselves are a sentence without words.
    Raises: UserError with file and line for what cannot be read, for a column that there is not or that is nowhere filled; and
        where tagged is True, and there is no sentence.
    """
    form = _Form.of(source, tagged, known)
    source.blocks = form.kind != "plain"
    if form.kind == "conllu":
        found = _conllu(source, column, bool(tagged))
    elif form.kind == "columns":
        found = _columns(source, form, column, bool(tagged))
    else:
        found = _plain(source)
    count = 0
    for sentence in found:
        if tagged is False:
            sentence.tags = []
        if sentence.words or not tagged:
            count += 1
            yield sentence
    if tagged and not count:
        raise UserError(f"{source.name}: no sentence in it")


def from_text(line: str) -> Sentence:
    """A plain sentence, cut into words and signs, as lines of CoNLL-U."""
    sentence = Sentence(lines=[f"# text = {' '.join(line.split())}"])
    for i, word in enumerate(re.findall(HYPHENATED, line), 1):
        sentence.add("\t".join([str(i), word, *[NOT_GIVEN] * (len(CONLLU) - 2)]), 1, word, None)
    return sentence


def with_tags(sentence: Sentence, tags: Sequence[str], column: str | None) -> str:
    """The lines of a sentence with tags put in: of CoNLL-U into the column, of other columns as one more; a plain sentence becomes
    CoNLL-U, with UPOS where that has no column of the name."""
    lines = list(sentence.lines)
    if sentence.form == "plain" and (column or "").lower() not in CONLLU[2:]:
        column = "upos"
    for at, tag in zip(sentence.at, tags, strict=True):
        if sentence.form == "columns":
            lines[at] += sentence.separator + tag
        else:
            fields = lines[at].split("\t")
            fields[_numbered(column or "upos", CONLLU, "CoNLL-U")] = tag
            lines[at] = "\t".join(fields)
    return "\n".join(lines)


# -- which kind of lines


@dataclass(frozen=True)
class _Form:
    """How the lines of a source are written. kind: conllu, columns or plain. separator: of columns, None for white space of any
    length. word: which column holds the word, from 0."""

    kind: str
    separator: str | None = None
    word: int = 0

    @classmethod
    def of(cls, source: Source, tagged: bool | None, known: Collection[str]) -> _Form:
        """Told from the first lines. Raises: UserError where they hold no tags and should."""
        lines = [line.rstrip("\r\n") for line in source.sample("#")]
        content = [line for line in lines if line.strip() and not line.startswith("#")]
        if not content:
            return cls("conllu" if tagged or source.suffix == ".conllu" else "plain")
        if source.suffix == ".conllu" or re.match(r"\d+(?:[-.]\d+)?(\t[^\t]*){9}$", content[0]):
            return cls("conllu")
        if source.in_memory and not tagged:
            return cls("plain")
        words = [line for line in content if not line.startswith(BORDER)]
        separator = "\t" if "\t" in (words or content)[0] else None
        columns = cls("columns", separator, int(_counts_words(lines[lines.index(content[0]) :], separator)))
        if len(words) < len(content) or (tagged and separator):
            return columns
        cut = [line.split(separator) for line in words]
        width, often = Counter(map(len, cut)).most_common(1)[0]
        if tagged:
            if len(cut) > 1 and width > 1 and often >= USUAL * len(cut):
                return columns
            raise UserError(f"{source.name}:{lines.index(content[0]) + 1}: 1 fields; {_expected()}")
        # tabs, a second line like the first, tags that are known: two of these are enough
        familiar = 2 * sum(fields[-1] in known for fields in cut) >= len(cut)
        regular = width > 1 and often == len(cut)
        return columns if regular and bool(separator) + (len(cut) > 1) + familiar > 1 else cls("plain")


def _counts_words(lines: list[str], separator: str | None) -> bool:
    """Whether the lines of the first sentence begin with 1, 2 and so on, and hold more than a word and a tag."""
    count = 0
    for count, line in enumerate(lines, 1):
        if not line.strip():
            count -= 1
            break
        fields = line.split(separator)
        if len(fields) < 3 or fields[0] != str(count):
            return False
    return count > 1


def _expected() -> str:
    return f"a line has a word and its tag with a tab between them, or the {len(CONLLU)} fields of CoNLL-U"


def _numbered(column: str, names: Sequence[str], what: str, least: int = 2, option: str = "--data.") -> int:
    """The number of a column, from 0, given by its name or its number from 1; the first `least` are no tags."""
    if column.isdecimal() and least < int(column) <= len(names):
        return int(column) - 1
    if column.lower() in names[least:]:
        return names.index(column.lower())
    raise UserError(f"{option}column: {what} has no such column: " + unknown("column", column, names[least:]))


# -- the readers of each


def _plain(source: Source) -> Iterator[Sentence]:
    for number, line in enumerate(source, 1):
        sentence = from_text(line)
        sentence.file, sentence.numbers = source.name, [number] * len(sentence.words)
        yield sentence


def _conllu(source: Source, column: str | None, tagged: bool) -> Iterator[Sentence]:
    which = _numbered(column or "upos", CONLLU, "CoNLL-U", option=source.option)
    never = list(range(2, len(CONLLU)))  # the columns in which nothing has stood
    words = 0
    for start, lines in _blocks(source):
        now = Sentence(file=source.name, form="conllu")
        for number, line in enumerate(lines, start):
            fields = line.split("\t")
            if line.startswith("#"):
                now.lines.append(line)
                continue
            if len(fields) != len(CONLLU):
                raise UserError(
                    f"{source.name}:{number}: {len(fields)} fields; a line of CoNLL-U has {len(CONLLU)}, with tabs between them"
                )
            if not re.fullmatch(r"\d+", fields[0]):  # of several words together, or of one that is not written
                now.lines.append(line)
                continue
            given = fields[which] != NOT_GIVEN or CONLLU[which] == "feats"
            now.add(line, number, fields[1], fields[which] if given else None)
            never = [i for i in never if fields[i] == NOT_GIVEN]
        words += len(now.words)
        yield now
    if tagged and words and which in never:
        others = ", ".join(name for i, name in enumerate(CONLLU[:-1]) if i > 1 and i not in never) or "none"
        raise UserError(
            f"{source.name}: the column {CONLLU[which]} is nowhere given ({NOT_GIVEN} on every line); filled are: {others} "
            f"({source.option}column)"
        )


def _columns(source: Source, form: _Form, column: str | None, tagged: bool) -> Iterator[Sentence]:
    width = borders = which = 0
    for start, lines in _blocks(source):
        now = Sentence(file=source.name, form="columns", separator=form.separator or " ")
        for number, line in enumerate(lines, start):
            fields = [cell.strip() for cell in line.split(form.separator)]
            if line.startswith(BORDER):
                borders += 1
                now.lines.append(line)
                continue
            if line.startswith("#") and len(fields) != width:
                now.lines.append(line)
                continue
            place = f"{source.name}:{number}"
            if not width:
                width, which = len(fields), _column_of(source, number, column, len(fields), form, tagged)
            if len(fields) != width:
                also = "" if width == 2 else f", the first word has {width}"
                raise UserError(f"{place}: {len(fields)} fields{also}; {_expected()}")
            word, tag = fields[form.word], fields[which]
            if not word or (tagged and not tag):
                raise UserError(f"{place}: an empty field; {_expected()}")
            now.add(line, number, word, tag or None)
        yield now
    if borders:
        warnings.warn(f"{source.name}: {borders:,} lines {BORDER} are skipped: they part documents", stacklevel=2)


def _column_of(source: Source, number: int, column: str | None, width: int, form: _Form, tagged: bool) -> int:
    """Which of `width` columns holds the tags, from 0."""
    least = form.word + 1
    if width <= least:
        raise UserError(f"{source.name}:{number}: {width} fields; {_expected()}")
    if column is None or (
        width == least + 1 and (not tagged or column == "upos")
    ):  # the only one may be called anything
        return width - 1
    names = CONLL_2003 if width == len(CONLL_2003) and not form.word else [str(i + 1) for i in range(width)]
    return _numbered(column, names, f"{source.name} with its {width} fields", least, source.option)


def _blocks(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines up to the next empty one, without their ends, and the number of the first."""
    block: list[str] = []
    start = 1
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if line.strip():
            if not block:
                start = number
            block.append(line)
        elif block:
            yield start, block
            block = []
    if block:
        yield start, block
