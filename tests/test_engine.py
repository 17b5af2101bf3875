"""The engine as a part of PyTorch and of a machine: threads, forks, caches, other processors, memory, what it says of itself."""

import copy
import math
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import processes
import throughtime as tt
from throughtime.scanning import nodes, programs
from throughtime.scanning.backward import backward
from throughtime.scanning.call import make_call
from throughtime.scanning.cpu import backend, chunks, engine, matrices, memory, product, target
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.stepping import Stepper

pytestmark = pytest.mark.usefixtures("_own_cache")

T, B, I, N = 9, 5, 3, 21  # noqa: E741
F64 = torch.float64
CELLS = list(tt.cells.NAMED.values())


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def random(*shape, seed, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def made(cls, dtype=F64, inputs=I, hidden=N):
    torch.manual_seed(1)
    return cls(inputs, hidden, dtype=dtype)


def first_state(cell, batch, dtype=F64):
    state = cell.initial_state(batch)
    many = state if isinstance(state, tuple) else (state,)
    drawn = tuple(random(*s.shape, seed=5 + k, dtype=dtype).requires_grad_() for k, s in enumerate(many))
    return drawn if isinstance(state, tuple) else drawn[0]


def call_of(cell, x, state=None, **options):
    plain = {"initial": None, "lengths": None, "reverse": False, "resets": None, "record": ()}
    return make_call(cell, x, state, **(plain | options))


def everything(cell, x, state, **options):
    """Outputs, last state, and all gradients."""
    outputs, end, _ = tt.scan(cell, x, state, **options)
    ends = end if isinstance(end, tuple) else (end,)
    states = state if isinstance(state, tuple) else (state,)
    total = outputs.sin().sum() + sum((1.3 * e).cos().sum() for e in ends)
    return [outputs, *ends, *torch.autograd.grad(total, [x, *states, *cell.parameters()])]


def assert_same(found, expected, tolerance=1e-11):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# The same numbers


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cls", CELLS)
def test_chunks_of_any_length_give_the_same(cls, reverse, monkeypatch):
    """What a long sequence is cut into, on a short one."""
    cell, x = made(cls), random(T, B, I, seed=2).requires_grad_()
    options = {"lengths": [4, 9, 0, 7, 1], "reverse": reverse}
    plain = {"reverse": reverse}
    state = first_state(cell, B)
    expected = [everything(cell, x, state, backend="reference", **o) for o in (options, plain)]
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 1)
    for rows in (1, 2 * B, 4 * B + 1):
        monkeypatch.setattr(chunks, "LEAST_ROWS", rows)
        for o, e in zip((options, plain), expected, strict=True):
            assert_same(everything(cell, x, state, backend="cpu", **o), e)


@pytest.mark.parametrize("every", [1, 4, 8])
@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_checkpoints_change_nothing(every, name):
    cell, x = made(tt.cells.LSTM), random(T, B, I, seed=2).requires_grad_()
    state, resets = first_state(cell, B), torch.rand(T, B, generator=torch.Generator().manual_seed(3)) < 0.2
    for options in ({}, {"reverse": True}, {"lengths": [9, 2, 0, 5, 9]}, {"resets": resets}):
        expected = everything(cell, x, state, backend=name, **options)
        assert_same(everything(cell, x, state, backend=name, checkpoint_every=every, **options), expected)
    recorded = tt.scan(cell, x, state, record=("forget",), checkpoint_every=every).records["forget"]
    torch.testing.assert_close(recorded, tt.scan(cell, x, state, record=("forget",)).records["forget"])
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1"):
        tt.scan(cell, x, checkpoint_every=0)


def test_checkpoints_keep_less(two_threads):
    cell, x = made(tt.cells.LSTM, torch.float32, 8, 64), random(400, 4, 8, seed=1, dtype=torch.float32)

    def kept(**options):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            tt.scan(cell, x, **options)
        return sum(sizes)

    assert kept(checkpoint_every=20) < kept() / 3


