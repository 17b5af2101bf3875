"""Random cells against a plain loop of the tests' own, and the kinds that were once wrong, each by its name.

The cells run in a worker process, so that one that dies is a failure and not the end of the tests. Many more run by hand:
`python tests/cell_fuzz.py --cells 20000`.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import cell_fuzz
import cell_judge
import throughtime as tt
from cell_maker import make
from cell_spec import Spec

CELLS = 60
DTYPES = ("float32", "float64")
BUFFER_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
PLAIN = {
    "T": 5,
    "B": 3,
    "lengths": None,
    "resets": False,
    "reverse": False,
    "initial": False,
    "seed": 3,
    "poison": False,
    "gradients": "all",
    "layouts": ["plain"],
    "inference": False,
    "copy": False,
    "named": False,
    "loss": "all",
    "own": False,
}
ENDS = {"lengths": [5, 2, 0], "poison": True}
CUT = {**ENDS, "resets": True, "initial": True}


@pytest.fixture(scope="module")
def worker():
    worker = cell_fuzz.Worker()
    yield worker
    worker.close()


def cell(
    *body,
    init=(),
    result="n0",
    x=((4,),),
    h=((4,),),
    kinds=None,
    dtype="float32",
    changes=(),
    alone=True,
    pure=False,
    **call,
):
    """A spec of a cell that makes the state n0 (and n1 …, where there are several) of x0 … and h0 …"""
    names = ["x0"] if len(x) == 1 else [f"x{k}" for k in range(len(x))]
    states = [f"h{k}" for k in range(len(h))]
    return Spec(
        0,
        dtype,
        list(init),
        list(body),
        result,
        names[0] if len(x) == 1 else f"({', '.join(names)})",
        states[0] if len(h) == 1 else f"({', '.join(states)})",
        [("float", list(t)) for t in x],
        [(k, list(t)) for k, t in zip(kinds or ["float"] * len(h), h, strict=True)],
        result.startswith("(y"),
        alone,
        pure,
        [],
        list(changes),
        PLAIN | {"layouts": ["plain"] * len(x)} | call,
    )


def assert_right(judged):
    wrong = [run for run in judged["runs"] if run[1] not in cell_judge.FINE]
    assert not wrong, wrong


# Random cells


def test_random_cells():
    counts = cell_fuzz.Counts()
    for judged in cell_fuzz.run(range(CELLS)):
        counts.add(judged)
    assert not counts.faults, f"python tests/cell_fuzz.py --shrink SEED says more: {counts.faults}"
    assert counts.chosen["cpu"] > CELLS // 3, f"too few are compiled: {counts.reasons}"
    assert counts.cells["equal"] + counts.cells["equal on the loop"] > 0.9 * CELLS, counts.cells
    kinds = {
        "pointwise",
        "products",
        "shapes",
        "constants",
        "numbers",
        "held",
        "statements",
        "inner",
        "buffer",
        "frozen",
        "mixes the batch",
    }
    assert not kinds - set(counts.tags)


# Does it see what is wrong?


def of_a_row(found):
    """The last sequence's last state a little off."""
    end = [e.clone() for e in cell_judge.flat(found.state)]
    if end[0].is_floating_point() and end[0].numel():
        end[0].view(-1)[-1] += 1e-3
    return found._replace(state=tuple(end) if isinstance(found.state, tuple) else end[0])


SEEDED = {
    "a state a little off": of_a_row,
    "outputs that have no gradient": lambda found: found._replace(outputs=found.outputs.detach()),
    "outputs of another type": lambda found: found._replace(outputs=found.outputs.half()),
    "outputs of the steps before": lambda found: found._replace(outputs=found.outputs.roll(1, 0)),
    "a gradient twice as large": lambda found: found._replace(outputs=found.outputs * 2 - found.outputs.detach()),
}
SIMPLE = cell(
    "n0 = torch.tanh(x0 + F.linear(h0, self.w))",
    init=["self.w = nn.Parameter(rand(1, 4, 4).to(dtype))"],
    pure=True,
    **ENDS,
)


@pytest.mark.parametrize("fault", SEEDED)
def test_the_judge_sees_what_is_wrong(fault, monkeypatch):
    assert cell_judge.judge(SIMPLE).verdict in cell_judge.FINE
    right = tt.scan
    monkeypatch.setattr(cell_judge.tt, "scan", lambda *args, **options: SEEDED[fault](right(*args, **options)))
    assert cell_judge.judge(SIMPLE).verdict == "WRONG"


