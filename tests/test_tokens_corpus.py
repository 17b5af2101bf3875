"""A text as tokens and back, and the corpus on disk: nothing is lost, nothing is shifted, wherever the blocks are cut."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks import spans as spans_module
from throughtime.tasks.corpus import (
    Corpus,
    Lanes,
    documents_in,
    open_corpus,
    walk,
    write_corpus,
)
from throughtime.tasks.spans import Span, hold_out, open_files, read_blocks
from throughtime.tasks.tokens import START, UNKNOWN, Tokens, learn, looks_tokenised

CPU = torch.device("cpu")
KINDS = ["characters", "bytes", "words", "bpe"]
quick = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# signs that meet every branch of the rules: spaces, line ends, apostrophes, underscores, letters of two, three and four bytes
SIGNS = "ab Z9'’_-,.\n\t\u00a0é漢🎈"
texts = st.text(st.sampled_from(SIGNS), max_size=80) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=40
)
# words of at most four ASCII letters, so that a block of a few bytes always holds a place between two words
short_words = st.lists(
    st.sampled_from(["a", "the", "cat", "it's", "dog,", ".", "end.", "_x", "12"]), min_size=1, max_size=40
)
separators = st.sampled_from([" ", "\n", "  ", "\n\n", " \n", "\n\n\n", "\n\n "])


def blocks_of(text):
    return lambda: iter([text])


def learned(kind, text, size=5000):
    return learn(kind, blocks_of(text), size)


def write(folder, content, name="text.txt"):
    path = Path(folder) / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def whole(path):
    (span,) = open_files([path])
    return span


# -- tokens


@pytest.mark.parametrize("kind", KINDS)
@quick
@given(text=texts)
def test_what_is_known_comes_back_as_it_was(kind, text):
    tokens = learned(kind, text + "\nx y")
    ids = tokens.encode(text)
    assert (ids >= 2).all(), "all of this text was learned from"
    assert tokens.decode(ids) == text
    assert ids.dtype == tokens.dtype


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
@quick
@given(
    text=st.text(st.sampled_from(SIGNS), max_size=80), strange=st.text(st.sampled_from("ЖЩЯ"), min_size=1, max_size=3)
)
def test_what_was_never_seen_is_unknown_and_nothing_else_changes(kind, text, strange):
    tokens = learned(kind, text + " \nx")
    ids = tokens.encode(text + "\n" + strange)
    known = tokens.encode(text + "\n")
    np.testing.assert_array_equal(ids[: len(known)], known)
    assert len(ids) > len(known)
    assert (ids[len(known) :] == UNKNOWN).all()


def test_bytes_read_anything():
    tokens = learn("bytes", blocks_of(""), 10)
    assert len(tokens) == 258
    np.testing.assert_array_equal(tokens.encode("é\0"), np.array([0xC3, 0xA9, 0]) + 2)
    lone = b"ab\xff\xc3".decode("utf-8", "surrogateescape")
    np.testing.assert_array_equal(tokens.encode(lone), np.array([0x61, 0x62, 0xFF, 0xC3]) + 2)
    assert tokens.unknown_in("anything Ж") == []


def test_the_bytes_of_a_character_are_written_once_it_is_whole():
    tokens = learn("bytes", blocks_of(""), 10)
    decode = tokens.decoder()
    assert [decode(int(t)) for t in tokens.encode("aé漢🎈!")] == ["a", "", "é", "", "", "漢", "", "", "", "🎈", "!"]
    assert decode(START) == ""


def test_characters_are_sorted_by_code_point():
    tokens = learned("characters", "cab\nb漢é")
    assert tokens.entries == ["<unk>", "<s>", "\n", "a", "b", "c", "é", "漢"]
    np.testing.assert_array_equal(tokens.encode("b漢?a"), [4, 7, UNKNOWN, 3])


def test_few_characters_are_the_commonest():
    tokens = learned("characters", "aaaabbbccd", size=5)
    assert tokens.entries[2:] == ["a", "b", "c"]


def test_words_are_sorted_by_frequency():
    tokens = learned("words", "one two three\ntwo three\nthree x three", size=5)
    # a word takes the space before it along, so at the start of a line it is another entry
    assert tokens.entries[2] == " three"
    counts = {" three": 2, "\n": 2}
    assert set(tokens.entries[2:4]) == set(counts)
    assert len(tokens) == 5


def test_words_keep_the_space_before_them_and_the_text_whole():
    text = "Don't stop,  it’s 3 o'clock\n\n\tsnake_case — ok."
    tokens = learned("words", text)
    pieces = [tokens.entries[i] for i in tokens.encode(text)]
    assert "".join(pieces) == text
    assert {"Don't", " stop", ",", " it’s", " o'clock", " —", "\n", "\t"} <= set(pieces)


def test_bpe_has_as_many_entries_as_asked():
    text = "the cat sat on the mat, the hat of the cat that sat\nwhile another read of questions and answers\n" * 20
    kinds = len(set(text))
    for size in (kinds + 2, kinds + 12, kinds + 25):
        tokens = learned("bpe", text, size)
        assert len(tokens) == size
    assert len(tokens.encode(text)) < len(text) / 2, "pieces were merged"
    assert tokens.entries[:2] == ["<unk>", "<s>"]


def test_bpe_never_joins_two_words():
    text = "ab ab ab ab\nab ab\n" * 50
    tokens = learned("bpe", text, 200)
    assert all(" " not in entry[1:] and (entry == "\n" or "\n" not in entry) for entry in tokens.entries[2:])
    assert " ab" in tokens.entries


def test_no_text_is_read_as_a_start():
    """The name of the start written in a text is a text, and no token of it ends a document."""
    for kind in KINDS:
        for text in ("a <s> b <unk> c , . \n", "x , y . \n" * 20):
            tokens = learned(kind, text)
            assert START not in tokens.encode("a <s> b"), f"{kind} of {text[:10]!r}"


WIKI = " = Title = \n \n The cat , which sat , was <unk> . It , too , slept . \n" * 5


def test_a_text_already_cut_is_cut_at_its_spaces():
    assert looks_tokenised(WIKI)
    assert not looks_tokenised(WIKI.replace(" ,", ",").replace(" .", "."))
    assert not looks_tokenised("no signs at all")
    tokens = learned("words", WIKI)
    assert tokens.spaced
    assert "<unk>" not in tokens.entries[2:], "the text's unknown words are ours"
    ids = tokens.encode("The cat , <unk> . \n")
    assert [tokens.entries[i] for i in ids] == ["The", "cat", ",", "<unk>", ".", "\n"]
    assert ids[3] == UNKNOWN
    assert len(tokens.encode(WIKI)) == 5 * (18 + 3)  # words and signs, ends of lines


def test_a_spaced_text_comes_back_with_single_spaces():
    tokens = learned("words", WIKI)
    assert tokens.decode(tokens.encode("The cat , too\n\nIt slept .\n")) == "The cat , too\n\nIt slept .\n"
    assert tokens.decode([START, *tokens.encode("The cat")]) == "The cat"
    decode = tokens.decoder()
    assert [decode(int(i)) for i in tokens.encode("The cat \n It")] == ["The", " cat", "\n", "It"]


@pytest.mark.parametrize(
    ("kind", "learned_from", "text", "unseen"),
    [
        ("characters", "abc ", "a☃bЖ☃", ["☃", "Ж"]),
        ("bpe", "abc abc ab " * 20, "ab☃ cЖ☃", ["☃", "Ж"]),
        ("words", "the cat, the dog\n", "the fox\nthe owl, the fox", ["fox", "owl"]),
        ("characters", "abc", "a b", [" "]),
    ],
)
def test_what_is_unknown_is_named_once_in_order(kind, learned_from, text, unseen):
    named = learned(kind, learned_from).unknown_in(text)
    assert [n for n in named if n not in ("\n", "the")] == unseen
    assert len(named) == len(set(named))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["The cat's hat: 漢 é\n\nand_so on, " * 4, WIKI])
def test_a_saved_vocabulary_reads_the_same(kind, text, tmp_path):
    tokens = learned(kind, text)
    tokens.save(tmp_path)
    values = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    again = Tokens.load(tmp_path, values)
    assert (again.kind, again.spaced, again.entries) == (tokens.kind, tokens.spaced, tokens.entries)
    other = text + " with words never seen ЖЖ"
    np.testing.assert_array_equal(again.encode(other), tokens.encode(other))
    assert again.decode(again.encode(text)) == tokens.decode(tokens.encode(text))


@pytest.mark.parametrize("values", [{}, [], None, {"kind": "characters", "entries": [1], "spaced": False}])
def test_a_damaged_vocabulary_is_said_to_be_damaged(values, tmp_path):
    with pytest.raises(UserError, match=r"vocabulary\.json: the run is damaged"):
        Tokens.load(tmp_path, values)


@pytest.mark.parametrize(
    ("entries", "dtype"),
    [(256, np.uint8), (257, np.uint16), (65536, np.uint16), (65537, np.uint32)],
)
def test_tokens_are_as_small_as_the_vocabulary_allows(entries, dtype):
    points = [chr(c) for c in range(32, 0x11000) if not 0xD800 <= c < 0xE000][: entries - 2]
    tokens = Tokens("characters", ["<unk>", "<s>", *points])
    assert tokens.dtype is dtype
    assert tokens.encode(points[-1]).tolist() == [entries - 1], "the highest number fits"


# -- reading


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\rtwo\r\rthree\r", "one\ntwo\n\nthree\n"),
        (b"one\rtwo\r\r\nthree\r", "one\rtwo\nthree\r"),
        (b"\xef\xbb\xbfwith a mark", "with a mark"),
        (b"\xef\xbb\xbf\xef\xbb\xbftwo marks", "\ufefftwo marks"),
        ("naïve 漢字 🎈🎈 end".encode(), "naïve 漢字 🎈🎈 end"),
        (b" leading and trailing \n\n", " leading and trailing \n\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_reading(content, text, size, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "BLOCK", size)
    assert "".join(read_blocks(whole(write(tmp_path, content)))) == text


@quick
@given(text=texts, ends=st.sampled_from(["\n", "\r\n", "\r"]), size=st.integers(1, 20))
def test_small_blocks_read_what_one_block_reads(text, ends, size, tmp_path, monkeypatch):
    path = write(tmp_path, "x" + text.replace("\n", ends))
    with monkeypatch.context() as patch:
        patch.setattr(spans_module, "BLOCK", size)
        assert "".join(read_blocks(whole(path))) == "x" + text


@quick
@given(content=st.binary(min_size=1, max_size=60), size=st.integers(1, 9))
def test_raw_reading_keeps_every_byte(content, size, tmp_path, monkeypatch):
    path = write(tmp_path, b"x" + content)
    with monkeypatch.context() as patch:
        patch.setattr(spans_module, "BLOCK", size)
        text = "".join(read_blocks(whole(path), raw=True))
    assert text.encode("utf-8", "surrogateescape") == b"x" + content
    ids = learn("bytes", blocks_of(""), 10).encode(text)
    np.testing.assert_array_equal(ids - 2, np.frombuffer(b"x" + content, np.uint8))


BAD = [
    (b"good\nbad \xff here\n", 2, 9, 0xFF),
    (b"\xef\xbb\xbfa\nb\n\nc\xe9t\xe9", 4, 9, 0xE9),
    (b"line\n" * 30 + b"caf\xc3\n" + b"line\n" * 10, 31, 153, 0xC3),
    ("漢字\n".encode() * 20 + b"\xe6\xbc", 21, 140, 0xE6),  # cut off in the middle of a character
    (b"a\r\nb\r\nc\x80", 3, 7, 0x80),
    (b"\xc0\xaf", 1, 0, 0xC0),
]


@pytest.mark.parametrize(("content", "line", "byte", "value"), BAD)
@pytest.mark.parametrize("size", [1, 2, 5, 7, 64, 1 << 20])
def test_bytes_that_are_not_utf8_are_found(content, line, byte, value, size, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "BLOCK", size)
    path = write(tmp_path, content)
    with pytest.raises(UserError) as error:
        list(read_blocks(whole(path)))
    words = str(error.value)
    assert words.startswith(f"{path}:{line}: byte {byte} (0x{value:02x}) is not UTF-8")
    assert "\n" not in words


@pytest.mark.parametrize("size", [1, 4, 7, 1 << 20])
def test_a_binary_file_is_found(size, tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "BLOCK", size)
    path = write(tmp_path, b"PK\nab\ncd\0ef\n\0")
    with pytest.raises(UserError) as error:
        list(read_blocks(whole(path)))
    assert str(error.value).startswith(f"{path}:3: byte 8 is NUL")


def test_lines_are_counted_from_the_beginning_of_the_file(tmp_path):
    content = b"one\ntwo\nthree\nfo\xffur\n"
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=r":4: byte 16 \(0xff\)"):
        list(read_blocks(Span(path, 8, len(content))))
    assert "".join(read_blocks(Span(path, 4, 8))) == "two\n"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere.txt", "nowhere.txt: cannot read it: No such file"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: write(folder, b""), "is empty"),
        (lambda folder: write(folder, b"\xef\xbb\xbf"), "is empty"),
    ],
)
def test_files_that_cannot_be_read(make, words, tmp_path):
    with pytest.raises(UserError, match=words):
        open_files([make(tmp_path)])


# -- tokenising in pieces


@st.composite
def spaced_texts(draw):
    words = draw(short_words)
    return "".join(word + draw(separators) for word in words)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", ["file", "line", "paragraph"])
@quick
@given(text=spaced_texts(), size=st.integers(11, 30), ends=st.sampled_from(["\n", "\r\n"]))
def test_a_corpus_written_in_pieces_is_that_of_the_whole_text(kind, unit, text, size, ends, tmp_path, monkeypatch):
    path = write(tmp_path, text.replace("\n", ends))
    held = text if kind != "bytes" else text.replace("\n", ends)
    tokens = learned(kind, text + " the end of it, a cat.", 60)
    expected, characters = [], 0
    for piece, first in documents_of(held, unit):
        expected += [START] * first + tokens.encode(piece).tolist()
        characters += len(piece)
    read = []
    with monkeypatch.context() as patch:
        patch.setattr(spans_module, "BLOCK", size)
        corpus = write_corpus(tmp_path / "corpus.bin", [whole(path)], tokens, unit, read.append)
    assert corpus.tokens.tolist() == expected
    assert corpus.tokens.dtype == tokens.dtype
    assert corpus.characters == characters == len(held)
    assert corpus.starts == expected.count(START)
    assert corpus.unknown == expected.count(UNKNOWN)
    assert corpus.real == len(expected) - expected.count(START)


def documents_of(text, unit):
    """Independently of the source: the text of each document, cut after every line, or after every empty line."""
    if unit == "file":
        return [(text, True)]
    pieces, place = [], 0
    while place < len(text):
        stop = text.find("\n" if unit == "line" else "\n\n", place)
        if stop < 0:
            stop = len(text)
        else:
            stop += 1 if unit == "line" else 2
            while unit == "paragraph" and text[stop : stop + 1] == "\n":
                stop += 1
        pieces.append((text[place:stop], True))
        place = stop
    return pieces


def test_documents():
    text = "a b\nc\n\n\nd\n\ne"
    cut = {unit: [(p, f) for p, f in documents_in(text, unit, True)] for unit in ("file", "line", "paragraph")}
    assert cut["file"] == [(text, True)]
    assert cut["line"] == [(p, True) for p in ("a b\n", "c\n", "\n", "\n", "d\n", "\n", "e")]
    assert cut["paragraph"] == [(p, True) for p in ("a b\nc\n\n\n", "d\n\n", "e")]
    assert [first for _, first in documents_in(text, "line", False)] == [False] + [True] * 6


@pytest.mark.parametrize(("unit", "starts"), [("file", 2), ("line", 5), ("paragraph", 3)])
def test_every_file_begins_a_document(unit, starts, tmp_path):
    paths = [write(tmp_path, "a b\nc\n\nd", "one"), write(tmp_path, "e", "two")]
    tokens = learned("characters", "abcde \n")
    corpus = write_corpus(tmp_path / "corpus.bin", open_files(paths), tokens, unit)
    assert corpus.starts == starts
    at = [i for i, t in enumerate(corpus.tokens) if t == START]
    after = [tokens.decode([corpus.tokens[i + 1]]) for i in at]
    assert after == {"file": ["a", "e"], "line": ["a", "c", "\n", "d", "e"], "paragraph": ["a", "d", "e"]}[unit]


def test_a_corpus_is_opened_as_it_was_written(tmp_path):
    text = "hello, unknown ☃\n"
    tokens = learned("characters", text.replace("☃", ""))
    written = write_corpus(tmp_path / "corpus.bin", [whole(write(tmp_path, text))], tokens, "file")
    opened = open_corpus(tmp_path / "corpus.bin")
    np.testing.assert_array_equal(opened.tokens, written.tokens)
    assert isinstance(opened.tokens, np.memmap)
    assert (opened.characters, opened.unknown, opened.starts) == (len(text), 1, 1)
    assert opened.first(4).tokens.tolist() == opened.tokens[:4].tolist()
    assert opened.first(4).real == 3


def test_a_corpus_tells_how_much_it_has_read(tmp_path, monkeypatch):
    monkeypatch.setattr(spans_module, "BLOCK", 7)
    text = "é 漢 some words here\n" * 4
    path, amounts = write(tmp_path, text), []
    write_corpus(tmp_path / "c.bin", [whole(path)], learned("characters", text), "file", amounts.append)
    assert sum(amounts) == path.stat().st_size
    assert len(amounts) > 5


# -- holding out


@quick
@given(text=texts, share=st.floats(0.05, 0.6), mark=st.booleans(), block=st.sampled_from([16 * 5, 1 << 20]))
def test_holding_out_covers_the_file_and_cuts_no_character(text, share, mark, block, tmp_path, monkeypatch):
    content = b"\xef\xbb\xbf" * mark + ("a" + text).encode("utf-8")
    path = write(tmp_path, content)
    with monkeypatch.context() as patch:
        patch.setattr(spans_module, "BLOCK", block)
        train, held = hold_out([whole(path)], share)
    parts = train + held
    assert all(span.size > 0 for span in parts)
    assert parts[0].start == 3 * mark
    assert parts[-1].end == len(content)
    for before, after in itertools.pairwise(parts):
        assert before.end == after.start
    # strict decoding of each part: a cut inside a character could not be read
    assert "".join(content[s.start : s.end].decode("utf-8") for s in parts) == "a" + text


def test_holding_out_ends_the_training_text_with_a_line(tmp_path):
    path = write(tmp_path, "a line of text\n" * 1000)
    (train,), (held,) = hold_out([whole(path)], 0.1)
    assert path.read_bytes()[: train.end].endswith(b"text\n")
    assert held.size == pytest.approx(1500, abs=15)


def test_holding_out_without_lines_takes_the_share(tmp_path):
    path = write(tmp_path, "漢" * 5000)
    (train,), (held,) = hold_out([whole(path)], 0.2)
    assert train.size % 3 == 0
    assert held.size == pytest.approx(3000, abs=3)


def test_every_file_gives_its_share(tmp_path):
    paths = [write(tmp_path, "word " * n, f"{n}.txt") for n in (100, 400)]
    train, held = hold_out(open_files(paths), 0.25)
    assert [s.path for s in train] == [s.path for s in held] == paths
    assert [s.size for s in held] == [pytest.approx(125, abs=1), pytest.approx(500, abs=1)]


# -- batches


def corpus_of(tokens):
    tokens = np.asarray(tokens, dtype=np.uint16)
    return Corpus(tokens, len(tokens), 0, int((tokens == START).sum()))


def numbered(n):
    """START and then 2, 3, 4 …, so that a token says where it stood."""
    return corpus_of([START, *range(2, n + 1)])


def test_the_next_token_is_the_target():
    lanes = Lanes(numbered(103), 4, 5, seed=3)
    for _ in range(30):
        (inputs, targets), _ = lanes.next(CPU)
        assert inputs.shape == targets.shape == (5, 4)
        assert inputs.dtype == targets.dtype == torch.int64
        after = torch.where(inputs == START, 2, torch.where(inputs == 103, START, inputs + 1))
        assert torch.equal(targets, after)


def test_a_lane_goes_on_where_it_stopped_and_is_fresh_at_an_epoch_alone():
    lanes = Lanes(numbered(103), 4, 5, seed=3)
    assert lanes.per_epoch == 5
    last = None
    for i in range(15):
        (inputs, targets), fresh = lanes.next(CPU)
        assert fresh == (i % 5 == 0)
        if not fresh:
            assert torch.equal(inputs[0], last)
        last = targets[-1]


def test_the_first_epoch_walks_all_lanes_from_the_beginning():
    corpus = numbered(101)  # of 101 tokens, 4 lanes of 25
    lanes = Lanes(corpus, 4, 5, seed=0)
    seen = torch.cat([lanes.next(CPU)[0][0] for _ in range(5)])
    assert seen.T.flatten().tolist() == corpus.tokens[:100].tolist()


def test_epochs_begin_at_other_places_and_every_token_comes():
    corpus = numbered(101)
    lanes = Lanes(corpus, 4, 5, seed=0)
    first = []
    for _ in range(6):
        batches = [lanes.next(CPU)[0][0] for _ in range(lanes.per_epoch)]
        seen = torch.cat(batches).T.flatten().tolist()
        assert len(set(seen)) == 100, "an epoch reads no token twice"
        first.append(seen[0])
    assert len(set(first)) >= 5


def test_another_seed_begins_its_epochs_elsewhere():
    firsts = []
    for seed in range(3):
        lanes = Lanes(numbered(101), 4, 5, seed)
        firsts.append([int(lanes.next(CPU)[0][0][0, 0]) for _ in range(6 * lanes.per_epoch)])
    assert firsts[0][:5] == firsts[1][:5] == firsts[2][:5]
    assert firsts[0] != firsts[1] != firsts[2] != firsts[0]


def test_a_ring_goes_over_its_end():
    lanes = Lanes(numbered(20), 2, 10, seed=0)
    seen = set()
    for _ in range(12):
        (inputs, targets), _ = lanes.next(CPU)
        seen |= set(zip(inputs.flatten().tolist(), targets.flatten().tolist(), strict=True))
    assert (20, START) in seen, "the end is followed by the beginning"


@pytest.mark.parametrize("shares", [2, 3, 6])
def test_the_shares_of_all_processes_are_the_batch(shares):
    corpus, batch = numbered(200), 6
    all_rows = Lanes(corpus, batch, 7, seed=5)
    share = batch // shares
    parts = [Lanes(corpus, batch, 7, 5, slice(r * share, (r + 1) * share)) for r in range(shares)]
    assert {p.per_epoch for p in parts} == {all_rows.per_epoch}
    assert {p.batch_tokens for p in parts} == {all_rows.batch_tokens} == {42}
    for _ in range(12):
        (inputs, targets), fresh = all_rows.next(CPU)
        got = [p.next(CPU) for p in parts]
        assert torch.equal(inputs, torch.cat([g[0][0] for g in got], 1))
        assert torch.equal(targets, torch.cat([g[0][1] for g in got], 1))
        assert {g[1] for g in got} == {fresh}


@pytest.mark.parametrize("after", [0, 3, 5, 11])
def test_a_restored_place_goes_on_the_same(after):
    corpus = numbered(103)
    lanes, other = Lanes(corpus, 4, 5, seed=9), Lanes(corpus, 4, 5, seed=9)
    for _ in range(after):
        lanes.next(CPU)
    other.restore(json.loads(json.dumps(lanes.state())))
    for _ in range(8):
        ours, theirs = lanes.next(CPU), other.next(CPU)
        assert torch.equal(ours[0][0], theirs[0][0])
        assert torch.equal(ours[0][1], theirs[0][1])
        assert ours[1] == theirs[1]


def test_a_text_shorter_than_a_chunk_is_one_batch():
    lanes = Lanes(numbered(21), 2, 100, seed=0)
    (inputs, _), fresh = lanes.next(CPU)
    assert inputs.shape == (10, 2)
    assert fresh
    assert lanes.next(CPU)[1], "every batch is an epoch"
    assert lanes.batch_tokens == 20


# -- walking once


@quick
@given(
    n=st.integers(2, 120),
    lanes=st.integers(1, 20),
    chunk=st.integers(1, 40),
    warm=st.integers(0, 30),
)
def test_every_token_is_a_target_once(n, lanes, chunk, warm):
    corpus = numbered(n)
    counted, seen = [], []
    for inputs, targets in walk(corpus, lanes, chunk, warm):
        assert inputs.shape == targets.shape
        assert inputs.shape[0] <= chunk
        counts = targets != START
        # the input of a target is the token before it
        before = torch.where(targets == 2, START, targets - 1)
        assert torch.equal(inputs[counts], before[counts])
        counted += targets[counts].tolist()
        seen.append(inputs)
    assert sorted(counted) == list(range(2, n + 1))


@quick
@given(starts=st.lists(st.booleans(), min_size=1, max_size=60), lanes=st.integers(1, 7), chunk=st.integers(1, 11))
def test_starts_are_no_targets(starts, lanes, chunk):
    tokens = [START] + [START if s else i + 2 for i, s in enumerate(starts)]
    counted = [t for _, ts in walk(corpus_of(tokens), lanes, chunk, 4) for t in ts[ts != START].tolist()]
    assert sorted(counted) == [t for t in tokens if t != START]


@pytest.mark.parametrize("chunk", [1, 7, 50, 1000])
def test_one_lane_is_the_text_in_order(chunk):
    corpus = numbered(101)
    parts = list(walk(corpus, 1, chunk, warm=30))
    assert torch.cat([inputs for inputs, _ in parts]).flatten().tolist() == corpus.tokens[:-1].tolist()
    assert torch.cat([targets for _, targets in parts]).flatten().tolist() == corpus.tokens[1:].tolist()


def test_a_lane_comes_warm_to_its_first_target():
    """Before its first target each lane but the first has read the `warm` tokens that stand before it, in order."""
    warm, lanes = 6, 4
    parts = list(walk(numbered(81), lanes, 5, warm))
    inputs, targets = (torch.cat([p[i] for p in parts]) for i in (0, 1))
    for lane in range(1, lanes):
        first = int((targets[:, lane] != START).nonzero()[0])
        assert first == warm
        target = int(targets[first, lane])
        assert inputs[: first + 1, lane].tolist() == list(range(target - warm - 1, target))
