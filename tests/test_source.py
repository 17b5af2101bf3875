"""Lines as files, pipes and lists have them: every line end, every usual encoding, and what is no text."""

import gzip
import io
import os
import random
import threading
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.encodings import check_encoding
from throughtime.tasks.source import Source

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(folder, data, name="f.txt"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


class Pieces:
    """A file that gives what it holds in pieces, as a pipe does."""

    def __init__(self, data, sizes):
        self.data, self.sizes = io.BytesIO(data), sizes

    def read1(self, size):
        return self.data.read(self.sizes.randint(1, min(size, 7)))


def in_pieces(folder, data, rng, encoding=None):
    source = Source.of(written(folder, b""), encoding)
    source._file = Pieces(data, rng)
    return source


def lines_of(text):
    """What a text's lines are, by the rule said once more: \\n and \\r\\n, or \\r alone where there is no \\n."""
    if "\n" not in text:
        text = text.replace("\r", "\n")
    found = [line.rstrip("\r") for line in text.split("\n")]
    return found[:-1] + ([found[-1]] if found[-1] else [])


@quick
@given(
    text=st.text(st.sampled_from("aé漢🎈 \n\r"), max_size=30),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    seed=st.integers(0, 9),
)
def test_lines_are_the_same_in_every_encoding_and_however_they_come(text, encoding, seed, tmp_path):
    data = text.encode(encoding)
    rng = random.Random(seed)
    for make in (lambda: Source.of(written(tmp_path, data)), lambda: in_pieces(tmp_path, data, rng)):
        source = make()
        assert [line.removesuffix("\n") for line in source] == lines_of(text)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\ntwo", ["one\n", "two"]),
        (b"one\r\ntwo\r\n", ["one\n", "two\n"]),
        (b"one\rtwo\r", ["one\n", "two\n"]),
        (b"one\r\rtwo", ["one\n", "\n", "two"]),
        (b"one\rmore\r\ntwo\n", ["one\rmore\n", "two\n"]),
        (b"", []),
        (b"\n", ["\n"]),
        ("a\u2028b\x0bc\x85d\n".encode(), ["a\u2028b\x0bc\x85d\n"]),  # these end no line
    ],
)
def test_line_ends(tmp_path, data, lines):
    assert list(Source.of(written(tmp_path, data))) == lines


@pytest.fixture
def pipe(monkeypatch):
    """Standard input as a pipe: what writes into it, and the source that reads it."""
    here, there = os.pipe()
    with os.fdopen(here, "rb") as file, os.fdopen(there, "wb", buffering=0) as into:

        class Stdin:
            buffer = file

        monkeypatch.setattr("sys.stdin", Stdin)
        yield into, Source.of("<stdin>")


def test_a_line_of_a_pipe_is_there_as_soon_as_it_is_written(pipe):
    into, source = pipe
    assert not source.ready()
    into.write(b"one\ntw")
    assert source.ready() and next(source) == "one\n" and not source.ready()
    into.write(b"o\n\nthree\n")
    assert source.ready(block=True) and next(source) == "two\n" and next(source) == "\n"
    assert source.ready(block=False) and not source.ready(block=True)
    into.close()
    assert source.ready(block=True) and list(source) == ["three\n"] and source.ready()
    assert source.name == "<stdin>"


