"""Recordings in the layouts that people have, and what is said of those that are broken."""

import gzip
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.audio import Recording, samples
from throughtime.tasks.recordings import layout_of, read_recordings
from throughtime.tasks.source import FrameFile

soundfile = pytest.importorskip("soundfile")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech"


def sound(path, seconds=0.5):
    """An audio file of noise, 16 bits at 8 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(len(path.name)).uniform(-0.1, 0.1, round(8000 * seconds))
    soundfile.write(path, values, 8000)
    return path


def laid(folder, files):
    """Files by their names: what stands in them; audio where it is a number of seconds."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, float):
            sound(path, content)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def read(path, **how):
    """The recordings, their paths as names in the folder, and what was said."""
    folder = path if path.is_dir() else path.parent
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = read_recordings(path, **how)
    assert all(one.audio.is_absolute() and one.audio.is_file() for one in found)
    shown = [
        one._replace(audio=os.path.relpath(one.audio, folder), place=one.place.replace(f"{folder}/", ""))
        for one in found
    ]
    return [tuple(one) for one in shown], [
        str(w.message).replace(f"{folder}/", "").replace(f"{folder}:", ":") for w in said
    ]


def refused(path, **how):
    with pytest.raises(UserError) as error, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read_recordings(path, **how)
    assert "\n" not in str(error.value)
    return str(error.value).replace(f"{path if path.is_dir() else path.parent}/", "")


def lines(*objects):
    return "".join(json.dumps(one) + "\n" for one in objects)


TWO = {"a.wav": 0.5, "clips/b.wav": 0.5}
OURS = lines(
    {"audio": "a.wav", "text": "YES", "speaker": "x", "seconds": 0.5}, {"audio": "clips/b.wav", "text": "", "label": 3}
)
NEMO = lines(
    {"audio_filepath": "a.wav", "text": "yes", "duration": 0.2, "offset": 0.1, "lang": "en"},
    {"audio_filepath": "b.wav", "text": None, "duration": 0.5},
)
VOICE = 'client_id\tpath\tsentence\tup_votes\nc1\tb.wav\tHe said "yes\t2\n'
LJ = "a.wav|Mr. Yes|Mister Yes\nclips/b.wav|No|No\n"


@pytest.mark.parametrize(
    ("name", "content", "how", "expected", "said"),
    [
        (
            "m.jsonl",
            OURS,
            {},
            [
                ("a.wav", "YES", "x", None, 0.0, 0.5, "m.jsonl:1"),
                ("clips/b.wav", "", None, "3", 0.0, None, "m.jsonl:2"),
            ],
            [],
        ),
        (
            "m",
            OURS,
            {},
            [("a.wav", "YES", "x", None, 0.0, 0.5, "m:1"), ("clips/b.wav", "", None, "3", 0.0, None, "m:2")],
            [],
        ),
        (
            "m.json",
            NEMO,
            {},
            [
                ("a.wav", "yes", None, None, 0.1, 0.2, "m.json:1"),
                ("clips/b.wav", None, None, None, 0.0, 0.5, "m.json:2"),
            ],
            [],
        ),
        (
            "m.jsonl.gz",
            gzip.compress(NEMO[: NEMO.index("\n")].encode(), mtime=0),
            {},
            [("a.wav", "yes", None, None, 0.1, 0.2, "m.jsonl.gz:1")],
            [],
        ),
        ("train.tsv", VOICE, {}, [("clips/b.wav", 'He said "yes', "c1", None, 0.0, None, "train.tsv:2")], []),
        (
            "m.csv",
            'file_name,transcription\n\na.wav,"Yes, yes"\n',
            {},
            [("a.wav", "Yes, yes", None, None, 0.0, None, "m.csv:3")],
            [],
        ),
        ("m.csv", "Path;Label;Speaker\na.wav;on;7\n", {}, [("a.wav", None, "7", "on", 0.0, None, "m.csv:2")], []),
        (
            "m.csv",
            "who,what,where,text\nx,yes,a.wav,0\n",
            {"audio": "where", "text": "2", "speaker": "who", "label": "text"},
            [("a.wav", "yes", "x", "0", 0.0, None, "m.csv:2")],
            [],
        ),
        (
            "m.txt",
            "a.wav|yes\n",
            {},
            [("a.wav", "yes", None, None, 0.0, None, "m.txt:1")],
            ["m.txt: column '1' is read as the audio, '2' as the text"],
        ),
        (
            "m.txt",
            LJ,
            {"text": "3"},
            [
                ("a.wav", "Mister Yes", None, None, 0.0, None, "m.txt:1"),
                ("clips/b.wav", "No", None, None, 0.0, None, "m.txt:2"),
            ],
            ["m.txt: column '1' is read as the audio"],
        ),
        (
            "m.csv",
            "sound,words\na.wav,yes\n",
            {},
            [("a.wav", "yes", None, None, 0.0, None, "m.csv:2")],
            ["m.csv: column 'sound' is read as the audio, 'words' as the text"],
        ),
        (
            "m.csv",
            "path,words\na.wav,yes\n",
            {},
            [("a.wav", None, None, None, 0.0, None, "m.csv:2")],
            ["m.csv: none of the columns 'words' is read as the text (--data.text-column names one)"],
        ),
        ("m.csv", "path\na.wav\n", {}, [("a.wav", None, None, None, 0.0, None, "m.csv:2")], []),
    ],
)
def test_manifests_and_tables(tmp_path, name, content, how, expected, said):
    laid(tmp_path, {**TWO, name: content})
    assert read(tmp_path / name, **how) == (expected, said)


