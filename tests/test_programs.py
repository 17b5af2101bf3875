"""Programs: what they are made of, what is shared and what is not, and how long they are remembered."""

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.scanning import derivative, evaluate, nodes, programs
from throughtime.scanning.backward import backward
from throughtime.scanning.call import make_call
from throughtime.scanning.capture import _Trial, capture
from throughtime.scanning.cpu import backend, functions
from throughtime.scanning.cpu.arguments import Arguments, Layout
from throughtime.scanning.cpu.engine import CPUEngine
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.target import host
from throughtime.scanning.division import divide
from throughtime.scanning.engine import Given
from throughtime.scanning.operator import run_loop

T, B, I, N = 9, 5, 3, 7  # noqa: E741
F64 = torch.float64


def random(*shape, seed, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def cell_of(kind, seed=0):
    torch.manual_seed(seed)
    return kind(I, N, dtype=F64)


def call_of(cell, **options):
    return make_call(cell, random(T, B, I, seed=1), None, **options)


# The tables of operations


@pytest.mark.parametrize(
    ("table", "without"),
    [(evaluate.TORCH, {"expand"}), (functions.VECTORS, set())],
    ids=["PyTorch", "vectors"],
)
def test_a_target_says_what_every_operation_is(table, without):
    assert set(table) == nodes.POINTWISE - without
    assert set(functions.NEUTRAL) == nodes.REDUCTIONS


def test_what_has_no_gradient_is_known():
    """Every other pointwise operation has a rule."""
    no_gradient = nodes.COMPARISONS | nodes.LOGIC | {"floor", "sign", "detach"}
    assert nodes.POINTWISE - set(derivative.RULES) == no_gradient


def test_another_target_needs_a_table_and_no_more():
    """Nodes in words, by the walk that PyTorch's values take."""

    class Words:
        def __init__(self):
            self.pointwise = {op: lambda *args, op=op: f"{op}({', '.join(args)})" for op in nodes.POINTWISE}

        def number(self, value):
            return f"{value:g}"

        def leaf(self, kind, index, offset, width):
            return f"{kind}{index}"

        def slice(self, value, offset, width):
            return f"{value}[{offset}:{offset + width}]"

        def expand(self, value, width):
            return value

        def product(self, row, weights, bias):
            return f"{'|'.join(row)} @ {weights}"

        def sum(self, row):
            return f"sum({', '.join(row)})"

        def max(self, row):
            return f"max({', '.join(row)})"

    program = divide(capture(call_of(cell_of(tt.cells.Elman))), resets=False)
    assert evaluate.evaluate(program.states[0], Words()) == ["tanh(add(u0, add(s0 @ (1,), v1)))"]


class Deep(nn.Module):
    """Two layers before the state."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(I, N + 1, dtype=F64), nn.Linear(N + 1, N, dtype=F64)

    def forward(self, x, h):
        return torch.tanh(self.second(torch.tanh(self.first(x))) + h)


def test_products_below_products_are_in_the_loop_of_single_steps():
    torch.manual_seed(0)
    x = random(T, B, I, seed=1)
    program = divide(capture(make_call(Deep(), x, random(B, N, seed=2))), resets=False, hoist=False)
    assert [n.op for n in program.forward.nodes].count("product") == 2
    assert "affine" not in {n.op for n in program.forward.nodes}


# What engines share


def given_of(program, cell, seed):
    vectors, weights = program.captured.constants.made_of([p.detach() for p in cell.parameters()])
    state = [random(B, n, seed=seed) for n in program.state_widths]
    return Given([random(T, B, I, seed=1)], vectors, weights, state, [], T, 1, None, None)


def test_a_program_does_not_change_as_it_is_used():
    captured = capture(call_of(cell_of(tt.cells.LayerNormGRU)))
    made = dict(captured.graph._made)
    program = divide(captured, resets=True)
    after = dict(program.graph._made)
    for wanted in (frozenset(), frozenset({("w", 0), ("a", 0)})):
        backward(program, wanted)
    divide(captured, resets=False, hoist=False)
    assert captured.graph._made == made and program.graph._made == after
    with pytest.raises(AttributeError):
        program.states = ()


def test_two_engines_over_one_program_do_not_meet():
    """Of one program in two types of number, one with gradients taken and one without, in turn."""
    cell = cell_of(tt.cells.LSTM)
    program = divide(capture(call_of(cell)), resets=False)
    one, other = CPUEngine(program, F64), CPUEngine(program, F64)
    given = given_of(program, cell, seed=3)
    wanted = frozenset({("w", 0), ("w", 1)})
    one.prepare(wanted, B)
    assert not other._loops and not other._backward and not other._alone
    states, _, finals = run_loop(other, given, None)
    expected = tt.scan(cell, given.arrays[0], tuple(given.state), backend="reference")
    torch.testing.assert_close(states[0], expected.outputs)
    torch.testing.assert_close(tuple(finals), expected.state)
    assert one.saved(wanted) == other.saved(wanted) and one.backward_of(wanted) is not other.backward_of(wanted)


# How long they are remembered


def test_what_was_not_used_for_longest_goes_first(monkeypatch):
    monkeypatch.setattr(programs, "MOST", 3)
    monkeypatch.setattr(backend, "programs", programs.Programs(CPUEngine))
    cells = []
    for width in range(3):
        cells.append(tt.cells.GRU(I, 30 + width, dtype=F64))
        first = backend.find(call_of(cells[0]))  # used again and again
        backend.find(call_of(cells[-1]))
    backend.find(call_of(tt.cells.GRU(I, 40, dtype=F64)))
    assert backend.find(call_of(cells[0])) is first
    known = backend.programs.known
    assert len(known) == 3
    histories = backend.programs.histories
    backend.find(call_of(cells[1]))
    assert histories[cells[1]].made == 2 and histories[cells[0]].made == 1


def test_a_program_for_single_steps_is_made_once():
    class Own(tt.cells.GRU):
        pass

    stack = tt.Recurrent(Own, I, N)
    x, outputs = torch.randn(4, 2, I), []
    for _ in range(3):
        stepper = stack.stepper(2, backend="cpu")
        outputs.append(torch.stack([stepper(row) for row in x]))
    assert backend.programs.histories[stack.cells[0]].made == 1
    torch.testing.assert_close(outputs[0], stack(x)[0])
    assert torch.equal(outputs[1], outputs[0]) and torch.equal(outputs[2], outputs[0])


def test_steppers_of_one_program_have_each_their_own_state_and_weights():
    stack = tt.Recurrent(tt.cells.GRU, I, N)
    one, x = stack.stepper(), torch.randn(1, I)
    first = one(x)
    with torch.no_grad():
        for p in stack.parameters():
            p.mul_(0.5)
    other = stack.stepper()
    assert not torch.equal(other(x), first)
    one.reset()
    assert torch.equal(one(x), first)


# The argument block


def test_an_array_without_a_place_is_told_before_the_loop_reads_it():
    layout = Layout()
    layout.add(("a", 0))
    arguments = Arguments(layout, 1, steps=1)
    with pytest.raises(AssertionError, match="arrays without a place"):
        arguments.begin()
    arguments.place(("a", 0), [1, 2, 3])
    arguments.place(("a", 1), [4, 5, 6])  # which the loop does not know
    arguments.begin()
    at = layout.words["a", 0]
    assert arguments.block[at : at + 3] == [1, 2, 3]


# Where a cell is traced


def test_the_stand_ins_are_where_the_weights_are():
    """On a device without numbers, so that nothing can have been made elsewhere."""
    cell = tt.cells.GRU(I, N, device="meta")
    call = make_call(cell, torch.zeros(T, B, I, device="meta"), torch.zeros(B, N, device="meta"))
    trial = _Trial(call)
    states, _ = trial.run()
    assert states[0].device.type == "meta" and {t.device.type for t in trial.tensors} == {"meta"}
    assert "the inputs are on meta" in backend.why_not(call)


def test_a_cell_whose_weights_are_elsewhere_is_told_so():
    cell = tt.cells.GRU(I, N, device="meta")
    call = make_call(cell, torch.zeros(T, B, I), torch.zeros(B, N))
    assert "the cell has a tensor on meta" in backend.why_not(call)


# What is given as a cell


@pytest.mark.parametrize("run", [tt.scan, tt.explain], ids=["scan", "explain"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda: tt.GRU(I, N), r"GRU is a layer.* call it.*tt\.cells\.GRU\(3, 7\)"),
        (lambda: nn.LSTM(I, N), r"LSTM is a layer.* call it.*tt\.cells\.LSTM\(3, 7\)"),
        (lambda: tt.RNN(I, N), r"RNN is a layer.* call it.*tt\.cells\.Elman\(3, 7\)"),
        (lambda: tt.Recurrent(tt.cells.GRU, I, N), r"Recurrent is a layer.* call it.*cells\[0\]"),
        (lambda: tt.cells.GRU, r"GRU is a class: give a cell made of it, as GRU\("),
        (lambda: "gru", r"a cell is a module or a function of \(x, state\), got str"),
        (lambda: lambda x, h: h, "<lambda> does not say what it starts from: pass state=$"),
    ],
)
def test_what_is_no_cell_is_said_in_a_line(run, given, said):
    with pytest.raises(TypeError, match=said) as caught:
        run(given(), torch.zeros(T, B, I))
    assert "\n" not in str(caught.value)


def test_the_cells_that_are_told_of_are_cells():
    x = random(T, B, I, seed=1, dtype=torch.float32)
    tt.scan(tt.cells.GRU(3, 7), x)
    stack = tt.Recurrent(tt.cells.GRU, I, N)
    torch.testing.assert_close(tt.scan(stack.cells[0], x).outputs, stack(x)[0])


def test_a_plain_function_is_a_cell():
    weight = random(N, N, seed=4).requires_grad_()

    def own(x, h):
        return torch.tanh(x.sum(-1, keepdim=True) - 0.5 * h)

    def borrows(x, h):
        return torch.tanh(x.sum(-1, keepdim=True) + h @ weight)

    x, h = random(T, B, I, seed=1).requires_grad_(), random(B, N, seed=2).requires_grad_()
    lengths = [9, 4, 0, 7, 1]
    for function, chosen in ((own, "cpu"), (borrows, "reference")):
        explained = tt.explain(function, x, h, lengths=lengths)
        assert explained.chosen == chosen and f"no kernel for {function.__name__}" in explained.reasons["torch"]
        outputs, state, _ = tt.scan(function, x, h, lengths=lengths)
        found = torch.autograd.grad(outputs.sin().sum() + state.cos().sum(), [x, h])
        for b, length in enumerate(lengths):
            s = h[b : b + 1]
            for t in range(length):
                s = function(x[t, b : b + 1], s)
                torch.testing.assert_close(outputs[t, b : b + 1], s)
            assert not outputs[length:, b].any()
            torch.testing.assert_close(state[b : b + 1], s)
        expected = tt.scan(function, x, h, lengths=lengths, backend="reference")
        wanted = torch.autograd.grad(expected.outputs.sin().sum() + expected.state.cos().sum(), [x, h])
        torch.testing.assert_close(found, wanted)


def test_a_function_whose_closure_changes_is_compiled_anew():
    x, h = random(T, B, I, seed=1), random(B, I, seed=2)

    def scaled(scale):
        return lambda x, h: torch.tanh(x + h * scale)

    for scale in (0.5, 2.0, 0.5):
        found = tt.scan(scaled(scale), x, h, backend="cpu").outputs
        torch.testing.assert_close(found, tt.scan(scaled(scale), x, h, backend="reference").outputs)


class Residual(nn.Module):
    """Layers with a way past each: the state after the last hangs on what every one has given."""

    def __init__(self, layers):
        super().__init__()
        self.weights = nn.ParameterList([0.3 * random(N, N, seed=k) for k in range(layers)])

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, N, dtype=F64)

    def forward(self, x, h):
        h = h + x[:, :1]
        for w in self.weights:
            h = 0.9 * h + 0.2 * torch.tanh(h @ w) * torch.sigmoid(h)
        return h


def test_a_deep_cell_is_compiled_in_time_that_grows_with_its_depth():
    """What a way past many layers adds up is fetched, not worked out again in each."""
    sizes = []
    for layers in (12, 24):
        cell = Residual(layers)
        engine = backend.find(make_call(cell, random(T, B, I, seed=1), None))
        plan = backward(engine.program, frozenset(("w", i) for i in range(layers)))
        loops = [(plan.forward, False), (plan.loop, True)]
        sizes.append([len(LoopCode(engine.program, loop, host(), "double", back).text()) for loop, back in loops])
    assert all(deep < 2.2 * shallow for shallow, deep in zip(*sizes, strict=True))


def test_a_deep_cell_is_right():
    cell, x = Residual(12), random(T, B, I, seed=5).requires_grad_()
    found = []
    for name in ("cpu", "reference"):
        outputs = tt.scan(cell, x, backend=name).outputs
        found.append([outputs, *torch.autograd.grad(outputs.sin().sum(), [x, *cell.parameters()])])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
