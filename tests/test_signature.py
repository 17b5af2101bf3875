"""What a compiled step hangs on: whatever changes is seen, whatever the cell changes is left as it was."""

import collections
import copy
import enum
import functools
import gc
import logging
import os
import pathlib
import pickle
import random
import subprocess
import sys
import threading
import types
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.scanning import programs
from throughtime.scanning.cpu import backend

SCALE = 1.0
TABLE = [1.0, 2.0]
settings = types.SimpleNamespace(scale=1.0)


def helper(x):
    return x * SCALE


class Scaled(nn.Module):
    """tanh(scale · x), the scale read by way of `read`."""

    scale = 1.0

    def __init__(self, read):
        super().__init__()
        self.read = read

    def method(self):
        return 1.0

    def forward(self, x, h):
        return torch.tanh(self.read(self, x)) + 0 * h


def value(cell, size=1):
    """tanh(scale) as `scan` finds it, and as the cell itself does."""
    x = torch.full((1, size, 1), 0.5)
    with torch.no_grad():
        found = tt.scan(cell, x, torch.zeros(size, 1)).outputs[0]
        expected = cell(x[0], torch.zeros(size, 1))
    torch.testing.assert_close(found, expected)
    return float(found[0])


@dataclass
class Options:
    scale: float = 1.0


class Kind(enum.Enum):
    ONE, TWO = 1, 2


def set_class(cell):
    type(cell).scale = 3.0


def set_instance(cell):
    cell.scale = 3.0


def set_method(cell):
    type(cell).method = lambda self: 3.0


def set_global(cell):
    globals()["SCALE"] = 3.0


def set_table(cell):
    TABLE[0] = 3.0


def set_namespace(cell):
    settings.scale = 3.0


def set_option(cell):
    cell.options.scale = 3.0


def set_kind(cell):
    cell.kind = Kind.TWO


def set_nested(cell):
    cell.options.inner.scale = 3.0


def set_array(cell):
    cell.array[0] = 3.0


class Slotted:
    __slots__ = ("scale",)

    def __init__(self):
        self.scale = 1.0


def defaulting(x, table={"scale": 1.0}):  # noqa: B006
    return x * table["scale"]


def marked(x):
    return x * marked.scale


def set_slotted(cell):
    cell.slotted.scale = 3.0


def set_namespace_class(cell):
    cell.space.scale = 3.0


def set_class_of_nested(cell):
    type(cell.options.inner.deep).scale = 3.0


def set_default(cell):
    defaulting.__defaults__[0]["scale"] = 3.0


def set_other_defaults(cell):
    defaulting.__defaults__ = ({"scale": 3.0},)


def set_mark(cell):
    marked.scale = 3.0


def set_held_function(cell):
    cell.held[0] = lambda x: 3.0 * x


