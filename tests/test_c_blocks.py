"""Blocks of steps in exports to C: to the bit what as many steps give, whatever their lengths."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import pytest
import torch
from torch import nn

import layer_stacks
import throughtime as tt
from throughtime.errors import UserError
from throughtime.exporting import compilers, export, layers_llvm, panels_llvm
from throughtime.exporting.c import files
from throughtime.exporting.running import InProcess, OtherBits, check_running
from throughtime.exporting.stack import stack_of
from throughtime.exporting.steps_llvm import step_module
from throughtime.exporting.targets import TARGETS, TOGETHER, target_of

I, N, R = 7, 13, TOGETHER  # noqa: E741
LENGTHS = (1, R - 1, R, R + 1, 2 * R + 3)
LEVELS = [None, *(name for name in TARGETS if name.startswith("x86"))]
needs_compiler = pytest.mark.skipif(not compilers.compiler(), reason="no C compiler here")


def bits(*tensors):
    return torch.cat([t.flatten() for t in tensors]).view(torch.int32)


def compiled(what, target=None, *, int8=False, **given):
    """An export, its stack, and its sizes."""
    stack, where = stack_of(what, **given), target_of(target)
    if not where.runs_here:
        pytest.skip(f"{target} does not run here")
    module = step_module(stack, "net", where, int8=int8)
    return InProcess(where.compiled(module.text), "net", module.state, module.outputs), module


def check(running, module):
    """A stream in blocks of different lengths, each beside its steps; and the end beside that of steps alone."""
    torch.manual_seed(1)
    x = torch.randn(sum(LENGTHS), module.inputs)
    state = first = torch.cat([torch.randn(module.state - module.own), torch.zeros(module.own)])
    outputs = []
    for some in x.split(LENGTHS):
        y, after = running.block(state, some)
        assert torch.equal(bits(y, after), bits(*running.steps(state, some)))
        outputs.append(y)
        state = after
    assert torch.equal(bits(*outputs, state), bits(*running.steps(first, x)))
    assert torch.equal(bits(*running.block(first, x)), bits(*outputs, state))
    assert len({float(y.abs().sum()) for y in outputs}) == len(LENGTHS)


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("name", sorted(tt.cells.NAMED))
def test_blocks_of_every_cell_are_its_steps(name, int8):
    torch.manual_seed(0)
    for target in (None, "x86-64-v3"):
        check(*compiled(tt.cells.NAMED[name](I, N), target, int8=int8))


WIDE = {"lstm": (40, 64), "gru": (64, 80), "layernorm-lstm": (40, 64), "mingru": (70, 96), "lstm of one input": (1, 96)}


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("name", WIDE)
def test_blocks_of_cells_whose_weights_a_cache_does_not_hold(name, target, int8):
    torch.manual_seed(0)
    running, module = compiled(tt.cells.NAMED[name.split()[0]](*WIDE[name]), target, int8=int8)
    together = target != "x86-64-v2" and not (int8 and target_of(target).dots == "bytes")
    assert (module.block > module.stack) == together
    check(running, module)


def stacks():
    return {
        **layer_stacks.stacks(I, N),
        "wide": tt.LSTM(32, 64, num_layers=2),
        "mono": tt.LSTM(1, 24),
    }


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("what", stacks())
def test_blocks_of_stacks(what, int8):
    for target in (None, "x86-64-v3"):
        check(*compiled(stacks()[what], target, int8=int8))


class Two(nn.Module):
    """Two inputs, each with a product of its own; one of them also beside the state."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.both = nn.Linear(5, N), nn.Linear(3, N), nn.Linear(3 + N, N)

    def forward(self, x, h):
        h = torch.tanh(self.first(x[0]) * self.second(x[1]) + self.both(torch.cat([x[1], h], -1)))
        return h.softmax(-1), h


