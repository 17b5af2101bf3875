"""A random cell and a random call of it, from a seed, as source text.

Every statement is run where it is drawn, on a batch of 11 and on the first 5 of its rows, and kept where it runs and its numbers
are reasonable. So the maker knows of each value its shape, which axis is the batch, and whether its rows hang on one another.
"""

from __future__ import annotations

import linecache
import math
import random
import re
import sys
import types
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from cell_tables import (
    ACTIVATIONS, BUFFERS, CONSTANTS, COUNTING, HELD, INNER, INNER_CELLS, MIXING, NUMBERS, POINTWISE, PRELUDE, PRODUCTS, RAISING, SHAPES,
    STATEMENTS, UNKNOWN, WITH_CONSTANTS, entries,
)  # fmt: skip
from torch import Tensor, nn

LARGE, SMALL = 11, 5  # the batches on which statements are tried
SIZES = (1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 13, 17, 21, 33)
WIDEST = 300  # numbers a sequence in one value
TABLES = {
    "pointwise": entries(POINTWISE), "unknown": entries(UNKNOWN), "shapes": entries(SHAPES), "products": entries(PRODUCTS),
    "numbers": entries(NUMBERS), "constants": entries(WITH_CONSTANTS), "held": entries(HELD),
}  # fmt: skip
BUFFER_TABLE, CONSTANT_TABLE = entries(BUFFERS), entries(CONSTANTS)
# numbers of another float type than the cell's may be in it: the loop in float64 is then another cell
OTHER_TYPES = re.compile(
    r"float\(\)|double|half\(\)|bfloat16|float16|float32|np\.|from_numpy|torch\.(arange|linspace|eye|tril|triu|tensor|ones|zeros|full|range|scalar_tensor)\("
    r"|_tensor|\.to\(torch|rand\(\d+, [^)]*\)(?!\.to\(dtype\))| \d?\.?\d* if |finfo"
)


@dataclass
class Spec:
    """A cell's source and a call of it; all of it plain, so that it can be sent, printed and shrunk."""

    seed: int
    dtype: str
    init: list[str]
    body: list[str]
    result: str
    inputs: str  # how x is put together of x0, x1 …
    state: str
    input_shapes: list[tuple[str, list[int]]]  # kind of number and what stands behind [T, B]
    state_shapes: list[tuple[str, list[int]]]
    has_output: bool
    alone: bool  # whether each sequence can be run by itself
    pure: bool  # whether all numbers are of the cell's type, so that in float64 it is the same cell
    record: list[str]
    changes: list[str]
    call: dict[str, Any]
    tags: list[str] = field(default_factory=list)
    starts: str = ""  # what the cell's own `initial_state` returns; it has none where this is empty

    def source(self) -> str:
        lines = [
            PRELUDE,
            "",
            "class FuzzCell(nn.Module):",
            "    beta = 0.7",
            "    watch = staticmethod(tt.cells.Cell.watch)",
            "",
        ]
        lines += ["    def __init__(self, dtype):", "        super().__init__()"]
        lines += ["        " + line for line in self.init]
        if self.starts:
            lines += ["", "    def initial_state(self, batch, *, device=None):", f"        return {self.starts}"]
        lines += ["", "    def helper(self, v):", "        return v * 0.6", "", "    def order_of(self, v):"]
        lines += ["        return torch.arange(v.shape[1]).flip(0)", "", "    def forward(self, x, h):"]
        lines += [f"        {self.inputs} = x", f"        {self.state} = h"]
        lines += ["        " + line for statement in self.body for line in statement.split("\n")]
        lines += [f"        return {self.result}", ""]
        return "\n".join(lines)

    def shown(self) -> str:
        """The class and the call, for a person."""
        text = self.source()
        return (
            text[text.index("class FuzzCell") :]
            + f"# {self.dtype}, call {self.call}, changes {self.changes}, alone {self.alone}"
        )

    def module(self) -> dict[str, Any]:
        """What the source defines, under a file name that has lines."""
        name, text = f"<cell {self.seed}>", self.source()
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        return run_as_module(compile(text, name, "exec"), "random_cell")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