WAYS = {
    "object with slots": (lambda self, x: x * self.slotted.scale, set_slotted),
    "class held as an attribute": (lambda self, x: x * self.space.scale, set_namespace_class),
    "class of an object within": (lambda self, x: x * self.options.inner.deep.scale, set_class_of_nested),
    "what a default holds": (lambda self, x: defaulting(x), set_default),
    "other defaults": (lambda self, x: defaulting(x), set_other_defaults),
    "attribute of a function": (lambda self, x: marked(x), set_mark),
    "function in a list": (lambda self, x: self.held[0](x), set_held_function),
    "global of a function in a list": (lambda self, x: self.held[0](x), set_global),
    "name in a text": (lambda self, x: x * getattr(self, "scale"), set_class),  # noqa: B009
    "class attribute": (lambda self, x: x * self.scale, set_class),
    "instance attribute over a class attribute": (lambda self, x: x * self.scale, set_instance),
    "method": (lambda self, x: x * self.method(), set_method),
    "global": (lambda self, x: x * SCALE, set_global),
    "global of a helper": (lambda self, x: helper(x), set_global),
    "global list": (lambda self, x: x * TABLE[0], set_table),
    "global object": (lambda self, x: x * settings.scale, set_namespace),
    "object": (lambda self, x: x * self.options.scale, set_option),
    "object in an object": (lambda self, x: x * self.options.inner.scale, set_nested),
    "enum": (lambda self, x: x * self.kind.value, set_kind),
    "array": (lambda self, x: x * float(self.array[0]), set_array),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_changes_between_two_calls_is_seen(way, monkeypatch):
    read, change = WAYS[way]
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    TABLE[0] = settings.scale = 1.0
    cell = type("Fresh", (Scaled,), {"__module__": __name__})(read)
    cell.options, cell.kind, cell.array = Options(), Kind.ONE, np.array([1.0])
    cell.options.inner = Options()
    cell.slotted, cell.held = Slotted(), [helper]
    cell.space = type("Space", (), {"__module__": __name__, "scale": 1.0})
    cell.options.inner.deep = type("Deep", (), {"__module__": __name__, "scale": 1.0})()
    defaulting.__defaults__, marked.scale = ({"scale": 1.0},), 1.0
    before = value(cell)
    assert value(cell) == before
    assert tt.explain(cell, torch.zeros(1, 1, 1), torch.zeros(1, 1)).chosen == "cpu"
    change(cell)
    assert abs(value(cell) - before) > 0.1


def test_what_a_closure_holds_is_seen():
    scale = 1.0

    def read(self, x):
        return x * scale

    cell = Scaled(read)
    before = value(cell)
    scale = 3.0
    assert abs(value(cell) - before) > 0.1
    for factor in (2.0, 4.0):
        cell.read = functools.partial(lambda self, x, by: x * by, by=factor)
        torch.testing.assert_close(value(cell), float(torch.tanh(torch.tensor(0.5 * factor))))


def test_zero_has_a_sign():
    cell = Scaled(lambda self, x: torch.copysign(x, torch.full_like(x, self.sign)))
    cell.sign = 0.0
    assert value(cell) > 0
    cell.sign = -0.0
    assert value(cell) < 0


def test_another_size_of_the_batch_is_another_step():
    by_number = Scaled(lambda self, x: x * x.shape[0])
    by_branch = Scaled(lambda self, x: x if x.shape[0] == 1 else -x)
    for size in (5, 1, 13, 2, 40):
        value(by_number, size)
        value(by_branch, size)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.t, self.seen, self.by = 0, [], {"steps": 0}
        self.array, self.slotted, self.deep = np.zeros(1), Slotted(), ([[[[[[0]]]]]],)
        self.slotted.scale = 0
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x, h):
        self.count()
        return h + x


def deepen(self):
    inner = self.deep[0][0][0][0][0]
    inner[0][0] += 1


COUNTS = {
    "array": lambda self: self.array.__iadd__(1),
    "object with slots": lambda self: setattr(self.slotted, "scale", self.slotted.scale + 1),
    "list in lists in a tuple": deepen,
    "class attribute": lambda self: setattr(type(self), "total", type(self).total + 1),
    "number": lambda self: setattr(self, "t", self.t + 1),
    "list": lambda self: self.seen.append(1),
    "dictionary": lambda self: self.by.update(steps=self.by["steps"] + 1),
    "buffer": lambda self: self.steps.add_(1),
    "new buffer": lambda self: setattr(self, "steps", self.steps + 1),
    "data of a buffer": lambda self: self.steps.data.add_(1),
}


@pytest.mark.parametrize("way", COUNTS)
def test_a_cell_that_counts_its_steps_counts_each_once(way):
    """The trial run of the capture leaves no trace, and the loop runs the cell."""
    cell = type("Fresh", (Counting,), {"count": COUNTS[way], "total": 0, "__module__": __name__})()
    for calls in (1, 2):
        tt.scan(cell, torch.ones(7, 2, 3), torch.zeros(2, 3))
        counts = [
            cell.t,
            len(cell.seen),
            cell.by["steps"],
            int(cell.steps),
            int(cell.array[0]),
            cell.slotted.scale,
            cell.total,
        ]
        counts.append(cell.deep[0][0][0][0][0][0][0])
        assert sorted(counts) == [0] * 7 + [7 * calls]
    explained = tt.explain(cell, torch.ones(7, 2, 3), torch.zeros(2, 3))
    assert explained.chosen == "reference"
    assert "as it steps" in explained.reasons["cpu"] or "in place" in explained.reasons["cpu"]


