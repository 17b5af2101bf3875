"""Music: files of pieces to a model that scores them, is looked into, and writes new ones."""

from __future__ import annotations

import json
import math
import warnings
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.tasks import clock
from throughtime.tasks.midi import midi_bytes, read_midi
from throughtime.tasks.music_data import split
from throughtime.tasks.music_look import look
from throughtime.tasks.pieces import Key, Metre, Piece, Tempo, Track, groups, notes_of
from throughtime.tasks.scores import read_pieces
from throughtime.training.loop import Trainer

pytest.importorskip("symusic")
pytestmark = pytest.mark.usefixtures("_one_thread")
SMALL = {"hidden_size": 16, "chain_size": 8, "embedding_size": 8}
TINY = ("--steps", 1, "--model.hidden-size", 4, "--model.chain-size", 4, "--model.embedding-size", 4)


def chorale(seed, length=24):
    """Three voices that move by steps, over chords that stay for two frames."""
    rng = np.random.default_rng(seed)
    roots = 48 + np.repeat(rng.integers(0, 7, length // 2), 2)
    return [sorted({int(root), int(root) + 7, int(root) + 12 + 4 * (t % 2)}) for t, root in enumerate(roots)]


def tune(number, seed):
    """A tune of sixteen bars in ABC."""
    rng = np.random.default_rng(seed)
    bars = ["".join("CDEFGABc"[i] + rng.choice(["", "2"]) for i in rng.integers(0, 8, 4)) for _ in range(16)]
    return f"X:{number}\nT:Tune {number}\nM:6/8\nL:1/8\nQ:3/8=100\nK:{'GDC'[number % 3]}\n{'|'.join(bars)}|]\n"


def song(seed):
    """A melody, a bass and drums."""
    rng = np.random.default_rng(seed)
    rows = [(12 * t, 12, 60 + int(rng.integers(0, 12)), int(rng.integers(60, 90)), 0) for t in range(40)]
    rows += [(48 * t, 40, 40 + int(rng.integers(0, 7)), 70, 1) for t in range(10)]
    rows += [(24 * t, 6, 36 + 2 * (t % 2), 100, 2) for t in range(20)]
    tracks = (Track("melody", 40), Track("bass", 33), Track("drums", 0, True))
    return Piece(
        notes_of(rows), 24, tracks=tracks, tempos=(Tempo(0, 96.0),), metres=(Metre(0, 4, 4),), keys=(Key(0, 1),)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("music")
    parts = {"train": range(8), "valid": range(8, 10), "test": range(10, 13)}
    (folder / "chorales.json").write_text(
        json.dumps({p: [chorale(s) for s in numbers] for p, numbers in parts.items()})
    )
    (folder / "tunes.abc").write_text("\n".join(tune(i, i) for i in range(1, 9)))
    (folder / "songs").mkdir()
    for i in range(4):
        (folder / "songs" / f"{i}.mid").write_bytes(midi_bytes(song(i)))
    return folder


def trained(files, given, name, steps=30, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return tt.train(
            "music",
            [files / given],
            out=files / name,
            steps=steps,
            model=SMALL | more.pop("model", {}),
            progress=False,
            **more,
        )


@pytest.fixture(scope="module")
def frames(files, _one_thread):
    return trained(files, "chorales.json", "frames", training={"learning_rate": 0.01})


@pytest.fixture(scope="module")
def tunes(files, _one_thread):
    return trained(files, "tunes.abc", "of-tunes")


@pytest.fixture(scope="module")
def songs(files, _one_thread):
    return trained(files, "songs", "of-songs")


def call(*arguments, capsys):
    """A command line within this process: exit code, standard output, standard error."""
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        code = main([str(a) for a in arguments])
    return code, *capsys.readouterr()


def told(*arguments, capsys):
    """What a command that works writes."""
    code, out, err = call(*arguments, capsys=capsys)
    assert code == 0, err
    return out


def refused(*arguments, capsys):
    """The one line that a command ends with."""
    code, out, err = call(*arguments, capsys=capsys)
    assert code == 2 and out == "" and err.startswith("throughtime: ") and err.count("\n") == 1, err
    return err.removeprefix("throughtime: ").rstrip("\n")


# -- scores and answers


def test_frames_are_scored_beside_their_chains(frames, files, capsys):
    found = frames.evaluate(files / "chorales.json")
    assert list(found) == ["task", "pieces", "frames", "notes", "nats_per_frame", "nats_per_note", "chain", "markov"]
    assert (found["pieces"], found["frames"]) == (3, 3 * 23)  # the test part, the first frame not counted
    assert found["notes"] == sum(len(frame) for s in (10, 11, 12) for frame in chorale(s)[1:])
    assert found["nats_per_frame"] * found["frames"] == pytest.approx(found["nats_per_note"] * found["notes"])
    for name in ("chain", "markov"):
        rates = found[name]
        assert rates["nats_per_frame"] * found["frames"] == pytest.approx(rates["nats_per_note"] * found["notes"])
    out = told("evaluate", frames.run.folder, files / "chorales.json", "--json", capsys=capsys)
    assert json.loads(out) == found
    valid = json.loads(
        told("evaluate", frames.run.folder, files / "chorales.json", "--part", "valid", "--json", capsys=capsys)
    )
    assert valid["pieces"] == 2
    # as the training said of what was held out
    said = frames.run.scores()["scores"]
    assert valid["nats_per_frame"] == pytest.approx(said["nats_per_frame"], rel=1e-4)
    assert valid["chain"]["nats_per_note"] == pytest.approx(said["chain_nats_per_note"])
    assert valid["nats_per_frame"] < 12
    before = tt.load(frames.run.folder).evaluate(files / "chorales.json")
    assert before["nats_per_frame"] == pytest.approx(found["nats_per_frame"])


def test_the_markov_chain_knows_training_pieces_alone(frames, files):
    """As counted by hand, key by key."""
    data = json.loads((files / "chorales.json").read_text())

    def rolls(part):
        return [np.array([[p in frame for p in range(21, 109)] for frame in piece]) for piece in data[part]]

    counts = np.full((88, 2, 2), 0.5)
    for roll in rolls("train"):
        for key in range(88):
            for a, b in zip(roll[:-1, key], roll[1:, key], strict=True):
                counts[key, int(a), int(b)] += 1
    p = counts / counts.sum(2, keepdims=True)
    nats = -sum(
        math.log(p[key, int(a), int(b)])
        for roll in rolls("test") for key in range(88) for a, b in zip(roll[:-1, key], roll[1:, key], strict=True)
    )  # fmt: skip
    assert frames.evaluate(files / "chorales.json")["markov"]["nats_per_frame"] == pytest.approx(nats / 69)


def test_events_are_scored_by_their_notes(tunes, songs, files):
    found = tunes.evaluate(files / "tunes.abc")
    assert list(found) == ["task", "pieces", "notes", "nats_per_note", "chain"] and list(found["chain"]) == [
        "nats_per_note"
    ]
    assert found["pieces"] == 8 and found["notes"] == sum(map(len, read_pieces(files / "tunes.abc")))
    assert songs.evaluate(files / "songs")["notes"] == 4 * 70


def test_answers_name_what_surprises(frames, tunes, songs, files, capsys):
    for model, given in ((frames, "chorales.json"), (tunes, "tunes.abc"), (songs, "songs/0.mid")):
        answers = list(model.predict(files / given))
        for answer in answers:
            assert list(answer) == ["piece", "place", "notes", "nats", "nats_per_note", "surprising"]
            costs = [row["nats"] for row in answer["surprising"]]
            assert (
                costs == sorted(costs, reverse=True) and len(costs) == answer["notes"] and sum(costs) <= answer["nats"]
            )
        lines = told("predict", model.run.folder, files / given, capsys=capsys).splitlines()
        first = answers[0]
        row = first["surprising"][0]
        name = first["piece"] or first["place"]
        assert lines[0].startswith(
            f"{first['nats_per_note']:.4f}\t{name}\t{row['key']} in bar {row['bar']} ({row['nats']:.1f}), "
        )
        rows = [
            json.loads(x)
            for x in told("predict", model.run.folder, files / given, "--json", capsys=capsys).splitlines()
        ]
        assert len(rows) == len(lines) == len(answers) and rows[0]["surprising"] == first["surprising"]
    total = sum(a["nats"] for a in tunes.predict(files / "tunes.abc"))
    assert total == pytest.approx(
        (found := tunes.evaluate(files / "tunes.abc"))["nats_per_note"] * found["notes"], rel=1e-5
    )
    whole = list(songs.predict(files / "songs"))
    assert {answer["notes"] for answer in whole} == {70}  # with the drums
    assert any(row["key"] == "drum 36" for row in whole[0]["surprising"])
    assert sum(a["notes"] for a in whole) == songs.evaluate(files / "songs")["notes"]


def test_a_surprise_is_where_the_note_stands(frames):
    """Of frames with one odd key, which is named with its bar and its place."""
    odd = [chorale(10) for _ in range(2)]
    odd[1] = [*odd[1][:9], [23, 105], *odd[1][10:]]
    from throughtime.tasks.rolls import of_frames

    answer = next(frames.predict([of_frames(odd[1])]))
    worst = {(row["bar"], row["place"], row["key"]) for row in answer["surprising"][:2]}
    assert (3, 1, "B1") in worst or (3, 1, "A7") in worst
    assert {row["bar"] for row in answer["surprising"]} == {1, 2, 3, 4, 5, 6}


# -- what is written


def test_a_piece_is_put_into_every_kind_of_file(frames, tunes, songs, tmp_path, capsys):
    for name, model in (("frames", frames), ("tunes", tunes), ("songs", songs)):
        kinds = ["mid", "wav", "png", "abc", *(["json"] if name == "frames" else [])]
        paths = [tmp_path / f"{name}.{kind}" for kind in kinds]
        outs = [x for path in paths for x in ("--out", path)]
        code, out, err = call(
            "generate", model.run.folder, *outs, "--bars", 3, "--seed", 4, "--primer", "C4+E4 G4", capsys=capsys
        )
        assert code == 0 and out == "" and ", ".join(map(str, paths)) in err and "nats a note; " in err
        made = read_midi(tmp_path / f"{name}.mid")
        with wave.open(str(tmp_path / f"{name}.wav")) as sound:
            assert sound.getnframes() / sound.getframerate() >= clock.seconds(made).max() - 0.1
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert len(read_pieces(tmp_path / f"{name}.abc")[0]) > 0
        first = [int(p) for p in made.notes["pitch"][made.notes["start"] == 0]]
        assert sorted(first)[-2:] == [60, 64] or {60, 64} <= {*first}
        if name == "frames":
            rolls = json.loads((tmp_path / "frames.json").read_text())
            assert len(rolls) == 1 and len(rolls[0]) == 12 and rolls[0][:2] == [[60, 64], [67]]
        again = [tmp_path / f"again.{kind}" for kind in kinds]
        outs = [x for path in again for x in ("--out", path)]
        told(
            "generate",
            model.run.folder,
            *outs,
            "--bars",
            3,
            "--seed",
            4,
            "--primer",
            "C4+E4 G4",
            "--overwrite",
            capsys=capsys,
        )
        for one, other in zip(paths, again, strict=True):
            assert one.suffix == ".png" or one.read_bytes() == other.read_bytes()


def test_several_are_told_the_likeliest_first(frames, tmp_path, capsys):
    asked = ("--out", tmp_path / "x.mid", "--samples", 4, "--bars", 2, "--seed", 1, "--json")
    out = told("generate", frames.run.folder, *asked, capsys=capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["files"] for row in rows] == [[str(tmp_path / f"x-{i}.mid")] for i in (1, 2, 3, 4)]
    costs = [row["nats_per_note"] for row in rows]
    assert costs == sorted(costs) and len(set(costs)) == 4
    for row in rows:
        assert list(row) == ["files", "notes", "seconds", "nats_per_note", "copied", "in_common", "histograms"]
        assert [len(row["histograms"][name]) for name in ("pitch_classes", "intervals")] == [12, 25]
        assert len(read_midi(Path(row["files"][0]))) == row["notes"] and row["seconds"] == pytest.approx(8 * 0.6)
    assert len({Path(row["files"][0]).read_bytes() for row in rows}) == 4


def test_notes_are_written_as_lines(tunes, capsys):
    code, out, err = call("generate", tunes.run.folder, "--bars", 4, "--seed", 2, capsys=capsys)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and err.startswith("sample 1: ")
    struck = [note["pitch"] for event in events for note in event.get("on", [])]
    let_go = [note["pitch"] for event in events for note in event.get("off", [])]
    assert sorted(struck) == sorted(let_go) and len(struck) == int(err.split(" ")[2])
    seconds = [event["seconds"] for event in events]
    assert seconds == sorted(seconds)
    assert told("generate", tunes.run.folder, "--bars", 4, "--seed", 2, "--out", "-", capsys=capsys) == out
    assert told("generate", tunes.run.folder, "--bars", 4, "--seed", 3, capsys=capsys) != out


def test_what_is_asked_is_heard(frames, tunes, songs, tmp_path):
    for model in (frames, tunes, songs):
        for seconds in (2.5, 7.0):
            piece = model.compose(seconds=seconds, seed=1)[0].piece
            assert float(clock.seconds_at(piece, piece.ticks)) == pytest.approx(seconds, abs=0.6)
            fast = model.compose(seconds=seconds, tempo=240.0, seed=1)[0].piece
            assert [t.quarters for t in fast.tempos] == [240.0]
            assert float(clock.seconds_at(fast, fast.ticks)) == pytest.approx(seconds, abs=0.13)
    assert len(clock.bars(tunes.compose(bars=5, seed=1)[0].piece)) <= 5
    assert tunes.compose(bars=1, key=" D ", seed=1)[0].piece.keys == (Key(0, 2),)
    assert {t.program for t in songs.compose(bars=2, program=7, seed=1)[0].piece.tracks if not t.drums} <= {7}
    sure = [frames.compose(bars=4, temperature=0.0)[0] for _ in range(2)]
    assert np.array_equal(sure[0].piece.notes, sure[1].piece.notes)
    one = [frames.compose(bars=4, top_k=1, seed=s)[0].piece.notes for s in (1, 2)]
    assert np.array_equal(one[0], sure[0].piece.notes) and np.array_equal(*one)
    assert frames.compose(seed=1)[0].piece.length == 64  # 16 bars of four
    assert frames.network.training is False


def test_a_primer_comes_first(frames, tunes, files):
    primer = read_pieces(files / "tunes.abc")[2]
    composed = tunes.compose(1, primer, bars=18, seed=1)[0]
    piece = composed.piece
    scale = piece.resolution / primer.resolution
    own = [(round(s * scale), round(d * scale), p) for s, d, p, *_ in primer.notes.tolist()]
    assert [tuple(note)[:3] for note in piece.notes.tolist()][: len(own)] == own
    assert len(piece) > len(own) and composed.read == len(own) + 1
    assert piece.metres[0] == Metre(0, 6, 8) and piece.keys == primer.keys
    with pytest.raises(UserError, match=r"^primer: it is as long as what is asked, or longer; "):
        tunes.compose(1, primer, seconds=3.0)
    # the nats are those of what the model wrote
    assert composed.nats * sum(p.start >= own[-1][0] + 1 for p in piece.notes.view(np.recarray)) > 0


def test_what_is_copied_is_said(tunes, files, tmp_path, capsys):
    first = tmp_path / "one.abc"
    first.write_text(tune(3, 3))
    out = told("generate", tunes.run.folder, "--primer", first, "--bars", 17, "--seed", 1, "--json", capsys=capsys)
    values = json.loads(out)
    assert values["copied"] > 0.8
    heard = json.loads((tunes.run.folder / "likeness.json").read_text())
    for name, own in values["histograms"].items():
        assert sum(own) == pytest.approx(1) and sum(heard[name]) == pytest.approx(1)
        assert values["in_common"][name] == pytest.approx(sum(map(min, own, heard[name])))
    # a piece that was held out is no training piece
    shapes = [tunes.compose(1, p, bars=17, seed=1)[0] for p in read_pieces(files / "tunes.abc")]
    from throughtime.tasks.likeness import Grams

    shares = [Grams.open(tunes.run.folder / "grams.npy").copied(p) for p in read_pieces(files / "tunes.abc")]
    assert shares.count(1.0) == 7 and min(shares) < 0.5 and len(shapes) == 8


# -- what is held out


def test_transposed_copies_never_straddle():
    pieces = [song(i % 6).transposed(n) for i, n in enumerate([0, 0, 0, 0, 0, 0, 2, -3, 5, 1, 1, 4, 7])]
    numbers = groups(pieces)
    for seed in range(12):
        with pytest.warns(
            UserWarning, match=r"^7 pieces are copies of others, some transposed: held out together with"
        ):
            train, held = split(pieces, 0.2, seed, Path("x"))
        own = [[groups([*pieces, piece])[-1] for piece in part] for part in (train, held)]
        assert not {*own[0]} & {*own[1]} and sorted([*own[0], *own[1]]) == sorted(numbers)
        assert held and 0.1 <= len(held) / len(pieces) <= 0.4 and {piece.part for piece in held} == {"valid"}


def test_a_file_without_a_part_to_hold_out_is_drawn_from():
    from dataclasses import replace

    pieces = [replace(song(i), part="test" if i > 4 else "train") for i in range(8)]
    train, held = split(pieces, 0.2, 0, Path("x"))
    assert len(held) == 1 and len(train) == 4 and {piece.part for piece in train} == {"train"}
    divided = [*pieces, replace(song(9), part="valid")]
    assert split(divided, 0.2, 0, Path("x")) == (divided, divided[-1:])
    with pytest.raises(UserError, match=r"^x: holds no piece to train on; at least two are needed"):
        split(pieces[5:], 0.2, 0, Path("x"))


# -- training


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ("chorales.json", {"model": {"kind": "transformer"}}),
        ("tunes.abc", {"model": {"cell": "none"}}),
        ("songs", {"model": {"kind": "transformer", "dropout": 0.2}, "training": {"chunk": 10}}),
        ("songs", {"data": {"writing": "frames", "transpose": 0}, "model": {"cell": "gru", "layers": 2}}),
        ("chorales.json", {"data": {"writing": "events"}}),
    ],
)
def test_other_networks_and_ways_of_writing_train_too(given, more, files, tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = {"model": SMALL | more.get("model", {})}
        model = tt.train("music", [files / given], out=tmp_path / "run", steps=6, progress=False, **more | network)
        found = tt.load(tmp_path / "run").evaluate(files / given)
    assert math.isfinite(found["nats_per_note"]) and ("markov" in found) == (model.notation.kind == "frames")
    assert model.compose(bars=2, seed=1)[0].read == 0
    losses = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(row["loss"]) for row in losses if "loss" in row)


def test_what_is_cut_off_goes_on_where_it_was(files, tmp_path, monkeypatch):
    """With all that is drawn: the order, transpositions, dropout."""
    options = {"steps": 6, "model": SMALL, "training": {"batch_size": 3, "chunk": 12}, "progress": False}
    tt.train("music", [files / "chorales.json"], out=tmp_path / "whole", **options)
    original = Trainer._one_step

    def stopping(self, stop):
        if self.step == 3:
            stop.set()
        return original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            tt.train("music", [files / "chorales.json"], out=tmp_path / "cut", **options)
    tt.train("music", out=tmp_path / "cut", resume=True, progress=False)
    for name in ("model.safetensors", "chains.safetensors", "grams.npy"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


# -- looking inside


@pytest.mark.parametrize("name", ["frames", "tunes", "songs"])
def test_a_moment_taken_away_changes_only_later_ones(name, request, files):
    model = request.getfixturevalue(name)
    item = read_pieces(next(iter(files.glob({"frames": "*.json", "tunes": "*.abc", "songs": "songs"}[name]))))[0]
    written = model._written(item)
    found = look(model, written)
    with torch.no_grad():
        before = found.score(found.batch)
        assert float(-before.sum()) == pytest.approx(next(model.predict([item]))["nats"], rel=1e-5)
        for i in (1, 5, 9):
            after = found.score(found.without(i))
            assert torch.allclose(after[:i], before[:i], atol=1e-6)  # row t is of moment t + 1
            assert not torch.allclose(after[i], before[i], atol=1e-6)
    assert found.without(0) is None
    assert len(found.inputs.labels) == len(written) and len(found.outputs.labels) == len(written) - 1


def test_inspect_draws_a_page(frames, songs, files, tmp_path, capsys):
    for model, given in ((frames, "chorales.json"), (songs, "songs/0.mid")):
        page = tmp_path / f"{model.run.folder.name}.html"
        told("inspect", model.run.folder, files / given, "--out", page, capsys=capsys)
        assert page.stat().st_size > 10_000


# -- what is refused


MIDI = midi_bytes(song(0))
KINDS = ".abc, .json, .mid, .midi, .png, .wav"
NOTES = "notes are given as C4 E4 G4, those at once as C4+E4"
LONG = "primer: it is as long as what is asked, or longer; ask for more bars, or give a shorter one"
DRUMS = midi_bytes(Piece(notes_of([(0, 10, 36, 80, 0)]), 24, tracks=(Track(drums=True),)))
LOW = midi_bytes(Piece(notes_of([(0, 10, 5, 80, 0)]), 24))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.mid", b"", "x.mid: is empty; copy it again, or take it out"),
        ("x.mid", MIDI[:60], "x.mid: is damaged or cut off: from byte 14 on it is to hold 358, and holds 38; copy it again"),
        ("x.mid", DRUMS, "x.mid: has drums alone; pitches are what is learned: take it out"),
        ("x.mid", LOW, "x.mid: no note is on a key of a piano, 21 to 108 (the first is 5); move it by octaves, or take it out"),
        ("x.mid", MIDI, "x.mid: holds one piece; at least two are needed, one of them held out: add some, or give --valid"),
        (
            "x.abc",
            b"X:1\nT:A\nM:4/4\nCDEF|\n",
            "x.abc:1: there is no key; write one before the notes, K:G say: this tune is left out",
        ),
        ("x.json", b'[[[60, "C"]]]', "x.json: piece 1, frame 1: got \"C\"; a pitch is a whole number from 0 to 127"),
        (
            "x.json",
            b"[[[15], [16]], [[60]]]",
            "x.json: piece 1: no note is on a key of a piano, 21 to 108 (the first is 15); move it by octaves, or take it out",
        ),
        ("x.json", b"[[[60]], [[61], [62]]]", "x.json: piece 1: no piece held out has two moments; add longer ones"),
        (
            "x.json",
            b'{"train": [[[60], [62]]], "test": [[[60], [62]]]}',
            "x.json: holds one piece; at least two are needed, one of them held out: add some, or give --valid",
        ),
        (
            "x.json",
            b'{"test": [[[60], [62]]], "valid": [[[60], [62]]]}',
            "x.json: test, piece 1: no piece is of the part 'train'; add one, or name another file",
        ),
        (
            "x.json",
            b"[[[60], [62]], [[62], [64]]]",
            "x.json: holds 2 copies of one piece; at least two are needed, one of them held out: add some, or give --valid",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_named(name, content, message, tmp_path, capsys):
    (tmp_path / name).write_bytes(content)
    said = refused("train", "music", tmp_path / name, "--out", tmp_path / "run", *TINY, "--quiet", capsys=capsys)
    assert said.replace(f"{tmp_path}/", "") == message
    assert not (tmp_path / "run").exists()


def test_settings_that_cannot_be_are_named(files, tmp_path, capsys):
    start = ("train", "music", files / "chorales.json", "--out", tmp_path / "run", *TINY, "--quiet")
    assert (
        refused(*start, "--model.cell", "lstmm", capsys=capsys)
        == "model.cell: unknown cell 'lstmm'; did you mean 'lstm'?"
    )
    said = refused(*start, "--model.cell", "none", "--model.kind", "transformer", capsys=capsys)
    assert said == "model.cell: none remembers nothing, and a transformer does; leave one of them out"


@pytest.mark.parametrize(
    ("run", "asked", "message"),
    [
        ("frames", ("--out", "x.foo"), f"--out: x.foo: unknown kind of file '.foo'; there are: {KINDS}"),
        ("frames", ("--out", "x.mdi"), "--out: x.mdi: unknown kind of file '.mdi'; did you mean '.midi'?"),
        ("tunes", ("--out", "x.json"), "--out: x.json: JSON holds frames, and this model writes notes; use .mid or .abc"),
        ("frames", ("--out", "no/x.mid"), "--out: no is no folder; make it first"),
        ("frames", ("--bars", 2, "--seconds", 3), "--seconds: --bars says how long it is to be; leave one of them out"),
        ("frames", ("--key", "C"), "--key: this model was not told the keys of its pieces; leave it out"),
        ("frames", ("--soundfont", "x.sf2"), "--soundfont: only a .wav is played with it; name one with --out, or leave it out"),
        ("tunes", ("--key", "c mjor"), "--key: unknown key 'c mjor'; there are: a, ab, b, bb, c, d, db, e, eb, f, f#, g"),
        ("tunes", ("--key", "C", "--primer", "C4"), "--key: the primer says in which key; leave one of them out"),
        ("frames", ("--primer", "C4 " * 9, "--bars", 2), LONG),
        ("frames", ("--primer", "C4 " * 200, "--bars", 2), LONG),
        ("frames", ("--primer", "C4 H4"), f"--primer: 'h4' is no file and no note; {NOTES}"),
        ("frames", ("--primer", ""), f"--primer: is empty; {NOTES}"),
        ("frames", ("--samples", 0), "--samples: got 0; at least 1"),
        ("frames", ("--bars", 0), "--bars: got 0; input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_said_at_once(run, asked, message, request, capsys):
    model = request.getfixturevalue(run)
    assert refused("generate", model.run.folder, *asked, capsys=capsys) == message


def test_nothing_is_overwritten_and_a_primer_is_one_piece(frames, tunes, files, tmp_path, capsys):
    there = tmp_path / "x.mid"
    there.write_bytes(b"mine")
    other = tmp_path / "x.wav"
    said = refused("generate", frames.run.folder, "--out", other, "--out", there, "--bars", 1, capsys=capsys)
    assert said == f"--out: {there} is there already; use --overwrite, or name another"
    assert there.read_bytes() == b"mine" and not other.exists()
    told("generate", frames.run.folder, "--out", there, "--bars", 1, "--overwrite", "--seed", 1, capsys=capsys)
    assert there.read_bytes().startswith(b"MThd")
    said = refused("generate", tunes.run.folder, "--primer", files / "tunes.abc", capsys=capsys)
    assert said == f"--primer: {files / 'tunes.abc'} holds 8 pieces; name a file of one"


def test_a_piece_too_short_to_score_is_named(frames, tmp_path, capsys):
    (tmp_path / "x.json").write_text("[[[60]]]")
    said = refused("evaluate", frames.run.folder, tmp_path / "x.json", capsys=capsys)
    assert said == f"{tmp_path / 'x.json'}: piece 1: the piece has less than two moments; give a longer one"
