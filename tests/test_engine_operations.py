"""The compiled engine against the plain loop: every operation on its own, and cells that were once wrong.

The reference runs the cell as it is written, step by step, so whatever differs is the engine's. Compared are the outputs, the last
state and the gradient of every input, state, initial state and parameter, in float64 and in float32. Each comparison asks `explain`
whether the cell was compiled: one that quietly ran on the reference would be equal to itself.
Random cells are in `test_cell_fuzz.py`.
Sizes: T time, B batch, I input, N hidden.
"""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from throughtime.scanning import explain, scan

pytestmark = pytest.mark.usefixtures("_own_cache")

DTYPES = {"float64": torch.float64, "float32": torch.float32}
every_dtype = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def tensors(state):
    return state if isinstance(state, tuple) else (state,)


# What is compared


def results(backend, cell, x, state, *, initial=None, leaves=None, loss=("outputs", "end"), **options):
    """Outputs, last state and the gradients of `leaves` (names to tensors; None: all that is given), by name."""
    outputs, end, _ = scan(cell, x, state, initial=initial, backend=backend, **options)
    found = {"outputs": outputs} | {f"end {k}": e for k, e in enumerate(tensors(end))}
    if leaves is None:
        groups = {"input": tensors(x), "state": tensors(state), "initial": () if initial is None else tensors(initial)}
        leaves = {f"{name} {k}": t for name, group in groups.items() for k, t in enumerate(group)}
    wanted = {name: t for name, t in (leaves | dict(cell.named_parameters())).items() if t.requires_grad}
    asked = [(v, k) for k, (name, v) in enumerate(found.items()) if name.split()[0] in loss and v.requires_grad]
    gradients = [torch.zeros_like(t) for t in wanted.values()]
    if wanted and asked:
        values, weights = zip(*((v, random(*v.shape, seed=90 + k, dtype=v.dtype)) for v, k in asked), strict=True)
        gradients = torch.autograd.grad(
            values, list(wanted.values()), weights, allow_unused=True, materialize_grads=True
        )
    named = zip(wanted, gradients, strict=True)
    return {name: v.detach() for name, v in found.items()} | {f"gradient of {name}": g for name, g in named}


