"""Exports to C, run: objects and source on this machine, objects of other machines in an emulator, beside the cells themselves."""

from __future__ import annotations

import ctypes
import re
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import c_fuzz
import layer_stacks
import throughtime as tt
from cell_maker import make
from onnx_fuzz import outcome
from throughtime.errors import UserError
from throughtime.exporting import c, compilers, export, layers_llvm, steps_llvm
from throughtime.exporting.c import files, functions, objects
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.running import InProcess
from throughtime.exporting.stack import stack_of
from throughtime.exporting.targets import TARGETS, target_of
from throughtime.exporting.text import Head
from throughtime.scanning.cpu.functions import VECTORS

I, N, T = 7, 13, 6  # noqa: E741
CELLS = sorted(tt.cells.NAMED)
WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Wshadow", "-Werror"]
gcc = shutil.which("gcc")
needs_compiler = pytest.mark.skipif(not compilers.compiler(), reason="no C compiler here")


def needs(emulator):
    missing = shutil.which(emulator) is None or not compilers.zig()
    return pytest.mark.skipif(missing, reason=f"{emulator} or ziglang is not here")


def cell_of(name, seed=0):
    torch.manual_seed(seed)
    return tt.cells.NAMED[name](I, N)


class Odd(nn.Module):
    """All functions of the C library, a softmax, comparisons, a state of two axes and one of a single number."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(5 + 6, 6), nn.Linear(6, 4)

    def forward(self, x, state):
        a, b = state
        h = self.inner(torch.cat([x[0] * x[1].sum(-1, keepdim=True), a.flatten(1)], -1))
        h = (
            torch.sin(h)
            + torch.cos(h) * torch.erf(h)
            + torch.log1p(h.abs())
            - torch.expm1(-h.abs())
            + torch.log(h.abs() + 0.1)
        )
        h = torch.where(h > b, torch.floor(3 * h), torch.minimum(h, h.flip(-1))) + torch.sign(h) * torch.pow(
            h.abs() + 0.5, 0.7
        )
        h = torch.softmax(torch.clamp(h, -2, 2), -1) + torch.maximum(h * h, a.flatten(1).abs() + 0.1).rsqrt()
        return self.outer(h).sigmoid(), (h.view(-1, 2, 3), h.amax(-1, keepdim=True).tanh())


class Softened(nn.Module):
    """Without a function of the C library: reductions, ties, NaN that passes minimum and maximum."""

    input_size = I

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(I + N, N)

    def forward(self, x, h):
        z = self.linear(torch.cat([x, h], -1))
        z = torch.maximum(torch.minimum(z, h), -h.abs())
        return z.log_softmax(-1), z.softmax(-1) + z.amax(-1, keepdim=True) / (1 + z * z).sqrt()


class Encoding(nn.Module):
    """A product of a product that no state stands between."""

    input_size = I

    def __init__(self):
        super().__init__()
        self.first, self.second, self.again = nn.Linear(I, 5), nn.Linear(5, N), nn.Linear(N, N)

    def forward(self, x, h):
        return torch.tanh(self.second(torch.tanh(self.first(x))) + self.again(h))


def odd():
    torch.manual_seed(3)
    given = (torch.zeros(1, 5), torch.zeros(1, 3))
    return Odd(), {"inputs": given, "state": (torch.full((1, 2, 3), 0.25), torch.zeros(1, 1))}


def stacks():
    return {
        **layer_stacks.stacks(I, N),
        "RNN": tt.RNN(I, N, num_layers=2),
        "one unit": tt.LSTM(1, 1),
    }


class Shared:
    """An export as a shared library, by the C compiler of this machine."""

    def __init__(self, folder, name, *, source):
        made = folder / "made.so"
        command = [*compilers.compiler(), "-shared", "-fPIC", "-O2", str(folder / f"{name}.{'c' if source else 'o'}")]
        subprocess.run([*command, "-o", str(made), "-lm"], check=True)
        self.library, self.name = ctypes.CDLL(str(made)), name
        header = (folder / f"{name}.h").read_text()
        found = dict(re.findall(rf"#define {name.upper()}_(\w+) (\d+)", header))
        self.inputs, self.outputs, self.state = (int(found[k]) for k in ("INPUTS", "OUTPUTS", "STATE"))

    def run(self, x, state):
        """x [T, I], state [S] -> [T, N], the state after."""
        state, y = state.clone(), torch.empty(len(x), self.outputs)
        step = getattr(self.library, f"{self.name}_step")
        for given, out in zip(x, y, strict=True):
            step(*(ctypes.c_void_p(t.data_ptr()) for t in (state, given, out)))
        return y, state

    def first(self):
        state = torch.full((self.state,), torch.nan)
        getattr(self.library, f"{self.name}_init")(ctypes.c_void_p(state.data_ptr()))
        return state


# -- this machine


@needs_compiler
@pytest.mark.parametrize("how", [{}, {"source": True}, {"int8": True}, {"int8": True, "source": True}], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_steps_as_it_does_in_python(name, how, tmp_path):
    cell = cell_of(name)
    export(cell, "c", tmp_path / "out", name="cell", **how)
    shared = Shared(tmp_path / "out", "cell", source="source" in how)
    stack = stack_of(cell)
    right = evaluated(stack, int8=True, rounded="source" not in how) if "int8" in how else stack
    x, states = torch.randn(T, 1, I), [torch.randn(s.shape) for s in stack.states]
    y, finals = right.run(x, states)
    got, after = shared.run(x[:, 0], torch.cat([s.flatten() for s in states]))
    # where a number lies between two whole ones, its last digit says which: the least that an operand of about 3 moves by
    within = 3 / 32767 if how == {"int8": True} else 1e-5
    torch.testing.assert_close(got, y[:, 0], rtol=1e-5, atol=within)
    torch.testing.assert_close(after, torch.cat([f.flatten() for f in finals]), rtol=1e-5, atol=within)
    assert torch.equal(shared.first(), torch.cat([s.flatten() for s in stack.states]))
    if "int8" in how:
        loss = (y - stack.run(x, states)[0]).abs().max()
        assert 0 < loss < 0.2 or name == "indrnn"


@needs_compiler
@pytest.mark.parametrize("source", [False, True])
@pytest.mark.parametrize("what", [*stacks(), Softened, Encoding])
def test_stacks_and_cells_of_ones_own(what, source, tmp_path):
    made = stacks()[what] if isinstance(what, str) else what()
    extra = {} if isinstance(what, str) else {"state": torch.randn(1, N)}
    export(made, "c", tmp_path / "out", name="m", source=source, **extra)
    stack = stack_of(made, **extra)
    shared = Shared(tmp_path / "out", "m", source=source)
    x, states = torch.randn(T, 1, shared.inputs), [torch.randn(s.shape) for s in stack.states]
    y, finals = stack.run(x, states)
    got, after = shared.run(x[:, 0], torch.cat([s.flatten() for s in states]))
    torch.testing.assert_close(got, y[:, 0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(after, torch.cat([f.flatten() for f in finals]), rtol=1e-5, atol=1e-5)
    assert torch.equal(shared.first(), torch.cat([s.flatten() for s in stack.states]))


@needs_compiler
@pytest.mark.parametrize("source", [False, True])
def test_a_cell_that_needs_the_c_library_says_which_functions(source, tmp_path):
    cell, given = odd()
    export(cell, "c", tmp_path / "out", source=source, **given)
    said = (tmp_path / "out" / "README.md").read_text()
    header = (tmp_path / "out" / "odd.h").read_text()
    functions = {"sinf", "cosf", "powf", *(("erff", "log1pf", "expm1f") if source else ())}
    for function in functions:
        assert f"`{function}`" in said and "-lm" in said and function in header
    if not source:
        undefined, _ = looked_at((tmp_path / "out" / "odd.o").read_bytes())
        assert undefined == functions


@needs_compiler
@pytest.mark.parametrize("source", [False, True])
def test_nan_passes_minimum_and_maximum(source, tmp_path):
    class Least(nn.Module):
        input_size = 3

        def forward(self, x, h):
            return torch.minimum(x, h), torch.maximum(x, h)

    export(Least(), "c", tmp_path / "out", state=torch.zeros(1, 3), source=source)
    shared = Shared(tmp_path / "out", "least", source=source)
    nan = float("nan")
    y, after = shared.run(torch.tensor([[nan, 1.0, 2.0]]), torch.tensor([1.0, nan, 3.0]))
    assert y[0, :2].isnan().all() and after[:2].isnan().all()
    assert (y[0, 2], after[2]) == (2, 3)


@pytest.mark.parametrize("compiler", [[gcc], compilers.zig()], ids=["gcc", "zig"])
@pytest.mark.parametrize("what", ["lstm", "layernorm-gru", "odd", "stack"])
def test_source_compiles_without_a_warning(what, compiler, tmp_path):
    if not compiler or compiler[0] is None:
        pytest.skip("this compiler is not here")
    made, extra = (
        odd() if what == "odd" else (stacks()["residual with zoneout"] if what == "stack" else cell_of(what), {})
    )
    for int8 in (False, True):
        written, _, _ = files.sources("m", stack_of(made, **extra), "", None, int8=int8)
        for name, text in written.items():
            (tmp_path / name).write_text(text)
        subprocess.run([*compiler, *WARNINGS, "-O2", "-c", "m.c", "-o", "m.o"], cwd=tmp_path, check=True)


@needs_compiler
def test_functions_written_in_c_within_a_few_units_in_the_last_place(tmp_path):
    names = {
        "exponential": np.exp,
        "hyperbolic_tangent": np.tanh,
        "logarithm": np.log,
        "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
    }
    text = ["#include <float.h>", "#include <math.h>", "#include <stdint.h>"]
    text += [
        functions.HELPERS[n].text for n in ("power_of_two", "exponential", "hyperbolic_tangent", "logarithm", "sigmoid")
    ]
    text += [
        f"void each_{n}(const float *x, float *y, int n) {{ for (int i = 0; i < n; i++) y[i] = {n}(x[i]); }}"
        for n in names
    ]
    (tmp_path / "f.c").write_text("\n".join(text))
    subprocess.run([*compilers.compiler(), "-shared", "-fPIC", "-O2", "f.c", "-o", "f.so"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "f.so"))
    x = np.concatenate([np.linspace(-110, 95, 100_000), np.linspace(-1, 1, 50_000), np.geomspace(1e-44, 1e38, 20_000),
                        [0.0, -0.0, np.inf, -np.inf, np.nan]]).astype(np.float32)  # fmt: skip
    for name, exact in names.items():
        y = np.empty_like(x)
        getattr(library, f"each_{name}")(ctypes.c_void_p(x.ctypes.data), ctypes.c_void_p(y.ctypes.data), len(x))
        with np.errstate(all="ignore"):
            truth = exact(x.astype(np.float64))
            rounded = truth.astype(np.float32)
        same = np.isfinite(rounded) & (np.abs(truth) > 1.2e-38)
        assert np.max(np.abs(y[same] - truth[same]) / np.spacing(np.abs(rounded[same]))) < 6, (
            name
        )  # tanh 5.1 without fma
        assert np.array_equal(np.isnan(y), np.isnan(truth)), name
        assert np.array_equal(y[np.isinf(rounded)], rounded[np.isinf(rounded)]), name


# -- other machines

EMULATED = {name: t.emulator for name, t in TARGETS.items() if t.emulator}


@needs("qemu-aarch64")
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_under_qemu(name, tmp_path):
    export(cell_of(name), "c", tmp_path / "out", target="aarch64")
    assert "Run under qemu-aarch64" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("target", [pytest.param(name, marks=needs(emulator)) for name, emulator in EMULATED.items()])
def test_every_processor_under_qemu(target, int8, tmp_path):
    torch.manual_seed(6)
    made = {"layers": tt.LSTM(I, N, num_layers=2), "softened": Softened(), "norm": cell_of("layernorm-lstm")}
    for name, what in made.items():
        extra = {"state": torch.randn(1, N)} if name == "softened" else {}
        export(what, "c", tmp_path / name, target=target, int8=int8, **extra)
        assert f"Run under {EMULATED[target]}" in (tmp_path / name / "README.md").read_text()


@needs("qemu-arm")
def test_a_loop_of_two_on_cortex_m7(tmp_path):
    """What LLVM does wrong there unless it is told to leave loops as they are."""

    class Halves(nn.Module):
        input_size = 2

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(2, 12, bias=False)

        def forward(self, x, state):
            a, b = state
            z = self.first(a)
            v = self.second(z[:, :2] + z[:, 2:])
            a = 0.5 * a + 0.5 * torch.tanh(z)
            return a, (a, 0.5 * b + 0.5 * torch.tanh(v + v))

    torch.manual_seed(0)
    state = (torch.zeros(1, 3), torch.zeros(1, 12))
    export(Halves(), "c", tmp_path / "out", target="cortex-m7", state=state)
    assert "Run under qemu-arm" in (tmp_path / "out" / "README.md").read_text()


@needs("qemu-arm")
def test_the_c_library_is_called_as_hard_float_is(tmp_path):
    """Numbers in floating-point registers: a triple that LLVM half understands passes them in others."""
    cell, given = odd()
    export(cell, "c", tmp_path / "out", target="cortex-m4", **given)
    assert "Run under qemu-arm" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("target", [name for name, t in TARGETS.items() if not t.emulator])
def test_every_level_of_this_processor(target, tmp_path):
    """One that this machine has not is compiled, and its text is run as near to it as this machine comes."""
    if target_of(target).runs_here:
        export(cell_of("lstm"), "c", tmp_path / "out", target=target)
    else:
        with pytest.warns(UserWarning, match="not run there"):
            export(cell_of("lstm"), "c", tmp_path / "out", target=target)


def test_what_cannot_be_run_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(objects.shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="not run there, for which qemu-riscv64 would be needed; the same text"):
        export(cell_of("gru"), "c", tmp_path / "out", target="riscv64")
    assert "not run there" in (tmp_path / "out" / "README.md").read_text()


def test_source_without_a_compiler_is_set_beside_by_its_program(tmp_path, monkeypatch):
    monkeypatch.setattr(c.sources, "compiler", list)
    with pytest.warns(UserWarning, match="not compiled, since there is no C compiler here"):
        export(cell_of("gru"), "c", tmp_path / "out", source=True)


# -- objects


def looked_at(data):
    """The names an ELF object needs from elsewhere, and its sections that may be written to and hold anything."""
    wide = data[4] == 2
    start, size, count = (struct.unpack_from("<Q", data, 40)[0], 64, struct.unpack_from("<H", data, 60)[0]) if wide else (
        struct.unpack_from("<I", data, 32)[0], 40, struct.unpack_from("<H", data, 48)[0])  # fmt: skip
    sections = []
    for i in range(count):
        fields = struct.unpack_from("<IIQQQQIIQQ" if wide else "<IIIIIIIIII", data, start + i * size)
        sections.append(dict(zip(["name", "type", "flags", "addr", "offset", "size", "link"], fields, strict=False)))
    table = next(s for s in sections if s["type"] == 2)
    names, undefined = sections[table["link"]]["offset"], set()
    each = 24 if wide else 16
    for at in range(table["offset"] + each, table["offset"] + table["size"], each):
        name, place = (struct.unpack_from("<IBBH", data, at)[i] for i in (0, 3)) if wide else (
            struct.unpack_from("<IIIBBH", data, at)[i] for i in (0, 5))  # fmt: skip
        if place == 0:
            undefined.add(data[names + name : data.index(b"\0", names + name)].decode())
    writable = [s for s in sections if s["flags"] & 1 and s["size"]]
    return undefined, writable


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("target", [None, *TARGETS])
def test_objects_need_nothing_and_change_nothing(target, int8):
    torch.manual_seed(7)
    large = tt.LSTM(70, 90, num_layers=2)  # whose copies a compiler would make calls of memcpy
    half = ([None, *TARGETS].index(target) + int8) % 2  # of the cells; the other half in the other kind of weights
    for what, extra in (
        (large, {}),
        (Softened(), {"state": torch.randn(1, N)}),
        *((cell_of(name), {}) for name in CELLS[half::2]),
    ):
        module = steps_llvm.step_module(stack_of(what, **extra), "m", target_of(target), int8=int8)
        assert not module.libm
        undefined, writable = looked_at(target_of(target).compiled(module.text))
        assert not undefined and not writable


def test_a_write_is_the_same_twice(tmp_path):
    for how in (
        {},
        {"source": True},
        {"target": "aarch64"} if compilers.zig() and shutil.which("qemu-aarch64") else {"int8": True},
    ):
        for folder in ("a", "b"):
            export(cell_of("layernorm-lstm"), "c", tmp_path / folder, overwrite=True, **how)
        for file in (tmp_path / "a").iterdir():
            assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


# -- the check


def _swapped(matrix, wide):
    """Two columns of the weights in each other's place."""
    return good["packed"](matrix[:, [1, 0, *range(2, matrix.shape[1])]], wide)


