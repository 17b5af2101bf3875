"""Every reader on anything at all: it reads it or refuses it in one line, and what train reads answering reads too."""

import warnings

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.pairs import pairs
from throughtime.tasks.sentences import sentences, with_tags
from throughtime.tasks.source import Source
from throughtime.tasks.tables import rows

any_file = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIECES = [
    "a",
    "é",
    "B-X",
    "O",
    "1",
    "2",
    "text",
    "label",
    "source",
    "\t",
    "\t",
    " ",
    "\n",
    "\n",
    "\r",
    ",",
    ";",
    '"',
    "#",
    "_",
    "{",
    "}",
    "[",
    "]",
    ":",
]
PIECES += ["-DOCSTART- O\n", '{"text": "a", "label": "b"}', "\t_" * 8, "sep=;\n", "\\", "\0", "\ufeff"]  # fmt: skip
LINES = ["a\tO\n", "é B-X\n", "b\tB-X\n", "c O\n", "-DOCSTART- O\n", "\n", "# text\n", "1\ta\tO" + "\t_" * 7 + "\n"]
contents = st.one_of(
    st.lists(st.sampled_from(pieces), max_size=25).map("".join)
    for pieces in (PIECES, LINES, LINES[:1] + LINES[2:3] + LINES[5:6])
)
names = st.sampled_from(["f.txt", "f", "f.csv", "f.tsv", "f.json", "f.jsonl", "f.conllu"])
READERS = {
    "rows": lambda source, mode: list(rows(source, labelled=mode)),
    "sentences": lambda source, mode: list(sentences(source, tagged=mode, known=["O", "B-X"])),
    "pairs": lambda source, mode: list(pairs([source], both=mode)),
}


def read(reader, path, mode):
    """What a reader makes of a file; None where it refuses it."""
    with warnings.catch_warnings(action="ignore"):
        try:
            return READERS[reader](Source.of(path), mode)
        except UserError as error:
            refused = str(error)
    assert refused.strip() and "\n" not in refused
    return None


@any_file
@given(content=contents | st.binary(max_size=30), name=names, encoding=st.sampled_from(["utf-8", "utf-16", "cp1252"]))
def test_any_file_is_read_or_refused_in_a_line(content, name, encoding, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding, "replace"))
    for reader in READERS:
        for mode in (True, None, False):
            read(reader, path, mode)


@any_file
@given(content=contents, name=names)
def test_what_training_reads_answering_reads(content, name, tmp_path):
    """Where answering takes a file for what training takes it for, it finds the same, and the gold column is what training has."""
    path = tmp_path / name
    path.write_text(content, newline="")
    trained, answered = (read("sentences", path, mode) for mode in (True, None))
    if trained and answered and answered[0].form == trained[0].form:
        assert [(s.words, s.tags) for s in answered if s.words] == [(s.words, s.tags) for s in trained]
    trained, answered = (read("pairs", path, mode) for mode in (True, None))
    if trained and answered and any(p.target is not None for p in answered):
        assert [p for p in answered if p.source and p.target] == trained
    trained, answered = (read("rows", path, mode) for mode in (True, None))
    if trained and answered and answered[0].columns == trained[0].columns:
        assert [row for row in answered if row.text.strip() and row.label] == trained


@any_file
@given(content=contents, name=names)
def test_sentences_that_are_answered_come_back(content, name, tmp_path):
    """All lines but the empty ones are there again, in their order, with what was added."""
    path = tmp_path / name
    path.write_text(content, newline="")
    found = read("sentences", path, None)
    if found and found[0].form != "plain":
        before = [line.rstrip("\n") for line in Source.of(path) if line.strip()]
        after = "\n".join(with_tags(s, ["T"] * len(s.words), None) for s in found).split("\n")
        assert len(after) == len(before)
        for a, b in zip(after, before, strict=True):
            assert a == b or (a.startswith(b) and a.endswith("T")) or a.split("\t")[3] == "T"