@pytest.mark.parametrize("name", ["metadata.csv", "train.tsv"])
def test_a_folder_with_a_table(tmp_path, name):
    table = VOICE if name.endswith("tsv") else VOICE.replace("\t", ",").replace('"', "")
    laid(tmp_path, {**TWO, name: table})
    found, said = read(tmp_path)
    assert [one[:3] for one in found] == [
        ("clips/b.wav", 'He said "yes' if name.endswith("tsv") else "He said yes", "c1")
    ]
    assert said == ([] if name == "metadata.csv" else [": its recordings are those that train.tsv names"])
    assert layout_of(tmp_path) == ("table", tmp_path / name)
    laid(tmp_path, {"dev.tsv": VOICE, ".hidden.tsv": VOICE})
    if name == "train.tsv":
        assert refused(tmp_path) == f"{tmp_path}: holds several tables (dev.tsv, train.tsv); name one of them"
    else:
        assert len(read(tmp_path)[0]) == 1, "metadata.csv is the one"


KALDI = {
    "data/train/wav.scp": "r1 audio/a.wav\nr2 {folder}/b.wav\n",
    "data/train/text": "r1 YES  SIR\nr2\n",
    "data/train/utt2spk": "r1 s1\nr2 s2\n",
    "audio/a.wav": 1.0,
    "b.wav": 1.0,
}


def kaldi(folder, **more):
    files = {**KALDI, **{f"data/train/{name}": content for name, content in more.items()}}
    files = {
        n: c.replace("{folder}", str(folder)) if isinstance(c, str) else c for n, c in files.items() if c is not None
    }
    return laid(folder, files) / "data" / "train"


def test_a_folder_of_kaldi(tmp_path):
    folder = kaldi(tmp_path)
    assert layout_of(folder) == ("kaldi", folder)
    assert read(folder) == (
        [
            ("../../audio/a.wav", "YES  SIR", "s1", None, 0.0, None, "wav.scp:1"),
            ("../../b.wav", "", "s2", None, 0.0, None, "wav.scp:2"),
        ],
        [],
    )


