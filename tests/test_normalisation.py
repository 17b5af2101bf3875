"""Transcripts are learned as asked, and what was changed is told whole."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.normalisation import Normal

quick = settings(max_examples=200, deadline=None)


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ("  two\tthree\n four\u00a0five ", "two three four five"),
        ("Cafe\u0301, He said.", "Café, He said."),
        ("<s> HELLO WORLD </s> (an406-fcaw-b)", "HELLO WORLD"),
        ("HELLO (an406-fcaw-b)\n", "HELLO"),
        ("[noise] so [door  slams] well <unk>", "so well"),
        ("[noise] [noise]", ""),
        # what is no tag
        ("five < six and seven > six", "five < six and seven > six"),
        ("five < six> seven [ six] [six ]", "five < six> seven [ six] [six ]"),
        ("he came (perhaps)", "he came (perhaps)"),
        ("(2nd) time", "(2nd) time"),
        ("a[1] <b>bold</b>", "a[1] <b>bold</b>"),
    ],
)
def test_by_default_white_space_and_tags_alone_change(text, learned):
    assert Normal()(text) == learned


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ("Hello,world! It's twenty-one.", "Hello world It's twenty one"),
        ("the dogs’ tails don’t wag", "the dogs tails don't wag"),
        ("rock 'n' roll", "rock n roll"),
        ("$5 and 50% of 3.5", "5 and 50 of 3 5"),
        ("« l’été » col·lega", "l'été col·lega"),
        ("हिन्दी, क्षि।", "हिन्दी क्षि"),
        ("می\u200cخواهم؟", "می\u200cخواهم"),
        ("\ufeffyes\u200b 🎈", "yes"),
        ("... -- !", ""),
        ("' a'", "a"),
        ("e\u0331't", "e\u0331't"),
    ],
)
def test_signs_are_dropped_but_within_words(text, learned):
    assert Normal(signs="drop")(text) == learned


def test_case():
    assert Normal(case="lower")("ÀB Straße") == "àb straße"
    assert Normal(case="upper")("àb Straße") == "ÀB STRASSE"
    assert Normal(case="keep")("àB") == "àB"


def test_tags_can_be_kept():
    assert Normal(tags="keep")("<s> [noise] (utt-1)") == "<s> [noise] (utt-1)"
    assert Normal(signs="drop", tags="keep")("[noise] OH") == "noise OH"


def test_what_was_changed_is_told():
    normal = Normal(case="lower", signs="drop")
    texts = ["yes", "Hello, World!", "[noise] don’t, (a-1)", "?!", "", "a  b", "<s> Oh, </s>", " "]
    learned, changes = normal.all(texts)
    assert learned == ["yes", "hello world", "don't", "", "", "a b", "oh", ""] == list(map(normal, texts))
    assert (changes.transcripts, changes.changed, changes.cased, changes.empty) == (8, 6, 2, 1)
    assert changes.signs == {",": 3, "!": 2, "?": 1}
    assert changes.tags == {"[noise]": 1, "(a-1)": 1, "<s>": 1, "</s>": 1}
    assert changes.apostrophes == 1
    assert changes.example == ("Hello, World!", "hello world")
    assert str(changes) == (
        "6 of 8 transcripts are changed before they are learned; the case of 2; signs dropped: , (3), ! (2), ? (1); tags "
        "dropped: (a-1) (1), [noise] (1), <s> (1), </s> (1); ’ written as ' 1 times; nothing is left of 1; 'Hello, World!' is "
        "learned as 'hello world'"
    )


def test_the_report_is_one_short_line():
    odd = ["".join(map(chr, range(0x21, 0x7F))), "[a\tb] \u200b", "c\nd"]
    _, changes = Normal(signs="drop").all(odd)
    report = str(changes)
    assert report.isprintable()
    assert "and 25 others" in report  # all of ASCII's 32 signs are here, and one that cannot be seen
    assert len(report) < 400
    assert "[a b] (1)" in report
    assert r"signs dropped: \u200b (1)" in str(Normal(signs="drop").all(["a\u200b"])[1])
    _, same = Normal(signs="drop").all(["a b", ""])
    assert str(same) == "2 transcripts are learned as they are"


@quick
@given(
    st.text(st.sampled_from("aÉe\u0301ß '’-.,<>[]()1\t\n\u200b\u200cİ"), max_size=30),
    st.builds(
        Normal,
        case=st.sampled_from(["keep", "lower", "upper"]),
        signs=st.sampled_from(["keep", "drop"]),
        tags=st.sampled_from(["keep", "drop"]),
    ),
)
def test_whatever_the_text(text, normal):
    (learned,), changes = normal.all([text])
    assert learned == " ".join(learned.split()) == unicodedata.normalize("NFC", learned)
    assert changes.changed == (learned != text)
    if normal.signs == "drop":
        for i, c in enumerate(learned):
            assert c.isalnum() or c in " '\u200c" or unicodedata.category(c)[0] == "M", (i, c)
    if normal.case != "keep":
        assert getattr(learned, normal.case)() == learned or "İ" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"case": "lowr"}, "unknown case of transcripts 'lowr'; did you mean 'lower'?"),
        ({"signs": "strip"}, "unknown signs of transcripts 'strip'; there are: drop, keep"),
        ({"tags": "Keep"}, "unknown tags of transcripts 'Keep'; did you mean 'keep'?"),
    ],
)
def test_what_is_not_known_is_refused(settings, message):
    with pytest.raises(UserError) as refused:
        Normal(**settings)
    assert str(refused.value) == message
