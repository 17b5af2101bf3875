"""Exported graphs that leave the number of steps open: right at every number of steps and sequences, with their gradients.

(tests/contexts.py looks at whole layers without lengths; what stands here it has no column for.)
"""

import os
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.models.tagger import Crf

OPEN = torch.export.Dim.DYNAMIC
SIZES = ((5, 2), (9, 4), (3, 1), (1, 3))
STRICT = pytest.mark.parametrize("strict", [False, True], ids=["not strict", "strict"])
FIRST = {"gru": (4,), "peephole-lstm": (4, 4), "layernorm-lstm": (4, 4)}


class Scan(nn.Module):
    """A scan of a named cell, with all that may be given to one."""

    def __init__(self, name, reverse):
        super().__init__()
        self.cell, self.reverse = tt.cells.NAMED[name](3, 4), reverse
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5)

    def forward(self, x, state, lengths, resets):
        return tt.scan(self.cell, x, state, lengths=lengths, resets=resets, reverse=self.reverse)[:2]


def given(name, steps, batch, seed=1):
    draw = torch.Generator().manual_seed(seed)
    state = tuple(torch.randn(batch, n, generator=draw) for n in FIRST[name])
    x = torch.randn(steps, batch, 3, generator=draw, requires_grad=True)
    lengths = torch.randint(0, steps + 1, (batch,), generator=draw)
    lengths[0] = max(steps - 1, 1)
    return x, state if len(state) > 1 else state[0], lengths, torch.rand(steps, batch, generator=draw) < 0.3


def flat(values):
    return [values] if isinstance(values, torch.Tensor) else [leaf for part in values for leaf in flat(part)]


def step_of_training(module, names, inputs):
    """Outputs, states, and the gradients of the inputs and of the weights, by name."""
    values = flat(module(*inputs))
    loss = sum(((v + v * v) * torch.linspace(-1, 2, v.numel()).view(v.shape)).sum() for v in values)
    return [*values, *torch.autograd.grad(loss, [inputs[0], *(module.get_parameter(n) for n in names)])]


def agree(found, right):
    return all(
        f.shape == r.shape and torch.allclose(f, r, atol=1e-4, rtol=1e-4) for f, r in zip(found, right, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "reverse", "strict"),
    [("gru", False, False), ("gru", True, True), ("peephole-lstm", True, False), ("layernorm-lstm", False, True)],
)
def test_a_scan_with_lengths_and_resets(name, reverse, strict):
    plain = Scan(name, reverse)
    names = [n for n, _ in plain.named_parameters()]
    inputs = given(name, 5, 2)
    state = ({0: OPEN},) * len(FIRST[name]) if len(FIRST[name]) > 1 else {0: OPEN}
    both = {0: OPEN, 1: OPEN}
    graph = torch.export.export(plain, inputs, dynamic_shapes=(both, state, {0: OPEN}, both), strict=strict).module()
    for steps, batch in SIZES:
        inputs = given(name, steps, batch, seed=steps)
        assert agree(step_of_training(graph, names, inputs), step_of_training(plain, names, inputs)), (steps, batch)


@STRICT
def test_lengths_of_a_fixed_number_of_steps(strict):
    plain = Scan("gru", reverse=False)
    graph = torch.export.export(plain, given("gru", 5, 2), strict=strict).module()
    inputs = given("gru", 5, 2, seed=3)
    assert agree(flat(graph(*inputs)), flat(plain(*inputs)))


@STRICT
def test_no_steps(strict):
    layer = tt.Recurrent(tt.cells.GRU, 3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    graph = torch.export.export(layer, (x,), dynamic_shapes=({0: OPEN, 1: OPEN},), strict=strict).module()
    with torch.no_grad():
        assert agree(flat(graph(x[:0])), flat(layer(x[:0])))


class Closure(nn.Module):
    """A function as a cell, whose weights nothing lists; neither its inputs nor its state need a gradient."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return tt.scan(lambda x, h: torch.tanh(x + h @ self.weight), x, torch.zeros(x.shape[1:]))[:2]


@STRICT
def test_gradients_of_what_a_function_closes_over(strict):
    plain, x = Closure(), torch.randn(5, 2, 3)
    graph = torch.export.export(plain, (x,), dynamic_shapes=({0: OPEN, 1: OPEN},), strict=strict).module()
    found, right = (torch.autograd.grad(m(x)[0].square().sum(), m.get_parameter("weight")) for m in (graph, plain))
    assert agree(found, right)


def test_many_exports_do_not_meddle_with_each_other():
    for units in range(3, 9):
        layer, x = tt.LSTM(3, units, 2), torch.randn(units, 2, 3)
        program = torch.export.export(layer, (x,), dynamic_shapes=({0: OPEN, 1: OPEN},), strict=units == 6)
        x = torch.randn(4, 3, 3)
        assert agree(flat(program.module()(x)), flat(layer(x))), units


class Best(nn.Module):
    def __init__(self):
        super().__init__()
        self.crf = Crf(4)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, scores, lengths):
        return self.crf.best(scores, lengths)


def test_the_likeliest_tags():
    plain, lengths = Best(), torch.tensor([6, 3])
    scores = torch.randn(6, 2, 4)
    dims = ({0: OPEN, 1: OPEN}, {0: OPEN})
    graph = torch.export.export(plain, (scores, lengths), dynamic_shapes=dims, strict=False).module()
    scores, lengths = torch.randn(9, 3, 4), torch.tensor([9, 1, 5])
    assert torch.equal(graph(scores, lengths), plain(scores, lengths))


def test_records_are_refused():
    class Records(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = tt.cells.GRU(3, 4)

        def forward(self, x):
            return tt.scan(self.cell, x, record=("update",)).records["update"]

    layer, x = Records(), torch.randn(5, 2, 3)
    with pytest.raises(ValueError, match=r"an exported graph has no records \(update\)"):
        torch.export.export(
            layer, (x.clone(),), dynamic_shapes=({0: OPEN},), strict=False
        )  # which leaves its mark on it
    assert agree([torch.export.export(layer, (x,), strict=False).module()(x)], [layer(x)])


def test_a_saved_graph_runs_without_throughtime(tmp_path):
    layer, x = tt.Recurrent(tt.cells.PeepholeLSTM, 3, 4, 2, bidirectional=True), torch.randn(9, 4, 3)
    program = torch.export.export(layer, (torch.randn(5, 2, 3),), dynamic_shapes=({0: OPEN, 1: OPEN},))
    torch.export.save(program, tmp_path / "layer.pt2")
    torch.save((x, layer(x)[0].detach()), tmp_path / "right.pt")
    code = f"""
        import sys, torch
        sys.modules["throughtime"] = None
        x, right = torch.load(r"{tmp_path / "right.pt"}")
        print(torch.allclose(torch.export.load(r"{tmp_path / "layer.pt2"}").module()(x)[0], right, atol=1e-5))
    """
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout.strip() == "True", ran.stderr