class Hooked(nn.Module):
    """Clips the gradient of its state at every step."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(6, 3)

    def forward(self, x, h):
        h = torch.tanh(self.into(torch.cat([x, h], -1)))
        if h.requires_grad:
            h.register_hook(lambda g: g.clamp(-0.1, 0.1))
        return h


def test_a_hook_within_the_step_works_at_every_step():
    cell, x = Hooked(), torch.randn(6, 2, 3, requires_grad=True)
    h = torch.zeros(2, 3)
    outputs = []
    for x_t in x:
        h = cell(x_t, h)
        outputs.append(h)
    leaves = [x, *cell.parameters()]
    expected = torch.autograd.grad(torch.stack(outputs).sum() * 5, leaves)
    found = torch.autograd.grad(tt.scan(cell, x, torch.zeros(2, 3)).outputs.sum() * 5, leaves)
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two)
    assert "register_hook of a tensor within the step" in str(tt.explain(cell, x, torch.zeros(2, 3)))


def test_whether_gradients_are_taken_may_matter():
    cell = Scaled(lambda self, x: x * (2.0 if torch.is_grad_enabled() else 1.0))
    for wanted in (True, False, True):
        x = torch.full((1, 1, 1), 0.5)
        with torch.set_grad_enabled(wanted):
            found = tt.scan(cell, x, torch.zeros(1, 1)).outputs
        torch.testing.assert_close(found, torch.tanh(x * (2.0 if wanted else 1.0)))


def test_a_fork_beside_a_compilation_does_not_hang():
    """Another thread may be half through with anything when a process forks."""
    program = """if True:
        import os, sys, threading, torch, throughtime as tt
        torch.set_num_threads(1)
        x, stop = torch.randn(3, 2, 4), threading.Event()
        def work():
            n = 0
            while not stop.is_set():
                cell, n = tt.cells.GRU(4, 5), n + 1
                cell.mark = n
                tt.scan(cell, x)
        tt.scan(tt.cells.GRU(4, 5), x)  # imports, which Python's own fork does not mind, are over
        thread = threading.Thread(target=work)
        thread.start()
        for k in range(6):
            child = os.fork()
            if child == 0:
                tt.scan(tt.cells.LSTM(4, 6 + k), x)
                os._exit(0)
            if os.waitpid(child, 0)[1]:
                sys.exit(f"child {k}")
        stop.set()
        thread.join()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120, env=environment)


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: float(torch.rand(()))])
def test_random_numbers_are_drawn_at_every_step_and_by_nothing_else(draw):
    cell, x, h = Scaled(lambda self, x: x * draw()), torch.full((5, 1, 1), 0.5), torch.zeros(1, 1)

    def seeded(run):
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        return run()

    expected = seeded(lambda: torch.stack([cell(x_t, h) for x_t in x]))
    found = seeded(lambda: tt.scan(cell, x, h).outputs)
    assert len(set(map(float, found.flatten()))) == 5
    torch.testing.assert_close(found, expected)


def test_what_cannot_be_seen_to_change_is_left_to_the_loop():
    cell = Scaled(lambda self, x: x * self.held[0])
    cell.held = collections.deque([1.0])
    before = value(cell)
    cell.held[0] = 3.0
    assert abs(value(cell) - before) > 0.1
    explained = tt.explain(cell, torch.zeros(1, 1, 1), torch.zeros(1, 1))
    assert explained.chosen == "reference"
    assert "its attribute 'held' is a deque, which may change unseen" in explained.reasons["cpu"]


def test_what_hides_no_number_does_not_hinder():
    """A logger, a lock, a weak reference, a path: a cell that holds them is compiled, once."""
    cell = Scaled(lambda self, x: x * self.scale)
    cell.log, cell.lock, cell.path = logging.getLogger("cell"), threading.Lock(), pathlib.Path("x")
    cell.parent, cell.span, cell.bound = weakref.ref(cell), range(3), cell.method
    assert tt.explain(cell, torch.zeros(1, 1, 1), torch.zeros(1, 1)).chosen == "cpu"
    made = backend.programs.histories[cell].made
    value(cell)
    value(cell)
    assert backend.programs.histories[cell].made == made


def test_the_programs_of_cells_that_are_gone_are_freed():
    made, original = [], backend.programs.make
    try:
        backend.programs.make = lambda *a: (lambda c: made.append(weakref.ref(c)) or c)(original(*a))
        x = torch.ones(3, 1, 1, requires_grad=True)
        for n in range(3):
            cell = Scaled(lambda self, x: x * self.scale)
            cell.mark = f"of its own {n}"
            tt.scan(cell, x, torch.zeros(1, 1)).outputs.sum().backward()
    finally:
        backend.programs.make = original
    backend.programs.known.clear()
    gc.collect()
    assert len(made) == 3 and all(ref() is None for ref in made)


def test_a_long_list_is_not_compared_at_every_call():
    cell = Scaled(lambda self, x: x * self.table[7])
    cell.table = [1.0] * 5000
    before = value(cell)
    cell.table[7] = 3.0
    assert abs(value(cell) - before) > 0.1
    assert "'table' holds 5,000 things" in str(tt.explain(cell, torch.zeros(1, 1, 1), torch.zeros(1, 1)))


