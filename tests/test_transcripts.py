"""Transcripts as they are written are read back: nothing is lost, times are right, and each comes as soon as it is known."""

import html
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from throughtime.errors import UserError
from throughtime.tasks.transcripts import OF_ONE, WRITERS, Transcript, Word, ctm, json_lines, srt, text, vtt

quick = settings(max_examples=150, deadline=None)

GREETING = Transcript("in/a b.wav", [Word("HELLO", 0.5, 0.75, 0.9), Word("YOU", 0.8, 1.0004, 0.12345)], 0.25, 1.5)
SILENCE = Transcript("in/a b.wav", [], 1.5, 2.0)
LATER = Transcript("in/a b.wav", [Word("B&<B>", 3725.0, 3726.25, 1.0)], 3724.0, 3727.0)
ALL = [GREETING, SILENCE, LATER]


def test_text():
    assert list(text(ALL)) == ["HELLO YOU", "", "B&<B>"]


def test_json():
    first, second, third = map(json.loads, json_lines(ALL))
    assert first == {
        "audio": "in/a b.wav",
        "text": "HELLO YOU",
        "start": 0.25,
        "end": 1.5,
        "words": [
            {"word": "HELLO", "start": 0.5, "end": 0.75, "confidence": 0.9},
            {"word": "YOU", "start": 0.8, "end": 1.0, "confidence": 0.123},
        ],
    }
    assert (second["text"], second["words"]) == ("", [])
    assert third["words"][0]["start"] == 3725.0
    assert "é" in next(json_lines([Transcript("é.wav", [], 0, 1)]))


@pytest.mark.parametrize("name", WRITERS)
def test_numbers_of_numpy_are_written_as_others_are(name):
    numbers = map(np.float32, (0.5, 0.75, 0.9, 0.25, 1.5))
    start, end, confidence, begun, ended = numbers
    same = Transcript("in/a b.wav", [Word("HELLO", start, end, confidence)], begun, ended)
    assert list(WRITERS[name]([same])) == list(WRITERS[name]([GREETING._replace(words=GREETING.words[:1])]))


def test_ctm():
    assert list(ctm(ALL)) == [
        "a_b 1 0.500 0.250 HELLO 0.900",
        "a_b 1 0.800 0.200 YOU 0.123",
        "a_b 1 3725.000 1.250 B&<B> 1.000",
    ]


def test_captions():
    assert "\n".join(srt(ALL)) == (
        "1\n00:00:00,500 --> 00:00:01,000\nHELLO YOU\n\n2\n01:02:05,000 --> 01:02:06,250\nB&<B>\n"
    )
    assert "\n".join(vtt(ALL)) == (
        "WEBVTT\n\n00:00:00.500 --> 00:00:01.000\nHELLO YOU\n\n01:02:05.000 --> 01:02:06.250\nB&amp;&lt;B&gt;\n"
    )


def test_where_nothing_was_said():
    assert list(srt([SILENCE])) == list(ctm([SILENCE])) == []
    assert list(vtt([])) == list(vtt([SILENCE])) == ["WEBVTT\n"]


def read(name, blocks):
    """Captions as (lines, start, end) in seconds, from a file that these blocks make."""
    written = "".join(f"{block}\n" for block in blocks)
    point = {"srt": ",", "vtt": r"\."}[name]
    if name == "vtt":
        head, _, written = written.partition("\n\n")
        assert head == "WEBVTT"
    captions = []
    for number, block in enumerate(filter(None, written.split("\n\n")), 1):
        lines = block.strip("\n").split("\n")
        if name == "srt":
            assert lines.pop(0) == str(number)
        times = re.fullmatch(
            rf"(\d\d+):(\d\d):(\d\d){point}(\d{{3}}) --> (\d\d+):(\d\d):(\d\d){point}(\d{{3}})", lines[0]
        )
        h, m, s, ms, h2, m2, s2, ms2 = map(int, times.groups())
        assert max(m, s, m2, s2) < 60
        start, end = h * 3600 + m * 60 + s + ms / 1000, h2 * 3600 + m2 * 60 + s2 + ms2 / 1000
        assert start < end
        captions.append(([html.unescape(line) if name == "vtt" else line for line in lines[1:]], start, end))
    return captions


@st.composite
def recordings(draw):
    """Utterances one after another, of words of 1 to 42 letters, with pauses shorter and longer than a caption bears."""
    now, made = draw(st.sampled_from([0.0, 59.9995, 3599.5, 360000.0])), []
    for count in draw(st.lists(st.integers(0, 30), max_size=5)):
        begun, words = now, []
        for _ in range(count):
            now += draw(st.sampled_from([0.0, 0.03, 0.59, 0.63, 2.0]))
            length = draw(st.sampled_from([0.0, 0.09, 0.4567]))
            words.append(
                Word(
                    draw(st.sampled_from(["a", "b&", "it's", "twenty-one", "漢字" * 4, "x" * 41, "y" * 42])),
                    now,
                    now + length,
                    0.5,
                )
            )
            now += length
        now += 1
        made.append(Transcript("a.wav", words, begun, now))
    return made


@pytest.mark.parametrize("name", OF_ONE)
@quick
@given(recordings())
def test_captions_hold_every_word_at_its_time(name, transcripts):
    captions = read(name, WRITERS[name](transcripts))
    words = [word for transcript in transcripts for word in transcript.words]
    last = {transcript.words[-1].end for transcript in transcripts if transcript.words}
    for lines, start, end in captions:
        assert 1 <= len(lines) <= 2 and all(0 < len(line) <= 42 for line in lines)
        said = " ".join(lines).split(" ")
        own, words = words[: len(said)], words[len(said) :]
        assert [word.word for word in own] == said
        assert start == pytest.approx(own[0].start, abs=6e-4)
        assert end == pytest.approx(max(own[-1].end, own[0].start + 1e-3), abs=6e-4)
        assert all(b.start - a.end <= 0.6 for a, b in itertools.pairwise(own)), "a pause ends a caption"
        assert not any(word.end in last for word in own[:-1] if word.end < own[-1].start), "so does an utterance"
        if words and own[-1].end not in last and words[0].start - own[-1].end <= 0.6:
            line = lines[-1] if len(lines) == 2 else ""
            assert len(lines) == 2 and len(line) + 1 + len(words[0].word) > 42, (
                "nothing else ends one before it is full"
            )
    assert words == []


@pytest.mark.parametrize("name", OF_ONE)
def test_a_word_that_has_no_room_on_a_line_is_cut(name):
    (first, second) = read(name, WRITERS[name]([Transcript("a.wav", [Word("漢" * 100, 1.0, 2.0, 0.5)], 0, 3)]))
    assert first == (["漢" * 42, "漢" * 42], 1.0, pytest.approx(1.84))
    assert second == (["漢" * 16], pytest.approx(1.84), 2.0)


@pytest.mark.parametrize("name", WRITERS)
def test_each_transcript_is_written_as_soon_as_it_is_known(name):
    asked = []

    def known():
        for transcript in (GREETING, LATER):
            asked.append(transcript)
            yield transcript

    lines = WRITERS[name](known())
    first = next(line for line in lines if "HELLO" in line)
    assert first and asked == [GREETING]
    assert any("B&" in line for line in lines)


def test_captions_of_two_recordings_are_refused():
    other = GREETING._replace(audio="b.wav")
    for name in WRITERS:
        lines = WRITERS[name]([GREETING, other])
        if name in OF_ONE:
            with pytest.raises(
                UserError, match=r"b\.wav: captions are of one recording, and in/a b\.wav came before it"
            ):
                list(lines)
        else:
            list(lines)