def test_segments_of_kaldi(tmp_path):
    segments, text = "u1 r1 0.25 0.5\nu2 r1 0.5 -1\nu3 r2 0 1\n", "u1 YES\nu3 NO\nu4 GONE\nu5 GONE\n"
    found, said = read(kaldi(tmp_path, segments=segments, text=text, utt2spk=None))
    assert [(one[0], one[1], one[2], one[4], one[5], one[6]) for one in found] == [
        ("../../audio/a.wav", "YES", None, 0.25, 0.25, "segments:1"),
        ("../../audio/a.wav", None, None, 0.5, None, "segments:2"),
        ("../../b.wav", "NO", None, 0.0, 1.0, "segments:3"),
    ]
    assert said == ["text:3: no recording is of this name; 2 such are left out"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"wav.scp": "r1 sph2pipe -f wav a.sph |\n"},
            "wav.scp:1: 'sph2pipe -f wav a.sph |' is a command, which is not run; name a file",
        ),
        (
            {"wav.scp": "r1 audio/a.wav\nr1 audio/a.wav\n"},
            "wav.scp:2: 'r1' is there twice (wav.scp:1 too); take one out",
        ),
        ({"text": "r1 a\nr2 b\nr1 c\n"}, "text:3: 'r1' is there twice (text:1 too); take one out"),
        ({"wav.scp": "r1 audio/c.wav\n"}, "wav.scp:1: 'audio/c.wav': there is no such file in "),
        ({"wav.scp": "\n"}, ": names no recording; name one a line"),
        ({"segments": "u1 r3 0 1\n"}, "segments:1: 'r3' is not in wav.scp"),
        ({"segments": "u1\n"}, "segments:1: '' is not in wav.scp"),
        ({"segments": "u1 r1 0\n"}, "segments:1: 'r1 0'; a segment is a recording, where it begins and where it ends"),
        ({"segments": "u1 r1 0 x\n"}, "segments:1: 'end': got 'x'; it takes a number of seconds"),
        (
            {"segments": "u1 r1 0.5 0.5\n"},
            "segments:1: from 0.5 to 0.5 s; it takes 0 or more, and an end that is later",
        ),
        ({"segments": "u1 r1 1.5 2\n"}, "a.wav: begins at 1.5 s, and the file ends at 1 s; mend the offset"),
        (
            {"segments": "u1 r1 0.5 2\n"},
            "a.wav: ends at 2 s, and the file at 1 s; mend where it begins or how long it is",
        ),
    ],
)
def test_what_is_wrong_in_a_folder_of_kaldi(tmp_path, more, said):
    assert said in refused(kaldi(tmp_path, **more))


def test_a_command_is_never_run(tmp_path):
    folder = kaldi(tmp_path, **{"wav.scp": f"r1 touch {tmp_path}/run; cat {tmp_path}/b.wav |\n"})
    refused(folder)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_librispeech(tmp_path, monkeypatch):
    laid(
        tmp_path,
        {
            "84/121/84-121-0000.flac": 0.5,
            "84/121/84-121-0001.flac": 0.5,
            "84/121/84-121-0002.flac": 0.5,
            "84/121/84-121.trans.txt": "84-121-0001 NO\n84-121-0000 GO DO YOU HEAR\n",
            "9/7/9-7-0000.flac": 0.5,
            "9/7/9-7.trans.txt": "9-7-0000 YES\n",
            "SPEAKERS.TXT": "84 | F\n",
        },
    )
    expected = [
        ("84/121/84-121-0001.flac", "NO", "84", "84/121/84-121.trans.txt:1"),
        ("84/121/84-121-0000.flac", "GO DO YOU HEAR", "84", "84/121/84-121.trans.txt:2"),
        ("9/7/9-7-0000.flac", "YES", "9", "9/7/9-7.trans.txt:1"),
    ]
    found, said = read(tmp_path)
    assert [(*one[:3], one[6]) for one in found] == expected
    assert said == ["84/121/84-121-0002.flac: no transcript names this recording; it is left out"]
    assert layout_of(tmp_path).kind == "librispeech"
    assert [one[:3] for one in read(tmp_path / "9" / "7")[0]] == [("9-7-0000.flac", "YES", "9")]
    monkeypatch.chdir(tmp_path / "9" / "7")
    assert [one[1:3] for one in read_recordings(".")] == [("YES", "9")]
    laid(tmp_path, {"9/7/9-7.trans.txt": "9-7-0000 YES\n9-7-0001 NO\n"})
    assert refused(tmp_path) == "9/7/9-7.trans.txt:2: 9-7-0001: no audio of that name is beside it; take the line out"