class Inward(nn.Module):
    """No product of what a step is given."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(N, N)

    def forward(self, x, h):
        h = torch.tanh(self.inner(h) + x)
        return h, h


@pytest.mark.parametrize("int8", [False, True])
def test_blocks_of_cells_of_ones_own(int8):
    torch.manual_seed(2)
    state = torch.zeros(1, N)
    for target in (None, "x86-64-v3"):
        check(*compiled(Two(), target, int8=int8, inputs=(torch.zeros(1, 5), torch.zeros(1, 3)), state=state))
    running, module = compiled(Inward(), int8=int8, inputs=state, state=state)
    assert module.block == module.stack
    check(running, module)


@pytest.mark.parametrize("steps", [0, -1, -(2**31)])
def test_a_block_without_steps_does_nothing(steps):
    running, module = compiled(tt.cells.LSTM(I, 2 * N))
    state, y = torch.randn(module.state), torch.full((1,), 5.0)
    before = state.clone()
    running._block(state.data_ptr(), None, y.data_ptr(), steps)
    assert torch.equal(state, before) and float(y) == 5


@pytest.mark.parametrize("int8", [False, True])
def test_a_block_writes_nothing_else(int8):
    running, module = compiled(tt.cells.LayerNormLSTM(I, N), int8=int8)
    for count in LENGTHS:
        x, state = torch.randn(count, I), torch.full((module.state + 8,), 7.0)
        y = torch.full((count * N + 8,), 7.0)
        running._block(state.data_ptr(), x.data_ptr(), y.data_ptr(), count)
        assert bool((y[-8:] == 7).all()) and bool((state[-8:] == 7).all()) and not bool((y[:-8] == 7).any())


@needs_compiler
def test_blocks_of_source(tmp_path):
    torch.manual_seed(0)
    stack = stack_of(stacks()["residual with zoneout"])
    written, sizes, _ = files.sources("net", stack, "", None, int8=False)
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    command = [*compilers.compiler(), "-shared", "-fPIC", "-O2", "net.c", "-o", "net.so", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "net.so"))

    def passed(*tensors):
        return [ctypes.c_void_p(t.data_ptr()) for t in tensors]

    x, first = torch.randn(11, sizes.inputs), torch.randn(sizes.state)
    states, ys = [first.clone() for _ in range(2)], [torch.empty(11, sizes.outputs) for _ in range(2)]
    library.net_block(*passed(states[0], x, ys[0]), 4)
    library.net_block(*passed(states[0], x[4:], ys[0][4:]), 7)
    library.net_block(*passed(states[0], x, ys[0]), 0)
    for given, out in zip(x, ys[1], strict=True):
        library.net_step(*passed(states[1], given, out))
    assert torch.equal(bits(ys[0], states[0]), bits(ys[1], states[1])) and not torch.equal(states[0], first)


# -- the check


def test_what_is_written_says_how_much_of_the_stack_a_block_takes(tmp_path):
    export(tt.LSTM(32, 64, num_layers=2), "c", tmp_path / "out", name="net")
    module = step_module(stack_of(tt.LSTM(32, 64, num_layers=2)), "net", target_of(None))
    for file in ("net.h", "README.md"):
        assert f"a block's {module.block}" in (tmp_path / "out" / file).read_text()
    assert (
        "void net_block(float *state, const float *x, float *y, int steps);" in (tmp_path / "out" / "net.h").read_text()
    )


def test_a_product_of_a_wrong_row_is_caught(tmp_path, monkeypatch):
    rows = layers_llvm.Rows
    # the first step's input for all of them
    monkeypatch.setattr(layers_llvm, "Rows", lambda count, x, y: rows(count, 0, y))
    with pytest.raises(UserError, match=r"differs from the reference by .* nothing was written"):
        export(tt.cells.LSTM(I, N), "c", tmp_path / "out", target="x86-64-v3")
    assert not list(tmp_path.iterdir())


def test_a_block_of_other_bits_becomes_its_steps(tmp_path, monkeypatch):
    cell = tt.cells.LSTM(64, N)
    export(cell, "c", tmp_path / "good", target="x86-64-v3")
    whole = layers_llvm.LayerCode.early_products

    def in_another_order(self, *args):
        with monkeypatch.context() as other:
            other.setattr(panels_llvm, "LEAST", 1)
            whole(self, *args)

    monkeypatch.setattr(layers_llvm.LayerCode, "early_products", in_another_order)
    running, _ = compiled(cell, "x86-64-v3")
    with pytest.raises(OtherBits, match="a block of 7 steps gives other bits"):
        check_running(running, stack_of(cell), "net.o")
    export(cell, "c", tmp_path / "out", target="x86-64-v3")
    said = [(tmp_path / folder / "README.md").read_text() for folder in ("good", "out")]
    assert [f"once for {R} steps" in one for one in said] == [True, False]
    assert "A block is its steps one after the other" in said[1]


@pytest.mark.parametrize("target", ["aarch64", "armv7", "cortex-m4"])
def test_blocks_under_an_emulator(target, tmp_path):
    if shutil.which(TARGETS[target].emulator) is None or not compilers.zig():
        pytest.skip(f"{TARGETS[target].emulator} or ziglang is not here")
    torch.manual_seed(6)
    for number, what in enumerate((tt.LSTM(I, 24, num_layers=2), tt.cells.LayerNormLSTM(I, N))):
        export(what, "c", tmp_path / str(number), target=target)
        assert "Run under qemu" in (tmp_path / str(number) / "README.md").read_text()
