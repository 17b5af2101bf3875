"""scan: the reference against a loop over single rows, and every other backend against the reference.

`row_by_row` below runs each sequence alone, step by step, with no masks, no padding and no batch: lengths, resets and
reverse are plain Python there. Comparisons are in float64 from random states, and hold outputs, the last state and the
gradient of inputs, state, initial state and weights together. Sizes: T time, B batch, I input, N hidden, P projected.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import throughtime as tt
from throughtime.cells import GRU, LSTM, Cell, Elman
from throughtime.cells.base import watching
from throughtime.scanning import Scanned, explain, initial_state, scan

T, B, I, N, P = 6, 4, 3, 5, 2  # noqa: E741

CELLS = {
    "Elman tanh": lambda **o: Elman(I, N, **o),
    "Elman relu": lambda **o: Elman(I, N, nonlinearity="relu", **o),
    "GRU": lambda **o: GRU(I, N, **o),
    "LSTM": lambda **o: LSTM(I, N, **o),
    "LSTM projected": lambda **o: LSTM(I, N, proj_size=P, **o),
    "nn.RNNCell tanh": lambda **o: nn.RNNCell(I, N, **o),
    "nn.RNNCell relu": lambda **o: nn.RNNCell(I, N, nonlinearity="relu", **o),
    "nn.GRUCell": lambda **o: nn.GRUCell(I, N, **o),
    "nn.LSTMCell": lambda **o: nn.LSTMCell(I, N, **o),
    "GRU no bias": lambda **o: GRU(I, N, bias=False, **o),
    "LSTM projected no bias": lambda **o: LSTM(I, N, bias=False, proj_size=P, **o),
    "nn.LSTMCell no bias": lambda **o: nn.LSTMCell(I, N, bias=False, **o),
}
LENGTHS = {"no lengths": None, "mixed": [3, 6, 1, 4], "with zeros": [0, 5, 0, 2], "all T": [6, 6, 6, 6]}
RESETS = ["no resets", "random", "on the first step", "all"]

every_cell = pytest.mark.parametrize("kind", CELLS)
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
every_reset = pytest.mark.parametrize("resets", RESETS)
both_ways = pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
every_backend = pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])


def make(kind, dtype=torch.float64):
    torch.manual_seed(7)
    return CELLS[kind](dtype=dtype)


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def random_state(cell, batch, *, seed, dtype=torch.float64):
    zeros = initial_state(cell, batch)
    if isinstance(zeros, tuple):
        return tuple(random(*z.shape, seed=seed + k, dtype=dtype) for k, z in enumerate(zeros))
    return random(*zeros.shape, seed=seed, dtype=dtype)


def make_resets(name, steps=T, batch=B):
    if name == "no resets":
        return None
    if name == "random":
        return torch.rand(steps, batch, generator=torch.Generator().manual_seed(1)) < 0.3
    resets = torch.full((steps, batch), name == "all")
    if name == "on the first step":
        resets[:1] = True
    return resets


def tensors(state):
    return state if isinstance(state, tuple) else (state,)


def like(state, values):
    return tuple(values) if isinstance(state, tuple) else next(iter(values))


# The independent loop


def row_by_row(cell, inputs, state=None, *, initial=None, lengths=None, reverse=False, resets=None):
    """Each sequence alone, one step after the other: what `scan` documents, written as plainly as can be."""
    steps, batch = inputs.shape[:2]
    initial = initial_state(cell, batch) if initial is None else initial
    state = initial if state is None else state
    rows, ends = [], []
    for b in range(batch):
        s = like(state, [v[b : b + 1] for v in tensors(state)])
        real = list(range(steps if lengths is None else int(lengths[b])))
        nothing = torch.zeros(1, tensors(state)[0].shape[1], dtype=inputs.dtype)
        row = [nothing] * steps
        for t in reversed(real) if reverse else real:
            if resets is not None and resets[t, b]:
                s = like(initial, [v[b : b + 1] for v in tensors(initial)])
            s = cell(inputs[t, b : b + 1], s)
            row[t] = tensors(s)[0]
        rows.append(torch.cat(row) if row else nothing[:0])
        ends.append(s)
    outputs = torch.stack(rows, 1)
    return Scanned(outputs, like(state, map(torch.cat, zip(*map(tensors, ends), strict=True))), {})


def everything(run, cell, inputs, state, initial=None, **options):
    """Outputs, last state and all gradients of a random weighing of them, by name."""
    leaves = {"inputs": inputs} | {f"state {k}": s for k, s in enumerate(tensors(state))}
    leaves |= {f"initial {k}": s for k, s in enumerate(tensors(initial) if initial is not None else ())}
    # a gradient must reach the tensor that was given, strides and all
    leaves = {name: value.detach().requires_grad_() for name, value in leaves.items()}
    assert leaves["inputs"].stride() == inputs.stride()
    given = like(state, [v for name, v in leaves.items() if name.startswith("state")])
    if initial is not None:
        options["initial"] = like(initial, [v for name, v in leaves.items() if name.startswith("initial")])
    outputs, end, _ = run(cell, leaves["inputs"], given, **options)
    results = {"outputs": outputs} | {f"end {k}": e for k, e in enumerate(tensors(end))}
    loss = sum((v * random(*v.shape, seed=50 + k, dtype=v.dtype)).sum() for k, v in enumerate(results.values()))
    wanted = leaves | dict(cell.named_parameters())
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True, materialize_grads=True)
    return {name: v.detach() for name, v in results.items()} | {
        f"gradient of {name}": g for name, g in zip(wanted, found, strict=True)
    }


def assert_same(found, expected, rtol=1e-10, atol=1e-11):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def on(backend):
    return lambda *args, **options: scan(*args, backend=backend, **options)


# The reference against the rows


@every_reset
@both_ways
@every_length
@pytest.mark.parametrize("kind", ["Elman relu", "GRU", "LSTM projected", "nn.LSTMCell"])
def test_the_reference_runs_each_row_as_if_it_were_alone(kind, lengths, reverse, resets):
    cell = make(kind)
    options = {"lengths": lengths, "reverse": reverse, "resets": make_resets(resets)}
    state = random_state(cell, B, seed=2)
    initial = random_state(cell, B, seed=12) if options["resets"] is not None else None
    arguments = (cell, random(T, B, I, seed=1), state, initial)
    expected = everything(row_by_row, *arguments, **options)
    assert_same(everything(on("reference"), *arguments, **options), expected)


def test_this_comparison_sees_a_wrong_reset_and_a_wrong_length():
    cell, x = make("GRU"), random(T, B, I, seed=1)
    state, resets = random_state(cell, B, seed=2), make_resets("random")
    right = {"lengths": [3, 6, 1, 4], "reverse": False, "resets": resets}
    expected = everything(row_by_row, cell, x, state, **right)
    late = torch.cat([resets[:1] & False, resets[:-1]])
    for wrong in ({"resets": late}, {"lengths": [3, 6, 1, 5]}, {"reverse": True}, {"resets": None}, {"lengths": None}):
        with pytest.raises(AssertionError):
            assert_same(everything(on("reference"), cell, x, state, **right | wrong), expected)


# The backend "torch" against the reference


@every_reset
@both_ways
@every_length
@every_cell
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_each_backend_gives_what_the_reference_gives(kind, lengths, reverse, resets, backend):
    cell = make(kind)
    options = {"lengths": lengths, "reverse": reverse, "resets": make_resets(resets)}
    initial = random_state(cell, B, seed=12) if options["resets"] is not None else None
    arguments = (cell, random(T, B, I, seed=1), random_state(cell, B, seed=2), initial)
    expected = everything(on("reference"), *arguments, **options)
    assert_same(everything(on(backend), *arguments, **options), expected)


@both_ways
@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("steps", [0, 1, 23])
@pytest.mark.parametrize("kind", ["Elman tanh", "GRU", "LSTM projected", "nn.LSTMCell"])
def test_few_and_many_steps_and_rows(kind, steps, batch, reverse):
    cell = make(kind)
    state = random_state(cell, batch, seed=2)
    arguments = (cell, random(steps, batch, I, seed=1), state)
    drawn = torch.randint(0, steps + 1, (batch,), generator=torch.Generator().manual_seed(3))
    for options in ({}, {"lengths": drawn, "resets": make_resets("random", steps, batch)}):
        expected = everything(row_by_row if batch else on("reference"), *arguments, reverse=reverse, **options)
        assert expected["outputs"].shape == (steps, batch, tensors(state)[0].shape[1])
        for backend in ("reference", "torch"):
            assert_same(everything(on(backend), *arguments, reverse=reverse, **options), expected)


@every_backend
@pytest.mark.parametrize("kind", ["Elman tanh", "GRU", "LSTM projected"])
def test_no_rows_with_an_empty_list_of_lengths(kind, backend):
    cell = make(kind)
    outputs, _, _ = scan(cell, random(T, 0, I, seed=1), lengths=[], backend=backend)
    assert outputs.shape[:2] == (T, 0)


@pytest.mark.parametrize(("inputs", "hidden"), [(1, 1), (1, 9), (13, 2), (17, 33)])
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_odd_sizes(kind, inputs, hidden):
    torch.manual_seed(7)
    cell = kind(inputs, hidden, dtype=torch.float64)
    options = {"lengths": [5, 2, 4], "resets": make_resets("random", 5, 3)}
    arguments = (cell, random(5, 3, inputs, seed=1), random_state(cell, 3, seed=2))
    expected = everything(row_by_row, *arguments, **options)
    for backend in ("reference", "torch"):
        assert_same(everything(on(backend), *arguments, **options), expected)


STRIDES = {
    "batch first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "every second feature": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], -1).flatten(2)[..., ::2],
    "every second step": lambda x: torch.stack([x, torch.full_like(x, torch.nan)], 1).flatten(0, 1)[::2],
    "one row, many times": lambda x: x[:, :1].expand(-1, x.shape[1], -1),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("strides", STRIDES.values(), ids=STRIDES)
@every_backend
@pytest.mark.parametrize("kind", ["Elman tanh", "GRU", "LSTM"])
def test_inputs_and_states_that_do_not_lie_in_one_piece(kind, backend, strides, dtype):
    cell = make(kind, dtype)
    x = strides(random(T, B, I, seed=1, dtype=dtype))
    assert not x.is_contiguous()
    state = random_state(cell, N, seed=2, dtype=dtype)
    wide = like(state, [s[:, :B].t() for s in tensors(state)])
    assert not tensors(wide)[0].is_contiguous()
    plain = like(state, [s.clone(memory_format=torch.contiguous_format) for s in tensors(wide)])
    options = {"lengths": [6, 2, 0, 5], "resets": make_resets("random")}
    expected = everything(on(backend), cell, x.contiguous(), plain, **options)
    found = everything(on(backend), cell, x, wide, **options)
    assert_same(found, expected, *((1e-10, 1e-11) if dtype == torch.float64 else (1e-4, 1e-5)))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@both_ways
@every_length
@every_cell
def test_float32_too(kind, lengths, reverse):
    """In float32 PyTorch's LSTM takes another path (oneDNN)."""
    cell = make(kind, torch.float32)
    arguments = (
        cell,
        random(T, B, I, seed=1, dtype=torch.float32),
        random_state(cell, B, seed=2, dtype=torch.float32),
    )
    options = {"lengths": lengths, "reverse": reverse, "resets": make_resets("random")}
    expected = everything(on("reference"), *arguments, **options)
    assert_same(everything(on("torch"), *arguments, **options), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        without = scan(*arguments, backend="torch", **options)
    torch.testing.assert_close(without.outputs, expected["outputs"], rtol=1e-4, atol=1e-5)


@every_backend
@every_cell
def test_no_state_means_the_initial_state(kind, backend):
    cell, x = make(kind), random(T, B, I, seed=1)
    expected = row_by_row(cell, x, initial_state(cell, B))
    found = scan(cell, x, backend=backend)
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found.state, expected.state, rtol=1e-10, atol=1e-11)