def test_a_named_pipe_is_no_file_either(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    there = threading.Thread(target=lambda: into.append(open(tmp_path / "pipe", "wb", buffering=0)))  # noqa: SIM115
    into = []
    there.start()
    source = Source.of(tmp_path / "pipe")
    there.join()
    assert not source.ready()
    into[0].write(b"one\n")
    assert source.ready() and next(source) == "one\n" and not source.ready()
    into[0].close()
    assert list(source) == []


def test_old_line_ends_in_a_pipe(pipe):
    into, source = pipe
    into.write(b"one\r")
    assert not source.ready(), "a \\n may come"
    into.write(b"two\r")
    assert source.ready() and next(source) == "one\n" and next(source) == "two\n"
    into.write(b"three\r")
    assert source.ready() and next(source) == "three\n", "they are known now"
    into.write(b"\nfour\r\n")
    assert next(source) == "four\n"


def test_a_sample_takes_nothing_and_waits_for_one_line(pipe):
    into, source = pipe
    into.write(b"\n# comment\n")
    waiting = threading.Timer(0.05, lambda: into.write(b"word\nmore\n"))
    waiting.start()
    assert source.sample("#") == ["\n", "# comment\n", "word\n", "more\n"]
    waiting.join()
    assert source.ready(block=True)
    into.close()
    assert list(source) == ["\n", "# comment\n", "word\n", "more\n"]


def test_every_piece_of_a_long_line_is_looked_at_once(tmp_path, monkeypatch):
    """How many characters are searched for the end of a line: those of the line, not those of all that came before each piece."""
    source = in_pieces(tmp_path, b"x" * 5000 + b"\n", random.Random(0))
    searched, split = [], source._split
    monkeypatch.setattr(source, "_split", lambda text, ended: searched.append(len(text)) or split(text, ended))
    assert next(source) == "x" * 5000 + "\n"
    assert sum(searched) == 5001


def test_texts_in_memory_are_given_as_they_are():
    source = Source.of(["one", "two\nand more", ""])
    assert source.in_memory and source.sample() == ["one"]
    assert list(source) == ["one", "two\nand more", ""]
    assert Source.of(source) is source
    with pytest.raises(UserError, match="<lines>: takes texts, got 3, a int"):
        list(Source.of(["a", 3]))


def test_a_whole_text(tmp_path):
    assert Source.of(written(tmp_path, b"a\r\nb")).text() == "a\nb\n"
    with pytest.raises(UserError, match=r"f\.txt: is empty"):
        Source.of(written(tmp_path, b" \n")).text()


# -- encodings


@pytest.mark.parametrize("name", ["latin-1", "windows-1252", "cp1252", "ISO-8859-1"])
def test_an_encoding_that_is_named(tmp_path, name):
    assert list(Source.of(written(tmp_path, "naïve café\n".encode("latin-1")), name)) == ["naïve café\n"]


def test_a_mark_is_believed_before_an_option(tmp_path):
    for encoding in ("utf-8-sig", "utf-16"):
        assert list(Source.of(written(tmp_path, "café\n".encode(encoding)), "latin-1")) == ["café\n"]


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (
            b"good\na caf\xe9 b\n",
            None,
            ":2: byte 10 (0xe9) is not UTF-8; if it is Windows-1252, which makes 'café' of it, give --data.encoding windows-1252",
        ),
        ("one\ntwo 漢".encode()[:-1], None, ":2: byte 8 (0xe6) is not UTF-8; the file ends within a character"),
        (
            "one\ntwo\n".encode("utf-16-le"),
            None,
            ":1: byte 1 is NUL: it looks like UTF-16 without a mark; give --data.encoding utf-16-le",
        ),
        (
            "one\ntwo\n".encode("utf-16-be"),
            None,
            ":1: byte 0 is NUL: it looks like UTF-16 without a mark; give --data.encoding utf-16-be",
        ),
        (b"one\nab\0c\n", None, ":2: byte 6 is NUL: this is a binary file, not text"),
        (b"one\rtw\xff", None, ":2: byte 6 (0xff) is not UTF-8"),
        (b"a\nb\x81\n", "cp1252", ":2: byte 3 (0x81) is not cp1252; name its encoding by --data.encoding"),
        ("é\n".encode("utf-16") + b"\x00\xd8a\x00", None, ":2: byte 6 (0x00) is not utf-16-le; name its encoding"),
    ],
)
def test_bytes_that_are_no_text_are_told_with_what_helps(tmp_path, data, encoding, words):
    path = written(tmp_path, data)
    for pieces in (False, True):
        source = Source.of(path, encoding)
        if pieces:
            source._file = Pieces(data, random.Random(1))
        with pytest.raises(UserError) as error:
            list(source)
        if not pieces or "without a mark" not in words:  # of a few bytes that cannot be told
            assert str(error.value).startswith(str(path) + words) and "\n" not in str(error.value)


def test_what_comes_before_a_wrong_byte_is_given(tmp_path):
    source = Source.of(written(tmp_path, b"one\ntwo\nth\xffree\nfour\n"))
    assert [next(source), next(source)] == ["one\n", "two\n"]
    with pytest.raises(UserError, match=":3: byte 10"):
        next(source)


def test_an_encoding_that_there_is_not():
    for name, words in (("latin1x", "did you mean 'latin-1'"), ("rot13", "there are: "), ("base64", "there are: ")):
        with pytest.raises(UserError, match=f"--data.encoding: unknown encoding '{name}'; {words}"):
            check_encoding(name)


# -- what is no text


def test_a_file_that_ends_with_gz_is_unpacked(tmp_path):
    lines = [f"line {i}\n" for i in range(40_000)]
    source = Source.of(written(tmp_path, gzip.compress("".join(lines).encode("utf-16")), "t.CSV.gz"))
    assert source.suffix == ".csv" and source.ready() and list(source) == lines
    cut = written(tmp_path, gzip.compress("".join(lines).encode())[:-9], "cut.gz")
    with pytest.raises(UserError, match=r"cut.gz: is gzip, but damaged or cut off: Compressed file ended"):
        list(Source.of(cut))
    damaged = bytearray(gzip.compress(b"text\n" * 1000))
    damaged[20] ^= 255
    with pytest.raises(UserError, match=r"bad.gz: (is gzip, but damaged or cut off|cannot read it)"):
        list(Source.of(written(tmp_path, bytes(damaged), "bad.gz")))
    with pytest.raises(UserError, match=r"no.gz: cannot read it: Not a gzipped file"):
        list(Source.of(written(tmp_path, b"text\n", "no.gz")))


def workbook(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(name, "x")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"text", mtime=0), "is gzip, not plain text; unpack it"),
        (workbook("data.csv"), "is a zip archive, not plain text; unpack it"),
        (workbook("xl/workbook.xml"), "is an Excel workbook, not plain text; save it as CSV"),
        (workbook("word/document.xml"), "is a Word document, not plain text; save it as CSV, or as plain text"),
        (b"PAR1\x15\x04", "is Parquet, not plain text; export it as CSV or JSON lines"),
        (b"%PDF-1.7\n%\xe2", "is a PDF, not plain text; export its text"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office document"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page, not plain text; download the file itself"),
        (b"{\\rtf1 text}", "is RTF, not plain text"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a pointer of Git LFS, not plain text; fetch the file itself",
        ),
    ],
)
def test_usual_downloads_are_refused_with_what_helps(tmp_path, data, words):
    path = written(tmp_path, data)
    with pytest.raises(UserError) as error:
        list(Source.of(path))
    assert str(error.value).startswith(f"{path}: {words}")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="nowhere: cannot read it: No such file"):
        Source.of(tmp_path / "nowhere")
    with pytest.raises(UserError, match="is a folder; name the files in it"):
        list(Source.of(tmp_path))