@pytest.mark.parametrize("option", [{"reverse": True}, {"lengths": [5, 3, 0]}, {"resets": None}, {"initial": None}])
def test_the_judge_sees_a_call_that_is_not_the_one_asked(option, monkeypatch):
    asked = replace(SIMPLE, call=SIMPLE.call | CUT | {"seed": 5})
    assert cell_judge.judge(asked).verdict in cell_judge.FINE
    right = tt.scan
    monkeypatch.setattr(cell_judge.tt, "scan", lambda *args, **options: right(*args, **(options | option)))
    assert cell_judge.judge(asked).verdict == "WRONG"


def test_a_stale_answer_is_seen(monkeypatch):
    first = {}
    right = tt.scan

    def remembered(cell_, *args, **options):
        return first.setdefault(
            (options["backend"], torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
            right(cell_, *args, **options),
        )

    monkeypatch.setattr(cell_judge.tt, "scan", remembered)
    held = cell("n0 = torch.tanh(x0 * self.k + h0)", init=["self.k = 0.5"], changes=["cell.k = 2.0"], gradients="none")
    judged = cell_judge.judge(held)
    assert [verdict for _, verdict, _ in judged.runs] == ["equal"] * 2 + ["WRONG"]


def test_what_scan_raises_and_a_process_that_dies_are_seen(worker, monkeypatch):
    ends = worker.judge({"spec": replace(SIMPLE, body=["import os", "os._exit(3)"]).as_dict()})
    assert ends["verdict"] == "DEAD"
    assert_right(worker.judge({"spec": SIMPLE.as_dict()}))  # in a new process

    def fails(*args, **options):
        raise KeyError("x0")

    monkeypatch.setattr(cell_judge.tt, "scan", fails)
    assert cell_judge.judge(SIMPLE).verdict == "RAISED"
    assert cell_judge.judge(replace(SIMPLE, body=["raise ValueError"])).verdict == "RAISED"


def test_a_failing_cell_is_shrunk():
    seed = next(s for s in range(99) if len(make(s).body) > 6 and "softplus" in make(s).source() + "softplus")
    found = cell_fuzz.shrink(make(seed), lambda spec: "return" in spec.source() and len(spec.body) >= 2)
    assert len(found.body) == 2 and found.call["T"] == 2 and found.call["lengths"] is None


def test_a_seed_is_a_cell():
    assert make(11) == make(11) != make(12)


# The kinds, by name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", BUFFER_TYPES)
def test_a_buffer_of_any_type(kind, dtype, worker):
    init = [
        f'self.register_buffer("one", (torch.tensor(4.0) > 0).to(torch.{kind}) * 3)'
        if kind != "bool"
        else 'self.register_buffer("one", torch.tensor(True))',
        f'self.register_buffer("row", torch.arange(4).to(torch.{kind}))',
        f"self.apart = torch.arange(8).to(torch.{kind})[::2]",
        f"self.spread = torch.ones(1, 1).to(torch.{kind}).expand(1, 4)",
    ]
    body = [
        "v1 = x0 * self.row + h0 / (self.one + 1)",
        "v2 = F.linear(h0, self.w) * self.apart",
        "n0 = torch.tanh(v1 + v2 - self.spread.to(v2.dtype))",
    ]
    weight = "self.w = nn.Parameter(0.4 * rand(1, 4, 4).to(dtype))"
    changes = ["cell.row.copy_(cell.row.flip(0))", "cell.w.data.mul_(0.5)"]
    state = "n0.to(h0.dtype)"
    asked = cell(*body, init=[weight, *init], result=state, dtype=dtype, changes=changes, **CUT)
    assert_right(worker.judge({"spec": asked.as_dict()}))


CONSTANTS = {
    "an integer in a buffer": (["self.register_buffer('n', torch.tensor(4))"], ["n0 = torch.tanh(x0 + h0 / self.n)"]),
    "a number of numpy's": (["self.k = torch.as_tensor(np.sqrt(3.))"], ["n0 = torch.tanh(x0 * self.k + h0)"]),
    "a number of numpy's in forward": ([], ["n0 = torch.tanh(x0 * np.sqrt(3.) + h0 * np.float32(0.5))"]),
    "a parameter of another type": (
        ["self.w = nn.Parameter(rand(1, 4))"],
        ["n0 = torch.tanh(x0 * self.w + h0).to(h0.dtype)"],
    ),
    "no numbers at all": (
        ["self.register_buffer('none', torch.zeros(0))"],
        ["n0 = torch.tanh(x0 + h0 + self.none.sum())"],
    ),
    "a state that is constant": ([], ["n0 = torch.zeros_like(h0)"]),
    "a state that is filled": ([], ["n0 = torch.full_like(h0, 0.3)"]),
    "literals": ([], ["n0 = torch.tanh(x0 + h0 * torch.tensor([1, 2, 3, 4]) + torch.arange(4) + torch.eye(4)[0])"]),
    "a mask": ([], ["n0 = torch.tanh(x0 * torch.tensor([True, False, True, False]) + h0)"]),
    "comparisons as numbers": (
        [],
        ["n0 = torch.tanh(x0 * (h0 > 0) + (x0 > h0).long() - (x0 > 0).double().to(h0.dtype))"],
    ),
    "whole numbers": ([], ["v1 = (x0 * 3).long()", "n0 = torch.tanh(v1 // 2 + v1 % 2 + h0 / (v1.abs() + 1))"]),
    "the place of the largest": ([], ["n0 = torch.tanh(h0 + F.one_hot(x0.argmax(-1), 4))"]),
    "truth values added": ([], ["n0 = torch.tanh(h0 * ((x0 > 0) + (h0 > 0)) + x0)"]),
    "two types in a product": (
        ["self.w = nn.Parameter(rand(1, 4, 4))"],
        ["n0 = torch.tanh(F.linear(x0.double(), self.w) + h0).to(h0.dtype)"],
    ),
}
for _made in ("zeros_like(x0)", "ones_like(x0)", "zeros_like(x0).fill_(0.3)", "full_like(h0, 0.3)"):
    for _bias in ("", ", self.b"):
        CONSTANTS[f"a product of {_made}{_bias}"] = (
            ["self.w, self.b = nn.Parameter(rand(1, 4, 4).to(dtype)), nn.Parameter(rand(2, 4).to(dtype))"],
            [f"n0 = torch.tanh(F.linear(torch.{_made}, self.w{_bias}) + x0 + h0)"],
        )
OUTPUTS = {
    "zeros beside the input": "torch.cat([x0, torch.zeros_like(x0[:, :1])], 1)",
    "ones before the state": "torch.cat([torch.ones_like(h0[:, :2]), h0], 1)",
    "zeros": "torch.zeros_like(x0)",
    "new ones": "x0.new_ones(x0.shape[0], 2)",
    "stacked with zeros": "torch.stack([n0, torch.zeros_like(n0)], 1)",
    "truth values": "n0 > 0",
    "whole numbers": "n0.argmax(-1)",
    "another type": "n0.double()",
    "a number": "n0.sum(-1)",
}


@pytest.mark.parametrize("options", [{}, CUT], ids=["whole", "cut"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONSTANTS)
def test_constants_and_numbers_of_another_type(name, dtype, options, worker):
    init, body = CONSTANTS[name]
    asked = cell(*body, init=init, dtype=dtype, **options)
    if dtype == "float32" and "numpy" in name:
        asked = replace(asked, result="n0.to(h0.dtype)")
    assert_right(worker.judge({"spec": asked.as_dict()}))


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_with_constants_in_them(name, worker):
    asked = cell("n0 = torch.tanh(x0 + h0)", f"y0 = {OUTPUTS[name]}", result="(y0, n0)", **ENDS)
    assert_right(worker.judge({"spec": asked.as_dict()}))


STATES = {
    "[B]": ((),),
    "[B, B]": ((3,),),
    "[B, 1]": ((1,),),
    "[B, 3, 3]": ((3, 3),),
    "[B, B, 4, 2]": ((3, 4, 2),),
    "[B], [B, 13], [B, 3, 3] and [B, 2, 1, 17]": ((), (13,), (3, 3), (2, 1, 17)),
}
CUTS = {"whole": {}, "lengths": ENDS, "resets": {"resets": True}, "all": CUT}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", STATES)
def test_a_state_of_any_rank(name, cut, reverse, worker):
    shapes = STATES[name]
    body = ["v1 = x0.sum(-1) * 0.2"]
    for k, shape in enumerate(shapes):
        body.append(f"n{k} = torch.tanh(h{k} * 1.1 + v1.view(-1{', 1' * len(shape)}))")
    result = "n0" if len(shapes) == 1 else f"({', '.join(f'n{k}' for k in range(len(shapes)))})"
    asked = cell(*body, result=result, h=shapes, pure=True, reverse=reverse, named=True, **CUTS[cut])
    assert_right(worker.judge({"spec": asked.as_dict()}))


@pytest.mark.parametrize("cut", CUTS)
def test_states_of_several_types(cut, worker):
    body = [
        "n0 = torch.tanh(x0 + h0 + h2.to(x0.dtype) * 0.1)",
        "n1 = h1 ^ (n0.sum(-1) > 0)",
        "n2 = torch.where(n0 > 0, h2 + 1, h2)",
    ]
    asked = cell(*body, result="(n0, n1, n2)", h=((4,), (), (4,)), kinds=("float", "bool", "int"), **CUTS[cut])
    assert_right(worker.judge({"spec": asked.as_dict()}))


PADDED = {
    "a logarithm": "n0 = torch.tanh(F.linear(x0.abs().log(), self.w) + h0)",
    "parts of a sum": "n0 = torch.tanh(F.linear(x0 / x0.sum(-1, keepdim=True), self.w) + h0 * 0.5)",
    "parts of a norm": "n0 = torch.tanh(F.linear(x0 / x0.norm(dim=-1, keepdim=True), self.w) + h0 * 0.5)",
    "a root": "n0 = torch.tanh(F.linear(x0.abs().sqrt(), self.w).abs() + h0 * 0.5)",
    "after the loop": "n0 = torch.tanh(x0 + h0 * 0.5)\ny0 = F.linear(1 / x0, self.w) + n0",
}


@pytest.mark.parametrize("name", PADDED)
def test_padding_reaches_no_gradient_where_the_step_has_none_at_zero(name, worker):
    """Whatever stands for the inputs past a length, 0 · NaN must not come of it."""
    init = ["self.w = nn.Parameter(rand(1, 4, 4).to(dtype))"]
    asked = cell(PADDED[name], init=init, result="(y0, n0)" if "y0" in PADDED[name] else "n0", named=True, **ENDS)
    assert_right(worker.judge({"spec": asked.as_dict()}))


TAKEN_OUT = {
    "numpy": "n0 = torch.tanh(x0 + h0 * float(h0.detach().numpy().max()) * 0.1)",
    "numpy, and little comes of it": "n0 = h0 + 0.01 * torch.tanh(x0 + torch.from_numpy(h0.detach().numpy()).mean() * 0.2)",
    "numpy's own functions": "n0 = torch.tanh(x0 + h0 * np.abs(h0.detach().numpy()).max())",
    "a branch on numpy": "n0 = torch.tanh(h0 + x0) if h0.detach().numpy().sum() > 0 else torch.tanh(h0 - x0)",
    "a branch on a list": "n0 = torch.tanh(h0 + x0) if h0.tolist()[0][0] > 0 else torch.tanh(h0 - x0)",
    "a branch on text": "n0 = torch.tanh(h0 + x0) if f'{h0[0, 0]:.3f}'.startswith('0') else torch.tanh(h0 - x0)",
    "a branch on a number": "n0 = torch.tanh(h0 + x0) if float(h0.sum()) > 0 else torch.tanh(h0 - x0)",
    "how many are above zero": "n0 = torch.tanh(h0 * 0.1 * len(h0[h0 > 0]) + x0)",
}


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("name", TAKEN_OUT)
def test_numbers_taken_out_of_tensors(name, seed, worker):
    asked = cell(TAKEN_OUT[name], alone=False, seed=seed, T=7)
    assert_right(worker.judge({"spec": asked.as_dict()}))


OUTSIDE = {
    "a class attribute": ("self.beta", "type(cell).beta = 6.0"),
    "a module's global": ("SCALE", "module['SCALE'] = 6.0"),
    "a helper method": ("self.helper(1.0)", "type(cell).helper = lambda self, v: 6.0"),
    "a function of the module": ("half(1.0)", "module['half'] = lambda v: 6.0"),
    "an attribute": ("self.k", "cell.k = 6.0"),
    "a number in an object": ("self.settings.scale", "cell.settings.scale = 6.0"),
    "a number in a list": ("self.list[0]", "cell.list[0] = 6.0"),
    "a buffer": ("self.b", "cell.b.fill_(6.0)"),
    "a plain tensor": ("self.plain", "cell.plain.fill_(6.0)"),
    "a plain tensor put in its place": ("self.plain", "cell.plain = torch.tensor(6.0, dtype=cell.plain.dtype)"),
    "an activation": ("self.act(torch.ones(()))", "cell.act = lambda v: 6.0"),
    "an object that is called": ("self.called(torch.ones(()))", "cell.called.scale = 6.0"),
    "a number in a closure": ("self.closed(torch.ones(()))", "cell.closed = make_scaled(6.0)"),
    "a setting of a module within": ("self.inner.eps", "cell.inner.eps = 6.0"),
}
HOLDS = [
    "self.k = 0.5",
    "self.settings = Settings(0.5, Mode.SOFT)",
    "self.list = [0.5]",
    "self.register_buffer('b', torch.tensor(0.5, dtype=dtype))",
    "self.act = torch.sigmoid",
    "self.plain = torch.tensor(0.5, dtype=dtype)",
    "self.called = Scaled(0.5)",
    "self.closed = make_scaled(0.5)",
    "self.inner = nn.LayerNorm(4, eps=0.5)",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_a_cell_reads_is_read_at_every_call(name, worker):
    read, change = OUTSIDE[name]
    held = [
        line
        for line in HOLDS
        if line.split()[0].removeprefix("self.").split("(")[0] in read or ("'b'" in line and read == "self.b")
    ]
    asked = cell(f"n0 = torch.tanh(x0 * 0 + h0 * 0 + 0.3 * {read})", init=held, changes=[change], gradients="none")
    judged = worker.judge({"spec": asked.as_dict()})
    assert_right(judged)
    assert any(what.startswith("after") for what, _, _ in judged["runs"])


COUNTS = {
    "a number": (["self.t = 0"], "self.t += 1", "self.t"),
    "a list": (["self.seen = []"], "self.seen.append(1)", "len(self.seen)"),
    "a buffer": (['self.register_buffer("t", torch.tensor(0.0))'], "self.t += 1", "self.t"),
    "a turn": (["self.t = True"], "self.t = not self.t", "self.t"),
    "what it saw last": (["self.last = None"], "self.last = x0.detach()", "(1 if self.last is None else 2)"),
}


@pytest.mark.parametrize("name", COUNTS)
def test_what_a_cell_counts_is_counted_at_every_step(name, worker):
    init, count, number = COUNTS[name]
    asked = cell(count, f"n0 = torch.tanh(x0 + h0 * 0.5 + 0.2 * {number})", init=init, alone=False)
    assert_right(worker.judge({"spec": asked.as_dict()}))


# Right values, written down


class Divided(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.tensor(4))

    def forward(self, x, h):
        return torch.tanh(x + h / self.n)


def test_an_integer_divides():
    _, end, _ = tt.scan(Divided(), torch.tensor([[[2.0, 0.0]], [[0.0, 0.5]]]), torch.tensor([[0.1, -0.8]]))
    right = [math.tanh(math.tanh(2 + 0.1 / 4) / 4), math.tanh(0.5 + math.tanh(-0.8 / 4) / 4)]
    assert end[0].tolist() == pytest.approx(right, rel=1e-6)


class Halved(nn.Module):
    def forward(self, x, h):
        return h / 2 + x.sum() * 0  # of the whole batch, so that the loop runs it


@pytest.mark.parametrize("shape", [(), (3,), (3, 3), (2, 3, 4)])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_loop_halves_states_of_any_rank_as_often_as_their_lengths_say(shape, reverse):
    state, x = torch.full((3, *shape), 1.5), torch.zeros(5, 3, 2)
    _, end, _ = tt.scan(Halved(), x, state, lengths=[5, 2, 0], reverse=reverse)
    assert end.shape == (3, *shape)
    for row, right in zip(end, (1.5 / 32, 1.5 / 4, 1.5), strict=True):
        assert bool((row == right).all())
    resets = torch.zeros(5, 3, dtype=torch.bool)
    resets[1 if reverse else 3, 1] = True
    _, end, _ = tt.scan(Halved(), x, state, initial=torch.full_like(state, 8.0), resets=resets, reverse=reverse)
    for row, right in zip(end, (1.5 / 32, 8 / 4, 1.5 / 32), strict=True):
        assert bool((row == right).all())
