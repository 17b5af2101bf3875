"""Cells and stacks as WebAssembly, run in Node and in a browser.

Shapes: T time, B batch, I input, N hidden.
"""

import json
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn

import throughtime as tt
from in_node import in_node
from throughtime.errors import UserError
from throughtime.exporting import wasm
from throughtime.exporting.agreement import trials
from throughtime.exporting.stack import stack_of

pytest.importorskip("ziglang", reason="no linker: pip install ziglang")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH")
I, N = 3, 5  # noqa: E741


@pytest.fixture(autouse=True)
def _drawn():
    torch.manual_seed(0)


def randomised(module):
    """Every parameter random, so that none is a neutral 0 or 1."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.5)
    return module


def exported(what, path, **options):
    return tt.export(what, to="wasm", path=path, **options)


RUN = """
    const { x, state, count } = given, streams = net.streams(count), wide = count * net.inputSize;
    streams.state = state;
    const y = [];
    for (let at = 0; at < x.length; at += wide) y.push(...streams.step(x.slice(at, at + wide)));
    out = { y, state: list(streams.state) };
"""


def run(folder, trial):
    """What the ES module makes of a trial: its output [T, B, ...], the final states side by side [B, S]."""
    states = torch.cat([s.flatten(1) for s in trial.states], 1)
    given = {"x": trial.inputs.flatten().tolist(), "state": states.flatten().tolist(), "count": len(states)}
    found = in_node(folder, RUN, values=given)
    return torch.tensor(found["y"]).view(trial.output.shape), torch.tensor(found["state"]).view(states.shape)


def assert_right(folder, what, **options):
    (trial,) = trials(stack_of(what, **options), ((6, 4),), seed=3)
    output, finals = run(folder, trial)
    torch.testing.assert_close(output, trial.output, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(finals, torch.cat([f.flatten(1) for f in trial.finals], 1), rtol=1e-5, atol=2e-6)


# Cells and stacks


@needs_node
@pytest.mark.parametrize("kind", tt.cells.NAMED)
def test_every_cell(kind, tmp_path):
    cell = randomised(tt.cells.NAMED[kind](I, N))
    assert_right(exported(cell, tmp_path / "net"), cell)
