"""Products with weights of eight bits: exact sums whatever a processor has for them, of operands rounded to sixteen bits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import throughtime as tt
from assembled import assembly
from throughtime.errors import UserError
from throughtime.exporting import dots_llvm, export
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.int8 import most_of, rounded
from throughtime.exporting.running import InProcess
from throughtime.exporting.stack import stack_of
from throughtime.exporting.steps_llvm import step_module
from throughtime.exporting.targets import TARGETS, target_of
from throughtime.exporting.wasm.linking import WASM
from throughtime.scanning.cpu.target import host
from throughtime.scanning.int8 import MOST, quantised

WAYS = [way for way in dots_llvm.WHOLE if way in ("", target_of(None).dots) or target_of(None).dots == "bytes"]


class Product(nn.Module):
    """A matrix [K, N] times what a step is given."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.input_size = nn.Parameter(matrix), len(matrix)

    def forward(self, x, h):
        return x @ self.matrix, h


def multiplied(matrix, x, target):
    """Rows [T, K] times a matrix, by an object of eight bits: [T, N]."""
    stack = stack_of(Product(matrix), state=torch.zeros(1, 1))
    module = step_module(stack, "product", target, int8=True)
    running = InProcess(target.compiled(module.text), "product", module.state, module.outputs, own=module.own)
    return running.steps(torch.zeros(1), x)[0]


def exact(matrix, x):
    """The same by whole numbers of 64 bits."""
    whole, scales = quantised(matrix)
    most = most_of(x.shape[1])
    size = x.abs().amax(1, keepdim=True)
    q = (x * (torch.full_like(size, most) / size)).round().long()
    sums = q @ whole.long()
    assert int(sums.abs().max()) < 2**31
    return sums.double() * (size.double() / most) * scales.double()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 7, 16, 31, 64, 65, 517, 3000])
