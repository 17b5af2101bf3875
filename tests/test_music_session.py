"""A session of music against whole passes and fresh sessions; travel in music; lines for a player."""

import io
import json
import random
import sys

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.errors import UserError
from throughtime.tasks.clock import seconds
from throughtime.tasks.composing import Follower
from throughtime.tasks.midi import write_midi
from throughtime.tasks.moments import KEYS, STOP
from throughtime.tasks.music_data import ALL, Stretches, Written
from throughtime.tasks.pieces import Metre, Piece, Tempo, Track, apart, notes_of
from throughtime.tasks.scores import read_pieces

pytestmark = pytest.mark.usefixtures("_one_thread")

CHORDS = ([48, 60, 64, 67], [43, 59, 62, 67], [45, 57, 60, 64], [41, 57, 60, 65], [], [50, 62], [64])
TUNES = """X:1
M:6/8
L:1/8
K:G
D|GAG B2d|edB d2B|AGA B2A|G3 G2:|
X:2
M:4/4
L:1/8
K:D
A2|d4 f4|[Ad]e2f2 [df]2 A2|z8|B2A2 F4|
X:3
M:4/4
L:1/8
K:C
c2e2 g2e2|f2d2 B2G2|[ce]4 [eg]4|c8|
"""
KINDS = {
    "frames": {"cell": "lstm", "layers": 2},
    "tunes": {"cell": "gru"},
    "tracks": {"cell": "elman"},
}  # fmt: skip


def chorale(rng, count):
    return [rng.choice(CHORDS) for _ in range(count)]


def band(rng):
    """Two instruments and drums, with a change of metre and of tempo."""
    rows = [(6 * i, rng.choice((3, 6, 12)), 48 + rng.choice((0, 4, 5, 7)), rng.choice((60, 90)), 0) for i in range(12)]
    rows += [(12 * i, 12, 72 + rng.choice((0, 2, 4)), 80, 1) for i in range(6)]
    rows += [(12 * i, 2, rng.choice((36, 38)), 100, 2) for i in range(6)]
    return Piece(
        notes_of(rows), 6, tracks=(Track(program=32), Track(program=73), Track(drums=True)),
        tempos=(Tempo(0, 100.0), Tempo(36, 140.0)), metres=(Metre(0, 3, 4), Metre(36, 2, 4)),
    )  # fmt: skip


def small(folder, data, steps=25, **model):
    """A model that has been trained for a moment."""
    rng = random.Random(1)
    if data == "frames":
        file = folder / "chorales.json"
        file.write_text(json.dumps({part: [chorale(rng, 20) for _ in range(4)] for part in ("train", "valid", "test")}))
    elif data == "tunes":
        file = folder / "tunes.abc"
        file.write_text(TUNES)
    else:
        file = folder / "midi"
        file.mkdir()
        for i in range(3):
            write_midi(band(rng), file / f"{i}.mid")
    sizes = {"hidden_size": 12, "chain_size": 8, "embedding_size": 8, **model}
    return tt.train(
        "music", [file], out=folder / "run", steps=steps, model=sizes, training={"learning_rate": 0.03}, progress=False
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory, _one_thread):
    return {kind: small(tmp_path_factory.mktemp(kind), kind, **model) for kind, model in KINDS.items()}


@pytest.fixture(params=KINDS)
def model(request, models):
    return models[request.param]


@pytest.fixture
def moments(model):
    """Of a piece of the data."""
    return opening(model)


def opening(model, number=0):
    given = model.run.folder.parent
    path = next(
        p for p in (given / "chorales.json", given / "tunes.abc", given / "midi" / f"{number}.mid") if p.exists()
    )
    pieces = read_pieces(path)
    return model.notation.opening(pieces[number % len(pieces)])


def parts(states):
    return [t for s in states for t in (s if isinstance(s, tuple) else (s,))]


def same(a, b):
    """Whether two sessions are at the same moment, to the bit."""
    pairs = [(a.output, b.output), *zip(parts(a.state), parts(b.state), strict=True)]
    return a.time == b.time and all(torch.equal(x, y) for x, y in pairs)


