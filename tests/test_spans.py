"""Texts of files in other encodings, with other line ends, held out in blocks; and whether what is held out is of another kind."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks import spans as module
from throughtime.tasks.shift import unlike
from throughtime.tasks.source import Source
from throughtime.tasks.spans import hold_out, open_files, read_blocks

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LICENCE = (Path(__file__).parent.parent / "LICENSE").read_text()


def written(folder, data, name="f.txt"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def text_of(spans):
    return "".join(text for span in spans for text in read_blocks(span))


@quick
@given(
    text=st.text(st.sampled_from("aéĊ漢🎈 \n\r"), min_size=1, max_size=60),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "gb18030"]),
    share=st.floats(0.05, 0.9),
    blocks=st.booleans(),
    size=st.sampled_from([3, 8, 1 << 20]),
)
def test_what_is_held_out_and_the_rest_are_the_text_in_every_encoding(
    text, encoding, share, blocks, size, tmp_path, monkeypatch
):
    """And the same lines as predict sees. No character is cut, no byte is lost."""
    path = written(tmp_path, text.encode(encoding))
    if len(text.encode(encoding)) <= len("".encode(encoding)):
        return
    with monkeypatch.context() as patch:
        patch.setattr(module, "BLOCK", size)
        patch.setattr(module, "LEAST", 4)
        spans = open_files([path], "gb18030" if encoding == "gb18030" else None)
        train, held = hold_out(spans, share, blocks=blocks)
        parts = sorted(train + held, key=lambda span: span.start)
        assert [a.end for a in parts[:-1]] == [b.start for b in parts[1:]]
        whole = text_of(spans)
    lines = "".join(Source.of(path, "gb18030" if encoding == "gb18030" else None))
    assert whole.rstrip("\r\n") == lines.rstrip("\n")
    cut = "".join(text_of([part]) for part in parts)
    assert cut == whole or "\r" in text  # where a \r and its \n are parted, they are two


def test_blocks_are_from_all_over_the_file_and_end_with_a_line(tmp_path):
    content = "".join(f"this is line {i:05}\n" for i in range(10_000))
    path = written(tmp_path, content)
    train, held = hold_out(open_files([path]), 0.1, blocks=True)
    assert len(held) == 10
    assert sum(span.size for span in held) == pytest.approx(0.1 * len(content), rel=0.01)
    numbers = [int(text_of([span]).split()[3]) for span in held]
    assert numbers == pytest.approx([900 + 1000 * i for i in range(10)], abs=15)
    assert all(text_of([span]).endswith("\n") for span in train + held)
    (only,) = hold_out(open_files([written(tmp_path, content[:2000])]), 0.1, blocks=True)[1]
    assert only.end == 2000, "too short for two"


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (
            b"one\ncaf\xe9\n",
            None,
            ":2: byte 7 (0xe9) is not UTF-8; if it is Windows-1252, which makes 'café' of it, give --data.encoding",
        ),
        (
            "one\ntwo\n".encode("utf-16-le"),
            None,
            ":1: byte 1 is NUL: it looks like UTF-16 without a mark; give --data.encoding utf-16-le",
        ),
        ("one\n".encode("utf-16") + b"\x00\xdca\x00", None, ":2: byte 10 (0x00) is not utf-16-le; name its encoding"),
        (b"one\rtwo\r\xff", None, ":3: byte 8 (0xff) is not UTF-8"),
        (b"\x1f\x8b\x08\0\0", None, ": is gzip, not plain text; unpack it (gunzip), or use --model.tokens bytes"),
    ],
)
def test_bytes_that_are_no_text(tmp_path, data, encoding, words):
    path = written(tmp_path, data)
    with pytest.raises(UserError) as error:
        text_of(open_files([path], encoding))
    assert str(error.value).startswith(f"{path}{words}")


def test_an_encoding_that_is_named_and_bytes_that_are_read_as_they_are(tmp_path):
    path = written(tmp_path, "café – x\n".encode("cp1252"))
    assert text_of(open_files([path], "windows-1252")) == "café – x\n"
    for data in (b"\x1f\x8b\x08\0\0\xff", "a\n".encode("utf-16")):
        (span,) = open_files([written(tmp_path, data)], raw=True)
        assert "".join(read_blocks(span, raw=True)).encode("utf-8", "surrogateescape") == data


# -- of what kind


@pytest.fixture(scope="module")
def shakespeare():
    folder = os.environ.get("THROUGHTIME_DATA")
    path = Path(folder or "../shared/data") / "text" / "tinyshakespeare" / "train.txt"
    if not path.exists():
        pytest.skip("needs Tiny Shakespeare: set THROUGHTIME_DATA")
    return path.read_text()


def kind(folder, text, **options):
    return unlike(*hold_out(open_files([written(folder, text)]), 0.1, **options))


def test_a_licence_at_the_end_of_a_book_is_of_another_kind(tmp_path, shakespeare):
    book = shakespeare[:200_000]
    assert kind(tmp_path, book) is None
    said = kind(tmp_path, book + LICENCE)
    assert said.startswith("held-out and training text differ in kind: in ") and " of the held-out text " in said
    assert kind(tmp_path, book + LICENCE, blocks=True) is None, "blocks from all over are of both kinds"


def test_a_text_of_one_kind_is_not_called_two(tmp_path, shakespeare):
    for low in range(0, 900_000, 300_000):
        assert kind(tmp_path, shakespeare[low : low + 60_000]) is None
    for text in ("a" * 40_000, "the same line\n" * 4000, "?! " * 9000, shakespeare[:3000]):
        assert kind(tmp_path, text) is None
    few = "".join(f"the same line {i % 7}\n" if i < 4300 else f"the same line {i % 10}\n" for i in range(4500))
    assert kind(tmp_path, few) is None, "new, but few"
    assert kind(tmp_path, "the same line\n" * 4000 + LICENCE[:8000]) is not None