LIVE = compile(
    PRELUDE + "\nclass Live(nn.Module):\n    beta = 0.7\n    watch = staticmethod(tt.cells.Cell.watch)\n"
    "    def helper(self, v):\n        return v * 0.6\n    def order_of(self, v):\n        return torch.arange(v.shape[1]).flip(0)\n",
    "<cell being made>",
    "exec",
)


def run_as_module(code: Any, name: str) -> dict[str, Any]:
    """What the code defines, in a module that others find by its name (as dataclasses and pickle do)."""
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(code, module.__dict__)
    return module.__dict__


def draw_tensor(kind: str, shape: list[int], seed: int, dtype: torch.dtype) -> Tensor:
    """Random numbers of a kind: float, int or bool."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if kind == "float":
        return (0.8 * values).to(dtype)
    return (values * 2).abs().long() if kind == "int" else values > 0


class Dropped(Exception):
    """A statement that cannot be had here."""


class Maker:
    """Grows one cell."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.dtype_name = self.random.choice(["float32", "float64"])
        self.dtype = getattr(torch, self.dtype_name)
        self.init: list[str] = []
        self.body: list[str] = []
        self.tags: set[str] = set()
        self.count = 0
        self.parameters: dict[tuple[int, ...], list[str]] = {}
        self.held: list[str] = []  # buffers
        self.changes: list[str] = []
        self.record: list[str] = []
        self.namespace = run_as_module(LIVE, "cell_being_made")
        self.live = self.namespace["Live"]()
        self.large = {**self.namespace, "self": self.live, "dtype": self.dtype}
        self.small = {**self.namespace, "self": self.live, "dtype": self.dtype}
        self.values: list[str] = []

    # what there is

    def chance(self, p: float) -> bool:
        return self.random.random() < p

    def tail(self, name: str) -> tuple[int, ...]:
        return tuple(self.large[name].shape[1:])

    def batched(self, name: str) -> bool:
        one, other = self.large[name], self.small[name]
        return one.dim() > 0 and one.shape[0] == LARGE and other.shape[0] == SMALL and one.shape[1:] == other.shape[1:]

    def floats(self, least: int = 1, most: int = 4) -> list[str]:
        found = [
            v for v in self.values
            if self.batched(v) and self.large[v].is_floating_point() and least <= len(self.tail(v)) <= most
        ]  # fmt: skip
        own = [v for v in found if self.large[v].dtype == self.dtype]
        return own if own and self.chance(0.95) else found

    def pick(self, names: list[str]) -> str:
        if not names:
            raise Dropped
        late = names[-4:] if self.chance(0.7) else names
        return self.random.choice(late)

    def beside(self, anchor: str) -> str:
        """A float that broadcasts with the anchor and does not enlarge it."""
        shape = self.large[anchor].shape
        fitting = []
        for v in self.floats(0):
            if v != anchor and len(self.tail(v)) == len(shape) - 1:
                if all(n in (1, m) for n, m in zip(self.large[v].shape, shape, strict=True)):
                    fitting.append(v)
        return self.random.choice(fitting) if fitting and self.chance(0.85) else anchor

    def number(self) -> str:
        return self.random.choice(["0.5", "0.3", "-0.7", "1.2", "2", "1", "0.0", "-1", "True", "0.1"])

    def new(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def run_init(self, line: str) -> None:
        exec(line, self.large)
        self.init.append(line)

    def parameter(self, *shape: int) -> str:
        same = self.parameters.get(shape, [])
        if same and self.chance(0.4):
            return self.random.choice(same)
        name = self.new("w")
        sizes = ", ".join(map(str, shape))
        scale = round(0.8 / math.sqrt(shape[-1]), 3) if len(shape) > 1 else 0.5
        line = f"self.{name} = nn.Parameter({scale} * rand({self.seed % 1000 + self.count}, {sizes}).to(dtype))"
        if self.chance(0.12):
            line = line[:-1] + ", requires_grad=False)"
            self.tags.add("frozen")
        elif self.chance(0.03):
            line = line.replace(".to(dtype)", self.random.choice([".float()", ".double()", ".half()"]))
            self.tags.add("parameter of another type")
        self.run_init(line)
        self.parameters.setdefault(shape, []).append(f"self.{name}")
        if self.chance(0.5):
            self.changes.append(f"cell.{name}.data.mul_(0.7)")
        return f"self.{name}"

    def buffer(self, width: int) -> str:
        if self.held and self.chance(0.3):
            return self.random.choice(self.held)
        made = self.random.choice(BUFFER_TABLE).format(seed=self.seed % 1000 + self.count, n=width)
        name = self.new("b")
        how = self.random.choice(["buffer", "buffer", "attribute", "not saved"])
        if how == "attribute":
            line = f"self.{name} = {made}"
        else:
            line = f'self.register_buffer("{name}", {made}{", persistent=False" if how == "not saved" else ""})'
        self.run_init(line)
        self.tags.add("buffer")
        self.held.append(f"self.{name}")
        if self.chance(0.5):
            self.changes.append(f"cell.{name}.copy_(cell.{name} * 0 + 1)")
        return f"self.{name}"

    def setting(self, text: str) -> None:
        """The attributes that an expression names and the cell does not have yet."""
        needs = {
            "self.alpha": (lambda: f"self.alpha = {self.random.choice(['0.5', '1.5', '-0.3', '2', 'True'])}", "cell.alpha = 0.35"),
            "self.flag": (lambda: f"self.flag = {self.random.choice(['True', 'False'])}", "cell.flag = not cell.flag"),
            "self.order": (lambda: f"self.order = {self.random.choice(['1', '2', '3'])}", "cell.order = 4 - cell.order"),
            "self.settings": (lambda: "self.settings = Settings(0.6, Mode.SOFT)", "cell.settings.scale = -0.5"),
            "self.act(": (lambda: f"self.act = {self.random.choice(ACTIVATIONS)}", "cell.act = torch.sin if not isinstance(cell.act, nn.Module) else nn.Sigmoid()"),
            "self.t ": (lambda: "self.t = 0", ""), "self.seen": (lambda: "self.seen = []", ""), "self.last": (lambda: "self.last = None", ""),
            "self.count": (lambda: 'self.register_buffer("count", torch.tensor(0.0))', ""),
            "self.beta": (None, "type(cell).beta = -0.4"), "SCALE": (None, "module['SCALE'] = 0.3"),
            "half(": (None, "module['half'] = lambda v: v * 0.25"), "self.helper": (None, "type(cell).helper = lambda self, v: v * 0.2"),
        }  # fmt: skip
        for word, (make, change) in needs.items():
            if word not in text:
                continue
            name = word.rstrip(" (").removeprefix("self.")
            if make is not None and not hasattr(self.live, name):
                self.run_init(make())
            if change and change not in self.changes and self.chance(0.6):
                self.changes.append(change)

    # statements

    def fill(self, template: str, v: str) -> str:
        """A template with its slots filled."""
        names = re.findall(r"\{(\w+)\}", template)
        anchors = {"a": (1, 4), "r": (1, 1), "m": (2, 2), "s": (0, 4)}
        found: dict[str, str] = {"v": v}
        for kind, (least, most) in anchors.items():
            if kind in names:
                found[kind] = self.pick(self.floats(least, most))
                if kind == "r":
                    found.setdefault("a", found[kind])
        anchor = next((found[k] for k in ("r", "m", "a", "s") if k in found), None)
        if "a" in names and "r" not in names and "a" in found:
            anchor = found["a"]
        for name in names:
            if name not in found:
                if anchor is None:
                    raise Dropped
                found[name] = self.slot(name, anchor, found)
        text = re.sub(r"\{(\w+)\}", lambda m: found[m.group(1)], template)
        self.setting(text)
        return text

    def slot(self, name: str, anchor: str, found: dict[str, str]) -> str:
        tail = self.tail(anchor)
        width = tail[-1] if tail else 1
        if name in "bc":
            return self.beside(anchor)
        if name == "k":
            return self.number()
        if name == "n":
            return str(width)
        if name == "p":
            return self.parameter(width)
        if name == "B":
            return self.buffer(width)
        if name == "z":
            return self.parameter(width, width)
        if name == "w":
            out = self.random.choice(SIZES)
            found["o_width"] = str(out)
            return self.parameter(out, width)
        if name == "o":
            return self.parameter(int(found["o_width"]))
        if name == "C":
            return "(" + self.fill_like(self.random.choice(CONSTANT_TABLE), anchor) + ")"
        if name in "qi":
            kind = torch.bool if name == "q" else torch.int64
            fitting = [
                v for v in self.values
                if self.batched(v) and self.large[v].dtype == kind and len(self.tail(v)) == len(tail)
                and all(n in (1, m) for n, m in zip(self.tail(v), tail, strict=True))
            ]  # fmt: skip
            if fitting:
                return self.random.choice(fitting)
            if name == "i":
                return f"({self.beside(anchor)} * 2).long()"
            return f"({self.beside(anchor)} > {self.random.choice(['0', '0.2', '-0.3'])})"
        raise AssertionError(name)

    def fill_like(self, template: str, anchor: str) -> str:
        found = {"a": anchor}
        for name in re.findall(r"\{(\w+)\}", template):
            if name not in found:
                found[name] = self.slot(name, anchor, found)
        return re.sub(r"\{(\w+)\}", lambda m: found[m.group(1)], template)

    def try_statement(self, text: str, v: str, anyhow: bool = False) -> None:
        """Run it, and keep it where what it makes is reasonable. Raises: Dropped."""
        before = len(self.init)
        try:
            exec(text, self.large)
            exec(text, self.small)
            one, other = self.large[v], self.small[v]
        except Exception as error:
            del before
            raise Dropped from error
        if not isinstance(one, Tensor) or not isinstance(other, Tensor) or one.dim() > 5:
            raise Dropped
        if one.numel() > WIDEST * LARGE or one.numel() == 0 or one.is_complex():
            raise Dropped
        if one.is_floating_point() and not (one.isfinite().all() and one.abs().max() < 30):
            raise Dropped
        if one.dim() and one.shape[0] == LARGE and other.shape[0] != SMALL:
            raise Dropped
        self.body.append(text)
        self.values.append(v)

    def statement(self, table: str | None = None) -> None:
        kind = table or self.random.choices(
            ["pointwise", "products", "shapes", "constants", "numbers", "unknown", "statements", "inner", "held"],
            [36, 14, 12, 10, 1, 0, 3, self.inner, 5] if self.tame else [25, 10, 12, 16, 10, self.unknown, 10, self.inner, 12],
        )[0]  # fmt: skip
        v = self.new("v")
        if kind == "statements":
            template = self.random.choice(STATEMENTS)
        elif kind == "inner":
            template = self.random.choice(["{v} = self.inner({r})", "{v} = self.inner_cell({r})"])
        else:
            template = f"{{v}} = {self.random.choice(TABLES[kind])}"
        if "self.inner" in template:
            template = self.inner_module(template)
        text = self.fill(template, v)
        self.try_statement(text, v)
        self.tags.add(kind)
        if "self.watch" in text and self.batched(v):
            self.record.append(v)

    def inner_module(self, template: str) -> str:
        r = self.pick(self.floats(1, 1))
        width, out = self.tail(r)[-1], self.random.choice(SIZES)
        name = self.new("inner")
        cell = "inner_cell" in template
        made = self.random.choice(INNER_CELLS if cell else INNER).format(n=width, o=out)
        torch.manual_seed(self.seed)
        self.run_init(f"torch.manual_seed({self.seed % 1000})")
        self.run_init(f"self.{name} = ({made}).to(dtype)" if "Identity" not in made else f"self.{name} = {made}")
        self.tags.add(made.split("(")[0])
        if cell:
            other = self.pick(self.floats(1, 1))
            if self.tail(other) != (width,):
                other = r
            lstm = "LSTM" in made
            return f"{{v}} = self.{name}({r}, ({other}, {r}) if {lstm} else {other})" + ("[0]" if lstm else "")
        return template.replace("self.inner({r})", f"self.{name}({r})").replace("{r}", r)

    def some(self, tries: int, make: Any) -> bool:
        for _ in range(tries):
            try:
                make()
            except Dropped:
                continue
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError):
                continue
            return True
        return False

    def special(self, table: list[str], tag: str) -> bool:
        def make() -> None:
            v = self.new("v")
            self.try_statement(self.fill(self.random.choice(table), v), v)

        made = self.some(6, make)
        if made:
            self.tags.add(tag)
        return made

    # the whole

    def shapes(self) -> None:
        r = self.random
        self.batch = r.choice([1, 2, 2, 3, 3, 4, 5, 6, 7, 13, 17, 20]) if not self.chance(0.02) else 0
        sizes = [*SIZES, self.batch or 1, self.batch or 1, self.batch or 1]

        def tail(most: int) -> list[int]:
            rank = r.choices([0, 1, 2, 3], [6, 70, 14, 10 if most > 2 else 0])[0]
            return [r.choice(sizes if rank < 2 else [1, 2, 3, 3, min(self.batch or 1, 5)]) for _ in range(rank)]

        many = r.choices([1, 2, 3, 4], [60, 25, 10, 5])[0]
        kinds = [r.choices(["float", "int", "bool"], [93, 4, 3])[0] if k else "float" for k in range(many)]
        self.states = [(kind, tail(3)) for kind in kinds]
        several = r.choices([1, 2, 3], [80, 14, 6])[0]
        kinds = [r.choices(["float", "int", "bool"], [92, 4, 4])[0] if k else "float" for k in range(several)]
        self.inputs = [(kind, tail(2)) for kind in kinds]
        if r.random() < 0.02:
            self.inputs[0] = ("int", self.inputs[0][1])
        xs = [f"x{k}" for k in range(several)]
        self.x_text = xs[0] if several == 1 and self.chance(0.95) else f"({', '.join(xs)},)"
        if several == 3:
            self.x_text = r.choice(["(x0, x1, x2)", "(x0, (x1, x2))", "((x0, x1), x2)", "((x0,), x1, (x2,))"])
        hs = [f"h{k}" for k in range(many)]
        self.h_text = hs[0] if many == 1 and self.chance(0.93) else f"({', '.join(hs)},)"

    def start(self) -> None:
        for prefix, group in (("x", self.inputs), ("h", self.states)):
            for k, (kind, tail) in enumerate(group):
                whole = draw_tensor(kind, [LARGE, *tail], self.seed + 7 * k + ord(prefix), self.dtype)
                for env, value in ((self.large, whole), (self.small, whole[:SMALL].clone())):
                    env[f"{prefix}{k}"] = value.requires_grad_(kind == "float")
                self.values.append(f"{prefix}{k}")
        if not self.floats(1, 1):  # a row to begin with
            base = self.pick(self.floats(0))
            v = self.new("v")
            self.try_statement(f"{v} = {base}.reshape({base}.shape[0], -1)", v)

    def new_state(self, k: int) -> str:
        """A statement that makes the next value of state k; gives its name."""
        kind, tail = self.states[k]
        h, n = f"h{k}", f"n{k}"
        lead = f"({h}.shape[0], {', '.join(map(str, tail))})" if tail else f"({h}.shape[0],)"
        if kind == "int":
            a = f"({self.row(tail)} > 0)"
            text = self.random.choice(
                [
                    f"{h} + 1",
                    f"({h} + 1) % 5",
                    f"{h} + {a}.long()",
                    f"torch.where({a}, {h} + 1, torch.zeros_like({h}))",
                    f"{h} * 2 - {a}.long()",
                ]
            )
        elif kind == "bool":
            a = f"({self.row(tail)} > 0)"
            text = self.random.choice([f"{h} | {a}", f"~{h}", f"{h} ^ {a}", f"{a}", f"{h} & ({self.row(tail)} > 0.5)"])
        else:
            a = self.row(tail)
            if self.chance(0.4):
                a = f"({a} + {self.row(tail)})"
            text = self.random.choices(
                [f"torch.tanh({a})", f"torch.tanh({a} + {h})", f"0.5 * {h} + 0.5 * torch.tanh({a})", f"{h} + 0.1 * torch.tanh({a})", f"torch.sigmoid({a}) * {h}",
                 f"torch.lerp({h}, torch.tanh({a}), 0.3)", f"{a}.clamp(-1, 1)", h, f"torch.zeros_like({h})", f"{h}.detach() * 0.5 + torch.tanh({a})", f"torch.full_like({h}, 0.3)",
                 f"{h}.new_zeros({h}.shape)", f"torch.tanh({a}).to({h}.dtype)"],
                [20, 20, 15, 10, 8, 8, 5, 2, 1, 3, 1, 1, 3],
            )[0]  # fmt: skip
        del lead
        self.try_statement(f"{n} = {text}", n)
        if self.large[n].shape != self.large[h].shape or (
            self.large[n].dtype != self.large[h].dtype and not self.chance(0.2)
        ):
            self.body.pop()
            self.values.pop()
            self.try_statement(f"{n} = ({text} + torch.zeros_like({h})).to({h}.dtype)", n)
            if self.large[n].shape != self.large[h].shape:
                raise Dropped
        return n

    def row(self, tail: list[int]) -> str:
        """A float of this shape behind the batch: one there is, or a product of one, reshaped."""
        fitting = [v for v in self.floats(0) if self.tail(v) == tuple(tail)]
        grown = [v for v in fitting if v[0] == "v"]
        if grown and self.chance(0.8):
            return self.random.choice(grown[-3:])
        source = self.pick([v for v in self.floats(1) if v[0] == "v"] or self.floats(1))
        width = math.prod(self.tail(source))
        weight = self.parameter(math.prod(tail), width)
        flat = source if len(self.tail(source)) == 1 else f"{source}.flatten(1)"
        shape = ", ".join(map(str, (f"{source}.shape[0]" if self.chance(0.5) else "-1", *tail)))
        v = self.new("v")
        text = f"{v} = F.linear({flat}, {weight}).view({shape})"
        self.try_statement(text, v)
        return v

    def make(self) -> Spec:
        self.tame = self.chance(0.6)  # mostly of what the engine has
        self.unknown = 4 if self.chance(0.5) else 0
        self.inner = 4 if self.chance(0.25) else 0
        self.shapes()
        self.start()
        for _ in range(self.random.choice([2, 3, 4, 5, 6, 8, 10, 14])):
            self.some(6, self.statement)
        alone = True
        if self.chance(0.05):
            alone = not self.special(MIXING, "mixes the batch")
        if self.chance(0.03):
            alone = not self.special(COUNTING, "counts") and alone
        if self.chance(0.015):
            v = self.new("v")
            try:
                self.body.append(self.fill(self.random.choice(RAISING), v))
                self.tags.add("raises")
            except Dropped:
                pass
        news = []
        for k in range(len(self.states)):
            if not self.some(6, lambda k=k: news.append(self.new_state(k))):
                news.append(f"h{k}")
        output = None
        if self.chance(0.5):
            output = self.output()
        state = re.sub(r"h(\d+)", lambda m: news[int(m.group(1))], self.h_text)
        if self.chance(0.9):
            self.drop_unused([*news, *([output] if output else []), *self.record])
        alone = alone and self.rows_are_alone()
        if self.batch == 0:
            alone = False
        text = "\n".join((*self.init, *self.body))
        call = self.call()
        starts = ""
        if all(kind == "float" for kind, _ in self.states) and self.chance(0.25):
            starts = self.own_start()
            call["own"] = self.chance(0.7)
        held = [r for r in self.record if self.batched(r)]
        return Spec(
            self.seed, self.dtype_name, self.init, self.body, f"({output}, {state})" if output else state, self.x_text, self.h_text,
            self.inputs, self.states, output is not None, alone, not OTHER_TYPES.search(text) and "another type" not in str(self.tags),
            held[:2] if self.chance(0.5) else [], self.kept_changes(), call, sorted(self.tags), starts,
        )  # fmt: skip

    def own_start(self) -> str:
        """Where the cell itself says it starts, in parameters, in the rows of one, or in zeros."""
        self.tags.add("a start of its own")

        def start(match: re.Match[str]) -> str:
            tail = self.states[int(match.group(1))][1]
            if self.chance(0.25):
                self.run_init(f"self.start{match.group(1)} = nn.Parameter(torch.zeros({tail}, dtype=dtype))")
            else:
                sizes = "".join(f", {n}" for n in tail)
                self.run_init(f"self.start{match.group(1)} = nn.Parameter(rand({self.seed % 100}{sizes}).to(dtype))")
            named = f"self.start{match.group(1)}.expand({', '.join(map(str, ('batch', *tail)))})"
            return self.random.choice([named, named, f"{named}.clone()", f"torch.zeros_like({named})"])

        return re.sub(r"h(\d+)", start, self.h_text)

    def drop_unused(self, used: list[str]) -> None:
        """Leave out the statements of which nothing comes, but what a cell counts and where it fails."""
        needed, kept = set(used), []
        for statement in reversed(self.body):
            made = set(re.findall(r"^\s*(\w+) [+*]?= ", statement, re.M)) | set(
                re.findall(r"^(v\d+)_\w, ", statement, re.M)
            )
            if not made & needed and not re.search(
                r"self\.\w+(\.append|\.add_| \+=| =)|raise |assert |missing", statement
            ):
                if (
                    statement not in RAISING
                    and "(-1, 997)" not in statement
                    and "999" not in statement
                    and "torch.ones(" not in statement
                ):
                    self.values = [v for v in self.values if v not in made]
                    continue
            needed |= set(re.findall(r"\b[vnxh]\d+\b", statement))
            kept.append(statement)
        self.body = kept[::-1]

    def output(self) -> str | None:
        made = [v for v in self.values if self.batched(v)]
        name = self.random.choice(made[-6:] if self.chance(0.8) else made)
        if not self.chance(0.25):
            return name
        anchor = self.random.choice([v for v in made if self.large[v].is_floating_point() and self.tail(v)] or ["x0"])
        text = self.random.choice([
            f"torch.cat([{anchor}, torch.zeros_like({anchor}[:, :1])], 1)", f"torch.zeros_like({anchor})", f"torch.ones_like({anchor})", f"{anchor}.new_full({anchor}.shape, 0.5)",
            f"torch.cat([torch.ones_like({anchor}[:, :1]), {anchor}], 1)", f"torch.stack([{anchor}, torch.zeros_like({anchor})], 1)", f"({anchor} > 0)", f"({anchor} * 2).long()",
            f"{anchor}.sum(tuple(range(1, {anchor}.dim())))", f"{anchor}.double()", f"{anchor}.unsqueeze(1)", f"torch.zeros({anchor}.shape[0], 2)", f"torch.zeros_like({anchor}) + {self.parameter(self.tail(anchor)[-1] if self.tail(anchor) else 1)}",
            f"{anchor}.argmax(-1)", f"{anchor}[:, :0]",
        ])  # fmt: skip
        self.tags.add("output made for it")
        v = "y0"
        return v if self.some(1, lambda: self.try_statement(f"{v} = {text}", v)) else name

    def rows_are_alone(self) -> bool:
        """Whether the first rows of every value of the large batch are those of the small one."""
        for v in self.values:
            one, other = self.large[v].detach().double(), self.small[v].detach().double()
            if self.batched(v):
                one = one[:SMALL]
            if one.shape != other.shape or not torch.allclose(one, other, 1e-2, 1e-2):
                return False
        return True

    def kept_changes(self) -> list[str]:
        self.random.shuffle(self.changes)
        return self.changes[:3]

    def call(self) -> dict[str, Any]:
        r = self.random
        steps = r.choice([0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5])
        lengths = [r.randint(0, steps) for _ in range(self.batch)] if self.chance(0.5) else None
        return {
            "T": steps, "B": self.batch, "lengths": lengths, "resets": self.chance(0.35), "reverse": self.chance(0.35), "initial": self.chance(0.6),
            "seed": r.randint(0, 999), "poison": lengths is not None and self.chance(0.5), "gradients": r.choice(["all", "all", "all", "some", "none"]),
            "layouts": [r.choice(LAYOUTS) for _ in self.inputs], "inference": self.chance(0.3), "copy": self.chance(0.3), "named": self.chance(0.3),
            "loss": r.choice(["all", "all", "all", "outputs", "end"]), "own": False,
        }  # fmt: skip


LAYOUTS = [
    "plain",
    "plain",
    "plain",
    "batch first",
    "every other step",
    "every other feature",
    "one for all time",
    "one for all rows",
]


def make(seed: int) -> Spec:
    """The cell and the call of a seed."""
    return Maker(seed).make()