def test_a_folder_of_audio_with_texts_beside(tmp_path):
    laid(
        tmp_path,
        {
            "b.WAV": 0.5,
            "a.wav": 0.5,
            "a.txt": "\ufeffyes\n  sir \n",
            "c/d.flac": 0.5,
            "c/d.TXT": "",
            "README.txt": "hi",
            ".x.wav": "no",
        },
    )
    found, said = read(tmp_path)
    assert [(one[0], one[1], one[6]) for one in found] == [
        ("a.wav", "yes sir", "a.wav"),
        ("b.WAV", None, "b.WAV"),
        ("c/d.flac", "", "c/d.flac"),
    ]
    assert said == ["README.txt: no recording is beside this text; it is left out"]
    assert layout_of(tmp_path) == ("folder", tmp_path)
    assert read(tmp_path / "a.wav") == ([("a.wav", "yes sir", None, None, 0.0, None, "a.wav")], [])
    assert read(tmp_path / "b.WAV") == ([("b.WAV", None, None, None, 0.0, None, "b.WAV")], [])
    assert layout_of(tmp_path / "b.WAV") == ("audio", tmp_path / "b.WAV")


def test_folders_and_files_that_hold_none(tmp_path):
    laid(tmp_path, {"e/readme.md": "hi", "t.txt": "one transcript\n"})
    assert "holds no audio (.wav, .flac, .ogg, .mp3, …), and no table (.jsonl, " in refused(tmp_path / "e")
    assert refused(tmp_path / "none.wav") == "none.wav: there is no such file"
    assert refused(tmp_path / "none.jsonl").startswith("none.jsonl: cannot read it: No such file")
    assert refused(tmp_path / "t.txt").startswith("t.txt: names no recording")