def test_a_number_that_changes_at_every_call_is_left_to_the_loop():
    cell = Scaled(lambda self, x: x * self.scale)
    for i in range(30):
        cell.scale = 1.0 + i / 10
        value(cell)
    cell.scale = 99.0
    explained = tt.explain(cell, torch.zeros(1, 1, 1), torch.zeros(1, 1))
    assert explained.chosen == "reference" and "make the number that changes a buffer" in explained.reasons["cpu"]


def test_a_cell_that_fails_on_another_batch_says_so_however_often_it_runs():
    cell = Scaled(lambda self, x: x * self.mask)
    cell.mask = torch.rand(3, 1)  # of the batch that it is used with
    for _ in range(programs.MOST_ANEW + 4):
        value(cell, 3)
    explained = tt.explain(cell, torch.zeros(1, 3, 1), torch.zeros(3, 1))
    assert explained.chosen == "reference" and "the cell fails on a batch of" in explained.reasons["cpu"]


def test_a_cell_that_writes_a_global_is_left_to_the_loop():
    def read(self, x):
        global SCALE
        SCALE = SCALE + 1
        return x

    cell, before = Scaled(read), SCALE
    tt.scan(cell, torch.ones(4, 1, 1), torch.zeros(1, 1))
    assert before + 4 == SCALE
    assert "it writes the global 'SCALE'" in str(tt.explain(cell, torch.ones(4, 1, 1), torch.zeros(1, 1)))


def test_programs_are_freed():
    known = backend.programs.known
    before = known.copy()
    try:
        for n in range(programs.MOST + 20):
            cell = Scaled(lambda self, x: x * self.scale)
            cell.scale, cell.n = 1.0, n
            backend.find(call_of(cell))
        assert len(known) == programs.MOST
    finally:
        known.clear()
        known.update(before)


def call_of(cell):
    from throughtime.scanning.call import make_call

    x, h = torch.zeros(1, 1, 1), torch.zeros(1, 1)
    return make_call(cell, x, h, initial=None, lengths=None, reverse=False, resets=None, record=())


@pytest.mark.parametrize("where", ["cpu", "reference"])
@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
@pytest.mark.parametrize(
    "layer", [tt.GRU(3, 5, num_layers=2), tt.LSTM(3, 5), tt.Recurrent(tt.cells.LayerNormLSTM, 3, 5)]
)
def test_a_copied_stepper_goes_on_by_itself(layer, how, where):
    stepper, x = layer.stepper(2, backend=where), torch.randn(5, 2, 3)
    for t in range(2):
        stepper(x[t])
    other = how(stepper)
    assert other.backend == where
    theirs = [other(x[t]) for t in range(2, 5)]  # the one does not move the other
    ours = [stepper(x[t]) for t in range(2, 5)]
    for one, two in zip(theirs, ours, strict=True):
        assert torch.equal(one, two)


def test_a_stepper_refuses_what_it_cannot_read():
    stepper = tt.GRU(3, 5).stepper(2)
    for x in (torch._efficientzerotensor((2, 3)), torch.zeros(2, 3, device="meta"), torch._neg_view(torch.ones(2, 3))):
        with pytest.raises(RuntimeError, match="a stepper reads memory, which cannot be here"):
            stepper(x)
    with pytest.raises(RuntimeError, match=r"torch\.func"):
        torch.func.vmap(stepper)(torch.zeros(4, 2, 3))
    with pytest.raises(ValueError, match=r"is \[2, 5\], got \[5, 2\]"):
        stepper.state = [torch.zeros(5, 2)]
    with pytest.raises(ValueError, match="at least one stream"):
        tt.GRU(3, 5).stepper(0)


def test_a_stepper_takes_the_weights_that_are_there():
    layer, x = tt.GRU(3, 5), torch.randn(2, 3)
    stepper = layer.stepper(2)
    layer.weight_ih_l0 = nn.Parameter(torch.randn(15, 3))
    layer.double()
    stepper.refresh()
    torch.testing.assert_close(stepper(x), layer(x.double()[None])[0][0].float())
    layer.weight_ih_l0 = nn.Parameter(torch.randn(15, 4).double())
    with pytest.raises(ValueError, match="have other shapes now"):
        stepper.refresh()


def test_a_stepper_made_in_inference_mode_goes_on_outside():
    with torch.inference_mode():
        stepper = tt.GRU(3, 5).stepper(2)
        first = stepper(torch.ones(2, 3))
    stepper.reset([-1])
    stepper.reset(torch.tensor([True, False]))
    torch.testing.assert_close(stepper(torch.ones(2, 3)), first)
