"""Time travel: going back, changing the past, branching, comparing, and going on from a file, each against a plain run."""

import itertools
import json
import math
import random
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import processes
import throughtime as tt
from throughtime.errors import UserError
from throughtime.travel.difference import distance

pytestmark = pytest.mark.usefixtures("_one_thread")


class Leaky(nn.Module):
    """A user's own cell: two states of different width, an output that is neither, all of them views of one tensor."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size, self.output_size = input_size, hidden_size, 3
        self.mix = nn.Linear(input_size + 2 * hidden_size + 1, 2 * hidden_size + 4)

    def initial_state(self, batch, *, device=None):
        return torch.full((batch, self.hidden_size), 0.1), torch.zeros(batch, self.hidden_size + 1)

    def forward(self, x, state):
        a, b = state
        z = torch.tanh(self.mix(torch.cat([x, a, b], -1)))
        n = self.hidden_size
        return z[:, 2 * n + 1 :], (0.9 * a + 0.1 * z[:, :n], z[:, n : 2 * n + 1])


class Branchy(nn.Module):
    """A cell with an `if` on its value, which nothing compiles."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.inner = nn.GRUCell(input_size, hidden_size)

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, self.inner.hidden_size)

    def forward(self, x, h):
        new = self.inner(x, h)
        return new if float(new.sum()) > 0 else new * 0.5 + 0.1


STACKS = {
    "gru": lambda: tt.Recurrent(tt.cells.GRU, 3, 5, num_layers=2),
    "lstm": lambda: tt.Recurrent(tt.cells.LSTM, 3, 5, num_layers=2, residual=True, learn_initial_state=True),
    "zoneout": lambda: tt.Recurrent(tt.cells.LSTM, 3, 3, num_layers=2, zoneout=0.2, residual=True).eval(),
    "own": lambda: tt.Recurrent(Leaky, 3, 4),
    "branchy": lambda: tt.Recurrent(Branchy, 3, 4, num_layers=2),
    "torch's": lambda: tt.Recurrent(nn.LSTMCell, 3, 5),
    "drop-in": lambda: tt.LSTM(3, 5, num_layers=2, proj_size=2),
    "double": lambda: tt.Recurrent(tt.cells.MinimalGated, 3, 5).double(),
}


@pytest.fixture(params=STACKS)
def stack(request):
    torch.manual_seed(1)
    made = STACKS[request.param]()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return made


@pytest.fixture
def gru():
    torch.manual_seed(2)
    return STACKS["gru"]()


def inputs(count, like=None, seed=3):
    dtype = torch.float32 if like is None else next(like.parameters()).dtype
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def parts(states):
    return [t for s in states for t in (s if isinstance(s, tuple) else (s,))]


def same(a, b):
    """Whether two states are the same to the bit."""
    return all(torch.equal(x, y) for x, y in zip(parts(a), parts(b), strict=True))


def at(session):
    return session.time, session.state, session.output


def course(session, x):
    """The state and output at each time, fed one by one."""
    found = [at(session)]
    for row in x:
        session.feed(row)
        found.append(at(session))
    return found


def same_moment(a, b):
    return a[0] == b[0] and same(a[1], b[1]) and (a[2] is b[2] is None or torch.equal(a[2], b[2]))


def plain(stack, x, state=None):
    """Outputs [T, N] and the state after them, by a run of the whole layer at once."""
    with torch.no_grad():
        outputs, last = stack(x.unsqueeze(1), state)
    if isinstance(stack, tt.Recurrent):
        return outputs[:, 0], parts([layer[0] for layer in last])
    return outputs[:, 0], [s[layer] for layer in range(stack.num_layers) for s in last]