# Padding


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
@every_reset
@both_ways
@every_backend
@pytest.mark.parametrize("kind", ["Elman tanh", "Elman relu", "GRU", "LSTM projected", "nn.LSTMCell"])
def test_poison_in_the_padding_reaches_nothing(kind, backend, reverse, resets, poison):
    cell = make(kind)
    lengths = torch.tensor([4, 0, 6, 1])
    padding = torch.arange(T).unsqueeze(1) >= lengths
    clean = random(T, B, I, seed=1)
    poisoned = torch.where(padding.unsqueeze(-1), torch.tensor(poison, dtype=clean.dtype), clean)
    assert not poisoned.isfinite().all()
    options = {"lengths": lengths, "reverse": reverse, "resets": make_resets(resets)}
    state = random_state(cell, B, seed=2)
    expected = everything(row_by_row, cell, clean, state, **options)
    found = everything(on(backend), cell, poisoned, state, **options)
    assert_same(found, expected)
    assert not found["outputs"][padding].any()
    assert not found["gradient of inputs"][padding].any()
    for k, s in enumerate(tensors(state)):  # a sequence of no steps ends where it starts
        assert torch.equal(found[f"end {k}"][1], s[1])


def test_poison_in_the_padding_reaches_no_record():
    cell, x = make("GRU"), random(T, B, I, seed=1)
    clean = scan(cell, x, lengths=[4, 0, 6, 1], record=("update", "new"))
    x[4:, 0] = x[:, 1] = x[1:, 3] = torch.nan
    dirty = scan(cell, x, lengths=[4, 0, 6, 1], record=("update", "new"))
    for name, value in clean.records.items():
        assert torch.equal(dirty.records[name], value)
        assert not value[:, 1].any()