def assert_same(found, expected, rtol, atol):
    """Equal up to rtol of each entry and atol of the largest entry (of 1 where all are smaller); NaN is equal to NaN."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        finite = value[value.isfinite()].abs()
        largest = max(1.0, float(finite.max())) if finite.numel() else 1.0
        torch.testing.assert_close(
            found[name].to(value),
            value,
            rtol=rtol,
            atol=atol * largest,
            equal_nan=True,
            msg=lambda m, n=name: f"{n}: {m}",
        )


def assert_compiled(cell, x, state, **options):
    reason = explain(cell, x, state, **options).reasons["cpu"]
    assert reason is None, reason


# Every operation on its own

# a, b: [B, N] that hang on the state; v: a constant row [N]. What these give may be of any width.
OPS = {
    "add": lambda a, b, v: a + b + v + 0.5,
    "sub": lambda a, b, v: 1.5 - a - b - v,
    "mul": lambda a, b, v: a * b * v * 0.7,
    "div": lambda a, b, v: a / b,
    "div by a constant": lambda a, b, v: a / v / 3,
    "neg": lambda a, b, v: -a,
    "pow 2": lambda a, b, v: a**2,
    "pow 3": lambda a, b, v: a**3,
    "pow 4": lambda a, b, v: a**4,
    "square": lambda a, b, v: a.square(),
    "abs": lambda a, b, v: a.abs(),
    "exp": lambda a, b, v: a.exp(),
    "expm1": lambda a, b, v: a.expm1(),
    "sigmoid": lambda a, b, v: a.sigmoid(),
    "tanh": lambda a, b, v: a.tanh(),
    "erf": lambda a, b, v: a.erf(),
    "sin": lambda a, b, v: a.sin(),
    "cos": lambda a, b, v: a.cos(),
    "tan": lambda a, b, v: (0.3 * a).tan(),
    "asin": lambda a, b, v: (0.3 * a).asin(),
    "acos": lambda a, b, v: (0.3 * a).acos(),
    "atan": lambda a, b, v: a.atan(),
    "sinh": lambda a, b, v: a.sinh(),
    "cosh": lambda a, b, v: a.cosh(),
    "asinh": lambda a, b, v: a.asinh(),
    "acosh": lambda a, b, v: (a.abs() + 1.25).acosh(),
    "atanh": lambda a, b, v: (0.3 * a).atanh(),
    "exp2": lambda a, b, v: a.exp2(),
    "ceil": lambda a, b, v: a.ceil() + b,
    "trunc": lambda a, b, v: a.trunc() + b,
    "frac": lambda a, b, v: a.frac() * b,
    "round": lambda a, b, v: a.round() + b,
    "rounded straight through": lambda a, b, v: a + (a.round() - a).detach(),
    "softshrink": lambda a, b, v: F.softshrink(a, 0.2),
    "hardshrink": lambda a, b, v: F.hardshrink(a, 0.2),
    "isnan": lambda a, b, v: torch.where(a.isnan(), b, a),
    "sign": lambda a, b, v: a.sign() + b,
    "floor": lambda a, b, v: a.floor() + b,
    "clamp min": lambda a, b, v: a.clamp(min=-0.5),
    "clamp max": lambda a, b, v: a.clamp(max=0.5),
    "clamp both": lambda a, b, v: a.clamp(-1.0, 0.5),
    "clamp crossed": lambda a, b, v: a.clamp(1.0, -1.0),
    "clamp by a tensor": lambda a, b, v: a.clamp(min=v),
    "clamp by a value": lambda a, b, v: torch.clamp(a, max=b),
    "minimum": lambda a, b, v: torch.minimum(a, b),
    "maximum": lambda a, b, v: torch.maximum(a, b),
    "maximum with a constant": lambda a, b, v: torch.maximum(v, a),
    "where less": lambda a, b, v: torch.where(a < b, a, 2 * b),
    "where at most": lambda a, b, v: torch.where(a <= b, 3 * a, b),
    "where more": lambda a, b, v: torch.where(a > 0.5, a, b),
    "where at least": lambda a, b, v: torch.where(b >= v, a, b),
    "where equal": lambda a, b, v: torch.where(a == b, a, 2 * b),
    "where unequal": lambda a, b, v: torch.where(a != 0, a, b),
    "where and": lambda a, b, v: torch.where((a > 0) & (b < 1), a, 2 * b),
    "where or not": lambda a, b, v: torch.where((a > 0) | ~(b < 1), a, 2 * b),
    "where numbers": lambda a, b, v: torch.where(a > b, 1.0, b) + torch.where(a < 0, a, 0.25),
    "masked fill": lambda a, b, v: a.masked_fill(b > 0, -2.0),
    "relu": lambda a, b, v: a.relu(),
    "leaky relu": lambda a, b, v: F.leaky_relu(a, 0.2),
    "elu": lambda a, b, v: F.elu(a, 1.3),
    "gelu": lambda a, b, v: F.gelu(a),
    "gelu tanh": lambda a, b, v: F.gelu(a, approximate="tanh"),
    "silu": lambda a, b, v: F.silu(a),
    "softplus": lambda a, b, v: F.softplus(a),
    "softplus 3": lambda a, b, v: F.softplus(a, beta=3.0, threshold=6.0),
    "hardtanh": lambda a, b, v: F.hardtanh(a),
    "hardtanh wide": lambda a, b, v: F.hardtanh(a, -0.5, 2.0),
    "hardsigmoid": lambda a, b, v: F.hardsigmoid(a),
    "slice": lambda a, b, v: a[:, 1:4] * b[:, -3:],
    "slice with a step": lambda a, b, v: a[:, ::2] - a[:, 1::3].sum(-1, keepdim=True),
    "select": lambda a, b, v: a[:, 2].unsqueeze(-1) * b,
    "chunk": lambda a, b, v: torch.cat([c * (k + 1) for k, c in enumerate(a.chunk(3, -1))], -1),
    "split": lambda a, b, v: torch.cat(a.split([3, a.shape[1] - 3], -1)[::-1], -1),
    "cat": lambda a, b, v: torch.cat([a, 2 * b, a[:, :1]], -1),
    "cat of one number": lambda a, b, v: torch.cat([a.mean(-1).unsqueeze(-1), b], -1) - a[:, :1],
    "flip": lambda a, b, v: a.flip(-1) * b,
    "stack sum": lambda a, b, v: torch.stack([a, b, a * b], 1).sum(1),
    "stack mean last": lambda a, b, v: torch.stack([a, b, a * b], -1).mean(-1),
    "stack softmax": lambda a, b, v: torch.stack([a, b, a * b], 1).softmax(1)[:, 1],
    "stack softmax in front": lambda a, b, v: (torch.stack([a, b]).softmax(0) * torch.stack([b, a])).sum(0),
    "stack amax": lambda a, b, v: torch.stack([a, b, a - b], 1).amax(1),
    "unsqueeze": lambda a, b, v: (a[:, :3].unsqueeze(2) * b.unsqueeze(1)).sum(1),
    "heads": lambda a, b, v: (a[:, :6].unflatten(-1, (2, 3)) * b[:, :2].unsqueeze(-1)).flatten(1),
    "broadcast": lambda a, b, v: a[:, :1] * b + v,
    "expand": lambda a, b, v: a[:, 1:2].expand(-1, 4) * b[:, :4],
    "constant": lambda a, b, v: a * v.sigmoid() + (v * v).sum(),
    "softmax": lambda a, b, v: a.softmax(-1),
    "log softmax": lambda a, b, v: a.log_softmax(-1),
    "logsumexp": lambda a, b, v: a.logsumexp(-1, keepdim=True) * b,
    "layer norm": lambda a, b, v: F.layer_norm(a, a.shape[1:]),
    "layer norm weights": lambda a, b, v: F.layer_norm(a, a.shape[1:], v, v.cos(), 1e-3),
    "layer norm of parts": lambda a, b, v: F.layer_norm(torch.cat([a, b[:, :2]], -1), (a.shape[1] + 2,)),
    "rms norm": lambda a, b, v: F.rms_norm(a, a.shape[1:], v, 1e-3),
    "mean": lambda a, b, v: a.mean(-1, keepdim=True) - b,
    "mean without its dim": lambda a, b, v: (a * b).mean(1).unsqueeze(1),
    "sum": lambda a, b, v: a.sum(-1, keepdim=True) - b,
    "sum of parts": lambda a, b, v: torch.cat([a, b * v], 1).sum(1, keepdim=True) * a,
    "var": lambda a, b, v: a.var(-1, keepdim=True) * b,
    "var biased": lambda a, b, v: a.var(-1, unbiased=False).unsqueeze(-1) * b,
    "std": lambda a, b, v: a.std(-1, keepdim=True) - b,
    "amax": lambda a, b, v: a.amax(-1, keepdim=True) - b,
    "amin": lambda a, b, v: a.amin(-1, keepdim=True) - b,
    "norm": lambda a, b, v: torch.linalg.vector_norm(a, dim=-1, keepdim=True) * b,
    "lerp": lambda a, b, v: torch.lerp(a, b, 0.3) + torch.lerp(a, b, v),
    "addcmul": lambda a, b, v: torch.addcmul(a, b, v, value=0.5),
    "number to a power": lambda a, b, v: 1.3**a,
    "logsigmoid": lambda a, b, v: F.logsigmoid(a),
    "mish": lambda a, b, v: F.mish(a),
    "hardswish": lambda a, b, v: F.hardswish(a),
    "product": lambda a, b, v: F.linear(a, torch.outer(v, v.cos())),
    "product and bias": lambda a, b, v: F.linear(a, torch.outer(v, v.cos()), v),
    "products in a row": lambda a, b, v: F.linear(F.linear(a, torch.outer(v, v.cos())).tanh() * b, torch.diag(v)[:3], v[:3]),
    "product of parts": lambda a, b, v: F.linear(torch.cat([a, b], 1), torch.outer(v, torch.cat([v, v.cos()]))),
}  # fmt: skip
# of positive numbers, but where borders are looked at
POSITIVE = {
    "number over": lambda a, b, v: 2 / a,
    "reciprocal": lambda a, b, v: a.reciprocal(),
    "pow -1": lambda a, b, v: a**-1,
    "pow -2": lambda a, b, v: a**-2,
    "log": lambda a, b, v: a.log(),
    "log1p": lambda a, b, v: a.log1p(),
    "log2": lambda a, b, v: a.log2(),
    "log10": lambda a, b, v: a.log10(),
    "sqrt": lambda a, b, v: a.sqrt(),
    "rsqrt": lambda a, b, v: a.rsqrt(),
    "pow 0.5": lambda a, b, v: a**0.5,
    "pow -0.5": lambda a, b, v: a**-0.5,
    "pow 1.7": lambda a, b, v: a**1.7,
    "pow tensor": lambda a, b, v: a**b,
    "pow constant": lambda a, b, v: a**v,
}
every_op = pytest.mark.parametrize("op", OPS | POSITIVE)


def tolerance(op, dtype):
    if dtype == torch.float32:
        return {"rtol": 0.0, "atol": 1e-5}
    if op in ("hardsigmoid", "hardswish"):  # whose gradients PyTorch makes with a 1/6 of float32
        return {"rtol": 1e-7, "atol": 1e-7}
    return {"rtol": 1e-10, "atol": 1e-12}


class Single(nn.Module):
    """A cell around one operation: it stands between two products, and its result goes to the output and to the state."""

    def __init__(self, op, sizes, dtype):
        super().__init__()
        input_size, hidden_size = sizes
        self.op, self.positive = (OPS | POSITIVE)[op], op in POSITIVE
        shape = (1, hidden_size)
        width = self.op(torch.ones(shape), torch.ones(shape), torch.ones(hidden_size)).flatten(1).shape[1]
        shapes = {
            "u": (hidden_size, input_size), "w": (hidden_size, hidden_size), "p": (hidden_size, width), "v": (hidden_size,),
        }  # fmt: skip
        for k, (name, shape) in enumerate(shapes.items()):
            value = random(*shape, seed=70 + k, dtype=dtype)
            scaled = 0.7 + 0.2 * value if name == "v" else 0.5 * value / math.sqrt(shape[1])
            setattr(self, name, nn.Parameter(scaled))

    def forward(self, x, h):
        a = 1.5 * torch.tanh(2 * F.linear(x, self.u) + F.linear(h, self.w))
        b = 1.1 + 0.7 * torch.sin(2 * a - h)
        if self.positive:
            a = a.abs() + 0.5
        y = self.op(a, b, self.v)
        return y, torch.tanh(F.linear(y, self.p) + 0.5 * h)


@every_dtype
@every_op
def test_each_operation_within_a_cell(op, dtype):
    T, B, I, N = 5, 3, 4, 21  # noqa: E741
    cell = Single(op, (I, N), dtype)
    x = random(T, B, I, seed=1, dtype=dtype).requires_grad_()
    state = (0.5 * random(B, N, seed=2, dtype=dtype)).requires_grad_()
    assert_compiled(cell, x, state)
    assert_same(results("cpu", cell, x, state), in_float64(cell, x, state), **tolerance(op, dtype))


def in_float64(cell, x, state):
    """What the reference makes of the same numbers in float64."""
    x, state = (t.detach().double().requires_grad_() for t in (x, state))
    return results("reference", copy.deepcopy(cell).double(), x, state)


class AtPoints(nn.Module):
    """Two inputs as they are to one operation, by way of a state of -0, which leaves every number what it was."""

    def __init__(self, op, dtype):
        super().__init__()
        self.op = (OPS | POSITIVE)[op]
        self.v = nn.Parameter(torch.tensor([0.5, -1.0, 1.0, 2.0, 0.0, -0.5, 1.5], dtype=dtype))

    def forward(self, x, s):
        a, b = x
        return self.op(a + s, b + s, self.v), s


def points(values, dtype, seed):
    """Two tensors [T, B, 7]: rows of each value alone, each meeting each, rows of all in turn, and rows with one such value."""
    n = len(values)
    alone = [[v] * 7 for v in values]
    turns = [[values[(i + j) % n] for j in range(7)] for i in range(n)]
    one_among = [[v, 0.25, -1.25, 0.75, 1.0, -0.125, 0.375] for v in values]
    a = torch.tensor(alone * n + turns + one_among, dtype=dtype)
    b = torch.tensor([row for row in alone for _ in range(n)] + [*one_among, *turns], dtype=dtype)
    order = torch.randperm(len(a), generator=torch.Generator().manual_seed(seed))
    rows = 4 * (len(a) // 4)
    return a[order][:rows].view(-1, 4, 7), b[order][:rows].view(-1, 4, 7)


KINKS = [0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 2.0, 3.0, -3.0, 20.0]
EXTREMES = [math.inf, -math.inf, math.nan, 0.0, -0.0, 1.0, -2.5, 88.0, -88.0, 90.0, -105.0, 800.0, -800.0]


@every_dtype
@every_op
def test_each_operation_at_its_borders(op, dtype):
    cell = AtPoints(op, dtype)
    x = tuple(t.requires_grad_() for t in points(KINKS, dtype, seed=3))
    state = torch.full((4, 7), -0.0, dtype=dtype, requires_grad=True)
    assert_compiled(cell, x, state)
    expected = results("reference", cell, x, state)
    assert_same(results("cpu", cell, x, state), expected, **tolerance(op, dtype))


@every_dtype
@every_op
def test_each_operation_lets_infinities_and_nan_through(op, dtype):
    cell = AtPoints(op, dtype)
    # PyTorch's gelu of infinity is a NaN in float32, infinity in float64
    values = [v for v in EXTREMES if not (op == "gelu" and dtype == torch.float32 and v == math.inf)]
    x = points(values, dtype, seed=4)
    state = torch.full((4, 7), -0.0, dtype=dtype)
    assert_compiled(cell, x, state)
    with torch.no_grad():
        expected = results("reference", cell, x, state)
        found = results("cpu", cell, x, state)
    near = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-6}
    if op.startswith("product"):
        near["atol"] *= 800  # sums of large terms
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **near, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


# Small cells that came out of the random ones

FOUND = {
    "an input beside a product": lambda c, x, h: torch.tanh(x + F.linear(h, c.w)),
    "twice a product of the input": lambda c, x, h: torch.tanh(2 * F.linear(x, c.u) + F.linear(h, c.w)),
    "a product of a product of the input": lambda c, x, h: (
        F.linear(F.linear(x, c.u), c.w) + h,
        torch.tanh(F.linear(x, c.u)),
    ),
    "a comparison of one number": lambda c, x, h: torch.where(h[:, :1].expand(-1, 4) > 0, x.sin() - h, h.cos()),
    "a comparison of one number and another": lambda c, x, h: torch.where(
        (h[:, :1].expand(-1, 4) > 0) & (h < 0.5), h.sin(), torch.tanh(x - h)
    ),
    "a quotient after the loop": lambda c, x, h: (
        (F.linear(x, c.u) + F.linear(h, c.w)) / (h.abs() + 1),
        torch.tanh(h - x),
    ),
    "a root after the loop": lambda c, x, h: ((F.linear(h, c.w) ** 2 + c.v * h * h).sqrt(), torch.tanh(h - x)),
    "a part of the state as output": lambda c, x, h: (
        h[:, :1].clone(),
        torch.tanh(F.linear(x, c.u) + h - F.linear(x, c.w)),
    ),
    "a view": lambda c, x, h: torch.tanh((h.view(-1, 2, 2) * x.unflatten(-1, (2, 2))).flatten(1) + c.v),
    "one number beside a row that was put together": lambda c, x, h: torch.tanh(
        torch.cat([h.mean(-1).unsqueeze(-1), h[:, 1:]], -1) - x[:, :1]
    ),
    "the same weight twice": lambda c, x, h: torch.tanh(F.linear(F.linear(h, c.w) + x, c.w)),
    "a weight and its transpose": lambda c, x, h: torch.tanh(F.linear(F.linear(h, c.w) * x, c.w.t())),
}


class Found(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.step = FOUND[name]
        self.u, self.w = (nn.Parameter(0.5 * random(4, 4, seed=80 + k)) for k in range(2))
        self.v = nn.Parameter(random(4, seed=82).abs())

    def forward(self, x, h):
        return self.step(self, x, h)


@pytest.mark.parametrize("lengths", [None, [6, 0, 4]], ids=["no lengths", "lengths"])
@pytest.mark.parametrize("name", FOUND)
def test_cells_that_were_once_wrong(name, lengths):
    cell = Found(name)
    x, state = random(6, 3, 4, seed=5).requires_grad_(), random(3, 4, seed=6).requires_grad_()
    options = {"lengths": lengths, "resets": torch.rand(6, 3, generator=torch.Generator().manual_seed(2)) < 0.2}
    for asked in ({"lengths": lengths}, options):
        assert_compiled(cell, x, state, **asked)
        expected = results("reference", cell, x, state, **asked)
        assert_same(results("cpu", cell, x, state, **asked), expected, rtol=1e-10, atol=1e-12)


def test_this_comparison_sees_what_is_wrong():
    cell, x, state = Single("tanh", (4, 21), torch.float64), random(5, 3, 4, seed=1), random(3, 21, seed=2)
    x.requires_grad_()
    expected = results("reference", cell, x, state)
    near = tolerance("tanh", torch.float64)
    assert_same(results("cpu", cell, x, state), expected, **near)
    for wrong in ({"reverse": True}, {"lengths": [5, 5, 4]}, {"loss": ("outputs",)}, {"resets": torch.ones(5, 3) > 0}):
        with pytest.raises(AssertionError):
            assert_same(results("cpu", cell, x, state, **wrong), expected, **near)
    with torch.no_grad():
        cell.w[3, 7] += 1e-6
    with pytest.raises(AssertionError):
        assert_same(results("cpu", cell, x, state), expected, **near)