def refused(message, call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


# -- to and fro


def test_it_reads_what_a_plain_run_reads(stack):
    x = inputs(40, stack)
    session = tt.Session(stack)
    outputs = torch.cat([session.feed(x[:25]), session.feed(x[25]).unsqueeze(0), session.feed(x[26:])])
    wanted, last = plain(stack, x)
    torch.testing.assert_close(outputs, wanted, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(parts(session.state), last, strict=True):
        torch.testing.assert_close(mine.reshape(-1), theirs.reshape(-1), rtol=1e-5, atol=1e-6)
    assert torch.equal(session.output, outputs[-1])
    assert session.time == len(session) == 40


@pytest.mark.parametrize("snapshots", [2, 3, 8, 256])
def test_every_time_comes_back_to_the_bit(stack, snapshots):
    x = inputs(60, stack)
    wanted = course(tt.Session(stack), x)
    session = tt.Session(stack, snapshots=snapshots)
    session.feed(x)  # all at once, or one by one: the same bits
    assert same_moment(at(session), wanted[-1])
    order = list(range(61))
    random.Random(0).shuffle(order)
    for t in order:
        session.rewind(t)
        assert same_moment(at(session), wanted[t]), t
    assert len(session.snapshots) <= snapshots
    assert len(session) == 60


def test_a_user_s_own_cell_that_nothing_compiles_goes_its_plain_way():
    torch.manual_seed(0)
    assert tt.Session(STACKS["branchy"]())._engine.backend == "reference"
    assert tt.Session(STACKS["own"]())._engine.backend == "cpu"


def test_a_cell_without_weights_steps():
    class Leak(nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.size = hidden_size

        def initial_state(self, batch, *, device=None):
            return torch.zeros(batch, self.size, device=device)

        def forward(self, x, h):
            return 0.9 * h + 0.1 * x

    stack, x = tt.Recurrent(Leak, 3, 3), inputs(6)
    session = tt.Session(stack)
    torch.testing.assert_close(session.feed(x), stack(x.unsqueeze(1))[0][:, 0])


def test_views_come_back_to_the_bit_on_the_reference():
    torch.manual_seed(0)
    stack = tt.Recurrent(Leaky, 3, 37)
    x = inputs(50)
    wanted = course(tt.Session(stack, backend="reference"), x)
    session = tt.Session(stack, backend="reference", snapshots=4)
    session.feed(x)
    for t in (49, 3, 17, 33, 0, 50):
        session.rewind(t)
        assert same_moment(at(session), wanted[t])


def test_feeding_after_a_rewind_drops_what_was_ahead(gru):
    x, y = inputs(30), inputs(10, seed=4)
    session = tt.Session(gru, snapshots=5)
    session.feed(x)
    kept = session.branch()
    session.rewind(12)
    assert len(session) == 30
    session.feed(y)
    assert (session.time, len(session)) == (22, 22)
    wanted = course(tt.Session(gru), torch.cat([x[:12], y]))
    for t in (22, 5, 12, 13, 20):
        session.rewind(t)
        assert same_moment(at(session), wanted[t])
    session.rewind(8)
    session.edit(15, state=wanted[3][1])
    session.feed(x[8:20])
    assert same_moment(at(session), course(tt.Session(gru), x[:20])[20]), "a state put in there is dropped too"
    assert kept.time == len(kept) == 30
    assert torch.equal(kept.inputs(), x)
    assert torch.equal(session.inputs(10, 14), x[10:14])


def test_a_long_run_keeps_few_states_and_every_time(gru):
    steps = 20_000
    x = inputs(steps)
    stepper, wanted, chosen = gru.stepper(), {}, set(random.Random(5).sample(range(1, steps), 12))
    for t, row in enumerate(x.split(1), 1):
        stepper(row)
        if t in chosen:
            wanted[t] = stepper.state
    session = tt.Session(gru, snapshots=16)
    session.feed(x[:-1])
    session.feed(x[-1])
    assert same(session.state, stepper.state)
    assert 8 <= len(session.snapshots) <= 16
    gaps = np.diff(session.snapshots)
    assert len(set(gaps.tolist())) == 1, "evenly"
    assert gaps[0] == 2048
    for t in chosen:
        session.rewind(t)
        assert same(session.state, wanted[t])
    assert len(session.snapshots) <= 16


def test_what_is_too_old_is_forgotten(gru):
    x = inputs(3000)
    wanted = course(tt.Session(gru), x)
    session = tt.Session(gru, snapshots=8, keep=100)
    for low in range(0, 3000, 50):
        session.feed(x[low : low + 50])
        assert len(session) - session.first >= min(100, len(session))
        assert len(session) - session.first <= 200
        assert len(session.snapshots) <= 8
    assert len(session._history.tape._block) < 1000
    for t in (session.first, session.first + 1, 2950, 3000):
        session.rewind(t)
        assert same_moment(at(session), wanted[t])
    assert torch.equal(session.inputs(), x[session.first :])
    refused(f"rewind: there is no time 0; they go from {session.first} to 3000 (what was before is forgotten: keep=100)",
            session.rewind, 0)  # fmt: skip
    session.edit(session.first, state=wanted[7][1])
    session.rewind(session.first + 2)
    again = tt.Session(gru, wanted[7][1])
    again.feed(x[session.first : session.first + 2])
    assert same(session.state, again.state)


def test_from_a_state_of_the_layer_itself(stack):
    x = inputs(20, stack)
    with torch.no_grad():
        _, state = stack(x[:8].unsqueeze(1))
    if not isinstance(stack, tt.Recurrent):
        state = list(zip(*state, strict=True))
    session = tt.Session(stack, state)
    outputs = session.feed(x[8:])
    torch.testing.assert_close(outputs, plain(stack, x)[0][8:], rtol=1e-5, atol=1e-6)
    session.rewind(0)
    assert same(session.state, [s[0] if isinstance(stack, tt.Recurrent) else s for s in state])


def test_a_cell_that_fails_leaves_the_session_where_it_was():
    class Failing(Branchy):
        def forward(self, x, h):
            if float(x.sum()) > 100:
                raise RuntimeError("too much")
            return super().forward(x, h)

    session = tt.Session(tt.Recurrent(Failing, 3, 4))
    x = inputs(10)
    session.feed(x)
    before = at(session)
    with pytest.raises(RuntimeError, match="too much"):
        session.feed(torch.cat([x, torch.full((1, 3), 99.0), x]))
    assert len(session) == 10
    assert same_moment(at(session), before)
    session.feed(x)
    assert same(session.state, course(tt.Session(session._engine.stack), torch.cat([x, x]))[-1][1])


# -- changing the past


def test_an_edited_input_is_as_if_it_had_been_so(stack):
    x = inputs(50, stack)
    y = x.clone()
    y[20] = inputs(1, stack, seed=9)[0]
    wanted = course(tt.Session(stack), y)
    for present in (50, 21, 20, 3):
        session = tt.Session(stack, snapshots=7)
        session.feed(x)
        session.rewind(present)
        session.edit(20, input=y[20])
        assert same_moment(at(session), wanted[present])
        assert len(session) == 50
        for t in (50, 20, 21, 35):
            session.rewind(t)
            assert same_moment(at(session), wanted[t])


def test_an_edited_state_is_as_if_it_had_been_so(stack):
    x = inputs(50, stack)
    before = course(tt.Session(stack), x)
    other = tt.Session(stack)
    other.feed(inputs(9, stack, seed=9))
    state = other.state
    after = course(tt.Session(stack, state), x[20:])
    for present in (50, 20, 19):
        session = tt.Session(stack, snapshots=6)
        session.feed(x)
        session.rewind(present)
        session.edit(20, state=state)
        assert session.time == present
        for t in (50, 3, 20, 19, 21, 44):
            session.rewind(t)
            if t < 20:
                assert same_moment(at(session), before[t])
            else:
                assert same(session.state, after[t - 20][1])
        session.rewind(20)
        assert torch.equal(session.output, before[20][2]), "what it said before the change stays said"


def test_edits_add_up_and_move_with_what_follows_them(gru):
    x, y = inputs(30), inputs(6, seed=8)
    states = course(tt.Session(gru), inputs(3, seed=9))
    first, second = states[2][1], states[3][1]
    session = tt.Session(gru, snapshots=4)
    session.feed(x)
    session.edit(0, state=first)
    session.edit(25, state=second)
    session.edit(10, input=y[0])
    session.replace(12, 14, y[1:])  # five in the place of two
    assert session.time == len(session) == 33
    wanted = tt.Session(gru, first)
    wanted.feed(torch.cat([x[:10], y[:1], x[11:12], y[1:], x[14:25]]))
    assert wanted.time == 28
    tail = tt.Session(gru, second)
    tail.feed(x[25:])
    assert same(session.state, tail.state)
    session.rewind(27)
    wanted.rewind(27)
    assert same(session.state, wanted.state)
    session.rewind(28)
    assert same(session.state, second)
    session.replace(27, 29, [])  # the change at 28 lay between them
    session.rewind(31)
    wanted.rewind(27)
    wanted.feed(x[26:])
    assert same(session.state, wanted.state)


@pytest.mark.parametrize("present", [0, 1, 9])
def test_a_state_put_in_stays_where_all_before_it_is_taken_out(gru, present):
    x = inputs(9)
    session = tt.Session(gru)
    session.feed(x)
    state = session.state
    session.edit(2, state=state)
    session.rewind(present)
    session.replace(0, 2, [])
    wanted = tt.Session(gru, state)
    wanted.feed(x[2:])
    for t in (session.time, 7, 0, 3):
        session.rewind(t)
        wanted.rewind(t)
        assert same(session.state, wanted.state)


def test_the_present_moves_with_what_it_has_read(gru):
    x = inputs(20)
    for present, start, stop, count, wanted in (
        (20, 5, 8, 1, 18),
        (5, 5, 8, 1, 5),
        (7, 5, 8, 1, 6),
        (8, 5, 5, 4, 12),
        (5, 5, 5, 2, 7),
    ):
        session = tt.Session(gru)
        session.feed(x)
        session.rewind(present)
        y = torch.cat([x[:start], inputs(count, seed=7), x[stop:]])
        session.replace(start, stop, inputs(count, seed=7))
        assert session.time == wanted
        assert torch.equal(session.inputs(), y)
        assert same_moment(at(session), course(tt.Session(gru), y)[wanted])


def test_the_present_after_every_replacement_across_it(gru):
    """It stays with what it has read: moved with what lies before it, and where that is taken away at the place of it."""
    x = inputs(5)
    for start, stop, count in itertools.product(range(6), range(6), range(4)):
        if start > stop:
            continue
        new = inputs(count, seed=7) if count else torch.zeros(0, 3)
        y = torch.cat([x[:start], new, x[stop:]])
        wanted = course(tt.Session(gru), y)
        for present in range(6):
            session = tt.Session(gru)
            session.feed(x)
            session.rewind(present)
            session.replace(start, stop, new)
            # the inputs at the places before the present that are still there, and those that come in for the rest
            before = min(present, start) + max(present - stop, 0)
            inside = count if present >= stop else min(max(present - start, 0), count)
            assert session.time == before + inside, (present, start, stop, count)
            assert same_moment(at(session), wanted[session.time])


def test_branches_share_nothing_that_changes(gru):
    x = inputs(40)
    one = tt.Session(gru, snapshots=8)
    one.feed(x[:30])
    other = one.branch()
    before = course(tt.Session(gru), x)
    other.edit(3, input=torch.ones(3))
    other.edit(9, state=before[1][1])
    other.feed(x[:5])
    assert one.time == len(one) == 30
    one.feed(x[30:])
    for t in (40, 3, 4, 9, 10, 30):
        one.rewind(t)
        assert same_moment(at(one), before[t])
    assert len(other) == 35
    state = other.state
    parts(state)[0].zero_()  # a copy
    other.output.zero_()
    other.inputs().zero_()
    assert float(parts(other.state)[0].norm()) > 0
    assert float(other.output.norm()) > 0
    assert float(other.inputs().norm()) > 0
    given = inputs(1)[0]
    one.feed(given)
    given.zero_()
    assert torch.equal(one.inputs(len(one) - 1)[0], inputs(1)[0])


# -- comparing


def test_how_far_two_futures_part_against_numpy():
    torch.manual_seed(4)
    stack = STACKS["lstm"]()
    x = inputs(25)
    one = tt.Session(stack, snapshots=4)
    one.feed(x)
    other = one.branch()
    other.edit(10, input=torch.zeros(3))
    other.rewind(2)
    found = one.diff(other)
    assert found.parts == 11
    assert found.times == [(t, t) for t in range(11, 26)]
    assert found.divergence is found.likeliest is None
    y = x.clone()
    y[10] = 0
    a, b = course(tt.Session(stack), x), course(tt.Session(stack), y)
    for t, layers, output in zip(range(11, 26), found.states, found.outputs, strict=True):
        for layer in (0, 1):
            u, v = (np.concatenate([p.numpy().ravel() for p in m[t][1][layer]]).astype(np.float64) for m in (a, b))
            wanted = np.linalg.norm(u - v) / max(np.linalg.norm(u), np.linalg.norm(v))
            assert layers[layer] == pytest.approx(wanted, rel=1e-9)
            assert wanted > 0
        u, v = (m[t][2].double().numpy() for m in (a, b))
        assert output == pytest.approx(np.linalg.norm(u - v) / max(np.linalg.norm(u), np.linalg.norm(v)), rel=1e-9)
    assert json.loads(json.dumps(found.as_json()))["parts"] == 11


@pytest.mark.parametrize(
    "given",
    [
        [[1.0, 2, 3], [4, 5, 6]],
        np.array([[1.0, 2, 3], [4, 5, 6]]),
        [torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 5, 6])],
        (np.array([1.0, 2, 3]), np.array([4.0, 5, 6])),
        iter([[1, 2, 3], [4, 5, 6]]),
    ],
    ids=["lists", "array", "tensors", "arrays", "iterator"],
)
def test_one_input_or_many_mean_what_they_seem_to(gru, given):
    session, plain = tt.Session(gru), tt.Session(gru)
    expected = plain.feed(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    torch.testing.assert_close(session.feed(given), expected, rtol=0, atol=0)
    torch.testing.assert_close(session.feed([7, 8, 9]), plain.feed(torch.tensor([7.0, 8, 9])), rtol=0, atol=0)


def test_of_one_feature_a_number_is_an_input():
    stack = tt.GRU(1, 4)
    session = tt.Session(stack)
    outputs = session.feed([0.1, 0.2, 0.3])
    torch.testing.assert_close(outputs, tt.Session(stack).feed(torch.tensor([[0.1], [0.2], [0.3]])), rtol=0, atol=0)
    assert session.feed(0.5).shape == session.feed([0.5]).shape == (4,) and session.time == 5
    session.edit(1, input=0.7)
    torch.testing.assert_close(session.inputs()[:, 0], torch.tensor([0.1, 0.7, 0.3, 0.5, 0.5]))


def test_what_is_taken_for_a_stack_is_told_what_to_do(made):
    model = made("words")
    for given, words in (
        (tt.GRU, "the class GRU; make one: GRU(input_size, hidden_size)"),
        (model, "a TextModel, which makes its own: call its session()"),
        ("runs/book", "throughtime.load('runs/book').session()"),
        (torch.nn.GRU(3, 4), "torch.nn's GRU; throughtime.GRU takes its place and its weights"),
        (tt.cells.GRU(3, 4), "put a cell into a stack: Recurrent(cell, input_size, hidden_size)"),
    ):
        with pytest.raises(tt.UserError, match=re.escape(words)):
            tt.Session(given)
    with pytest.raises(tt.UserError, match=r"got a str; of a run folder: throughtime.load\(folder\)"):
        tt.Session.load("runs/book", "s")
    expected = model.what_if("I saw a saw", {3: "dog"})
    for changes in ((3, "dog"), [(3, "dog")], {np.int64(3): "dog"}):
        assert model.what_if("I saw a saw", changes) == expected
    for changes, words in (
        ("dog", "{position: word}, got 'dog'"),
        ({"saw": "dog"}, "got 'saw'; words are numbered 0 to 3"),
    ):
        with pytest.raises(tt.UserError, match=words):
            model.what_if("I saw a saw", changes)


def test_what_it_is_is_said_in_a_line(gru):
    session = tt.Session(gru)
    session.feed(torch.randn(9, 3))
    other = session.branch()
    assert repr(session.diff(other)) == "Difference(none at 0 times)"
    other.edit(4, input=torch.zeros(3))
    found = session.diff(other)
    most = max(max(layers) for layers in found.states)
    assert repr(found) == f"Difference(parts at 5, 5 times, states {most:.3g} apart at most)"
    assert repr(session) == "Session(time 9 of 9, 10 snapshots)"
    assert repr(session._engine) == f"Engine(Recurrent, inputs of 3, backend {session._engine.backend!r})"


def test_where_they_part(gru):
    x = inputs(20)
    one = tt.Session(gru)
    one.feed(x)
    same_one = one.branch()
    same_one.edit(5, input=x[5])
    assert one.diff(same_one) == tt.Session(gru).diff(tt.Session(gru))
    assert one.diff(same_one).times == []
    shorter = one.branch()
    shorter.rewind(7)
    shorter.feed(x[7:12])
    assert one.diff(shorter).parts is None
    put = one.branch()
    put.edit(6, state=[torch.zeros(1, 5)] * 2)
    assert one.diff(put).parts == 6
    assert one.diff(put).states[0] == [1.0, 1.0]
    put_too = one.branch()
    put_too.edit(6, state=[torch.zeros(1, 5)] * 2)
    assert put.diff(put_too).parts is None
    begun = tt.Session(gru, [torch.ones(1, 5)] * 2)
    begun.feed(x)
    assert one.diff(begun).parts == 0
    assert one.diff(begun).outputs[0] == 0.0, "neither has said anything yet"
    moved = one.branch()
    moved.replace(3, 3, torch.zeros(2, 3))
    assert one.diff(moved, [(3, 3), (3, 5), (20, 22)]).times == [(3, 3), (3, 5), (20, 22)]
    assert one.diff(moved, [(3, 3)]).parts is None
    assert one.diff(moved, [(2, 2), (3, 4)]).parts == 3
    assert distance(torch.zeros(3), torch.zeros(3)) == 0.0
    assert distance(torch.ones(3), -torch.ones(3)) == pytest.approx(2.0)


# -- files


@pytest.mark.parametrize("snapshots", [3, 256])
def test_a_file_goes_on_to_the_bit(stack, tmp_path, snapshots):
    x, y = inputs(40, stack), inputs(12, stack, seed=6)
    one = tt.Session(stack, snapshots=snapshots)
    one.feed(x)
    put = course(tt.Session(stack), y)[5][1]
    one.edit(18, state=put)
    one.rewind(29)
    one.save(tmp_path / "s")
    other = tt.Session.load(stack, tmp_path / "s")
    assert (other.time, len(other), other._engine.backend) == (29, 40, one._engine.backend)
    assert same_moment(at(one), at(other))
    for t in (40, 0, 17, 18, 19, 29):
        one.rewind(t)
        other.rewind(t)
        assert same_moment(at(one), at(other))
    assert torch.equal(one.feed(y), other.feed(y))
    assert same_moment(at(one), at(other))
    assert one.diff(other).parts is None
    assert len(other.snapshots) <= snapshots


def test_another_process_goes_on_to_the_bit(gru, tmp_path):
    x = inputs(60)
    session = tt.Session(gru, snapshots=8)
    session.feed(x[:40])
    session.save(tmp_path / "s")
    torch.save({"stack": gru.state_dict(), "x": x}, tmp_path / "w")
    program = f"""
import torch, throughtime as tt
given = torch.load({str(tmp_path / "w")!r})
stack = tt.Recurrent(tt.cells.GRU, 3, 5, num_layers=2)
stack.load_state_dict(given["stack"])
session = tt.Session.load(stack, {str(tmp_path / "s")!r})
session.feed(given["x"][40:])
session.rewind(23)
session.save({str(tmp_path / "t")!r})
"""
    processes.run([sys.executable, "-c", program], check=True)
    session.feed(x[40:])
    other = tt.Session.load(gru, tmp_path / "t")
    assert other.time == 23
    for t in (60, 23, 41):
        session.rewind(t)
        other.rewind(t)
        assert same_moment(at(session), at(other))


def test_a_forgetful_session_goes_on_from_a_file(gru, tmp_path):
    one = tt.Session(gru, snapshots=4, keep=20)
    one.feed(inputs(90))
    one.save(tmp_path / "s")
    other = tt.Session.load(gru, tmp_path / "s")
    assert (other.first, other.keep, len(other)) == (one.first, 20, 90)
    one.feed(inputs(70, seed=5))
    other.feed(inputs(70, seed=5))
    assert other.first == one.first
    assert one.snapshots == other.snapshots
    assert same(one.state, other.state)


def test_files_that_do_not_fit_are_refused(gru, tmp_path):
    path = tmp_path / "s"
    session = tt.Session(gru)
    session.feed(inputs(9))
    session.save(path)
    before = path.read_bytes()
    refused(f"{path}: is there already; name another file, or overwrite=True", session.save, path)
    assert path.read_bytes() == before
    session.rewind(4)
    session.save(path, overwrite=True)
    assert tt.Session.load(gru, path).time == 4
    refused("load: takes the stack or the trained model of the session first, got a str", tt.Session.load, "run", path)
    refused("cannot write it: No such file", session.save, tmp_path / "no" / "s")
    refused("no such file", tt.Session.load, gru, tmp_path / "gone")
    (tmp_path / "text").write_text("no session")
    refused("is no session, or damaged", tt.Session.load, gru, tmp_path / "text")
    (tmp_path / "half").write_bytes(path.read_bytes()[:-20])
    refused("is no session, or damaged", tt.Session.load, gru, tmp_path / "half")
    from safetensors.torch import load_file, save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    refused("was not written by Session.save", tt.Session.load, gru, tmp_path / "other")
    tensors = load_file(path)
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["session"])
    save_file(tensors, tmp_path / "d", {"session": json.dumps({**about, "keep": about["keep"] + 1})})
    refused("its sum is not that of what was written", tt.Session.load, gru, tmp_path / "d")
    del about["sha256"]  # as it was before there was one
    save_file(tensors, tmp_path / "new", {"session": json.dumps({**about, "format": 2})})
    refused("format 2 is from a newer throughtime", tt.Session.load, gru, tmp_path / "new")
    for name in ("snapshot.0.1.0", "inputs", "snapshot.4.output"):
        save_file(
            {k: v for k, v in tensors.items() if not k.startswith(name[:10])},
            tmp_path / "d",
            {"session": json.dumps(about)},
        )
        refused("the session is damaged", tt.Session.load, gru, tmp_path / "d")
    save_file(tensors, tmp_path / "d", {"session": json.dumps({**about, "time": 99})})
    refused("the session is damaged", tt.Session.load, gru, tmp_path / "d")


def test_another_network_is_refused(gru, tmp_path):
    session = tt.Session(gru)
    session.feed(inputs(9))
    session.save(tmp_path / "s")
    message = "is a session of another network"
    torch.manual_seed(2)
    again = STACKS["gru"]()
    assert tt.Session.load(again, tmp_path / "s").diff(session).parts is None  # the same weights
    with torch.no_grad():
        again.cells[1].bias_hh[3] += 1e-7
    refused(message, tt.Session.load, again, tmp_path / "s")
    torch.manual_seed(2)
    residual = tt.Recurrent(tt.cells.GRU, 3, 5, num_layers=2, residual=True)  # the same weights, other equations
    refused(message, tt.Session.load, residual, tmp_path / "s")
    like = tt.Recurrent(tt.cells.ResetBeforeGRU, 3, 5, num_layers=2)
    like.load_state_dict(gru.state_dict())
    refused(message, tt.Session.load, like, tmp_path / "s")
    refused("the two sessions are of different networks", session.diff, tt.Session(like))


# -- what cannot work


def test_what_cannot_step_is_refused():
    refused("a bidirectional stack cannot step", tt.Session, tt.Recurrent(tt.cells.GRU, 3, 5, bidirectional=True))
    refused("a bidirectional network cannot step", tt.Session, tt.GRU(3, 5, bidirectional=True))
    refused("draws no noise (zoneout): call eval() first", tt.Session, tt.Recurrent(tt.cells.GRU, 3, 5, zoneout=0.1))
    refused(
        "got a GRU; put a cell into a stack: Recurrent(cell, input_size, hidden_size)",
        tt.Session,
        tt.cells.GRU(3, 5),
    )
    torch.manual_seed(0)
    refused("backend 'cpu' cannot run this", tt.Session, STACKS["branchy"](), backend="cpu")
    refused("got 'gpu'", tt.Session, STACKS["gru"](), backend="gpu")


def test_bad_values_are_refused_and_change_nothing(gru):
    x = inputs(10)
    session = tt.Session(gru)
    session.feed(x)
    session.rewind(6)
    before = at(session)
    for message, call, arguments, options in (
        ("snapshots: got 1; at least 2", tt.Session, (gru,), {"snapshots": 1}),
        ("keep: got 0; at least 1", tt.Session, (gru,), {"keep": 0}),
        ("an input is [3], many are [T, 3], got [4]", session.feed, (torch.zeros(4),), {}),
        ("an input is [3], many are [T, 3], got [2, 1, 3]", session.feed, (torch.zeros(2, 1, 3),), {}),
        ("the network takes torch.float32, got torch.float64", session.feed, (torch.zeros(3).double(),), {}),
        ("an input is 3 numbers, got a str", session.feed, ("abc",), {}),
        ("feed: there is no input in it", session.feed, (torch.zeros(0, 3),), {}),
        ("rewind: there is no time 11; they go from 0 to 10", session.rewind, (11,), {}),
        ("rewind: there is no time -1; they go from 0 to 10", session.rewind, (-1,), {}),
        ("rewind: a time is a whole number, got 1.5", session.rewind, (1.5,), {}),
        ("keep is a whole number, got 2.5", tt.Session, (gru,), {"keep": 2.5}),
        ("snapshots is a whole number, got '3'", tt.Session, (gru,), {"snapshots": "3"}),
        ("edit: a time is a whole number, got 1.5", session.edit, (1.5,), {"input": x[0]}),
        ("edit: a time is a whole number, got True", session.edit, (True,), {"input": x[0]}),
        ("diff: times are pairs", session.diff, (session, [1, 2]), {}),
        ("edit: give input= or state=, just one of them", session.edit, (3,), {}),
        ("edit: give input= or state=, just one of them", session.edit, (3,), {"input": x[0], "state": session.state}),
        ("edit: there is no input 10; they go from 0 to 9", session.edit, (10,), {"input": x[0]}),
        ("edit: there is no time 11; they go from 0 to 10", session.edit, (11,), {"state": session.state}),
        ("edit: one input goes in the place of input 2, got 2", session.edit, (2,), {"input": x[:2]}),
        ("a state holds 2 layers, got a list of 1", session.edit, (2,), {"state": [torch.zeros(1, 5)]}),
        ("the state of layer 1 is a tensor [1, 5], got a tensor [1, 4]", session.edit, (2,),
         {"state": [torch.zeros(1, 5), torch.zeros(1, 4)]}),
        ("the state of layer 0 is a tensor [1, 5], got a tuple of", session.edit, (2,),
         {"state": [(torch.zeros(1, 5),) * 2, torch.zeros(1, 5)]}),
        ("a state holds 2 layers, got a int", session.edit, (2,), {"state": 3}),
        ("replace: from 5 to 4 is backwards", session.replace, (5, 4, x), {}),
        ("replace: there is no time 12", session.replace, (5, 12, x), {}),
        ("diff: takes another session, got a Tensor", session.diff, (x,), {}),
        ("diff: there is no time 11", session.diff, (session, [(3, 3), (3, 11)]), {}),
        ("diff: times must rise, got (4, 4) before (3, 5)", session.diff, (session, [(4, 4), (3, 5)]), {}),
        ("which round differently", session.diff, (tt.Session(gru, backend="reference"),), {}),
    ):  # fmt: skip
        refused(message, call, *arguments, **options)
    assert same_moment(at(session), before)
    assert torch.equal(session.inputs(), x)
    late = tt.Session(gru, keep=2, snapshots=4)
    late.feed(inputs(50))
    refused("they share none", session.diff, late)


def test_a_number_of_numpy_is_a_time(gru):
    session = tt.Session(gru)
    session.feed(inputs(5))
    session.rewind(np.int64(2))
    assert session.time == 2


def test_what_is_not_a_number_is_like_what_is_not(gru):
    session = tt.Session(gru)
    session.feed(inputs(6))
    session.edit(3, input=torch.full((3,), math.nan))
    assert session.diff(session.branch()).parts is None
    other = session.branch()
    other.edit(5, input=torch.zeros(3))
    assert session.diff(other, [(t, t) for t in range(4)]).parts is None


def test_a_network_that_was_trained_on_is_refused(gru, tmp_path):
    session = tt.Session(gru)
    session.feed(inputs(5))
    with torch.no_grad():
        gru.cells[0].weight_hh.mul_(1.01)
    for call in (
        lambda: session.feed(inputs(1)),
        lambda: session.rewind(2),
        lambda: session.edit(2, input=inputs(1)[0]),
        lambda: session.save(tmp_path / "s"),
    ):
        refused("the weights have changed since the session was made", call)


# -- a language model

TEXT = "I saw a saw. The dog saw the old saw, and I saw it too.\nWhat did the dog see?\nThe dog.\nit saw, too.\n" * 60


@pytest.fixture(scope="module")
def made(tmp_path_factory, _one_thread):
    """A function that trains a language model for a moment."""
    folder, models = tmp_path_factory.mktemp("models"), {}

    def train(tokens="characters", documents="file", **model):
        name = "-".join([tokens, documents, *model])
        if name not in models:
            (folder / "book.txt").write_text(TEXT)
            models[name] = tt.train(
                "text", [folder / "book.txt"], out=folder / name, steps=30,
                model={"tokens": tokens, "hidden_size": 12, **model}, data={"documents": documents},
                training={"batch_size": 4, "chunk": 30, "learning_rate": 0.02, "evaluations": 2}, progress=False,
            )  # fmt: skip
        return models[name]

    return train


KINDS = ["characters", "bytes", "words", "bpe"]


def expected(model, text):
    """log p of what comes at each time, by one run over the whole text."""
    ids = torch.tensor([1, *model.tokens.encode(text).tolist()])
    with torch.no_grad():
        return model.network.log_probabilities(ids.unsqueeze(1))[:, 0]


@pytest.mark.parametrize("kind", [*KINDS, "deep", "adaptive"])
def test_a_text_session_expects_what_the_network_does(made, kind):
    options = {"deep": {"layers": 2, "cell": "gru", "zoneout": 0.1}, "adaptive": {"output": "adaptive"}}.get(kind, {})
    model = made({"deep": "characters", "adaptive": "words"}.get(kind, kind), **options)
    text = "The dog saw the saw."
    wanted = expected(model, text)
    session = model.session(snapshots=4)
    torch.testing.assert_close(session.log_p, wanted[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(session.feed(text), wanted[-1], rtol=1e-4, atol=1e-5)
    assert session.text == text
    ids = model.tokens.encode(text).tolist()
    for t in (3, len(ids), 0, 2):
        session.rewind(t)
        torch.testing.assert_close(session.log_p, wanted[t], rtol=1e-4, atol=1e-5)
    each = session.log_probabilities()
    assert each == pytest.approx([float(wanted[t, i]) for t, i in enumerate(ids)], abs=1e-4)
    assert session.log_probabilities(2, 4) == pytest.approx(each[2:4], abs=1e-5)
    writable = wanted[2].clone()
    writable[:2] = -torch.inf
    best = writable.topk(3)
    assert [t for t, _ in session.next(3)] == [model.tokens.entries[i] for i in best.indices]
    assert [p for _, p in session.next(3)] == pytest.approx(best.values.exp().tolist(), rel=1e-3)


def test_a_text_session_writes_what_the_model_writes(made):
    model = made()
    session = model.session()
    session.feed("The dog")
    before = at(session)
    assert "The dog" + session.write(40) == model.generate("The dog", 40, temperature=0)
    assert same_moment(at(session), before)
    assert session.write(0) == ""
    lines = made(documents="line").session()
    lines.feed("I saw")
    written = lines.write(200)
    assert written.count("\n") <= 1
    assert written.endswith("\n") or len(written) == 200


def test_distributions_part_by_their_divergence(made):
    model = made("words")
    one = model.session()
    one.feed("I saw a saw.")
    other = one.branch()
    other.edit(3, input=" dog")
    found = one.diff(other)
    assert found.parts == 4
    a, b = (expected(model, t).double().numpy() for t in ("I saw a saw.", "I saw a dog."))
    for (t, _), kl, changed in zip(found.times, found.divergence, found.likeliest, strict=True):
        assert kl == pytest.approx(float((np.exp(a[t]) * (a[t] - b[t])).sum()), rel=1e-3, abs=1e-7)
        assert changed == (a[t].argmax() != b[t].argmax())
    assert found.divergence[0] > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_what_if_is_the_other_text_read(made, kind):
    model = made(kind)
    found = model.what_if("I saw a saw, too.", {3: "dog", 0: "it"})
    assert found.positions == [0, 3]
    assert found.before["words"] == ["I", "saw", "a", "saw", ",", "too", "."]
    assert found.after["words"] == ["it", "saw", "a", "dog", ",", "too", "."]
    for values, text in ((found.before, "I saw a saw, too."), (found.after, "it saw a dog, too.")):
        (wanted,) = model.predict([text])
        assert values["log_probability"] == pytest.approx(wanted["log_probability"], abs=1e-3)
        assert sum(values["log_probabilities"]) == pytest.approx(values["log_probability"])
        ids = model.tokens.encode(text).tolist()
        rows = expected(model, text)
        head = len(model.tokens.encode(text[: text.index(" a ")]))
        two = sum(float(rows[t, ids[t]]) for t in range(head))
        assert sum(values["log_probabilities"][:2]) == pytest.approx(two, abs=1e-3), "word by word"
        writable = rows[-1].clone()
        writable[:2] = -torch.inf
        assert values["next"][0][0] == model.tokens.entries[int(writable.argmax())]
    assert len(found.difference.times) == 7
    assert found.difference.parts == found.difference.times[0][0]
    assert json.loads(json.dumps(found.as_json()))["after"]["words"][3] == "dog"


def test_a_text_session_goes_on_from_a_file(made, tagger, tmp_path):
    model = made()
    session = model.session(snapshots=5)
    session.feed("The dog saw the old ")
    session.rewind(9)
    session.save(tmp_path / "s")
    other = tt.Session.load(tt.load(model.run.folder), tmp_path / "s")
    assert same_moment(at(session), at(other))
    assert torch.equal(session.feed("dog"), other.feed("dog"))
    assert other.text == "The dog sdog"
    refused("is a session of another network", tt.Session.load, made("words"), tmp_path / "s")
    refused("has no session; use what_if", tt.Session.load, tagger, tmp_path / "s")


def test_bad_text_is_refused(made):
    model = made("words")
    session = model.session()
    for message, call, arguments in (
        ("reads text or tokens, got a float", session.feed, (1.5,)),
        ("tokens are whole numbers, got torch.float32", session.feed, (torch.zeros(2),)),
        ("there is no token 99999; they go from 0 to", session.feed, ([5, 99999],)),
        ("token 1 begins a document: make a new session", session.feed, ([5, 1],)),
        ("character 1 is not UTF-8 text", session.feed, ("a\udc80",)),
        ("got bytes; decode them first", session.feed, (b"abc",)),
        ("feed: there is no text in it", session.feed, ("",)),
        ("what_if: takes a text first, got a NoneType", model.what_if, (None, {0: "x"})),
        ("next: k is a whole number, got 1.5", session.next, (1.5,)),
        ("next: got 0; at least 1", session.next, (0,)),
        ("write: got -1; at least 0", session.write, (-1,)),
        ("there is no word 4; the 4 words are numbered 0 to 3", model.what_if, ("I saw a saw", {4: "dog"})),
        ("there is no word -1; the 4 words are numbered 0 to 3", model.what_if, ("I saw a saw", {-1: "dog"})),
        ("a word cannot be taken out, since all later ones would move; positions go from 0 to 3", model.what_if,
         ("I saw a saw", {3: ""})),
        ("cannot be replaced by 'big dog': it is 2 words", model.what_if, ("I saw a saw", {3: "big dog"})),
        ("cannot be replaced by ' dog': leave out the space around it", model.what_if, ("I saw a saw", {3: " dog"})),
        ("its replacement is a word, got 7", model.what_if, ("I saw a saw", {3: 7})),
        ("a position is a whole number, got 'saw'", model.what_if, ("I saw a saw", {"saw": "dog"})),
        ("takes changes as {position: word}, got {}", model.what_if, ("I saw a saw", {})),
        ("the text is empty: there is no word to replace", model.what_if, (" ", {0: "dog"})),
        ("run into one another", model.what_if, ("I saw.It", {2: "dog"})),
    ):  # fmt: skip
        refused(message, call, *arguments)
    assert len(session) == 0
    with pytest.warns(UserWarning, match="the model never saw these words, and reads them as unknown: zebra"):
        session.feed("I saw a zebra")
    assert session.inputs().tolist()[-1] == 0
    refused("a Transformer has no state to go back to", made("characters", kind="transformer", dropout=0.0).session)


# -- the other tasks


@pytest.fixture(scope="module")
def tagger(tmp_path_factory, _one_thread):
    folder, rng = tmp_path_factory.mktemp("tag"), random.Random(0)
    names, verbs = ["saw", "dog", "walk"], ["saw", "walk"]
    with (folder / "train.tsv").open("w") as file:
        for _ in range(200):
            rows = [("I", "PRON"), (rng.choice(verbs), "VERB"), ("a", "DET"), (rng.choice(names), "NOUN")]
            file.write("".join(f"{w}\t{t}\n" for w, t in rows[: rng.choice([2, 4])]) + "\n")
    small = {"hidden_size": 12, "embedding_size": 8, "character_size": 4, "dropout": 0.0}
    hot = {"learning_rate": 0.02}
    return tt.train(
        "tag", [folder / "train.tsv"], out=folder / "run", steps=150, model=small, training=hot, progress=False
    )


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("classify")
    rows = [f"a {w} film,{y}\n" for w, y in (("fine", "good"), ("great", "good"), ("poor", "bad"), ("dull", "bad"))]
    (folder / "train.csv").write_text("text,label\n" + "".join(rows * 30))
    small = {"hidden_size": 8, "embedding_size": 8, "dropout": 0.0, "word_dropout": 0.0}
    return tt.train("classify", [folder / "train.csv"], out=folder / "run", steps=40, model=small, progress=False)


def test_what_if_of_a_tagger(tagger):
    found = tagger.what_if("I saw a saw", {1: "walk"})
    for values, line in ((found.before, "I saw a saw"), (found.after, "I walk a saw")):
        (wanted,) = tagger.predict([line])
        assert values == {"words": line.split(), "tags": wanted["tags"]}
    assert found.before["tags"] == ["PRON", "VERB", "DET", "NOUN"]
    assert found.difference is None
    assert tagger.what_if("# I...", {0: "I", 4: "!"}).after["words"] == ["I", "I", ".", ".", "!"]
    refused("there is no word 4; the 4 words are numbered 0 to 3", tagger.what_if, "I saw a saw", {4: "dog"})
    refused("has no session; use what_if", tagger.session)


def test_what_if_of_a_classifier(classifier):
    found = classifier.what_if("a fine film", {1: "dull"})
    for values, line in ((found.before, "a fine film"), (found.after, "a dull film")):
        (wanted,) = classifier.predict([line])
        assert values.pop("words") == line.split()
        assert values["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-6)
        assert values["label"] == wanted["label"]
    assert (found.before["label"], found.after["label"]) == ("good", "bad")


# -- the command line


@pytest.fixture
def travel(capsys, monkeypatch):
    """Commands through a pipe: (exit code, stdout, stderr)."""
    import io

    from throughtime.cli import main

    def run(model, *arguments, commands=()):
        text = "".join(f"{line}\n" for line in commands)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        capsys.readouterr()
        code = main(["travel", str(model.run.folder), *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_travel_in_a_real_process(made):
    model = made("words")
    commands = b"back 2\nset 3 dog\nfutures 4\ndiff\nquit\nnot read any more\n"
    done = processes.run(
        [sys.executable, "-m", "throughtime", "travel", str(model.run.folder), "I saw a saw, and"],
        input=commands, capture_output=True, check=False,
    )  # fmt: skip
    out = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert "0 I  1 saw  2 a  3 saw  4 ,  5 and  ▸\n" in out
    assert "0 I  1 saw  2 a  3 saw  ▸ 4 ,  5 and" in out
    assert "0 I  1 saw  2 a  3 dog  ▸ 4 ,  5 and" in out
    assert "original" in out and "here" in out and "writes" in out and "\x1b" not in out


def test_travel_tells_what_a_session_does(made, travel, tmp_path):
    model = made("words")
    commands = ["", "go 3", "back", "forward 1", "read dog too", "show", "set 3 saw", "diff", "futures 6", "state",
                "swap", "branch", f"save {tmp_path / 'kept'}", "help"]  # fmt: skip
    code, out, err = travel(model, "I saw a saw.", "--json", commands=commands)
    assert (code, err) == (0, "")
    begun, went, back, forward, read, shown, changed, diff, futures, state, swapped, branched, saved, helped = map(
        json.loads, out.splitlines()
    )
    session = model.session()
    session.feed("I saw a saw.")
    assert (begun["words"], begun["present"], begun["original"]) == (["I", "saw", "a", "saw", "."], 5, None)
    assert (went["present"], back["present"], forward["present"]) == (3, 2, 3)
    session.rewind(3)
    assert [tuple(pair) for pair in forward["next"]] == session.next()
    session.feed(" dog too")
    assert read == shown
    assert read["words"] == ["I", "saw", "a", "dog", "too"]
    assert [tuple(pair) for pair in read["next"]] == session.next()
    other = session.branch()
    other.edit(3, input=" saw")
    assert (changed["words"], changed["original"]) == (["I", "saw", "a", "saw", "too"], read["words"])
    wanted = session.diff(other, [(t, t) for t in range(1, 6)])
    assert [row["divergence"] for row in diff["diff"]] == pytest.approx(wanted.divergence)
    assert [row["states"] for row in diff["diff"]] == wanted.states
    assert [row["log_probability"][1] for row in diff["diff"]] == pytest.approx(other.log_probabilities(), abs=1e-5)
    for name, one in (("original", session), ("here", other)):
        assert futures["futures"][name]["writes"] == one.write(6)
        assert futures["futures"][name]["read"] == one.text
    assert state["state"][0]["distance"] == pytest.approx(wanted.states[-1][0])
    assert (swapped["words"], swapped["original"]) == (changed["original"], changed["words"])
    assert branched["original"] == branched["words"] == read["words"]
    assert saved == {"saved": str(tmp_path / "kept")}
    assert {"set T WORD", "futures [N]", "quit"} <= set(helped["help"])
    assert tt.Session.load(model, tmp_path / "kept").text == "I saw a dog too"
    code, out, _ = travel(model, "--session", tmp_path / "kept", "--json", commands=["back 2"])
    assert code == 0
    assert json.loads(out.splitlines()[0])["words"] == ["I", "saw", "a", "dog", "too"]
    assert json.loads(out.splitlines()[1])["present"] == 3


def test_travel_counts_tokens_where_asked(made, travel):
    model = made()
    code, out, err = travel(model, "I saw", "--tokens", "--json", commands=["set 2 d", 'set 1 "\\n"'])
    assert (code, err) == (0, "")
    assert [json.loads(line)["words"] for line in out.splitlines()] == [
        ["I", " ", "s", "a", "w"], ["I", " ", "d", "a", "w"], ["I", "\n", "d", "a", "w"],
    ]  # fmt: skip
    code, _, err = travel(model, "I saw", "--tokens", commands=["set 2 do"])
    assert (code, err) == (2, "throughtime: <stdin>:1: token 2: 'do' is 2 tokens of this model; give one\n")
    code, _, err = travel(model, "I saw", "--tokens", commands=["set 5 d"])
    assert "there is no token 5; the 5 are numbered 0 to 4" in err


def test_travel_shows_both_answers_of_the_other_tasks(tagger, classifier, travel):
    code, out, err = travel(tagger, "I saw a saw", "--json", commands=["set 1 walk", "set 3 dog", "futures", "show"])
    assert (code, err) == (0, "")
    begun, first, second, futures, shown = map(json.loads, out.splitlines())
    assert begun["words"] == ["I", "saw", "a", "saw"]
    assert first["after"]["words"] == ["I", "walk", "a", "saw"]
    assert second == futures
    assert second["before"]["words"] == shown["original"]
    assert second["after"]["words"] == shown["words"] == ["I", "walk", "a", "dog"]
    code, out, _ = travel(tagger, commands=["read I saw a saw", "set 3 dog", "help"])
    assert code == 0
    assert "3 saw NOUN dog NOUN" in " ".join(out.split())
    code, out, _ = travel(classifier, "a fine film", commands=["set 1 dull"])
    assert code == 0
    assert "label good bad" in " ".join(out.split())
    assert "%" in out


def test_travel_refuses_what_cannot_be(made, tagger, travel, tmp_path):
    model = made("words")
    (tmp_path / "there").write_text("x")
    for command, message in (
        ("bak", "unknown command 'bak'; did you mean 'back'?"),
        ("back 7", "there is no place -2; they go from 0 to 5"),
        ("back x", "back: takes a number from 0 on, got 'x'"),
        ("go", "go: the number is missing"),
        ("go 6", "there is no place 6; they go from 0 to 5"),
        ("set 3", "set: takes a position and a word, got '3'"),
        ("set x dog", "set: takes a number from 0 on, got 'x'"),
        ("set 9 dog", "there is no word 9; the 5 words are numbered 0 to 4"),
        ("set 4 dog", "the words of ' sawdog' run into one another"),
        ('set 3 "\\x"', "is not a word in quotes"),
        ("set 3 two words", "it is 2 words"),
        ("show 3", "show: takes nothing, got '3'"),
        ("swap", "there is no other future yet"),
        ("diff", "there is no other future yet"),
        ("read", "there is nothing to read in it"),
        ("save", "save: FILE is missing"),
        (f"save {tmp_path / 'there'}", "is there already; name another file (that of --session is written over)"),
        ("go " + "9" * 5000, "go: the number has 5000 digits"),
        ("futures -1", "futures: takes a number from 0 on, got '-1'"),
    ):
        code, out, err = travel(model, "I saw a saw.", commands=["show", command, "show"])
        assert code == 2, command
        assert err.startswith("throughtime: <stdin>:2: ")
        assert message in err
        assert err.count("\n") == 1
        assert out.count("▸") == 2, "nothing after it is done"
    assert (tmp_path / "there").read_text() == "x"
    for arguments, message in (
        ((model, "-"), "standard input is where the commands come from"),
        ((model, "--session", tmp_path / "gone"), "gone: no such file"),
        ((model, "--session", tmp_path / "there"), "is no session, or damaged"),
        ((tagger, "--session", tmp_path / "there"), "--session: a model of the task 'tag' has no such option"),
        ((tagger, "--tokens"), "--tokens: a model of the task 'tag' has no such option"),
        ((made("characters", kind="transformer", dropout=0.0),), "a Transformer has no state"),
    ):
        code, out, err = travel(*arguments)
        assert (code, out) == (2, "")
        assert message in err
    code, _, err = travel(tagger, commands=["set 1 dog"])
    assert code == 2
    assert "the text is empty: there is no word to replace" in err
    code, _, err = travel(tagger, "I saw", commands=["futures"])
    assert code == 2
    assert "there is no other future yet" in err


def test_a_run_that_moved_goes_on(made, tmp_path):
    """A session goes by the weights, not by where they lie."""
    model = made()
    session = model.session()
    session.feed("I saw")
    session.save(tmp_path / "s")
    moved = tt.load(shutil.copytree(model.run.folder, tmp_path / "elsewhere"))
    assert tt.Session.load(moved, tmp_path / "s").text == "I saw"


def test_the_examples_of_the_documentation_run(made, tagger, tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "time-travel.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made("words").run.folder, "runs/book")
    shutil.copytree(tagger.run.folder, "runs/tag")
    for block in blocks:
        names = {}
        exec(block, names)
        if "difference" in names:
            assert names["difference"].parts == 401
            assert names["again"].time == 1000