@every_backend
@every_cell
def test_reverse_is_each_sequence_flipped(kind, backend):
    cell, x, lengths = make(kind), random(T, B, I, seed=1), [3, 6, 0, 4]
    state, resets = random_state(cell, B, seed=2), make_resets("random")

    def flip(value):
        value = value.clone()
        for b, length in enumerate(lengths):
            value[:length, b] = value[:length, b].flip(0)
        return value

    backwards = scan(cell, x, state, lengths=lengths, resets=resets, reverse=True, backend=backend)
    flipped = scan(cell, flip(x), state, lengths=lengths, resets=flip(resets), backend=backend)
    torch.testing.assert_close(backwards.outputs, flip(flipped.outputs), rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(backwards.state, flipped.state, rtol=1e-10, atol=1e-11)
    assert not torch.allclose(backwards.outputs, flipped.outputs)


# Splitting in time


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_splitting_a_scan_in_time_changes_nothing(data):
    kind = data.draw(st.sampled_from(["Elman tanh", "GRU", "LSTM projected", "nn.LSTMCell"]))
    backend = data.draw(st.sampled_from(["reference", "torch"]))
    steps, batch = data.draw(st.integers(0, 9)), data.draw(st.integers(1, 4))
    cut = data.draw(st.integers(0, steps))
    reverse = data.draw(st.booleans())
    cell = make(kind)
    x = random(steps, batch, I, seed=data.draw(st.integers(0, 1000)))
    state = random_state(cell, batch, seed=77)
    length = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
    lengths = data.draw(st.none() | length.map(torch.tensor))
    row = st.lists(st.booleans(), min_size=batch, max_size=batch)
    drawn = data.draw(st.none() | st.lists(row, min_size=steps, max_size=steps))
    resets = None if drawn is None else torch.tensor(drawn, dtype=torch.bool).reshape(steps, batch)

    whole = scan(cell, x, state, lengths=lengths, resets=resets, reverse=reverse, backend=backend)
    parts = {}
    for start, end in [(cut, steps), (0, cut)] if reverse else [(0, cut), (cut, steps)]:
        some = None if lengths is None else (lengths - start).clamp(0, end - start)
        cuts = None if resets is None else resets[start:end]
        part = scan(cell, x[start:end], state, lengths=some, resets=cuts, reverse=reverse, backend=backend)
        parts[start, end], state = part.outputs, part.state
    joined = torch.cat([parts[0, cut], parts[cut, steps]])
    torch.testing.assert_close(joined, whole.outputs, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(state, whole.state, rtol=1e-10, atol=1e-11)


# Resets


class LearnedStart(GRU):
    """A cell whose initial state is not zero."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.first = nn.Parameter(torch.linspace(-1, 1, self.hidden_size, dtype=torch.float64))

    def initial_state(self, batch, *, device=None, dtype=None):
        return self.first.expand(batch, -1)


def test_resets_put_back_the_cells_own_initial_state():
    torch.manual_seed(7)
    cell = LearnedStart(I, N, dtype=torch.float64)
    x, state, resets = random(T, B, I, seed=1), random_state(cell, B, seed=2), torch.zeros(T, B, dtype=torch.bool)
    resets[3, 1] = True
    found = scan(cell, x, state, resets=resets)
    afresh = scan(cell, x[3:, 1:2])
    torch.testing.assert_close(found.outputs[3:, 1:2], afresh.outputs)
    from_passed_state = scan(cell, x[3:, 1:2], state[1:2])
    assert not torch.allclose(found.outputs[3:, 1:2], from_passed_state.outputs)
    (gradient,) = torch.autograd.grad(found.outputs[3:, 1].sum(), cell.first)
    assert gradient.abs().min() > 0


@every_backend
@both_ways
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_initial_is_what_resets_put_back_and_where_a_scan_starts(kind, reverse, backend):
    cell, x = make(kind), random(T, B, I, seed=1)
    initial, resets = random_state(cell, B, seed=12), torch.zeros(T, B, dtype=torch.bool)
    started = scan(cell, x, initial=initial, reverse=reverse, backend=backend)
    torch.testing.assert_close(started.outputs, scan(cell, x, initial, reverse=reverse).outputs)
    resets[2] = True
    found = scan(
        cell, x, random_state(cell, B, seed=2), initial=initial, resets=resets, reverse=reverse, backend=backend
    )
    after = slice(0, 3) if reverse else slice(2, T)
    afresh = scan(cell, x[after], initial, reverse=reverse, backend=backend)
    torch.testing.assert_close(found.outputs[after], afresh.outputs, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(found.state, afresh.state, rtol=1e-10, atol=1e-11)


@every_backend
def test_a_reset_past_a_sequences_length_does_nothing(backend):
    cell, x, state = make("LSTM"), random(T, B, I, seed=1), random_state(make("LSTM"), B, seed=2)
    resets = torch.arange(T).unsqueeze(1) >= torch.tensor([3, 0, 5, 6])
    with_resets = scan(cell, x, state, lengths=[3, 0, 5, 6], resets=resets, backend=backend)
    without = scan(cell, x, state, lengths=[3, 0, 5, 6], backend=backend)
    torch.testing.assert_close(with_resets.outputs, without.outputs)
    torch.testing.assert_close(with_resets.state, without.state)


# Records


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("Elman tanh", ("a", "h")),
        ("GRU", ("reset", "update", "new", "h")),
        ("LSTM", ("input", "forget", "cell", "output", "c", "h")),
    ],
)
@both_ways
def test_records_are_what_the_cell_watches_at_every_step(kind, names, reverse):
    cell, x, lengths = make(kind), random(T, B, I, seed=1), [3, 6, 0, 4]
    found = scan(cell, x, lengths=lengths, record=names, reverse=reverse)
    assert tuple(found.records) == names
    assert {tuple(v.shape) for v in found.records.values()} == {(T, B, N)}
    assert torch.equal(found.records["h"], found.outputs)
    for b, length in enumerate(lengths):
        for name in names:
            assert found.records[name][:length, b].all(), "a record of a real step"
            assert not found.records[name][length:, b].any()
    if kind == "GRU":
        start = torch.zeros(1, B, N, dtype=torch.float64)
        h = torch.cat([found.outputs[1:], start] if reverse else [start, found.outputs[:-1]])
        z, n = found.records["update"], found.records["new"]
        real = torch.arange(T).unsqueeze(1) < torch.tensor(lengths)
        torch.testing.assert_close(((1 - z) * n + z * h)[real], found.outputs[real])


def test_records_in_any_order_and_only_those_asked_for():
    found = scan(make("LSTM"), random(T, B, I, seed=1), record=("c", "forget"))
    assert list(found.records) == ["c", "forget"]
    assert scan(make("LSTM"), random(T, B, I, seed=1)).records == {}


def test_records_carry_gradients():
    cell = make("GRU")
    found = scan(cell, random(T, B, I, seed=1), record=("update",))
    (gradient,) = torch.autograd.grad(found.records["update"].sum(), cell.weight_hh)
    assert gradient[N : 2 * N].abs().max() > 0


def test_records_of_no_steps_are_empty():
    found = scan(make("GRU"), random(0, B, I, seed=1), record=("update",))
    assert found.records["update"].shape == (0, B, N)


@pytest.mark.parametrize("steps", [0, T])
def test_an_unknown_record_names_the_nearest(steps):
    with pytest.raises(ValueError, match="unknown record 'forgot'; did you mean 'forget'"):
        scan(make("LSTM"), random(steps, B, I, seed=1), record=("forgot",))


def test_an_unknown_record_like_none_lists_all():
    with pytest.raises(ValueError, match="unknown record 'zzzz'; there are: a, h"):
        scan(make("Elman tanh"), random(T, B, I, seed=1), record=("zzzz",))


@pytest.mark.parametrize("function", [scan, explain])
def test_a_record_that_is_a_string_is_refused(function):
    with pytest.raises(TypeError, match=r"write \('update',\)"):
        function(make("GRU"), random(T, B, I, seed=1), record="update")


# Who runs what


class Leaky(Cell):
    """A user's own cell, with an output beside its state, and states of two widths."""

    def __init__(self):
        super().__init__(I, N, dtype=torch.float64)
        self.state_sizes = (N, 2)
        self.down = nn.Linear(N, 2, dtype=torch.float64)
        self.out = nn.Linear(2, 7, dtype=torch.float64)

    def forward(self, x, state):
        h, slow = state
        ((a,), (b,)) = self.project_input(x), self.project_state(h, None)
        h = torch.tanh(a + b)
        slow = 0.9 * slow + 0.1 * self.down(h)
        return self.watch("seen", self.out(slow)), (h, slow)


class Bare(nn.Module):
    """A cell that says nothing of its state."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(I + N, N, dtype=torch.float64)

    def forward(self, x, h):
        return torch.tanh(self.linear(torch.cat([x, h], -1)))


def hooked(kind):
    cell = make(kind)
    cell.register_forward_hook(lambda module, args, result: result * 0.5)
    return cell


def pre_hooked():
    cell = make("GRU")
    cell.register_forward_pre_hook(lambda module, args: (args[0] * 0.5, args[1]))
    return cell


def own_forward():
    cell = make("GRU")
    cell.forward = lambda x, h: h + 1
    return cell


class Louder(GRU):
    def forward(self, x, h, mask=None):
        return 2 * super().forward(x, h, mask)


class Rolls(GRU):
    """Along the features, one unit hangs on all before it: nothing the engine has."""

    def forward(self, x, h, mask=None):
        return super().forward(x, h, mask) + 0.1 * h.cumsum(-1)


X = random(T, B, I, seed=1)
CANNOT = {  # build, options, the backend that runs it, why torch does not, why the compiled loop does not
    "own cell": (Leaky, {}, "cpu", "no kernel for Leaky", None),
    "subclass": (lambda: Louder(I, N, dtype=torch.float64), {}, "cpu", "no kernel for Louder", None),
    "record": (lambda: make("GRU"), {"record": ("update", "new")}, "cpu", r"inner values \(update, new\)", None),
    "an operation": (
        lambda: Rolls(I, N, dtype=torch.float64), {}, "reference", "no kernel", r"aten.cumsum at .*py:\d+: .*the features"
    ),
    "hook": (lambda: hooked("GRU"), {}, "reference", "hooks", "hooks"),
    "pre-hook": (pre_hooked, {}, "reference", "hooks", "hooks"),
    "own forward": (own_forward, {}, "reference", "forward of its own", "forward of its own"),
    "hooked nn.GRUCell": (lambda: hooked("nn.GRUCell"), {}, "reference", "hooks", "hooks"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "options", "runs", "torch_reason", "cpu_reason"), CANNOT.values(), ids=CANNOT)
def test_what_a_backend_cannot_run_goes_to_the_next_and_explain_says_why(
    build, options, runs, torch_reason, cpu_reason
):
    cell = build()
    said = explain(cell, X, **options)
    assert said.chosen == runs
    assert list(said.reasons) == ["cpu", "torch", "reference"]
    assert said.reasons["reference"] is None
    assert str(said).startswith(f"runs on '{runs}'\n") and "not on 'torch': " in str(said)
    for backend, reason in (("torch", torch_reason), ("cpu", cpu_reason)):
        if reason is None:
            assert said.reasons[backend] is None
            continue
        with pytest.raises(
            RuntimeError, match=f"backend '{backend}' cannot run this: .*{reason}.*; use backend='auto'"
        ):
            scan(cell, X, backend=backend, **options)
        with pytest.raises(RuntimeError, match=reason):
            explain(cell, X, backend=backend, **options)
    found, expected = scan(cell, X, **options), scan(cell, X, backend="reference", **options)
    torch.testing.assert_close(found.outputs, expected.outputs, rtol=1e-12, atol=1e-12)


def test_several_inputs():
    class Adds(nn.Module):
        def forward(self, xs, h):
            return torch.tanh(xs[0] + xs[1][0]) + xs[1][1].unsqueeze(-1) * h

    x, y, k = random(T, B, N, seed=1), random(T, B, N, seed=2), random(T, B, seed=3)
    state = random(B, N, seed=4)
    for reverse in (False, True):
        found = scan(Adds(), (x, (y, k)), state, lengths=[3, 6, 0, 4], reverse=reverse)
        for b, length in enumerate([3, 6, 0, 4]):
            h = state[b]
            for t in reversed(range(length)) if reverse else range(length):
                h = torch.tanh(x[t, b] + y[t, b]) + k[t, b] * h
                torch.testing.assert_close(found.outputs[t, b], h)
            torch.testing.assert_close(found.state[b], h)
    with pytest.raises(RuntimeError, match="no kernel for Adds"):
        scan(Adds(), (x, (y, k)), state, backend="torch")


@every_cell
def test_every_backend_runs_the_standard_cells_and_auto_takes_the_compiled_loop(kind):
    cell = make(kind)
    said = explain(cell, X)
    assert (said.chosen, said.reasons) == ("cpu", {"cpu": None, "torch": None, "reference": None})
    first, _, rest = str(said).partition("\nnot linear in ")
    assert first == "runs on 'cpu'\n'torch' could run it too\n'reference' could run it too"
    assert "the state: a product of matrices takes it at " in rest
    assert torch.equal(scan(cell, X).outputs, scan(cell, X, backend="cpu").outputs)
    assert explain(cell, X, backend="reference").chosen == "reference"


def test_auto_takes_the_backend_that_explain_names(monkeypatch):
    from throughtime.scanning import native, reference
    from throughtime.scanning.cpu import backend as compiled

    ran = []
    for backend in (compiled, native, reference):
        monkeypatch.setattr(backend, "run", lambda call, b=backend, run=backend.run: ran.append(b.name) or run(call))
    for cell, options in [(make("GRU"), {}), (make("GRU"), {"record": ("update",)}), (Leaky(), {})]:
        scan(cell, X, **options)
        assert ran.pop() == explain(cell, X, **options).chosen
    scan(make("GRU"), X, backend="reference")
    assert ran == ["reference"]


def test_a_hook_has_its_effect():
    x, state = random(T, B, I, seed=1), random(B, N, seed=2)
    h = state
    for t in range(T):
        h = make("GRU")(x[t], h) * 0.5
    torch.testing.assert_close(scan(hooked("GRU"), x, state).state, h)


def test_a_backward_hook_is_called():
    """The kernel would pass it by, as it would a forward hook."""
    cell, seen = make("GRU"), []
    cell.register_full_backward_hook(lambda module, of_inputs, of_outputs: seen.append(of_outputs))
    scan(cell, random(T, B, I, seed=1).requires_grad_(), random_state(cell, B, seed=2)).outputs.sum().backward()
    assert len(seen) == T


def test_what_is_watched_around_a_scan_is_seen():
    """A kernel shows no inner values, so where somebody watches it is not the one to run."""
    cell = make("GRU")
    with watching() as seen:
        outputs = scan(cell, X).outputs
    assert set(seen) == {"reset", "update", "new", "h"}
    assert torch.equal(seen["h"], outputs[-1])


def test_a_hook_taken_away_leaves_the_compiled_loop():
    cell = make("GRU")
    handle = cell.register_forward_hook(lambda *_: None)
    assert explain(cell, X).chosen == "reference"
    handle.remove()
    assert explain(cell, X).chosen == "cpu"


@pytest.mark.parametrize(("name", "near"), [("tosch", "torch"), ("Reference", "reference"), ("automatic", "auto")])
@pytest.mark.parametrize("function", [scan, explain])
def test_an_unknown_backend_names_the_nearest(function, name, near):
    with pytest.raises(ValueError, match=f"unknown backend '{name}'; did you mean '{near}'"):
        function(make("GRU"), X, backend=name)


def test_an_unknown_backend_like_none_lists_all():
    with pytest.raises(ValueError, match="unknown backend 'xyz'; there are: auto, cpu, reference, torch"):
        scan(make("GRU"), X, backend="xyz")


# Cells of one's own


@both_ways
@every_length
def test_a_cell_with_an_output_and_states_of_two_widths(lengths, reverse):
    torch.manual_seed(7)
    cell = Leaky()
    state, resets = random_state(cell, B, seed=2), make_resets("random")
    found = scan(cell, X, state, lengths=lengths, reverse=reverse, resets=resets, record=("seen",))
    assert found.outputs.shape == (T, B, 7)
    assert [tuple(s.shape) for s in found.state] == [(B, N), (B, 2)]
    assert torch.equal(found.records["seen"], found.outputs)
    for b in range(B):
        s = tuple(v[b : b + 1] for v in state)
        real = range(T if lengths is None else lengths[b])
        for t in reversed(real) if reverse else real:
            if resets[t, b]:
                s = tuple(torch.zeros_like(v) for v in s)
            y, s = cell(X[t, b : b + 1], s)
            torch.testing.assert_close(found.outputs[t, b : b + 1], y, rtol=1e-10, atol=1e-11)
        for v, e in zip(found.state, s, strict=True):
            torch.testing.assert_close(v[b : b + 1], e, rtol=1e-10, atol=1e-11)
        assert not found.outputs[len(real) :, b].any()


def test_no_steps_of_a_cell_with_an_output_have_the_outputs_width():
    cell = Leaky()
    state = random_state(cell, B, seed=2)
    found = scan(cell, X[:0], state)
    assert found.outputs.shape == (0, B, 7)
    assert all(torch.equal(f, s) for f, s in zip(found.state, state, strict=True))


def test_a_cell_that_says_nothing_of_its_state_needs_one():
    torch.manual_seed(7)
    cell, h = Bare(), random(B, N, seed=2)
    with pytest.raises(TypeError, match="Bare does not say what it starts from: pass state="):
        scan(cell, X)
    found = scan(cell, X, h)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 1] = True
    reset = scan(cell, X, h, resets=resets)
    for t in range(T):
        h = cell(X[t], h)
        torch.testing.assert_close(found.outputs[t], h)
    afresh = scan(cell, X[2:, 1:2], torch.zeros(1, N, dtype=torch.float64))
    torch.testing.assert_close(reset.outputs[2:, 1:2], afresh.outputs)
    torch.testing.assert_close(scan(cell, X, initial=h).outputs, scan(cell, X, h).outputs)


@pytest.mark.parametrize("result", [None, "text", (torch.zeros(B, N),) * 3])
def test_a_cell_that_returns_something_else_is_refused(result):
    class Odd(Bare):
        def forward(self, x, h):
            return result

    with pytest.raises(TypeError, match=r"a cell returns its new state \(a tensor \[4, 5\]\), or a pair"):
        scan(Odd(), X, torch.zeros(B, N, dtype=torch.float64))


# Derivatives


def as_function(cell, lengths, resets, reverse):
    """scan as a function of inputs, state and weights, on the reference."""
    names = list(dict(cell.named_parameters()))
    alone = isinstance(initial_state(cell, 1), torch.Tensor)

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell

        def forward(self, x, state):
            found = scan(cell, x, state, lengths=lengths, resets=resets, reverse=reverse, backend="reference")
            return found.outputs, *tensors(found.state)

    whole = Whole()

    def function(x, *rest):
        state = rest[0] if alone else rest[:2]
        weights = dict(zip((f"cell.{n}" for n in names), rest[1 if alone else 2 :], strict=True))
        return torch.func.functional_call(whole, weights, (x, state))

    return function


@both_ways
@pytest.mark.parametrize("kind", [Elman, GRU, LSTM])
def test_first_and_second_derivatives_of_the_reference(kind, reverse):
    torch.manual_seed(7)
    cell = kind(1, 2, dtype=torch.float64)
    resets = torch.tensor([[False, False], [False, True], [True, False]])
    function = as_function(cell, [3, 2], resets, reverse)
    arguments = (
        random(3, 2, 1, seed=1),
        *tensors(random_state(cell, 2, seed=2)),
        *(p.detach().clone() for p in cell.parameters()),
    )
    arguments = tuple(a.requires_grad_() for a in arguments)
    assert torch.autograd.gradcheck(function, arguments)
    assert torch.autograd.gradgradcheck(function, arguments, fast_mode=True)


@every_backend
@every_cell
def test_running_twice_gives_the_same_and_leaves_the_inputs_alone(kind, backend):
    cell = make(kind)
    x, state, resets = random(T, B, I, seed=1), random_state(cell, B, seed=2), make_resets("random")
    lengths = torch.tensor([3, 6, 0, 4])
    kept = [v.clone() for v in (x, *tensors(state), resets, lengths)]
    first = scan(cell, x, state, lengths=lengths, resets=resets, backend=backend)
    second = scan(cell, x, state, lengths=lengths, resets=resets, backend=backend)
    assert torch.equal(first.outputs, second.outputs)
    for before, after in zip(kept, (x, *tensors(state), resets, lengths), strict=True):
        assert torch.equal(before, after)


# Lengths as lists, tuples and tensors of any whole type; what does not fit


@pytest.mark.parametrize("kind", [list, tuple, torch.tensor, lambda v: torch.tensor(v, dtype=torch.int32)])
def test_lengths_of_any_whole_type(kind):
    cell = make("GRU")
    expected = row_by_row(cell, X, lengths=[3, 6, 1, 4])
    torch.testing.assert_close(scan(cell, X, lengths=kind([3, 6, 1, 4])).outputs, expected.outputs)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"inputs": X[0, 0]}, ValueError, r"inputs must be \[T, B, ...\], got \[3\]"),
        ({"inputs": (X, X[:4])}, ValueError, r"inputs differ in T, B: \[6, 4\] and \[4, 4\]"),
        ({"state": torch.zeros(3, N, dtype=torch.float64)}, ValueError, r"B = 4, got \[3, 5\]"),
        ({"state": torch.zeros((), dtype=torch.float64)}, ValueError, r"B = 4, got \[\]"),
        ({"lengths": [1, 2, 3]}, ValueError, r"lengths must be 4 whole numbers, got \[3\]"),
        ({"lengths": [1.0, 2.0, 3.0, 4.0]}, ValueError, "lengths must be 4 whole numbers, got .* of torch.float32"),
        ({"lengths": [1, 2, 3, 7]}, ValueError, r"lengths must lie in 0 to T = 6, got \[1, 2, 3, 7\]"),
        ({"lengths": [1, -2, 3, 4]}, ValueError, "lengths must lie in 0 to T = 6"),
        ({"resets": torch.zeros(B, T, dtype=torch.bool)}, ValueError, r"\[T, B\] = \[6, 4\], got .* \[4, 6\]"),
        ({"resets": torch.zeros(T, B)}, ValueError, r"torch.float32 .*; use resets.bool\(\)"),
    ],
)
@pytest.mark.parametrize("function", [scan, explain])
def test_what_does_not_fit_is_refused(function, options, error, message):
    with pytest.raises(error, match=message):
        function(make("GRU"), **{"inputs": X} | options)


@every_backend
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_an_input_of_the_wrong_width_is_refused(kind, backend):
    with pytest.raises(RuntimeError):
        scan(make(kind), random(T, B, I + 1, seed=1), backend=backend)


@every_backend
@pytest.mark.parametrize(
    ("kind", "count"),
    [("Elman tanh", 1), ("GRU", 1), ("GRU", 2), ("nn.GRUCell", 2), ("LSTM", 0), ("LSTM", 1), ("LSTM", 3)],
)
def test_a_state_of_another_structure_is_refused(kind, count, backend):
    """A tuple where the cell has one tensor, or another number of them; count 0: a tensor where it has a tuple."""
    h = random(B, N, seed=2)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        scan(make(kind), X, (h,) * count if count else h, backend=backend)


def test_the_package_shows_scan():
    assert tt.scan is scan
    assert tt.explain is explain
    assert tt.Scanned is Scanned
