"""Threads that do each step together, a share of its columns each: to the bit what one thread gives, whoever comes and when."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import throughtime as tt
from throughtime.scanning.call import make_call
from throughtime.scanning.cpu import autocast, backend, columns, engine, launch, matrices, target, threads
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.team import Alone, Team

T, B, I, N = 23, 3, 5, 150  # noqa: E741  # three panels of columns on AVX-512, the last of them not whole


class Tireless(Team):
    """A team that never rests, however late its members are."""

    def resting(self):
        return False


def helped():
    made = Alone()
    made.ns = 1.0
    return made


@pytest.fixture(autouse=True)
def shares(monkeypatch, tmp_path):
    """Threads do each step together from the first call on, however small it is. Of each loop that ran: how many parts."""
    monkeypatch.setenv("THROUGHTIME_CACHE", str(tmp_path))
    monkeypatch.setattr(matrices, "ALONE", -1)
    monkeypatch.setattr(engine, "Alone", helped)
    monkeypatch.setattr(threads, "team", Tireless())
    monkeypatch.setattr(columns, "pays", lambda loop, batch, itemsize: threads.count() > 1)
    monkeypatch.setattr(columns, "step_pays", lambda loop, batch: torch.get_num_threads() > 1)
    seen, arguments_of = [], launch.CompiledLoop.arguments

    def arguments(self, given, dtype):
        if self.code.columns:
            seen.append(given.parts)
        return arguments_of(self, given, dtype)

    monkeypatch.setattr(launch.CompiledLoop, "arguments", arguments)
    backend.programs.known.clear()
    count = torch.get_num_threads()
    yield seen
    torch.set_num_threads(count)
    backend.programs.known.clear()


class Made(nn.Module):
    """A cell of a function of the input as a row [B, N] and the state."""

    def __init__(self, step):
        super().__init__()
        self.into, self.w, self.v = nn.Linear(I, N), *(nn.Parameter(0.1 * torch.randn(N, N)) for _ in range(2))
        self.step = step

    def initial_state(self, batch, *, device=None):
        return torch.zeros(batch, N, dtype=self.w.dtype, device=device)

    def forward(self, x, state):
        return self.step(self, self.into(x), state)


MADE = {
    "two products, one after the other": lambda m, g, h: torch.tanh(
        F.linear(torch.sigmoid(F.linear(h, m.v)) * h, m.w) + g
    ),
    "a neighbour": lambda m, g, h: torch.tanh(F.linear(h, m.w) + torch.cat([h[:, 1:], h[:, :1]], 1) + g),
    "a sum between": lambda m, g, h: F.linear(torch.softmax(F.linear(h, m.w), -1), m.v) + g,
    "one for all": lambda m, g, h: torch.tanh(F.linear(h, m.w) + h[:, :1] + g),
    "pieces": lambda m, g, h: torch.cat([torch.tanh(F.linear(h, m.w)[:, :100] + g[:, :100]), 0.5 * h[:, 100:]], 1),
    "no product": lambda m, g, h: torch.tanh(torch.cat([h[:, 1:], h[:, :1]], 1) + g),
}


def cell_of(name):
    torch.manual_seed(0)
    return Made(MADE[name]) if name in MADE else tt.cells.NAMED[name](I, N)


def ran(cell, count, dtype=torch.float32, batch=B, amp=False, **options):
    """Outputs, last state and all gradients of a scan with so many threads."""
    torch.set_num_threads(count)
    make = torch.Generator().manual_seed(0)
    cell = cell.to(dtype)
    x = torch.randn(T, batch, I, generator=make).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        outputs, last, _ = tt.scan(cell, x, backend="cpu", **options)
    last = last if isinstance(last, tuple) else (last,)
    loss = outputs.double().sin().sum() + sum(s.double().cos().sum() for s in last)
    return [outputs.detach(), *last, *torch.autograd.grad(loss, [x, *cell.parameters()], materialize_grads=True)]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


OPTIONS = {
    "plain": {},
    "backwards": {"reverse": True},
    "lengths": {"lengths": [T, 0, 17]},
    "resets": {"resets": torch.rand(T, B, generator=torch.Generator().manual_seed(1)) < 0.2},
    "double": {"dtype": torch.float64},
    "one sequence": {"batch": 1},
    "many": {"batch": 23},
}


@pytest.mark.parametrize(("name", "options"), [(name, "plain") for name in MADE] + [
    (name, options) for name in ("gru", "lstm", "layernorm-lstm") for options in OPTIONS])  # fmt: skip
def test_the_bits_do_not_hang_on_the_number_of_threads(name, options, shares):
    cell, given = cell_of(name), OPTIONS[options]
    one = ran(cell, 1, **given)
    assert not shares
    for count in (2, 3, 4):
        shares.clear()
        assert same(ran(cell, count, **given), one)
        assert len(shares) == 2 and all((1 < parts <= count) or name == "no product" for parts in shares)
    outputs = tt.scan(cell, torch.zeros(2, 1, I, dtype=one[0].dtype), backend="cpu").outputs
    expected = tt.scan(cell, torch.zeros(2, 1, I, dtype=one[0].dtype), backend="reference").outputs
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not target.has_bfloat16(target.host()), reason="no dot product of bfloat16 here")
@pytest.mark.parametrize("batch", [1, 5])
def test_the_same_in_autocast(batch, monkeypatch, shares):
    monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: None)
    cell = cell_of("two products, one after the other")
    one = ran(cell, 1, batch=batch, amp=True)
    assert not same(one, ran(cell, 1, batch=batch))
    for count in (2, 3):
        assert same(ran(cell, count, batch=batch, amp=True), one)
    assert shares


def test_shares_that_nobody_waits_for_are_seen(monkeypatch):
    """The fault that the tests above would find: a step goes on before all of the one before it is done."""
    cell = cell_of("two products, one after the other")
    one = ran(cell, 1)
    monkeypatch.setattr(columns.Columns, "_wait", lambda self, wanted: None)
    monkeypatch.setattr(LoopCode, "key", lambda self: f"without waits {id(self)}")
    assert not all(same(ran(cell, 2), one) for _ in range(1000))


# Helpers


def held(monkeypatch, begin):
    """OpenMP's other threads call `begin` before they come; where it is false they never do. Returns: what came of each."""
    caller, came = threading.get_ident(), []

    def region(run, address, block, count):
        inner = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def function(argument):
            if threading.get_ident() != caller:
                came.append(begin())
                if not came[-1]:
                    return
            inner(argument)

        run(ctypes.cast(function, ctypes.c_void_p).value, block, count, 0)
        return 0.0

    monkeypatch.setattr(threads, "timed", region)
    return came