@pytest.mark.parametrize("width", [1, 16, 37, 300])
def test_sums_are_exact_in_every_way(depth, width):
    torch.manual_seed(depth)
    matrix, x = torch.randn(depth, width), torch.randn(3, depth) * torch.tensor([[1e-3], [1.0], [700.0]])
    native = target_of(None)
    found = [multiplied(matrix, x, replace(native, dots=way)) for way in WAYS]
    found += [multiplied(matrix, x, t if t.runs_here else t.here) for t in TARGETS.values()]
    assert all(torch.equal(found[0], other) for other in found)
    torch.testing.assert_close(found[0].double(), exact(matrix, x), rtol=1e-6, atol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("depth", [64, 517, 5000])
def test_the_largest_sum_stays_within_32_bits(depth, way):
    x = torch.stack([torch.ones(depth), -torch.ones(depth)]) * 3.5
    got = multiplied(torch.full((depth, 5), 0.25), x, replace(target_of(None), dots=way))
    torch.testing.assert_close(got, torch.tensor([[1.0], [-1.0]]).expand(2, 5) * depth * 3.5 * 0.25, rtol=1e-6, atol=0)
    assert depth * MOST * most_of(depth) < 2**31 <= depth * MOST * (most_of(depth) + 1) or most_of(depth) == 2**15 - 1


@pytest.mark.parametrize("way", WAYS)
def test_rows_of_any_size(way):
    """Zeros, subnormal and huge numbers; what is not finite gives NaN."""
    torch.manual_seed(1)
    matrix, target = torch.randn(7, 20), replace(target_of(None), dots=way)
    x = torch.randn(1, 7) * torch.tensor([[0.0], [1e-44], [1e-38], [1e-31], [1.0], [1e37]])
    got = multiplied(matrix, x, target)
    assert torch.equal(got[0], torch.zeros(20))
    assert float(got[1:3].abs().max()) < 1e-30  # as small as nothing: their digits are not told
    torch.testing.assert_close(got[4:], x[4:] @ matrix, rtol=0.05, atol=0.03 * float(x[4].abs().max()))
    for bad in (torch.inf, -torch.inf, torch.nan):
        given = torch.randn(1, 7)
        given[0, 3] = bad
        assert multiplied(matrix, given, target).isnan().all() and rounded(given).isnan().all()


@pytest.mark.parametrize("way", WAYS)
def test_rounding_moves_less_than_eight_bits_do(way):
    """|y - x W8| <= scale / 2 · sum |W8|: a 256th of what the weights' own rounding may move."""
    torch.manual_seed(2)
    matrix, x = torch.randn(64, 48) / 8, torch.randn(50, 64)
    whole, scales = quantised(matrix)
    told = whole * scales
    got = multiplied(matrix, x, replace(target_of(None), dots=way))
    away = (got.double() - x.double() @ told.double()).abs()
    half = x.abs().amax(1, keepdim=True).double() / most_of(64) / 2
    assert bool((away <= half * told.double().abs().sum(0) * (1 + 1e-3)).all())
    of_weights = (x.double() @ (told - matrix).double()).abs()
    assert float(away.mean()) * 50 < float(of_weights.mean())
    torch.testing.assert_close(rounded(x) @ told, got, rtol=1e-5, atol=1e-5)


def test_the_reference_is_rounded_in_float32_alone():
    stack = stack_of(Product(torch.randn(9, 4)), state=torch.zeros(1, 1))
    x, state = torch.randn(5, 2, 9), [torch.zeros(2, 1)]
    right, plain = evaluated(stack, int8=True, rounded=True), evaluated(stack, int8=True)
    assert not torch.equal(right.run(x, state)[0], plain.run(x, state)[0])
    double = [t.double() for t in state]
    assert torch.equal(right.run(x.double(), double)[0], plain.run(x.double(), double)[0])


# -- what a processor has

VNNI, MADD = re.compile(r"\bvpdpbusd\b"), re.compile(r"\bv?pmaddwd\b")


def step(target):
    """An LSTM's step as the processor's assembly."""
    torch.manual_seed(3)
    text = step_module(stack_of(nn.LSTMCell(40, 64)), "lstm", target, int8=True).text
    return assembly(text, target, "default", target.relocation, target.abi)


@pytest.mark.parametrize("name", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
def test_no_level_is_given_what_it_lacks(name):
    text = step(target_of(name))
    assert MADD.search(text) and not VNNI.search(text)
    wide = {"x86-64-v2": (False, False), "x86-64-v3": (False, True), "x86-64-v4": (True, True)}
    assert ("zmm" in text, "ymm" in text) == wide[name]


@pytest.mark.parametrize(
    ("target", "instruction"),
    [(target_of("aarch64"), "smlal"), (target_of("cortex-m4"), "smlabb"), (WASM, "i32x4.dot_i16x8_s")],
    ids=["aarch64", "cortex-m4", "wasm"],
)
def test_other_processors_widen_as_they_multiply(target, instruction):
    assert instruction in step(target)


def test_this_machine_is_given_what_it_has():
    has = set(host().features.split(","))
    if "+avx512vnni" in has and host().bits == 512:
        assert VNNI.search(step(target_of(None)))


def test_vnni_without_avx512():
    """A processor of 256 bits that has VNNI alone."""
    small = replace(target_of("x86-64-v3"), cpu="alderlake", dots="bytes")
    text = step(small)
    assert VNNI.search(text) and "zmm" not in text


@pytest.mark.parametrize(
    ("features", "bits", "dots"),
    [
        ("+avx2", 256, "pairs"), ("+avx2,+avxvnni", 256, "bytes"), ("+avx512bw,+avx512vl", 512, "pairs"),
        ("+avx512bw,+avx512vl,+avx512vnni", 512, "bytes"), ("+avx512vl", 512, ""), ("+sse2", 128, "pairs"),
    ],
)  # fmt: skip
def test_what_sums_are_taken_by(features, bits, dots):
    from throughtime.exporting import targets

    here = replace(host(), triple="x86_64-unknown-linux-gnu", features=features, bits=bits)
    assert targets._dots(here) == dots
    assert targets._dots(replace(here, triple="aarch64-unknown-linux-gnu")) == ""


# -- the check


@pytest.mark.parametrize("fault", ["starts", "bias", "half"])
def test_a_fault_is_caught(fault, tmp_path, monkeypatch):
    dots = dots_llvm.WHOLE[target_of(None).dots]
    if fault == "starts" and target_of(None).dots == "bytes":
        monkeypatch.setattr(dots_llvm.Bytes, "starts", staticmethod(lambda whole: whole.int().sum(0)))
    elif fault == "bias":
        monkeypatch.setattr(type(dots), "bias", dots.bias + 100)
    else:
        monkeypatch.setattr(
            type(dots), "total", lambda self, code, parts: dots_llvm.Words.total(self, code, parts[-1:])
        )
        if dots.parts == 1:
            pytest.skip("sums of one part")
    with pytest.raises(UserError, match="nothing was written"):
        export(nn.LSTMCell(40, 64), "c", tmp_path / "out", int8=True)


@pytest.mark.parametrize("target", [None, "x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("name", ["lstm", "gru", "layernorm-lstm"])
def test_weights_are_read_from_either_end_with_the_same_bits(name, target):
    where = target_of(target)
    if not (where.turns and (target is None or where.runs_here)):
        pytest.skip(f"{target} does not run here")
    torch.manual_seed(4)
    stack = stack_of(tt.cells.NAMED[name](150, 64))
    module = step_module(stack, "wide", where, int8=True)
    assert module.own == 1
    running, found = InProcess(where.compiled(module.text), "wide", module.state, module.outputs), []
    x, first = torch.randn(6, 150), torch.randn(module.state - 1)
    for own in (0.0, 1.0):
        y, after = running.steps(torch.cat([first, torch.tensor([own])]), x)
        found.append(torch.cat([y.reshape(-1), after[:-1]]))
    assert torch.equal(*found)
    states = [
        part.reshape(s.shape)
        for part, s in zip(first.split([s.numel() for s in stack.states]), stack.states, strict=True)
    ]
    right, _ = evaluated(stack, int8=True, rounded=True).run(x.unsqueeze(1), states)
    torch.testing.assert_close(found[0][: 6 * 64].view(6, 64), right[:, 0], rtol=1e-5, atol=1e-4)