def same_throughout(a, b):
    """Whether two sessions have read the same, to the bit, at every time."""
    assert torch.equal(a.inputs(), b.inputs())
    a, b = a.branch(), b.branch()
    for t in range(len(a) + 1):
        a.rewind(t)
        b.rewind(t)
        if not same(a, b):
            return False
    return True


def fresh(model, moments):
    session = model.session()
    session.feed(moments)
    return session


def struck(model, moments):
    """The number of a moment that has notes, some way in."""
    found = [t for t, moment in enumerate(moments) if any(1 <= s <= KEYS for s in moment)]
    return found[2]


def refused(message, call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


# -- what it reads


def test_it_hears_and_expects_what_the_network_does(model, moments):
    session = model.session(snapshots=4)
    told = session.feed(moments)
    follower = Follower(model.notation)
    places = [follower.read(moment)[0] for moment in moments]
    batch = Stretches(model.notation, [Written.of_moments(moments, places, model.notation)], ALL, opening=True).batch(
        [0]
    )
    with torch.no_grad():
        wanted, heard = model.network.nats(batch)[:, 0], model.network.heard_before(batch)[:, 0]
    assert told == session.surprise()
    assert told == pytest.approx(wanted.tolist(), rel=1e-4, abs=1e-4)
    assert session.surprise(3, 5) == pytest.approx(told[3:5], abs=1e-5)
    for t in (len(moments) - 1, 0, 3, 1):
        session.rewind(t)
        torch.testing.assert_close(session.output, heard[t], rtol=1e-4, atol=1e-5)
    assert session.moments() == moments
    assert session.moments(2, 4) == moments[2:4]


def test_every_time_comes_back_to_the_bit(model, moments):
    wanted = [model.session()]
    for moment in moments:
        wanted.append(wanted[-1].branch())
        wanted[-1].feed(moment)
    session = model.session(snapshots=3)
    session.feed(moments)  # all at once, or one by one: the same bits
    order = list(range(len(moments) + 1))
    random.Random(0).shuffle(order)
    for t in order:
        session.rewind(t)
        assert same(session, wanted[t]), t


def test_what_is_read_is_a_piece(model):
    piece = read_pieces(model.run.folder.parent / "chorales.json")[0] if model.frames else None
    session = model.session()
    if piece is None:
        session.feed(opening(model))
        piece = model.notation.piece(opening(model))
    else:
        session.feed(piece)
    assert np.array_equal(session.piece.notes, piece.notes)
    session.rewind(0)
    assert not len(session.piece)


def test_notes_begin_where_what_was_read_ends(model, moments):
    session = fresh(model, moments[: struck(model, moments) + 1])
    before = session.piece
    session.feed("C4+E4 G4")
    piece, grid = session.piece, session.piece.resolution
    added = piece.notes[len(before) :]
    if model.frames:  # a key that stays is one note
        assert session.words[-2 * grid :] == ["C4 E4"] * grid + ["G4"] * grid
    else:
        assert np.array_equal(piece.notes[: len(before)], before.notes)
        assert [(n["start"] - before.ticks, n["duration"], n["pitch"]) for n in added] == [
            (0, grid, 60), (0, grid, 64), (grid, grid, 67)
        ]  # fmt: skip
        assert not any(piece.tracks[track].drums for track in added["track"])


def test_a_piece_goes_to_tracks_of_its_kind(models):
    session = fresh(models["tracks"], opening(models["tracks"])[:4])
    before = len(session.piece)
    rows = [(0, 6, 60, 90, 0), (0, 6, 67, 90, 1), (6, 3, 38, 90, 2), (6, 6, 62, 90, 3)]
    session.feed(Piece(notes_of(rows), 6, tracks=(Track(), Track(), Track(drums=True), Track())))
    piece = session.piece
    assert piece.notes["track"][before:].tolist() == [0, 1, 1, 2]
    assert [piece.tracks[t].program for t in (0, 1)] == [32, 73]
    assert piece.tracks[2].drums
    tune = fresh(models["tunes"], opening(models["tunes"])[:4])
    drums = Piece(notes_of([(0, 6, 38, 90, 0)]), 6, tracks=(Track(drums=True),))
    refused("no track of the piece so far has drums; leave them out", tune.feed, drums)


# -- changing the past


def test_an_edit_is_as_if_it_had_been_so(model, moments):
    t = struck(model, moments)
    for present in (len(moments), t + 1, t, 0):
        session = model.session(snapshots=5)
        session.feed(moments)
        session.rewind(present)
        session.edit(t, input="C3+F#3")
        assert session.time == present
        changed = session.moments()
        assert [i for i, (a, b) in enumerate(zip(moments, changed, strict=True)) if a != b] == [t]
        assert "C3 F#3" in session.words[t]
        assert same_throughout(session, fresh(model, changed)), "the keys before later moments are those of the change"
    assert not torch.equal(session.inputs(t + 1, t + 2), fresh(model, moments).inputs(t + 1, t + 2))
    session.edit(t, input=moments[t])
    assert same_throughout(session, fresh(model, moments))


def test_a_state_that_was_put_in_stays_there(model, moments):
    t = struck(model, moments)
    other = fresh(model, moments[:2])
    session = fresh(model, moments)
    session.edit(t + 2, state=other.state)
    session.edit(t, input="C3+F#3")
    session.rewind(t + 2)
    assert all(torch.equal(a, b) for a, b in zip(parts(session.state), parts(other.state), strict=True))


def test_moments_put_in_move_those_that_follow(models):
    model = models["frames"]
    moments = opening(model)
    for start, stop, count in ((5, 5, 3), (5, 7, 0), (2, 9, 4), (0, 1, 2)):
        session = fresh(model, moments)
        session.rewind(8)
        put = [(40, 44)] * count
        session.replace(start, stop, put)
        wanted = fresh(model, [*moments[:start], *put, *moments[stop:]])
        assert same_throughout(session, wanted), "places and bars follow"
        assert session.time == (8 + count - (stop - start) if stop <= 8 else start + min(8 - start, count))


def test_a_change_that_breaks_what_comes_later_is_refused(models):
    model = models["tunes"]
    moments = opening(model)
    t = struck(model, moments)
    session = fresh(model, moments)
    names = model.notation.names
    late = [s for s in moments[t] if not names[s].startswith(("place", "bar"))]
    for put in ([model.notation.symbol("place", 5), *late], [names.index(STOP)], [], [*moments[t], 3], [9999]):
        refused("moment ", session.edit, t, input=tuple(put))
    refused("cannot stand at its beginning", session.replace, t, t + 1, [moments[0]])
    refused("nothing would be left of it", session.edit, t, input="")
    refused("moment 2: C9 is on no key of a piano, 21 to 108", session.edit, 2, input="C4+C9")
    refused("moment 0: no key is struck there", session.edit, 0, input="C4")
    assert same_throughout(session, fresh(model, moments))


def test_drums_and_tracks_stay_where_keys_are_changed(models):
    model = models["tracks"]
    moments = opening(model)
    t = next(t for t, m in enumerate(moments) if sum(model.notation.notes()[s] for s in m) == 3)
    session = fresh(model, moments)
    before = session.piece.notes
    session.edit(t, input="D#3+F5")
    after = session.piece.notes
    changed = before != after
    assert changed.sum() == 2
    assert after[changed]["pitch"].tolist() == [51, 77]
    for name in ("start", "duration", "velocity", "track"):
        assert np.array_equal(before[name], after[name]), name


# -- to and fro by bars


def test_bars_are_taken_back(model):
    session = model.session()
    session.feed("C4 D4 E4 F4 G4 A4")
    session.write(3, seed=2)
    begun = session.bars()
    assert len(begun) == len(session) + 1
    assert begun == sorted(begun)
    whole = begun[-1]
    for bars in range(whole + 1):
        session.rewind(len(session))
        session.rewind(bars=bars)
        assert session.bars()[session.time] <= whole - bars
        assert session.time == len(session) or session.bars()[session.time + 1] > whole - bars
    assert session.time == (0 if model.frames else 1)
    refused("rewind: got 1 bars; 0 have begun", session.rewind, bars=1)
    refused("give t or bars=, just one of them", session.rewind)
    refused("rewind: bars is a whole number", session.rewind, bars=1.5)


def test_four_bars_of_frames_are_sixteen_quarters(models):
    session = models["frames"].session()
    session.feed("C4 D4")
    assert (len(session.bars()), session.bars()[-1]) == (3, 1)
    written = session.write(4, seed=1)
    assert session.time == 20, "the bar that has begun, and four"
    assert (written.ticks, written.upbeat) == (18, 2)
    session.rewind(bars=4)
    assert session.time == 4
    session.rewind(bars=1)
    assert session.time == 0


# -- writing


def test_it_writes_what_the_model_composes(model):
    for seed in range(3):
        composed = model.compose(bars=4, seed=seed, temperature=0.9, top_p=0.9)[0]
        session = model.session()
        session.write(4, seed=seed, temperature=0.9, top_p=0.9)
        assert session.moments() == composed.moments
        assert session.time == len(session) == len(composed.moments)
        assert same_throughout(session, fresh(model, composed.moments)), "it has read what it wrote"
    other = model.session()
    other.write(4, seed=7)
    assert other.moments() != session.moments()


def test_it_goes_on_from_the_present(model, moments):
    session = fresh(model, moments)
    kept = session.branch()
    session.rewind(struck(model, moments))
    past = session.moments(0, session.time)
    again = fresh(model, past)
    session.write(2, seed=3)
    again.write(2, seed=3)
    assert session.moments() == again.moments()
    assert session.moments()[: len(past)] == past
    assert session.bars()[-1] <= again.bars()[len(past)] + 2
    assert kept.moments() == moments


def test_what_was_written_is_a_piece_by_itself(model):
    session = model.session()
    session.write(3, seed=4)
    before, begin, bars = session.piece, session.time, session.bars()[-1]
    written = session.write(3, seed=5)
    whole = session.piece
    if model.frames:
        assert np.array_equal(written.notes, model.notation.piece(session.moments()[begin:]).notes)
        return
    new = whole.notes[len(before) :]
    assert len(new) == len(written)
    moved = new["start"].astype(int) - written.notes["start"]
    assert len(set(moved.tolist())) <= 1
    for name in ("duration", "pitch", "velocity", "track"):
        assert np.array_equal(new[name], written.notes[name]), name
    walker = model.notation.walker()
    for moment in session.moments()[:begin]:
        walker.read(moment)
    inside = not any(s == model.notation.symbol("bar") for s in session.moments()[begin])
    assert not len(new) or moved[0] == walker.line_of(bars - inside), "it begins with a bar"
    assert [t.program for t in written.tracks] == [t.program for t in whole.tracks][: len(written.tracks)]


def test_what_fails_leaves_all_as_it_was(model, moments):
    session = model.session(keep=len(moments) + 1)
    session.feed(moments)
    session.rewind(len(moments) - 3)
    kept = session.branch()
    refused(f"keeps all of a piece: {len(moments) + 1} moments", session.write, 60, seed=1)
    refused("keeps all of a piece", session.feed, moments[-1:] * 1000 if model.frames else "C4 D4 E4 F4 G4 A4 B4 C5")
    assert (session.time, len(session)) == (kept.time, len(kept)) == (len(moments) - 3, len(moments))
    assert same_throughout(session, kept)


def test_the_likeliest_moments_are_as_likely_as_it_says(model, moments):
    session = fresh(model, moments[: struck(model, moments)])
    found = session.next(6)
    assert [p for _, p in found] == sorted((p for _, p in found), reverse=True)
    assert len({words for words, _ in found}) == 6
    numbers = {name: i for i, name in enumerate(model.notation.names)}
    for words, p in found:
        if words == STOP:
            continue
        left, symbols = "" if words == "silence" else words, []
        while left:
            name = max((n for n in numbers if left == n or left.startswith(f"{n} ")), key=len)
            symbols.append(numbers[name])
            left = left[len(name) + 1 :]
        (nats,) = session.branch().feed(tuple(symbols))
        assert np.exp(-nats) == pytest.approx(p, rel=1e-3)
    drawn = [session.branch() for _ in range(20)]
    for seed, one in enumerate(drawn):
        one.write(1, seed=seed)
        if one.time > session.time or len(one) > session.time:
            assert np.exp(-one.surprise(session.time, session.time + 1)[0]) <= found[0][1] * 1.001


# -- comparing, saving


def test_two_ways_on_are_compared(model, moments):
    session = fresh(model, moments)
    other = session.branch()
    t = struck(model, moments)
    other.edit(t, input="C3+F#3")
    found = session.diff(other)
    assert found.parts == t + 1
    assert found.states[0][0] > 0
    assert session.surprise()[:t] == other.surprise()[:t]
    assert session.surprise()[t] != other.surprise()[t]


def test_it_goes_on_from_a_file(models, tmp_path):
    for kind, model in models.items():
        session = fresh(model, opening(model))
        session.rewind(4)
        session.save(tmp_path / kind)
        other = tt.Session.load(tt.load(model.run.folder), tmp_path / kind)
        assert same(session, other)
        assert other.moments() == session.moments()
        assert other.write(2, seed=1).notes.tolist() == session.write(2, seed=1).notes.tolist()
    message = "is a session of another network"
    refused(message, tt.Session.load, models["tunes"], tmp_path / "frames")


def test_bad_input_is_refused(models):
    session = models["frames"].session()
    session.feed("C4 D4")
    for message, call, arguments, options in (
        ("feed: 'h4' is no note; notes are given as C4 E4 G4", session.feed, ("C4 H4",), {}),
        ("feed: takes notes (C4 E4 G4), a Piece, or moments, got a float", session.feed, (1.5,), {}),
        ("feed: takes notes", session.feed, ([1, 2],), {}),
        ("feed: there is no note in it", session.feed, ("",), {}),
        ("feed: there is no note in it", session.feed, ([],), {}),
        ("moment 2: there is no symbol 89; they go from 0 to 88", session.feed, ((89,),), {}),
        ("moment 2: 'C4' cannot stand after 'E4'", session.feed, ((44, 40),), {}),
        ("edit: there is no moment 2; they go from 0 to 1", session.edit, (2,), {"input": "C4"}),
        ("edit: 'x' is no note", session.edit, (1,), {"input": "x"}),
        ("edit: give input= or state=, just one of them", session.edit, (1,), {}),
        ("replace: from 1 to 0 is backwards", session.replace, (1, 0, []), {}),
        ("rewind: there is no time 3; they go from 0 to 2", session.rewind, (3,), {}),
        ("next: got 0; at least 1", session.next, (0,), {}),
        ("bars: got 0", session.write, (0,), {}),
        ("temperature: got -1", session.write, (1,), {"temperature": -1}),
        ("top_p: got 2", session.write, (1,), {"top_p": 2}),
    ):  # fmt: skip
        refused(message, call, *arguments, **options)
    assert session.words == ["C4", "D4"]


@pytest.mark.parametrize("options", [{"kind": "transformer"}, {"cell": "none"}])
def test_a_network_without_a_state_has_no_session(options, tmp_path):
    model = small(tmp_path, "frames", steps=1, **options)
    refused("has no state to go back to; train one with another --model.cell", model.session)


# -- the command line


@pytest.fixture
def travel(capsys, monkeypatch):
    """Commands through a pipe: (exit code, stdout, stderr)."""
    from throughtime.cli import main

    def run(model, *arguments, commands=()):
        text = "".join(f"{line}\n" for line in commands)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        capsys.readouterr()
        code = main(["travel", str(model.run.folder), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_travel_does_what_a_session_does(models, travel, tmp_path):
    for kind, model in models.items():
        t = 2 if kind == "frames" else 3
        mid, kept = tmp_path / f"{kind}.mid", tmp_path / f"{kind}.session"
        commands = ["write 2", f"set {t} D4+F4", "diff", "futures 1", "write 1", f"save {mid}", f"save {kept}", f"save {kept}",
                    "back", "back 1", "go 1", "swap", "branch", "show", "help"]  # fmt: skip
        code, out, err = travel(model, "C4+E4 D4 G4 C5", "--json", commands=commands)
        assert (code, err) == (0, "")
        lines = [json.loads(line) for line in out.splitlines()]
        begun, wrote, changed, diff, futures, more, saved, _, _, *moves, swapped, branched, shown, helped = lines
        session = model.session()
        session.feed("C4+E4 D4 G4 C5")
        assert (begun["words"], begun["present"], begun["original"]) == (session.words, session.time, None)
        assert [tuple(pair) for pair in begun["next"]] == session.next(3)
        session.write(2, seed=0)
        assert (wrote["words"], wrote["bar"]) == (session.words, session.bars()[-1])
        other = session.branch()
        session.edit(t, input="D4+F4")
        assert (changed["words"], changed["original"]) == (session.words, other.words)
        assert [row["nats"] for row in diff["diff"]] == [
            list(pair) for pair in zip(other.surprise(), session.surprise(), strict=True)
        ]
        assert diff["diff"][t]["states"] == other.diff(session, [(t + 1, t + 1)]).states[0]
        for name, one in (("original", other), ("here", session)):
            assert futures["futures"][name]["nats"] == sum(one.surprise())
        end = session.time
        session.write(1, seed=1)
        assert more["words"] == session.words
        assert session.words[end:] == futures["futures"]["here"]["writes"], "what write then writes"
        assert saved == {"saved": str(mid)}
        (piece,) = read_pieces(mid)
        assert len(piece) == len(apart(session.piece.notes)[0])
        for move in moves[:2]:
            session.rewind(bars=1)
            assert (move["present"], move["words"]) == (session.time, more["words"])
        assert (moves[2]["present"], moves[2]["bar"]) == ((0 if kind == "frames" else 1), 0)
        assert (swapped["words"], swapped["original"]) == (other.words, more["words"])
        assert shown == branched
        assert branched["original"] == branched["words"] == other.words
        assert {"set T NOTES", "write [N]", "quit"} <= set(helped["help"])
        code, out, err = travel(
            model, "--session", kept, commands=["futures 1", "set 2 C3" if t == 2 else "set 3 C3", "diff"]
        )
        assert (code, err) == (0, "")
        assert f"bar {more['bar']} of {more['bars']}" in out
        assert "next: " in out and "writes" in out and "state 0" in out and "\x1b" not in out


def test_travel_refuses_what_cannot_be(models, travel, tmp_path):
    model = models["frames"]
    (tmp_path / "there.mid").write_text("x")
    for command, message in (
        ("wrote", "unknown command 'wrote'; did you mean 'write'?"),
        ("read", "read: FILE or NOTES is missing"),
        ("read x.mid", "read: 'x.mid' is no file and no note"),
        ("write x", "write: takes a number from 0 on, got 'x'"),
        ("write 0", "bars: got 0"),
        ("back 3", "rewind: got 3 bars; 2 have begun"),
        ("go 4", "go: there is no bar 4; they go from 1 to 2, and 3 is the end"),
        ("go 0", "go: there is no bar 0"),
        ("set x C4", "set: takes a number from 0 on, got 'x'"),
        ("set 7 C4", "edit: there is no moment 7; they go from 0 to 4"),
        ("swap", "there is no other future yet"),
        ("diff", "there is no other future yet"),
        ("save", "save: FILE is missing"),
        (f"save {tmp_path / 'there.mid'}", "there.mid is there already"),
        (f"save {tmp_path / 'no' / 'x.mid'}", "no is no folder; make it first"),
    ):
        code, out, err = travel(model, "C4 D4 E4 F4 G4", commands=["show", command, "show"])
        assert (code, err.count("\n")) == (2, 1), command
        assert err.startswith("throughtime: <stdin>:2: ")
        assert message in err
        assert out.count("bar 2 of 2") == 2, "nothing after it is done"
    assert (tmp_path / "there.mid").read_text() == "x"
    code, _, err = travel(model, commands=[f"save {tmp_path / 'new.mid'}"])
    assert code == 2
    assert "save: no note is read yet" in err
    code, _, err = travel(models["tunes"], "C4", commands=[f"save {tmp_path / 'new.json'}"])
    assert "save: " in err and "JSON holds frames" in err
    code, _, err = travel(model, "C4", "--tokens")
    assert "--tokens: a model of the task 'music' has no such option" in err


# -- lines for a player


def played(lines):
    """Notes of lines: start, end, pitch, track, velocity; checks that they are in order, and that nothing hangs."""
    sounding, found, last = {}, [], 0.0
    for line in lines:
        assert line["seconds"] >= last - 1e-9
        last = line["seconds"]
        for note in line.get("on", []):
            assert (note["track"], note["pitch"]) not in sounding
            sounding[note["track"], note["pitch"]] = line["seconds"], note["velocity"], note["program"]
        for note in line.get("off", []):
            start, velocity, program = sounding.pop((note["track"], note["pitch"]))
            found.append((start, line["seconds"], note["pitch"], note["track"], velocity, program))
    assert not sounding
    return sorted(found)


@pytest.mark.parametrize("options", [
    {"bars": 6}, {"seconds": 7.3}, {"bars": 4, "tempo": 77.0, "program": 40}, {"seconds": 5.0, "tempo": 150.0},
    {"bars": 8, "primer": "C4+E4 G4 D5"},
])  # fmt: skip
def test_lines_are_the_piece(model, options):
    asked = {name: value for name, value in options.items() if name != "primer"}
    primer = model.piece_of(options["primer"], "--primer") if "primer" in options else None
    for seed in range(2):
        (composed,) = model.compose(primer=primer, seed=seed, **asked)
        piece = composed.piece
        notes = apart(piece.notes)[0]
        times = seconds(Piece(notes, piece.resolution, tempos=piece.tempos))
        programs = [128 if track.drums else track.program for track in piece.tracks]
        wanted = sorted(
            (*time, int(n["pitch"]), int(n["track"]), int(n["velocity"]), programs[n["track"]])
            for time, n in zip(times.tolist(), notes, strict=True)
        )
        out = model.writing(1, {**options, "seed": seed}, json=False, tell=lambda _: None)
        found = played([json.loads(line) for line in out])
        assert [note[2:] for note in found] == [note[2:] for note in wanted]
        assert np.allclose([note[:2] for note in found], [note[:2] for note in wanted], atol=2e-6)


def test_lines_come_while_it_is_written(models, capsys):
    model = models["frames"]
    calls = []
    hook = model.network.stack.register_forward_hook(lambda *_: calls.append(None))
    try:
        lines = model.writing(1, {"bars": 16, "seed": 1, "primer": "C4"}, json=False, tell=lambda _: None)
        next(lines)
        first = len(calls)
        rest = list(lines)
    finally:
        hook.remove()
    assert (first, len(calls)) == (1, 64)
    assert len(rest) > 20
    nothing = model.writing(1, {"bars": 1, "primer": "C4 C4 C4 C4 C4"}, json=False, tell=lambda _: None)
    refused("primer: it is as long as what is asked, or longer", next, nothing)


def test_generate_writes_lines_and_files(models, tmp_path, capsys):
    from throughtime.cli import main

    for kind, model in models.items():
        mid = tmp_path / f"{kind}.mid"
        code = main(["generate", str(model.run.folder), "--bars", "4", "--seed", "3", "--out", "-", "--out", str(mid)])
        out, err = capsys.readouterr()
        assert code == 0
        found = played([json.loads(line) for line in out.splitlines()])
        assert len(found) == len(read_pieces(mid)[0]) > 0
        assert f"{mid}: {len(found)} notes" in err
        code = main(["generate", str(model.run.folder), "--bars", "2", "--seed", "3", "--samples", "2"])
        out, err = capsys.readouterr()
        assert code == 0
        told = [json.loads(line) for line in out.splitlines()]
        begins = [i for i in range(1, len(told)) if told[i]["seconds"] < told[i - 1]["seconds"]]
        assert len(begins) == 1, "one piece after the other"
        assert sum(len(played(part)) for part in (told[: begins[0]], told[begins[0] :])) > 1
        assert err.count("sample ") == 2