@pytest.mark.parametrize(
    ("name", "content", "how", "said"),
    [
        ("m.jsonl", '{"audio": "a.wav"}\n{"audio": "a.wav"\n', {}, "m.jsonl:2: not JSON: "),
        ("m.jsonl", '{"audio": "a.wav"}\n[1]\n', {}, "m.jsonl:2: an item is a JSON object, got list"),
        ("m.jsonl", lines({"audio": "a.wav"}, {"text": "b"}), {}, "m.jsonl:2: 'audio' names no audio file; name one"),
        ("m.jsonl", lines({"audio": "a.wav"}, {"audio": " "}), {}, "m.jsonl:2: 'audio' names no audio file; name one"),
        ("m.jsonl", lines({"audio": "a.wav"}, {"audio": "c.wav"}), {}, "m.jsonl:2: 'c.wav': there is no such file in "),
        ("m.jsonl", lines({"audio": "/no/c.wav"}), {}, "m.jsonl:1: '/no/c.wav': there is no such file; mend the path"),
        ("m.jsonl", lines({"audio": "x" * 5000}), {}, "there is no such file in"),
        (
            "m.jsonl",
            lines({"audio": {"path": "a.wav"}}),
            {},
            "m.jsonl:1: 'audio' holds a dict; it takes one text or number",
        ),
        ("m.jsonl", lines({"audio": "a.wav", "text": "\ud800"}), {}, "m.jsonl:1: 'text' holds half of a character"),
        (
            "m.jsonl",
            lines({"audio": "a.wav", "seconds": "long"}),
            {},
            "m.jsonl:1: 'seconds': got 'long'; it takes a number of seconds",
        ),
        ("m.jsonl", lines({"audio": "a.wav", "seconds": float("inf")}), {}, "m.jsonl:1: 'seconds': got 'Infinity'"),
        (
            "m.jsonl",
            lines({"audio": "a.wav", "duration": 0}),
            {},
            "m.jsonl:1: 'duration' is 0; it begins at 0 or later, and lasts more",
        ),
        ("m.jsonl", lines({"audio": "a.wav", "offset": -1}), {}, "m.jsonl:1: 'offset' is -1; it begins at 0 or later"),
        (
            "m.jsonl",
            lines({"audio": "a.wav", "offset": 7}),
            {},
            "a.wav: begins at 7 s, and the file ends at 0.5 s; mend the offset",
        ),
        (
            "m.jsonl",
            lines({"sound": 1, "words": "x"}),
            {},
            "m.jsonl:1: no column for the audio; there are 'sound', 'words': name one by --data.audio-column",
        ),
        ("m.csv", "x,y\na.wav,a.wav\n", {}, "m.csv:2: no column for the audio; there are 'x', 'y': name one by"),
        ("m.jsonl", "[]", {}, "m.jsonl: names no recording"),
        ("m.jsonl", "\n", {}, "m.jsonl: is empty"),
        ("m.csv", "path,text\n", {}, "m.csv: names no recording"),
        ("m.csv", "path,text\na.wav,b,c\n", {}, "m.csv:2: 3 fields, the first line has 2"),
        (
            "m.csv",
            "path,text\na.wav,b\n",
            {"text": "txet"},
            "--data.text-column: m.csv: unknown column 'txet'; did you mean 'text'?",
        ),
        ("m.csv", "path,text\na.wav,b\n", {"text": "3"}, "--data.text-column: m.csv: unknown column '3'"),
        (
            "m.csv",
            "path,text,text\na.wav,b,c\n",
            {},
            "m.csv:1: two columns are called 'text'; give each a name of its own",
        ),
        (
            "m.csv",
            "path,text\na.wav,caf\xe9\n".encode("latin-1"),
            {"option": "--"},
            "m.csv:2: byte 19 (0xe9) is not UTF-8; if it is Windows-1252",
        ),
        (".", "", {"text": "text"}, "--data.text-column: "),
    ],
)
def test_what_is_wrong_in_a_manifest(tmp_path, name, content, how, said):
    laid(tmp_path, TWO if name == "." else {**TWO, name: content})
    assert said in refused(tmp_path / name, **how)


def test_an_encoding_that_is_named(tmp_path):
    laid(tmp_path, {**TWO, "a.txt": "caf\xe9\n".encode("latin-1")})
    assert read(tmp_path / "a.wav", encoding="latin-1")[0][0][1] == "café"
    assert "a.txt:1: byte 3 (0xe9) is not UTF-8" in refused(tmp_path / "a.wav")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_is_a_table(tmp_path, library, monkeypatch):
    frames = pytest.importorskip(library)
    path = str(sound(tmp_path / "a.wav"))
    monkeypatch.chdir(tmp_path)
    frame = frames.DataFrame({"path": [path, "a.wav"], "text": ["yes, sir", "no"]})
    found = read_recordings(FrameFile(frame).write(tmp_path / "copy"))
    assert [(str(one.audio), one.text) for one in found] == [(path, "yes, sir"), (path, "no")]


@pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
def test_the_corpora_are_read_whole():
    for name, part, count, speakers in (("an4", "train", 835, 65), ("an4", "dev", 113, 9), ("fsdd", "dev", 250, 5)):
        found = read_recordings(DATA / name / f"{part}.jsonl")
        assert len(found) == count and len({one.speaker for one in found}) == speakers
        assert all(isinstance(one, Recording) and one.text and one.seconds for one in found)
        for one in found[::25]:
            whole = soundfile.read(one.audio, dtype="float32")[0]
            assert np.array_equal(samples(one, rate=8000 if name == "fsdd" else 16000), whole), "its length was rounded"
