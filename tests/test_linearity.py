"""Which steps are linear in their state: those that are said to be, and what is said of the others.

Many more random cells by hand: `python tests/linear_fuzz.py --cells 100000`.
"""

from __future__ import annotations

import collections

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cell_fuzz
import linear_fuzz
import throughtime as tt
from cell_maker import make
from throughtime.scanning import linearity

T, B, I, N = 5, 3, 4, 6  # noqa: E741


class Made(nn.Module):
    """A cell of a function of (z, g, state), where z [B, N] in 0 to 1 and g [B, N] hang on the input."""

    def __init__(self, step):
        super().__init__()
        self.gates, self.step = nn.Linear(I, 2 * N), step
        self.w, self.v = nn.Parameter(torch.randn(N, N)), nn.Parameter(torch.randn(N))

    def forward(self, x, state):
        z, g = self.gates(x).chunk(2, -1)
        return self.step(self, torch.sigmoid(z), g, state)


def said(step, tensors=1, **options):
    state = tuple(torch.randn(B, N) for _ in range(tensors))
    return tt.explain(Made(step), torch.randn(T, B, I), state if tensors > 1 else state[0], **options)


LINEAR = {
    "leaky": lambda m, z, g, h: (1 - z) * h + z * g,
    "lerp": lambda m, z, g, h: torch.lerp(h, g, z),
    "a sum": lambda m, z, g, h: h + g,
    "weights of its own": lambda m, z, g, h: h * m.v + g,
    "a share": lambda m, z, g, h: (h - g) / (1 + z),
    "a choice by the input": lambda m, z, g, h: torch.where(g > 0, h, -h * z),
    "free of it": lambda m, z, g, h: torch.tanh(F.linear(g, m.w)),
    "the same": lambda m, z, g, h: h.clone(),
    "in pieces": lambda m, z, g, h: torch.cat([h[:, :2] * z[:, :2], h[:, 2:] + g[:, 2:]], 1),
    "in rows": lambda m, z, g, h: (h.view(-1, 2, 3) * z.view(-1, 2, 3)).flatten(1),
    "without its gradient": lambda m, z, g, h: h.detach() * z + g,
    "an output that is not": lambda m, z, g, h: (torch.tanh(F.linear(h, m.w)), h * z + g),
}
NOT_LINEAR = {  # with what breaks it
    "tanh": (lambda m, z, g, h: torch.tanh(h + g), "tanh takes it"),
    "a product": (lambda m, z, g, h: F.linear(h, m.w), "a product of matrices takes it"),
    "a gate that sees it": (lambda m, z, g, h: torch.sigmoid(m.v * h) * g, "sigmoid takes it"),
    "a square": (lambda m, z, g, h: h * h * 0.5, "it is multiplied by itself"),
    "a divisor": (lambda m, z, g, h: g / (h * h + 1), "it is multiplied by itself"),
    "a division": (lambda m, z, g, h: z / (h + 3), "it divides"),
    "a choice": (lambda m, z, g, h: torch.where(h > 0, g, z), "gt takes it"),
    "its size": (lambda m, z, g, h: h.abs() * z, "abs takes it"),
    "a mean": (lambda m, z, g, h: h - h.mean(-1, keepdim=True), "a sum over features takes it"),
    "a neighbour": (lambda m, z, g, h: torch.cat([h[:, 1:], h[:, :1]], 1) * z, "a unit reads another unit of it"),
    "another row": (lambda m, z, g, h: h.view(-1, 2, 3).flip(1).flatten(1), "a unit reads another unit of it"),
    "one for all": (lambda m, z, g, h: g + h[:, :1], "several units read one number of it"),
    "one by all": (lambda m, z, g, h: g * h[:, :1], "several units read one number of it"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_in_the_state_is_said_to_be(name):
    explained = said(LINEAR[name])
    assert explained.linear == (None,)
    assert str(explained).endswith("\nlinear in the state")


@pytest.mark.parametrize("name", NOT_LINEAR)
def test_what_is_not_is_named_with_its_line(name):
    step, what = NOT_LINEAR[name]
    explained = said(step)
    (reason,) = explained.linear
    line = step.__code__.co_firstlineno
    assert reason == f"{what} at {__file__}:{line}"
    assert str(explained).endswith(f"\nnot linear in the state: {reason}")


def test_each_tensor_of_a_state_by_itself():
    def lstm_like(m, z, g, state):
        c = z * state[1] + g
        return z * torch.tanh(c), c

    def delayed(m, z, g, state):  # the one reads, in any way, what the other was
        return z * state[0] + torch.tanh(F.linear(state[1], m.w)), state[1] + g

    def crossed(m, z, g, state):
        return state[1] * z, state[0] * z

    def mixed(m, z, g, state):
        return torch.tanh(F.linear(state[0], m.w) + g), z * state[1] + g

    def after_it(m, z, g, state):
        return torch.tanh(F.linear(state[0], m.w) + g), z * state[1] + state[0]

    assert said(lstm_like, 2).linear == said(delayed, 2).linear == (None, None)
    assert "it reads tensor 1 of the state at" in said(crossed, 2).linear[0]
    assert "it reads tensor 0 of the state at" in said(crossed, 2).linear[1]
    first, second = said(mixed, 2).linear
    assert "a product of matrices takes it" in first and second is None
    assert "\nlinear in tensor 1 of the state" in str(said(mixed, 2))
    assert "it reads tensor 0 of the state at" in said(after_it, 2).linear[1]


def test_resets_lengths_and_a_walk_backwards_change_nothing_of_it():
    options = {"resets": torch.rand(T, B) < 0.5, "lengths": [5, 2, 0], "reverse": True}
    assert said(LINEAR["leaky"], **options).linear == (None,)
    assert said(NOT_LINEAR["tanh"][0], **options).linear[0].startswith("tanh takes it")


def test_nothing_is_said_of_what_cannot_be_captured():
    explained = said(lambda m, z, g, h: h.cumsum(-1))
    assert explained.chosen == "reference" and explained.linear is None
    assert "linear in" not in str(explained)


def test_the_line_is_the_cells_and_not_of_what_our_cells_have_in_common():
    (reason,) = tt.explain(tt.cells.GRU(I, N), torch.randn(T, B, I)).linear
    assert "/cells/gru.py:" in reason.replace("\\", "/")


# Random cells

CELLS = 250


def test_of_random_cells_none_is_called_linear_that_is_not():
    counts = collections.Counter()
    for judged in cell_fuzz.run(range(CELLS), linear_fuzz.__file__):
        _, verdict, detail = judged["runs"][0]
        assert verdict not in ("WRONG", "DEAD", "BROKEN"), (judged["seed"], detail)
        counts[verdict] += 1
    assert counts["linear"] > CELLS // 10 and counts["not linear"] > CELLS // 5, counts


def accepts_products(graph, node, hangs, by):
    """As the rule of a product is, but for a factor that hangs on the state too."""
    return graph.apply("mul", by[0], node.args[1]) if hangs[0] else graph.apply("mul", node.args[0], by[1])


def passes(graph, node, hangs, by):
    return by[0]


SEEDED = {  # rules that are wrong, and cells in which that shows
    "a square is linear": ({"mul": accepts_products}, (33, 120)),
    "tanh is linear": ({"tanh": passes}, (13, 18)),
    "a choice by the state is linear": (
        {
            "select": lambda graph, node, hangs, by: graph.apply("select", node.args[0], *by[1:]),
            **dict.fromkeys(("gt", "ge", "lt", "le", "eq", "ne"), passes),
        },
        (70,),
    ),
}


@pytest.mark.parametrize("fault", SEEDED)
def test_the_fuzz_sees_a_rule_that_is_wrong(fault, monkeypatch):
    rules, seeds = SEEDED[fault]
    assert not any(linear_fuzz.judge(make(seed)).verdict == "WRONG" for seed in seeds)
    for op, rule in rules.items():
        monkeypatch.setitem(linearity._RULES, op, rule)
    assert any(linear_fuzz.judge(make(seed)).verdict == "WRONG" for seed in seeds)


def test_the_fuzz_sees_units_that_read_others(monkeypatch):
    monkeypatch.setattr(linearity, "_check_leaf", lambda *args: None)
    assert said(NOT_LINEAR["a neighbour"][0]).linear == (None,)
    assert any(linear_fuzz.judge(make(seed)).verdict == "WRONG" for seed in (62, 76, 112))