def test_what_is_kept_is_what_is_said():
    """The states, [T, B, N] each, and `kept` numbers a step and sequence: the gates of the LSTM; r, z, n and W_hn h of the GRU."""
    for cls, count in ((tt.cells.LSTM, 4 * N), (tt.cells.GRU, 4 * N), (tt.cells.Elman, 0)):
        cell, x = made(cls), random(T, B, I, seed=2)
        sizes = {}
        tt.scan(cell, x)  # the first call traces the cell, with tensors of its own
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: s.setdefault(t.data_ptr(), t.numel()) and t, lambda t: t
        ):
            tt.scan(cell, x.clone().requires_grad_())
        program = backend.find(call_of(cell, x)).program
        wanted = frozenset({("a", 0), *(("v", i) for i in range(2)), *(("w", i) for i in range(2))})
        assert engine.CPUEngine(program, F64).saved(wanted) == count
        states = sum(program.state_widths)
        parameters = sum(p.numel() for p in cell.parameters())
        assert sum(sizes.values()) <= T * B * (count + states + I) + parameters + B * states


def test_the_same_call_gives_the_same_bits_on_any_number_of_threads():
    cell, x = made(tt.cells.GRU, torch.float32, 40, 130), random(50, 23, 40, seed=1, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            found.append(tt.scan(cell, x, backend="cpu").outputs)
        assert all(torch.equal(f, found[0]) for f in found)
    finally:
        torch.set_num_threads(before)


def test_weights_that_change_between_calls():
    cell, x = made(tt.cells.GRU), random(T, B, I, seed=2)
    tt.scan(cell, x, backend="cpu")
    with torch.no_grad():
        for p in cell.parameters():
            p.mul_(-0.7)
    torch.testing.assert_close(tt.scan(cell, x, backend="cpu").outputs, tt.scan(cell, x, backend="reference").outputs)


def test_settings_that_change_between_calls():
    """A program is kept for a cell's settings, not for the cell."""

    class Leaky(tt.cells.Elman):
        rate = 0.5

        def forward(self, x, h, mask=None):
            return self.leak * h + super().forward(x, h, mask)

    cell, x = made(Leaky), random(T, B, I, seed=2)
    for cell.leak in (0.5, 0.25):
        found, expected = (tt.scan(cell, x, backend=b).outputs for b in ("cpu", "reference"))
        torch.testing.assert_close(found, expected)


def test_shared_weights():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = self.other = nn.Linear(N, N, dtype=F64)

        def forward(self, x, h):
            return torch.tanh(self.one(h) + torch.tanh(self.other(x)))

    cell, x, h = Twice(), random(T, B, N, seed=2).requires_grad_(), random(B, N, seed=3).requires_grad_()
    expected = everything(cell, x, h, backend="reference")
    assert_same(everything(cell, x, h, backend="cpu"), expected)
    cell.other = copy.deepcopy(cell.other)
    with torch.no_grad():
        cell.other.weight.neg_()
    assert_same(everything(cell, x, h, backend="cpu"), everything(cell, x, h, backend="reference"))


# A part of PyTorch


@pytest.mark.parametrize("cls", [tt.cells.Elman, tt.cells.GRU, tt.cells.LSTM])
def test_gradcheck(cls):
    cell, x = made(cls, hidden=4), random(4, 3, I, seed=2).requires_grad_()
    state = first_state(cell, 3)
    states = state if isinstance(state, tuple) else (state,)

    def run(x, *rest):
        given = rest[: len(states)]
        return tt.scan(
            cell, x, given if isinstance(state, tuple) else given[0], lengths=[4, 2, 3], backend="cpu"
        ).outputs

    assert torch.autograd.gradcheck(run, (x, *states, *cell.parameters()))


@pytest.mark.parametrize("cls", [tt.cells.GRU, tt.cells.LSTM])
def test_second_derivatives_run_on_the_reference_and_say_so(cls):
    cell, x, state = made(cls, hidden=4), random(4, 3, I, seed=2).requires_grad_(), None
    resets = torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) < 0.3
    for options in ({}, {"lengths": [4, 2, 0]}, {"reverse": True}, {"resets": resets}):
        found = []
        for name in ("cpu", "reference"):
            loss = tt.scan(cell, x, state, backend=name, **options).outputs.sin().sum()
            if name == "cpu":
                with pytest.warns(UserWarning, match="derivative of a derivative"):
                    (g,) = torch.autograd.grad(loss, x, create_graph=True)
            else:
                (g,) = torch.autograd.grad(loss, x, create_graph=True)
            found.append([g, *torch.autograd.grad(g.square().sum(), [x, *cell.parameters()], allow_unused=True)])
        for a, b in zip(*found, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_no_grad_keeps_nothing():
    cell, x = made(tt.cells.LSTM), random(T, B, I, seed=2)
    with torch.no_grad():
        found = tt.scan(cell, x, backend="cpu").outputs
    assert not found.requires_grad
    assert torch.equal(found, tt.scan(cell, x, backend="cpu").outputs.detach())


# A part of a machine


def test_several_python_threads_at_once(two_threads):
    cells = [made(cls, torch.float32, 16, 48) for cls in (tt.cells.GRU, tt.cells.LSTM, tt.cells.PeepholeLSTM)]
    x = random(40, 16, 16, seed=2, dtype=torch.float32).requires_grad_()
    states = [first_state(c, 16, torch.float32) for c in cells]
    expected = [everything(c, x, s, backend="cpu") for c, s in zip(cells, states, strict=True)]
    wrong = []

    def work(k):
        for _ in range(15):
            for a, b in zip(everything(cells[k % 3], x, states[k % 3], backend="cpu"), expected[k % 3], strict=True):
                if not torch.equal(a, b):
                    wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def in_process(code, **environment):
    """What a new process prints."""
    done = processes.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_after_a_fork():
    """The child has none of the parent's OpenMP threads."""
    printed = in_process(
        """
        import os, torch, throughtime as tt
        torch.set_num_threads(2)
        torch.manual_seed(0)
        cell, x = tt.cells.GRU(64, 128), torch.randn(50, 16, 64, requires_grad=True)
        def run():
            outputs, state, _ = tt.scan(cell, x, backend="cpu")
            return [t.detach().numpy() for t in (outputs, *torch.autograd.grad(state.sum(), [x, *cell.parameters()]))]
        before = run()
        child = os.fork()
        if child == 0:
            os._exit(0 if all((a == b).all() for a, b in zip(before, run())) else 1)
        print(os.waitpid(child, 0)[1])
        """
    )
    assert printed == "0"


def test_the_cache_serves_the_next_process_and_survives_damage(tmp_path):
    code = """
        import torch, throughtime as tt
        from throughtime.scanning.cpu import target
        torch.manual_seed(0)
        cell, x = tt.cells.GRU(3, 5), torch.ones(4, 2, 3)
        outputs = tt.scan(cell, x, backend="cpu").outputs
        outputs.sum().backward()
        print(target.compiled, outputs.sum().item(), cell.weight_hh.grad.sum().item())
    """
    first = in_process(code, THROUGHTIME_CACHE=str(tmp_path)).split()
    assert int(first[0]) > 0 and list(tmp_path.glob("*.o"))
    assert in_process(code, THROUGHTIME_CACHE=str(tmp_path)).split() == ["0", *first[1:]]
    for k, file in enumerate(sorted(tmp_path.glob("*.o"))):
        data = file.read_bytes()
        file.write_bytes([data[: len(data) // 2], b"", data[:-1] + bytes([data[-1] ^ 1])][k % 3])
    assert in_process(code, THROUGHTIME_CACHE=str(tmp_path)).split() == first
    assert in_process(code, THROUGHTIME_CACHE="").split() == first
    assert not list(tmp_path.glob(".*")), "no part of a file is left"


def test_code_of_another_version_is_compiled_anew(tmp_path, monkeypatch):
    """Of a version whose source differs in a comment: what it compiled may be called in another way."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path / "cache"))
    shutil.copytree(Path(target.__file__).parents[1], tmp_path / "other" / "scanning")
    other = tmp_path / "other" / "scanning" / "cpu" / "target.py"
    compiled = []
    for path in (Path(target.__file__), other, other):
        if len(compiled) == 2:
            (other.parent / "rows.py").write_text("# as it was")
        monkeypatch.setattr(target, "__file__", str(path))
        target._sources.cache_clear()
        monkeypatch.setattr(target, "_libraries", target.OrderedDict())
        before = target.compiled
        target.library("a key of its own", lambda: "define void @nothing(ptr %a) {\n  ret void\n}\n")
        compiled.append(target.compiled - before)
    target._sources.cache_clear()
    assert compiled == [1, 0, 1]


def test_two_processes_fill_one_cache(tmp_path):
    code = "import torch, throughtime as tt; print(len(tt.scan(tt.cells.LSTM(3, 5), torch.ones(4, 2, 3), backend='cpu')[0]))"
    environment = {**os.environ, "THROUGHTIME_CACHE": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [p.communicate(timeout=120)[0].strip() for p in both] == ["4", "4"]


def test_narrower_vectors_give_the_same(tmp_path):
    """The code for AVX2, and for processors of which nothing is known, where this one can run it."""
    code = """
        import torch, throughtime as tt
        torch.manual_seed(0)
        torch.set_default_dtype(torch.float64)
        cell, x = tt.cells.LayerNormLSTM(19, 37), torch.randn(6, 7, 19)
        outputs = tt.scan(cell, x, lengths=[6, 2, 0, 5, 6, 3, 1], backend="cpu").outputs
        expected = tt.scan(cell, x, lengths=[6, 2, 0, 5, 6, 3, 1], backend="reference").outputs
        names = list(cell.parameters())
        a, b = (torch.autograd.grad(o.sin().sum(), names) for o in (outputs, expected))
        worst = max((p - q).abs().max().item() for p, q in zip((outputs, *a), (expected, *b)))
        print(worst < 1e-11)
    """
    kinds = ["plain"]
    if not target.host().triple.startswith("x86_64"):
        kinds = ["neon"]
    elif target.host().bits >= 256:
        kinds.append("avx2")
    for kind in kinds:
        assert in_process(code, THROUGHTIME_VECTOR=kind, THROUGHTIME_CACHE=str(tmp_path)) == "True"


@pytest.mark.parametrize(
    ("triple", "cpu", "features", "kind"),
    [
        ("x86_64-unknown-linux-gnu", "haswell", "+avx2,+fma", target.AVX2),
        ("x86_64-unknown-linux-gnu", "skylake-avx512", "-prefer-256-bit", target.AVX512),
        ("aarch64-unknown-linux-gnu", "neoverse-n1", "", target.NEON),
    ],
)
@pytest.mark.parametrize("dtype", ["float", "double"])
def test_it_compiles_for_other_processors(triple, cpu, features, kind, dtype):
    there = target.Target(triple, cpu, features, **kind)
    assert len(target.compile_object(product.text(there, dtype), there)) > 1000
    for cls in (tt.cells.GRU, tt.cells.LayerNormLSTM):
        program = backend.find(call_of(made(cls), random(T, B, I, seed=2))).program
        loops = [(program.forward, False), (backward(program, frozenset({("w", 1)})).loop, True)]
        for loop, backwards in loops:
            assert len(target.compile_object(LoopCode(program, loop, there, dtype, backwards).text(), there)) > 500


# Its mathematics


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (7, 3, 65), (97, 600, 130), (13, 17, 31), (100, 1, 64), (5, 1030, 9)])
def test_products_of_any_size(sizes, dtype):
    m, k, n = sizes
    a, w, bias, g = (random(*s, seed=i) for i, s in enumerate([(m, k), (n, k), (n,), (m, n)]))
    narrow = [t.to(dtype) for t in (a, w, bias, g)]
    tolerance = {"rtol": 1e-5, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}

    def same(found, expected):
        torch.testing.assert_close(found.double(), expected, **tolerance)

    same(matrices.multiply(narrow[0], narrow[1].t(), narrow[2]), a @ w.t() + bias)
    same(matrices.multiply(narrow[0], narrow[1].t().contiguous()), a @ w.t())
    same(matrices.outer(narrow[0], narrow[3]), a.t() @ g)


@pytest.mark.parametrize("limits", [(-0.5, 0.5), (-0.5, None), (None, 0.5), "tensors"])
def test_a_clamp_at_nan_stays_nan_without_a_gradient(limits):
    class Held(nn.Module):
        def forward(self, x, h):
            low, high = (h - 0.3, h + 0.3) if limits == "tensors" else limits
            return torch.tanh(torch.clamp(x, low, high)) + 0.5 * h

    x = random(1, B, N, seed=1)
    x[0, 0, :3] = float("nan")
    x.requires_grad_()
    h = random(B, N, seed=2).requires_grad_()
    found = []
    for backend_ in ("cpu", "reference"):
        outputs = tt.scan(Held(), x, h, backend=backend_).outputs
        g = torch.nan_to_num(torch.autograd.grad(outputs.nansum(), x)[0], nan=-9.0)
        found.append((outputs, g))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-12, equal_nan=True)


def test_tracing_takes_as_many_nodes_as_the_step_has():
    class Deep(nn.Module):
        def __init__(self, depth):
            super().__init__()
            self.depth = depth

        def forward(self, x, h):
            for _ in range(self.depth):  # each looks twice at the one before: 2^depth ways to the first
                h = torch.sin(h) * h + x
            return torch.tanh(h)[:, :1].clone(), torch.tanh(h)

    counts = []
    for depth in (5, 10, 20):
        call = call_of(Deep(depth), random(T, B, N, seed=1), random(B, N, seed=2).requires_grad_())
        asked = []
        with pytest.MonkeyPatch.context() as patch:
            original = nodes.Graph.slice
            patch.setattr(nodes.Graph, "slice", lambda *a, o=original, asked=asked: (asked.append(1), o(*a))[1])
            backward(backend.find(call).program, frozenset())
        counts.append(len(asked))
    assert counts[2] - counts[1] <= 3 * (counts[1] - counts[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_under_torch_compile():
    cell = made(tt.cells.LayerNormGRU)
    x = random(T, B, I, seed=1).requires_grad_()
    state = first_state(cell, B)

    def outputs(x, state):
        return (2 * tt.scan(cell, 2 * x, state, backend="cpu").outputs).sin()

    expected = outputs(x, state)
    found = torch.compile(outputs, backend="aot_eager")(x, state)
    assert_same([found], [expected])
    gradients = [torch.autograd.grad(y.sum(), [x, state, *cell.parameters()]) for y in (found, expected)]
    assert_same(*gradients)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("inputs", [1, 2])
def test_a_product_of_one_or_two_inputs_is_worked_out_in_the_loop(inputs, bias):
    torch.manual_seed(1)
    cell = tt.cells.GRU(inputs, 19, bias=bias, dtype=F64)
    x = random(T, B, inputs, seed=1).requires_grad_()
    lengths = torch.tensor([9, 0, 4, 7, 1])
    state = first_state(cell, B)
    call = call_of(cell, x, state)
    program = backend.find(call).program
    assert ("m", 0) in LoopCode(program, program.forward, target.host(), "double", False).layout.words
    for options in ({}, {"lengths": lengths}, {"reverse": True}):
        found, expected = (everything(cell, x, state, backend=b, **options) for b in ("cpu", "reference"))
        assert_same(found, expected)


@pytest.mark.parametrize("shape", [(64, 1024, 32), (64, 1024, 1)])
def test_memory_is_used_again_and_never_while_in_use(shape, monkeypatch):
    monkeypatch.setattr(memory, "_free", {})
    first = memory.empty(*shape, dtype=torch.float32).fill_(1)
    second = memory.empty(*shape, dtype=torch.float32).fill_(2)
    view, place = first[3], first.data_ptr()
    del first
    other = memory.empty(*shape, dtype=torch.float32).fill_(3)
    assert other.data_ptr() not in (place, second.data_ptr())
    assert bool((view == 1).all()) and bool((second == 2).all())
    del view
    assert memory.empty(*shape, dtype=torch.float32).data_ptr() == place
    kept = 10 * math.prod(shape)  # bytes, two and a half of them
    monkeypatch.setattr(memory, "KEPT", kept)
    del second, other
    assert 0 < memory.kept() <= kept


@pytest.mark.parametrize("large", [2, 64])  # megabytes
def test_memory_serves_what_is_a_little_smaller_and_not_what_is_much_smaller(large, monkeypatch):
    monkeypatch.setattr(memory, "_free", {})
    first = memory.empty(large << 18, dtype=torch.float32)
    place = first.data_ptr()
    del first
    half = memory.empty(large << 17, dtype=torch.float32)
    assert half.data_ptr() != place
    again = memory.empty((large << 18) * 85 // 100, dtype=torch.float32)
    assert again.data_ptr() == place


def test_warm_calls_take_no_new_memory():
    """Weights of 650 units, packed and with their gradients, are some megabytes a call."""
    resource = pytest.importorskip("resource")
    layer, x = tt.GRU(650, 650), random(35, 20, 650, seed=1).float()

    def call():
        layer(x)[0].sum().backward()
        layer.zero_grad(set_to_none=True)

    for _ in range(4):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        call()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 8 < 200


# What it says


def test_explain_names_the_operation_and_its_line():
    class Sorts(nn.Module):
        def forward(self, x, h):
            return torch.sort(x + h).values

    x, h = random(T, B, N, seed=1), random(B, N, seed=2)
    said = tt.explain(Sorts(), x, h)
    assert said.chosen == "reference"
    line = Sorts.forward.__code__.co_firstlineno + 1
    assert f"aten.sort at {__file__}:{line}: an operation the engine does not have" in said.reasons["cpu"]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda x, h: h + x * torch.zeros(()).add(1).item(), "."),
        (lambda x, h: h + x * torch.rand(1, dtype=F64), "draws numbers"),
        (lambda x, h: h + (x - x.mean(0)), "a sum over the batch"),
        (lambda x, h: h + (h.detach() + x).relu_() * OUTSIDE, "neither given to the cell nor an attribute"),
        (lambda x, h: h + torch.no_grad()(torch.tanh)(x), "without gradients"),
        (lambda x, h: h.mul_(0.5) + x, "in-place operation"),
        (lambda x, h: torch.outer(h[0], h[1])[0] + x, "."),
        (lambda x, h: (h.float() + x.float()).double(), "float32"),
    ],
)
def test_what_cannot_be_compiled_is_said_and_runs_on_the_reference(step, reason):
    class Odd(nn.Module):
        def forward(self, x, h):
            return step(x, h)

    x, h = random(T, B, N, seed=1), random(B, N, seed=2)
    said = tt.explain(Odd(), x, h)
    assert said.chosen == "reference" and reason in said.reasons["cpu"]


OUTSIDE = torch.ones(N, dtype=F64)


def test_an_if_on_a_weight_is_not_baked_in():
    class Branch(tt.cells.Elman):
        def forward(self, x, h, mask=None):
            new = super().forward(x, h, mask)
            return new if self.bias_hh[0] > 0 else -new

    cell, x = made(Branch), random(T, B, I, seed=1)
    assert "a number taken out of a tensor" in tt.explain(cell, x).reasons["cpu"]
    for value in (1.0, -1.0):
        with torch.no_grad():
            cell.bias_hh[0] = value
        assert torch.equal(tt.scan(cell, x).outputs, tt.scan(cell, x, backend="reference").outputs)


def test_a_program_reads_as_what_left_the_loop_and_what_stayed():
    text = str(backend.find(call_of(made(tt.cells.GRU), random(T, B, I, seed=2))).program)
    before, after = text.split("in the loop:")
    assert "u0 [T, B, 63] = a0 @ [W0] + v0" in before
    assert "[s0[0:21]] @ [W1]" in after and "output 0 = state 0" in after


def test_products_that_share_a_left_side_are_one_and_an_output_leaves_the_loop():
    class Separate(nn.Module):
        def __init__(self):
            super().__init__()
            self.gates = nn.ModuleList(nn.Linear(N, N, dtype=F64) for _ in range(3))
            self.read = nn.Linear(N, 2, dtype=F64)

        def forward(self, x, h):
            a, b, c = (g(h) for g in self.gates)
            h = torch.tanh(a) * torch.sigmoid(b) + c.tanh() + x
            return self.read(h), h

    program = backend.find(call_of(Separate(), random(T, B, N, seed=1), random(B, N, seed=2))).program
    assert len(program.forward.products) == 1 and program.forward.products[0].width == 3 * N
    assert program.whole(program.outputs[0]) is None and "@" in str(program).split("after the loop:")[1]


# A step at a time


LAYERS = {
    "RNN": lambda: tt.RNN(I, N, num_layers=2),
    "GRU": lambda: tt.GRU(I, N, num_layers=3, batch_first=True),
    "LSTM": lambda: tt.LSTM(I, N, num_layers=2, proj_size=4),
    "residual and zoneout": lambda: tt.Recurrent(
        tt.cells.PeepholeLSTM, N, N, num_layers=3, residual=True, zoneout=0.1
    ).eval(),
    "two products": lambda: tt.Recurrent(tt.cells.ResetBeforeGRU, I, N, num_layers=2, learn_initial_state=True),
    "nn.GRUCell": lambda: tt.Recurrent(nn.GRUCell, I, N),
}


def flat_state(state):
    return [t for s in state for t in (s if isinstance(s, tuple) else (s,))]


@pytest.mark.parametrize("name", ["cpu", "reference"])
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("streams", [1, 3, 7])
def test_steps_give_what_the_whole_sequence_gives(layer, streams, name):
    torch.manual_seed(0)
    made_layer = LAYERS[layer]()
    x = torch.randn(T, streams, made_layer.input_size)
    inputs = x.transpose(0, 1) if made_layer.batch_first else x
    with torch.no_grad():
        expected, _ = made_layer(inputs)
        expected = expected.transpose(0, 1) if made_layer.batch_first else expected
    stepper = made_layer.stepper(streams, backend=name)
    assert stepper.backend == name and stepper.why_not is None
    kept = [stepper(x[t]) for t in range(T)]  # each output stays what it was
    torch.testing.assert_close(torch.stack(kept), expected, rtol=1e-5, atol=1e-6)

    middle = made_layer.stepper(streams, backend=name)
    for t in range(4):
        middle(x[t])
    other = made_layer.stepper(streams, backend=name)
    other.state = middle.state
    for t in range(4, T):
        torch.testing.assert_close(other(x[t]), expected[t], rtol=1e-5, atol=1e-6)

    other.reset([streams - 1])  # one stream begins anew; the rest go on
    before, after = flat_state(stepper.state), flat_state(other.state)
    first = flat_state(made_layer.stepper(streams, backend=name).state)
    for a, b, f in zip(before, after, first, strict=True):
        torch.testing.assert_close(b[: streams - 1], a[: streams - 1], rtol=1e-5, atol=1e-6)
        assert torch.equal(b[streams - 1], f[streams - 1])
    other.reset()
    torch.testing.assert_close(other(x[0]), expected[0], rtol=1e-5, atol=1e-6)


def test_step_by_step_with_gradients():
    layer, x = tt.LSTM(I, N, num_layers=2, dtype=F64), random(4, B, I, seed=1)
    state = None
    outputs = []
    for t in range(4):
        y, state = layer.step(x[t], state)
        outputs.append(y)
    found = torch.autograd.grad(torch.stack(outputs).sin().sum(), list(layer.parameters()))
    expected = torch.autograd.grad(layer(x)[0].sin().sum(), list(layer.parameters()))
    assert_same(found, expected)
    stack, state = tt.Recurrent(tt.cells.GRU, I, N, num_layers=2), None
    whole = stack(x.float())[0]
    for t in range(4):
        y, state = stack.step(x[t].float(), state)
        torch.testing.assert_close(y, whole[t])


def test_a_stepper_takes_the_weights_when_it_is_told_to():
    layer = tt.GRU(I, N)
    stepper, x = layer.stepper(), torch.randn(1, I)
    before = stepper(x)
    with torch.no_grad():
        layer.weight_ih_l0.mul_(2)
    stepper.reset()
    assert torch.equal(stepper(x), before)
    stepper.refresh()
    stepper.reset()
    assert torch.equal(stepper(x), layer.stepper()(x)) and not torch.equal(stepper(x), before)


def test_a_stepper_works_out_a_product_of_a_product_of_its_input():
    class Encoding(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.again = nn.Linear(I, 4), nn.Linear(4, N), nn.Linear(N, N)

        def forward(self, x, h):
            return torch.tanh(self.second(torch.tanh(self.first(x))) + self.again(h))

    torch.manual_seed(0)
    cell, x, h = Encoding(), torch.randn(5, B, I), torch.randn(B, N)
    stepper = Stepper([cell], [h], x[0], backend="cpu")
    for given in x:
        h = cell(given, h)
        torch.testing.assert_close(stepper(given), h, rtol=1e-5, atol=1e-6)


def test_what_a_stepper_refuses():
    with pytest.raises(ValueError, match="bidirectional"):
        tt.GRU(I, N, bidirectional=True).stepper()
    with pytest.raises(ValueError, match="bidirectional"):
        tt.Recurrent(tt.cells.GRU, I, N, bidirectional=True).stepper()
    with pytest.raises(ValueError, match=r"draws no noise \(zoneout\): call eval"):
        tt.Recurrent(tt.cells.GRU, I, N, zoneout=0.1).stepper()
    stepper = tt.GRU(I, N).stepper(2)
    for wrong in (torch.zeros(1, I), torch.zeros(2, I + 1), torch.zeros(2, I, dtype=F64)):
        with pytest.raises(ValueError, match="a step takes"):
            stepper(wrong)
    with pytest.raises(ValueError, match="'auto', 'cpu' or 'reference'"):
        tt.GRU(I, N).stepper(backend="torch")


def test_a_stepper_that_cannot_be_compiled_says_so_and_runs():
    class Rolls(tt.cells.GRU):
        def forward(self, x, h, mask=None):
            return super().forward(x, h, mask) + 0.1 * h.cumsum(-1)

    stack = tt.Recurrent(Rolls, I, N)
    stepper, x = stack.stepper(), torch.randn(3, 1, I)
    assert stepper.backend == "reference" and "aten.cumsum" in stepper.why_not and "aten.cumsum" in repr(stepper)
    torch.testing.assert_close(torch.stack([stepper(v) for v in x]), stack(x)[0])
    with pytest.raises(RuntimeError, match=r"aten[.]cumsum"):
        stack.stepper(backend="cpu")


@pytest.mark.parametrize("name", ["elman", "gru", "lstm", "layernorm-lstm"])
def test_what_is_first_run_in_inference_mode_is_compiled_all_the_same(name):
    torch.manual_seed(0)
    cell = tt.cells.NAMED[name](5, 7)
    x = torch.randn(6, 3, 5)
    expected, end, _ = tt.scan(cell, x, lengths=[6, 4, 1], backend="reference")
    with torch.inference_mode():
        assert tt.explain(cell, x).chosen == "cpu"
        found, last, _ = tt.scan(cell, x, lengths=[6, 4, 1], backend="cpu")
        stepper = tt.Recurrent(cell, 5, 7).stepper(3, backend="cpu")
        for t in range(6):
            y = stepper(x[t])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(y[0], expected[5, 0])
    for a, b in zip(
        last if isinstance(last, tuple) else (last,), end if isinstance(end, tuple) else (end,), strict=True
    ):
        torch.testing.assert_close(a, b)
    given = x.clone().requires_grad_()
    tt.scan(cell, given, backend="cpu").outputs.square().sum().backward()
    wanted = x.clone().requires_grad_()
    tt.scan(cell, wanted, backend="reference").outputs.square().sum().backward()
    torch.testing.assert_close(given.grad, wanted.grad)


@pytest.mark.parametrize("where", [(programs, "divide"), (engine, "LoopCode")], ids=["dividing", "writing"])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_fault_of_the_compiler_sends_the_cell_to_the_loop_and_is_said(where, gradients, monkeypatch):
    """Found out at once or only when the loop is written; a named backend says it and does not run another."""

    class Other(tt.cells.GRU):  # so that no program of it is known
        def forward(self, x, h, mask=None):
            return super().forward(x, h, mask) * 0.5

    cell, x = made(Other), random(T, B, I, seed=2)
    expected = tt.scan(cell, x, first_state(cell, B), backend="reference").outputs

    def fails(*args, **kwargs):
        raise AssertionError("on purpose")

    monkeypatch.setattr(*where, fails)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(tt.scan(cell, x, first_state(cell, B)).outputs, expected)
    explained = tt.explain(cell, x)
    assert explained.chosen == "reference" and "AssertionError: on purpose" in explained.reasons["cpu"]
    with pytest.raises(RuntimeError, match="fault worth reporting"):
        tt.scan(cell, x, backend="cpu")
