"""The network that writes music: exact probabilities, no look ahead, and step by step what it is at once."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from throughtime.errors import UserError
from throughtime.models.composer import NOW, Composer, Grammar
from throughtime.tasks import clock
from throughtime.tasks.composing import Composing, Extent, Taste, finished, moments_of
from throughtime.tasks.event_values import Values
from throughtime.tasks.event_writing import EventWriting
from throughtime.tasks.frame_writing import FrameWriting
from throughtime.tasks.midi import midi_bytes, read_midi
from throughtime.tasks.moments import KEYS
from throughtime.tasks.music_data import ALL, PHRASE, Stretches, Written, keys_before, side_by_side
from throughtime.tasks.pieces import Key, Metre, Piece, Tempo, Track, apart, notes_of

pytestmark = pytest.mark.usefixtures("_one_thread")
VALUES = Values(
    metres=((3, 4), (4, 4)),
    keys=((0, "major"), (1, "minor")),
    tempos=(90.0, 120.0),
    velocities=(40, 90),
    programs=(0, 40, 128),
    drums=(36, 38),
    tracks=3,
)
WRITINGS = {"frames": FrameWriting(1), "events": EventWriting(2, VALUES), "plain": EventWriting(2, Values())}
CELLS = {"lstm": {}, "elman": {}, "none": {}, "gru": {"layers": 2}, "transformer": {"cell": "lstm", "window": 5}}


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def network(writing, kind="lstm", seed=0, grammar=None, scale=1.0, dtype=torch.float32):
    """One with weights drawn at random, and larger by a factor."""
    torch.manual_seed(seed)
    grammar = grammar or Grammar(writing.follow(), writing.restarts(), writing.notes())
    made = Composer(
        grammar, writing.places, PHRASE,
        **{"cell": kind, "hidden_size": 12, "chain_size": 7, "embedding_size": 8, **CELLS[kind]},
    )  # fmt: skip
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(scale)
    return made.to(dtype).eval()


def a_piece(length=12, seed=1, grid=2):
    """Two voices and drums, with an upbeat."""
    rng = np.random.default_rng(seed)
    rows = [
        (i, int(rng.integers(1, 6)), int(rng.integers(30, 90)), int(rng.choice([40, 90])), i % 2) for i in range(length)
    ]
    rows += [(i, 3, int(rng.integers(30, 90)), 90, 0) for i in range(0, length, 3)]
    rows += [(i, 1, int(rng.choice([36, 38])), 90, 2) for i in range(1, length, 4)]
    tracks = (Track(), Track(program=40), Track(drums=True))
    notes, _, _ = apart(notes_of(rows))
    about = {"metres": (Metre(0, 3, 4),), "keys": (Key(0, 1, "minor"),), "tempos": (Tempo(0, 90.0),)}
    return Piece(notes, grid, tracks=tracks, upbeat=grid, **about)


def pitched(piece):
    return replace(piece, notes=piece.notes[piece.notes["track"] < 2])


def written(writing, **how):
    piece = a_piece(**how)
    return Written.of(piece if writing is WRITINGS["events"] else pitched(piece), writing)


def batch_of(writing, pieces):
    return side_by_side([(piece, True) for piece in pieces], writing)


# -- probabilities


@pytest.mark.parametrize("kind", CELLS)
def test_the_frames_that_may_come_have_a_probability_of_one(kind):
    writing, keys = FrameWriting(1), (3, 40, 41, 60, 88)
    follow = writing.follow()
    follow[:, :, [s for s in range(1, 89) if s not in keys]] = False
    net = network(
        writing, kind, grammar=Grammar(follow, writing.restarts(), writing.notes()), scale=3.0, dtype=torch.float64
    )
    frames = [chosen for n in range(6) for chosen in itertools.combinations(keys, n)]
    assert len(frames) == 32
    for before in ([], [(3, 60)], [(40, 41, 88), (), (3, 40, 41, 60, 88)]):
        pieces = [Written.of_moments([*before, frame], range(len(before) + 1), writing) for frame in frames]
        nats = net.nats(batch_of(writing, pieces))
        assert float((-nats[-1]).exp().sum()) == pytest.approx(1, abs=1e-9)
        assert nats[-1].std() > 0.1
        assert float(net.symbol_nats(batch_of(writing, pieces)).sum(-1).sub(nats).abs().max()) == 0


def test_the_moments_of_a_grammar_have_a_probability_of_one():
    """Of events with two keys, two drums, lengths and velocities; chains that may not go on are left to end."""
    values = Values(velocities=(40, 90), drums=(36, 38), programs=(0, 128), metres=((1, 4),))
    writing = EventWriting(2, values)
    follow = writing.follow()
    follow[:, :, [s for s in range(1, 89) if s not in (40, 43)]] = False
    for kind in ("bar", "tempo", "stop"):
        follow[:, :, writing.rows(kind)] = False
    follow[:, :, writing.symbol("quarters", 1) : writing.rows("quarters").stop] = False
    follow[1, writing.rows("steps"), writing.rows("drum")] = False  # else drums go on for ever
    follow[1, writing.rows("quarters"), writing.rows("drum")] = False
    grammar = Grammar(follow, writing.restarts(), writing.notes())
    net = network(writing, grammar=grammar, scale=3.0, dtype=torch.float64)

    def all_of(symbols, under):
        for symbol in np.flatnonzero(follow[1, symbols[-1] if symbols else len(writing.names)]).tolist():
            if symbol == 0:
                yield symbols
            elif not 1 <= symbol <= KEYS or symbol > under:
                yield from all_of((*symbols, symbol), symbol if 1 <= symbol <= KEYS else under)

    heading = written(WRITINGS["plain"]).moments[0] and writing.moments(Piece(notes_of([(0, 1, 60, 80, 0)]), 2))[0][0]
    moments = list(all_of((), 0))
    assert len(moments) > 500
    pieces = [Written.of_moments([heading, moment], (0, 0), writing) for moment in moments]
    assert float((-net.nats(batch_of(writing, pieces))[1]).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_what_the_grammar_forbids_has_no_probability():
    writing = FrameWriting(1)
    net = network(writing)
    pieces = [Written.of_moments([(5,), moment], (0, 1), writing) for moment in ((5, 9), (9, 5), (5, 5))]
    nats = net.nats(batch_of(writing, pieces))[1]
    assert torch.isinf(nats).tolist() == [False, True, True]
    events = WRITINGS["events"]
    heading, *_ = written(events).moments
    late = Written.of_moments([heading, heading], (0, 0), events)
    assert network(events).nats(batch_of(events, [late])).isfinite().tolist() == [[True], [False]]
    # in a track of its own a key may be lower than that of the track before
    one, place = events.symbol("track"), events.symbol("place")
    note = events.symbol("velocity"), events.symbol("quarters")
    lower = [(place, one, 50, *note, one + 1, 20, *note), (place, one, 50, *note, 20, *note)]
    nats = network(events).nats(batch_of(events, [Written.of_moments([heading, m], (0, 0), events) for m in lower]))
    assert torch.isinf(nats[1]).tolist() == [False, True]


def test_a_note_hears_what_was_before_it_in_its_moment_and_before():
    """Each part of the network has a say: what is changed changes what it should."""
    writing = FrameWriting(1)
    net = network(writing, scale=2.0)

    def last(*moments, **about):
        piece = Written.of_moments(moments, about.get("places", [t % 4 for t in range(len(moments))]), writing)
        piece = replace(piece, bars=np.array(about.get("bars", piece.bars)))
        return float(net.nats(batch_of(writing, [piece]))[-1, 0])

    told = last((40, 44), (41,), (42, 45))
    assert last((40, 43), (41,), (42, 45)) != told
    assert last((40, 44), (41,), (42, 45), places=(0, 2, 3)) != told
    assert last((40, 44), (41,), (42, 45), bars=(0, 1, 0)) != told
    # the place of the moment itself is not known before it is written
    assert last((40, 44), (41,), (42, 45), places=(0, 1, 3)) == told
    # the intervals to keys before are looked back at even where the stack hears nothing
    with torch.no_grad():
        net.given.weight.zero_()
        net.output.weight[:, 7:] = 0
        net.intervals.weight[:, 7:] = 0
    heard = last((40, 44), (41,), (42, 45))
    assert last((40, 43), (41,), (42, 45)) != heard
    assert last((39,), (40, 44), (41,), (42, 45)) != heard
    scale = [(20 + i,) for i in range(6)]  # as many as are looked back at
    assert last((30,), *scale, (42,)) == last((31,), *scale, (42,)) != last((31,), *scale[1:], (42,))


def test_keys_before_are_the_last_struck():
    moments = np.array([[5, 9, 99], [99, 99, 99], [90, 30, 95], [7, 8, 9]])
    assert keys_before(moments).tolist() == [
        [0] * 6,
        [9, 5, 0, 0, 0, 0],
        [9, 5, 0, 0, 0, 0],
        [30, 9, 5, 0, 0, 0],
    ]


# -- time


@pytest.mark.parametrize("name", WRITINGS)
@pytest.mark.parametrize("kind", CELLS)
def test_nothing_is_known_before_it_comes(kind, name):
    writing = WRITINGS[name]
    net = network(writing, kind)
    piece = written(writing)
    moments, at = piece.moments, 5
    changed = [*moments]
    key = next(s for s in moments[at] if 1 <= s <= KEYS)
    changed[at] = tuple(s + 1 if s == key else s for s in moments[at])
    changed[at] = tuple(sorted(changed[at])) if name == "frames" else changed[at]
    other = Written.of_moments(changed, piece.places, writing)
    a, b = (net.nats(batch_of(writing, [x]))[:, 0] for x in (piece, other))
    assert torch.allclose(a[:at], b[:at], atol=1e-6) and (a[at : at + 3] - b[at : at + 3]).abs().min() > 1e-6
    # a moment is heard only after it is told: what is heard in its place changes only later ones
    heard = net.nats(batch_of(writing, [piece]), batch_of(writing, [other]))[:, 0]
    assert torch.allclose(heard[: at + 1], a[: at + 1], atol=1e-6)
    assert torch.allclose(heard[at + 1 :], b[at + 1 :], atol=1e-5) and abs(heard[at + 1] - a[at + 1]) > 1e-6


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", WRITINGS)
def test_neither_padding_nor_order_nor_company_change_anything(kind, name):
    writing = WRITINGS[name]
    net = network(writing, kind)
    pieces = [written(writing, length=n, seed=n) for n in (5, 14, 9)]
    alone = [net.nats(batch_of(writing, [piece]))[:, 0] for piece in pieces]
    for order in ([0, 1, 2], [2, 0, 1]):
        together = net.nats(batch_of(writing, [pieces[i] for i in order]))
        for b, i in enumerate(order):
            assert torch.allclose(together[: len(pieces[i]), b], alone[i], atol=1e-5)
            assert not together[len(pieces[i]) :, b].any()
    some = Stretches(writing, pieces, ALL).batch([1])
    assert torch.allclose(net.nats(some)[1:, 0], alone[1][1:], atol=1e-6) and not net.nats(some)[0].any()
    notes = writing.notes()
    assert net.notes_in(some)[:, 0].tolist() == [0, *(int(notes[list(m)].sum()) for m in pieces[1].moments[1:])]


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", WRITINGS)
def test_step_by_step_it_hears_what_it_hears_at_once(kind, name):
    writing = WRITINGS[name]
    net = network(writing, kind)
    piece = written(writing)
    whole = net.heard_before(batch_of(writing, [piece]))[:, 0]
    composing = Composing(net, writing, Taste())
    for moment, heard in zip(piece.moments, whole, strict=True):
        assert torch.allclose(composing._listener.heard[0], heard, atol=1e-5)
        composing.read(moment)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("name", WRITINGS)
def test_what_is_written_costs_what_it_is_scored_at(kind, name):
    writing = WRITINGS[name]
    net = network(writing, kind, seed=3)
    net.output.bias.data[0] += 1.5
    composing = Composing(net, writing, Taste(generator=torch.Generator().manual_seed(1)))
    walker = composing.walker
    made = list(moments_of(composing, [], Extent(bars=2 if name == "frames" else 15)))
    assert len(made) > 5
    places, found = [], writing.walker()
    for moment in made:
        found.read(moment)
        places.append(found.place)
    batch = batch_of(writing, [Written.of_moments(made, places, writing)])
    assert composing.nats == pytest.approx(float(net.nats(batch).sum()), rel=1e-5)
    assert walker.steps == found.steps


def test_chains_of_more_keys_than_are_looked_back_at_cost_the_same():
    writing = FrameWriting(1)
    net = network(writing, scale=2.0)
    net.output.bias.data[0] -= 6  # long chords, from low keys up
    net.output.bias.data[1:] -= torch.arange(88) / 8
    composing = Composing(net, writing, Taste(generator=torch.Generator().manual_seed(1)))
    made = list(moments_of(composing, [], Extent(bars=2)))
    assert max(map(len, made)) > NOW + 1
    batch = batch_of(writing, [Written.of_moments(made, [t % 4 for t in range(len(made))], writing)])
    assert composing.nats == pytest.approx(float(net.nats(batch).sum()), rel=1e-5)


# -- transposition


@pytest.mark.parametrize("type_", [torch.float64, torch.bfloat16])
def test_keys_are_weighed_by_their_intervals_alike_with_gradients_and_without(type_):
    composer = network(WRITINGS["frames"], dtype=type_)
    slots = torch.randint(0, KEYS + 1, (50, 9)) * (torch.rand(50, 9) < 0.7)
    slots[:, 9 - NOW - 1] %= 13
    written = torch.randn(50, composer.intervals.in_features, dtype=type_, requires_grad=True)
    expected = composer._relative(written, slots)
    with torch.enable_grad():
        found = composer._relative(written, slots)
        assert found.requires_grad and found.count_nonzero() > found.numel() / 2
        assert torch.allclose(found.to(type_), expected, atol=0.05 if type_ is torch.bfloat16 else 1e-12)
        if type_ is torch.float64:
            assert torch.autograd.gradcheck(
                lambda w: composer._relative(w, slots[:6]), written[:6].detach().requires_grad_()
            )


def test_a_piece_is_transposed_as_a_whole():
    for name, writing in WRITINGS.items():
        piece = a_piece() if name == "events" else pitched(a_piece())
        piece = replace(piece, keys=())
        made = Stretches(writing, [Written.of(piece, writing)], ALL, transpose=6)
        plain = [Stretches(writing, [Written.of(piece.transposed(n), writing)], ALL).batch([0]) for n in range(-6, 6)]
        seen = set()
        for seed in range(80):
            torch.manual_seed(seed)
            batch = made.batch([0])
            same = [n for n, one in enumerate(plain) if all(torch.equal(a, b) for a, b in zip(batch, one, strict=True))]
            assert len(same) == 1
            seen.add(same[0])
        assert seen == set(range(12))


def test_no_key_leaves_the_piano_when_it_is_transposed():
    writing = FrameWriting(1)
    for moments, keys in (([(3,), (20, 85)], range(-2, 4)), ([(1,), (88,)], [0])):
        made = Stretches(writing, [Written.of_moments(moments, (0, 1), writing)], ALL, transpose=6)
        drawn = set()
        for seed in range(60):
            torch.manual_seed(seed)
            drawn.add(int(made.batch([0]).symbols[0, 0, 0]) - moments[0][0])
        assert drawn == {*keys}
    silent = Written.of_moments([(), ()], (0, 1), writing)
    assert Stretches(writing, [silent], ALL, transpose=6).batch([0]).counts.tolist() == [[0], [0]]


@pytest.mark.parametrize("name", WRITINGS)
def test_long_pieces_are_cut_and_each_stretch_begins_with_the_first_moment(name):
    writing = WRITINGS[name]
    piece = written(writing)
    made = Stretches(writing, [piece, piece], 5, opening=True)
    assert (
        made.lengths.tolist()
        == [5, *[6] * ((len(piece) - 5) // 5), *([(len(piece)) % 5 + 1] if len(piece) % 5 > 1 else [])] * 2
    )
    for number, (_, low, high) in enumerate(made.places[: len(made.places) // 2]):
        batch = made.batch([number])
        assert batch.first[:, 0].tolist() == [True] + [False] * (len(batch.first) - 1)
        assert batch.written[:, 0].tolist() == [not low] + [True] * (len(batch.first) - 1)
        assert batch.counts[bool(low) :, 0].tolist() == [len(m) for m in piece.moments[low:high]]
        assert batch.places[bool(low) :, 0].tolist() == piece.places[low:high].tolist()
        first = piece.moments[0]
        assert tuple(batch.symbols[0, 0, : len(first)].tolist()) == first


# -- what is written is a piece


ASKED = [
    {"bars": 1}, {"bars": 2, "top_p": 0.9}, {"bars": 3, "temperature": 0.5}, {"seconds": 3.0}, {"seconds": 4.7, "tempo": 171.0},
    {"seconds": 2.0, "top_k": 5, "temperature": 1.5}, {"bars": 4, "primed": 4}, {"seconds": 6.5, "primed": 3}, {},
    {"key": 1, "bars": 2},
]  # fmt: skip


@pytest.mark.parametrize("name", WRITINGS)
def test_whatever_an_untrained_network_writes_is_a_piece(name):
    symusic = pytest.importorskip("symusic")
    writing, notes, stopped = WRITINGS[name], 0, 0
    for seed in range(67):
        asked = dict(ASKED[seed % len(ASKED)])
        if "key" in asked and name != "events":
            asked.pop("key")
        net = network(writing, ["lstm", "elman", "none"][seed % 3], seed, scale=[1.0, 2.0, 4.0][seed // 3 % 3])
        net.output.bias.data[0] += 1.5
        if name != "frames":  # a bar is as likely as all places together, and what ends a piece rare
            net.output.bias.data[writing.symbol("bar")] += 3
            net.output.bias.data[writing.symbol("stop")] += 3 * ("bars" not in asked and "seconds" not in asked)
        primer = []
        if count := asked.pop("primed", 0):
            piece = a_piece(count + 1)
            primer = writing.opening(piece if name == "events" else pitched(piece))
        chosen = [writing.symbol("signature", 1)] if asked.pop("key", None) else []
        length = {n: asked.pop(n) for n in ("bars", "seconds", "tempo") if n in asked}
        if name == "frames" and not length:
            length = {"bars": 3}
        extent = Extent(**length)
        taste = Taste(**asked, generator=torch.Generator().manual_seed(seed))
        composing = Composing(net, writing, taste, chosen)
        moments = list(moments_of(composing, primer, extent))
        made = finished(composing, len(primer), extent)
        piece = made.piece
        notes += len(piece)
        assert moments[: len(primer)] == primer and (made.read, made.moments) == (len(primer), moments)
        assert np.isfinite(made.nats) and made.nats >= 0
        assert (piece.notes["duration"] > 0).all() and (piece.notes["start"] >= 0).all()
        walker = writing.walker()
        for moment in moments:  # of all that is written nothing is forbidden
            assert all(walker.allowed(moment[:i])[s] for i, s in enumerate(moment))
            walker.read(moment)
        if chosen:
            assert piece.keys == (Key(0, 1, "minor"),)
        if "seconds" in length:
            played = replace(piece, tempos=(Tempo(0, length["tempo"]),)) if "tempo" in length else piece
            step = 60 / min([t.quarters for t in played.tempos]) / writing.grid
            over = float(clock.seconds_at(played, piece.ticks)) - length["seconds"]
            assert -1e-6 <= over < step
        elif "bars" in length:
            lines = clock.bars(replace(piece, notes=notes_of([(0, piece.ticks, 60, 80, 0)])))
            assert len(lines) + bool(piece.upbeat) == length["bars"]
            assert piece.ticks == piece.length
        else:
            stopped += 1
        assert (piece.notes["start"] < piece.ticks).all()
        if length:
            assert ((piece.notes["start"] + piece.notes["duration"]) <= piece.length).all()
        if len(piece):
            data, own = midi_bytes(piece), apart(piece.notes)[0]
            score = symusic.Score.from_midi(data)
            assert sorted((n.time, n.duration, n.pitch, n.velocity) for t in score.tracks for n in t.notes) == sorted(
                tuple(note)[:4] for note in own.tolist()
            )
            if not all(piece.tracks[i].drums for i in np.unique(own["track"])):
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # which a note that hangs is one of
                    assert sorted(read_midi(data).notes["pitch"].tolist()) == sorted(own["pitch"].tolist())
    assert notes > 200 and (stopped == 6) == (name != "frames")


def test_a_piece_ends_where_the_model_ends_it():
    writing = WRITINGS["plain"]
    net = network(writing)
    net.output.bias.data[writing.symbol("stop")] += 50
    ended = Composing(net, writing, Taste())
    assert len(list(moments_of(ended, [], Extent()))) == 1
    asked = Composing(net, writing, Taste(generator=torch.Generator().manual_seed(1)))
    assert len(list(moments_of(asked, [], Extent(bars=1)))) > 1


def test_a_primer_as_long_as_what_is_asked_is_refused():
    writing = FrameWriting(1)
    message = "^primer: it is as long as what is asked, or longer; ask for more bars, or give a shorter one$"
    for extent in (Extent(bars=2), Extent(seconds=4.8), Extent(seconds=2.0, tempo=240.0)):
        with pytest.raises(UserError, match=message):
            list(moments_of(Composing(network(writing), writing, Taste()), [(40,)] * 8, extent))
        assert len(list(moments_of(Composing(network(writing), writing, Taste()), [(40,)] * 7, extent))) >= 8