def _scaled(matrix):
    whole, scales = good["quantised"](matrix)
    return whole, scales.roll(1)


good = {"packed": layers_llvm.packed, "quantised": layers_llvm.quantised}


@pytest.mark.parametrize(
    ("module", "name", "fault", "how"),
    [
        (layers_llvm, "packed", _swapped, {}),
        (layers_llvm, "quantised", _scaled, {"int8": True}),
        (layers_llvm, "copy", lambda code, source, to, width: good_copy(code, source, to, width - 1), {}),
        (files, "quantised", _scaled, {"int8": True, "source": True}),
        (files, "literal", lambda v: functions.literal(v * 1.01), {"source": True}),
    ],
)
def test_a_fault_is_caught_and_nothing_is_written(module, name, fault, how, tmp_path, monkeypatch):
    monkeypatch.setattr(module, name, fault)
    with pytest.raises(UserError, match="nothing was written"):
        export(cell_of("lstm"), "c", tmp_path / "out", **how)
    assert not list(tmp_path.iterdir())


good_copy = layers_llvm.copy


WIDE = {"lstm": 64, "gru": 80, "layernorm-lstm": 64, "elman": 100}  # whose weights a first cache does not hold


@pytest.mark.parametrize("target", ["x86-64-v2", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("name", WIDE)
def test_weights_are_read_from_either_end_with_the_same_bits(name, target):
    where = target_of(target)
    if not where.runs_here:
        pytest.skip(f"{target} does not run here")
    torch.manual_seed(3)
    cell = tt.cells.NAMED[name](40, WIDE[name])
    stack = stack_of(cell)
    module = steps_llvm.step_module(stack, "wide", where)
    assert module.own == 1 and len(module.text) > 4 * layers_llvm.CACHE
    running = InProcess(where.compiled(module.text), "wide", module.state, module.outputs)
    x, found = torch.randn(6, 40), []
    first = torch.randn(module.state - 1)
    for own in (0.0, 1.0, float("nan"), -7.5):
        y, after = running.steps(torch.cat([first, torch.tensor([own])]), x)
        found.append(torch.cat([y.reshape(-1), after[:-1]]))
        assert float(after[-1]) == (1.0 if own == 1.0 else 0.0)  # six steps on; what is no turn is the first one
    assert all(torch.equal(found[0], one) for one in found)
    sizes = [part.numel() for part in stack.states]
    state = [part.reshape(like.shape) for part, like in zip(first.split(sizes), stack.states, strict=True)]
    outputs, _, _ = tt.scan(cell, x.unsqueeze(1), state[0] if len(state) == 1 else tuple(state), backend="reference")
    torch.testing.assert_close(found[0][: 6 * module.outputs].view(6, -1), outputs[:, 0], rtol=1e-5, atol=1e-6)


def test_a_fault_in_the_second_turn_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(layers_llvm.LayerCode, "_turned", lambda self, code, p, _: code.mul(p, code.sub("1", "%turn")))
    with pytest.raises(UserError, match="nothing was written"):
        export(tt.cells.LSTM(40, 64), "c", tmp_path / "out", target="x86-64-v3")


def test_a_wrong_gate_is_caught(tmp_path, monkeypatch):
    monkeypatch.setitem(VECTORS, "sigmoid", VECTORS["tanh"])
    with pytest.raises(UserError, match="nothing was written"):
        export(cell_of("gru"), "c", tmp_path / "out")


def test_what_cannot_be_exported_is_refused(tmp_path):
    def refused(message, what, **how):
        with pytest.raises(UserError, match=message):
            export(what, "c", tmp_path / "out", **how)
        assert not (tmp_path / "out").exists()

    gru = cell_of("gru")
    refused("unknown target 'cortex-m5'; did you mean 'cortex-m", gru, target="cortex-m5")
    refused("unknown target 'x86-64-v5'; did you mean 'x86-64-v", gru, target="x86-64-v5")
    refused("no name in C", gru, name="int")
    refused("no name in C", gru, name="a b")
    refused("target is of objects", gru, target="aarch64", source=True)
    refused("float64: convert it", cell_of("gru").double())
    refused("from the end of a sequence", tt.GRU(I, N, bidirectional=True))
    refused("lengths is an option of onnx", gru, lengths=True)

    class Branching(nn.Module):
        input_size = I

        def forward(self, x, h):
            return h + x if bool((h > 0).any()) else h - x

    refused("cannot be exported", Branching(), state=torch.zeros(1, I))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        export(gru, "c", tmp_path / "taken")
    export(gru, "c", tmp_path / "out")
    with pytest.raises(UserError, match="holds an export already"):
        export(gru, "c", tmp_path / "out")
    export(cell_of("lstm"), "c", tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "gru.o").exists()


# -- text

TEXT = "To be, or not to be: that is the question.\nWhether 'tis nöbler in the mind to suffer\n" * 60


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A function that trains a language model for a moment."""
    folder, models = tmp_path_factory.mktemp("models"), {}

    def train(tokens="characters", **model):
        name = "-".join([tokens, *model])
        if name not in models:
            (folder / "book.txt").write_text(TEXT)
            models[name] = tt.train(
                "text", [folder / "book.txt"], out=folder / name, steps=60, model={"tokens": tokens, "hidden_size": 24, **model},
                training={"batch_size": 4, "chunk": 40, "learning_rate": 0.02, "evaluations": 1}, progress=False,
            )  # fmt: skip
        return models[name]

    return train


class Reader:
    """A text model's export as a shared library."""

    def __init__(self, folder, *, source=False):
        self.shared = Shared(folder, "text", source=source)
        self.library = self.shared.library
        self.library.text_text.restype = ctypes.c_char_p

    def read(self, state, token):
        log_p = torch.empty(self.shared.outputs)
        self.library.text_read(ctypes.c_void_p(state.data_ptr()), int(token), ctypes.c_void_p(log_p.data_ptr()))
        return log_p


@needs_compiler
@pytest.mark.parametrize("how", [{}, {"source": True}], ids=str)
@pytest.mark.parametrize(
    "model", [{}, {"tokens": "bytes", "cell": "gru", "layers": 2}, {"tokens": "words", "tied": False}], ids=str
)
def test_a_text_model_reads_and_says_what_comes_next(texts, model, how, tmp_path):
    trained = texts(**model)
    export(trained, "c", tmp_path / "out", **how)
    reader = Reader(tmp_path / "out", source="source" in how)
    ids = [1, *trained.tokens.encode("To be, nöt to be\n").tolist(), 1, *trained.tokens.encode("Whether 'tis").tolist()]
    state = torch.randn(reader.shared.state)
    got = torch.stack([reader.read(state, i) for i in ids])
    right = trained.network.log_probabilities(torch.tensor(ids).unsqueeze(1))[:, 0]
    torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reader.read(state.clone(), 10_000), reader.read(state.clone(), 0))
    words = [reader.library.text_text(i) for i in range(len(trained.tokens))]
    if trained.tokens.kind == "characters":
        assert [w.decode() for w in words[2:]] == trained.tokens.entries[2:]
    if trained.tokens.kind == "bytes":
        assert words[2:] == [bytes([b]).rstrip(b"\0") for b in range(256)]
    assert [reader.library.text_text(i) for i in (-1, 0, 1, len(words), 2**31 - 1)] == [b""] * 5
    assert (tmp_path / "out" / "vocabulary.json").is_file()


@needs_compiler
@pytest.mark.parametrize("how", [{}, {"source": True}, {"int8": True}], ids=str)
def test_the_program_of_the_readme_writes(texts, how, tmp_path):
    trained = texts(cell="gru")
    export(trained, "c", tmp_path / "out", **how)
    readme = (tmp_path / "out" / "README.md").read_text()
    program = readme.split("```c\n")[2].split("```")[0]
    assert program == (Path(__file__).parents[1] / "examples" / "write_text.c").read_text()
    (tmp_path / "out" / "main.c").write_text(program)
    (command,) = re.findall(r"`cc (.*-o write.*)`", readme)
    subprocess.run([*compilers.compiler(), *command.split()], cwd=tmp_path / "out", check=True)
    said = [
        subprocess.run([tmp_path / "out" / "write", "To be nö", seed], capture_output=True, check=True).stdout.decode()
        for seed in ("3", "3", "4")
    ]
    assert said[0] == said[1] != said[2] and said[0].startswith("To be nö")
    assert set(said[0]) <= set(TEXT) and len(said[0]) == 8 + 400 + 1


@pytest.mark.parametrize(
    "target", [pytest.param("cortex-m4", marks=needs("qemu-arm")), pytest.param("aarch64", marks=needs("qemu-aarch64"))]
)
def test_a_text_model_under_qemu(texts, target, tmp_path):
    export(texts(cell="gru"), "c", tmp_path / "out", target=target, int8=True)
    assert "Run under qemu" in (tmp_path / "out" / "README.md").read_text()


def test_a_wrong_row_of_the_embedding_is_caught(texts, tmp_path, monkeypatch):
    whole = steps_llvm.constant
    monkeypatch.setattr(
        steps_llvm, "constant", lambda m, name, v: whole(m, name, v.roll(1, 0) if name == "table" else v)
    )
    with pytest.raises(UserError, match="log p differs from the reference"):
        export(texts(), "c", tmp_path / "out")


def test_steps_without_their_softmax_are_caught_in_eight_bits_too(texts, tmp_path, monkeypatch):
    monkeypatch.setattr(Head, "forward", lambda self, x, state: (self.output(self.project(x)), state))
    with pytest.raises(UserError, match="its steps differ from the model by"):
        export(texts(cell="gru"), "c", tmp_path / "out", int8=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("documents", ["line", "paragraph"])
def test_the_readme_says_where_a_document_ends(documents, tmp_path):
    (tmp_path / "book.txt").write_text(TEXT.replace("\n", "\n\n"))
    trained = tt.train(
        "text", [tmp_path / "book.txt"], out=tmp_path / "run", steps=2, model={"tokens": "characters", "hidden_size": 8},
        data={"documents": documents}, progress=False,
    )  # fmt: skip
    export(trained, "c", tmp_path / "out")
    assert f"A document is a {documents} here" in (tmp_path / "out" / "README.md").read_text()


def test_models_that_do_not_step_are_refused(texts, tmp_path):
    with pytest.raises(UserError, match="a Transformer has no state"):
        export(texts(kind="transformer"), "c", tmp_path / "out")
    with pytest.raises(UserError, match="its softmax is adaptive"):
        export(texts(tokens="words", output="adaptive"), "c", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_random_cells_are_right_or_refused():
    found = [
        outcome({**judged.__dict__, "verdict": judged.verdict}) for judged in map(c_fuzz.judge, map(make, range(20)))
    ]
    assert set(found) <= {"right", "refused", "of no account"} and found.count("right") >= 8


def test_the_fuzz_sees_a_fault(monkeypatch):
    monkeypatch.setitem(VECTORS, "tanh", VECTORS["sigmoid"])
    assert "WRONG" in [c_fuzz.judge(make(seed)).verdict for seed in range(12)]