@pytest.mark.parametrize("late", [True, False], ids=["late", "never"])
def test_helpers_that_come_late_or_never_change_nothing(late, monkeypatch, shares):
    cell = cell_of("gru")
    one = ran(cell, 1)
    came = held(monkeypatch, lambda: (time.sleep(0.003), late)[1])
    for count in (2, 3, 4):
        assert same(ran(cell, count), one)
    assert came and all(flag == late for flag in came)


def test_one_thread_does_all_where_the_team_rests(monkeypatch, shares):
    cell = cell_of("lstm")
    one = ran(cell, 1)
    monkeypatch.setattr(threads, "team", Team())
    threads.team.until = float("inf")
    monkeypatch.setattr(threads, "timed", None)
    assert same(ran(cell, 3), one) and shares == [1, 1], "by the code that is there"


def test_other_python_threads_have_helpers_of_their_own(shares):
    jobs = [cell_of(name) for name in ("gru", "lstm")]
    expected = [ran(cell, 1) for cell in jobs]
    wrong = []

    def work(k):
        for _ in range(5):
            if not same(ran(jobs[k % 2], 2), expected[k % 2]):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong and shares


def test_without_openmp_helpers_are_threads_of_python(monkeypatch):
    cell = cell_of("gru")
    one = ran(cell, 1)
    monkeypatch.setattr(threads, "_openmp", lambda: None)
    assert same(ran(cell, 3), one)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_after_a_fork_it_goes_on():
    code = """
        import os, torch, throughtime as tt
        from throughtime.scanning.cpu import columns
        torch.set_num_threads(2)
        torch.manual_seed(0)
        layer, x = tt.GRU(64, 600), torch.randn(20, 1, 64)
        assert columns.pays(layer.stepper(1).chain._links[0].program.forward, 1, 4)
        def run():
            outputs = layer(x)[0]
            return [outputs.detach(), *torch.autograd.grad(outputs.sum(), layer.parameters())]
        for _ in range(4):
            before = run()
        stepper = layer.stepper(1)
        first = [stepper(x[t]) for t in range(9)]
        stepper.reset()
        child = os.fork()
        if child == 0:
            good = all((a.numpy() == b.numpy()).all() for a, b in zip(before, run()))
            good = good and all(torch.equal(a, stepper(x[t])) for t, a in enumerate(first))
            os._exit(0 if good else 1)
        print(os.waitpid(child, 0)[1])
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and done.stdout.strip() == "0", done.stderr


# Steps by themselves


@pytest.mark.parametrize("make", [tt.GRU, tt.LSTM])
def test_a_stepper_gives_the_same_bits_on_any_number_of_threads(make, monkeypatch, shares):
    torch.manual_seed(0)
    layer, x = make(I, N, num_layers=2), torch.randn(9, 4, I)
    asked, region = [], threads.timed
    monkeypatch.setattr(threads, "timed", lambda *args: asked.append(args) or region(*args))
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        stepper = layer.stepper(4)
        asked.clear()
        found.append(
            [stepper(row) for row in x] + [t for s in stepper.state for t in (s if isinstance(s, tuple) else (s,))]
        )
        assert bool(asked) == bool(shares) == (count > 1)
    assert same(found[0], found[1]) and same(found[0], found[2])
    stepper.refresh()
    stepper.reset()
    torch.set_num_threads(1)
    asked.clear()
    assert torch.equal(stepper(x[0]), found[0][0]) and not asked


# When


def test_sizes_decide(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(columns, "cache_of_a_core", lambda: 1 << 20)

    def loop(width):
        call = make_call(tt.cells.GRU(4, width), torch.zeros(3, 1, 4), None)
        return backend.find(call).program.forward

    torch.set_num_threads(1)
    assert not columns.pays(loop(600), 1, 4)
    torch.set_num_threads(2)
    assert [columns.pays(loop(n), 1, 4) for n in (64, 200, 256, 600)] == [False, False, True, True]
    assert [columns.pays(loop(600), b, 4) for b in (2, 7, 8, 64)] == [True, True, False, False]
    assert not columns.pays(loop(256), 2, 4), "weights that stay in a core's cache"
    assert columns.pays(loop(200), 1, 8), "twice as many bytes"
    assert [columns.step_pays(loop(n), 1) for n in (128, 600)] == [False, True]
    assert columns.step_pays(loop(256), 64)
