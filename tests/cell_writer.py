"""Writes a cell statement by statement.

Every statement is run where it is drawn, on a batch of 11 and on the first 5 of its rows, and kept where it runs and its numbers
are reasonable. So the writer knows of each value its shape, which axis is the batch, and whether its rows hang on one another.
"""

from __future__ import annotations

import math
import random
import re
from typing import Any

import torch
from torch import Tensor

from cell_spec import LIVE, run_as_module
from cell_tables import (
    ACTIVATIONS,
    BUFFERS,
    CONSTANTS,
    HELD,
    INNER,
    INNER_CELLS,
    NUMBERS,
    POINTWISE,
    PRODUCTS,
    SHAPES,
    STATEMENTS,
    UNKNOWN,
    WITH_CONSTANTS,
    entries,
)

LARGE, SMALL = 11, 5  # the batches on which statements are tried
SIZES = (1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 13, 17, 21, 33)
WIDEST = 300  # numbers a sequence in one value
TABLES = {
    "pointwise": entries(POINTWISE),
    "unknown": entries(UNKNOWN),
    "shapes": entries(SHAPES),
    "products": entries(PRODUCTS),
    "numbers": entries(NUMBERS),
    "constants": entries(WITH_CONSTANTS),
    "held": entries(HELD),
}
BUFFER_TABLE, CONSTANT_TABLE = entries(BUFFERS), entries(CONSTANTS)


class Dropped(Exception):
    """A statement that cannot be had here."""


class Writer:
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
        self.must: set[str] = set()  # statements that stay, whatever comes of them

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
            v
            for v in self.values
            if self.batched(v) and self.large[v].is_floating_point() and least <= len(self.tail(v)) <= most
        ]
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
            same_rank = v != anchor and len(self.tail(v)) == len(shape) - 1
            if same_rank and all(n in (1, m) for n, m in zip(self.large[v].shape, shape, strict=True)):
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
            "self.alpha": (
                lambda: f"self.alpha = {self.random.choice(['0.5', '1.5', '-0.3', '2', 'True'])}",
                "cell.alpha = 0.35",
            ),
            "self.flag": (lambda: f"self.flag = {self.random.choice(['True', 'False'])}", "cell.flag = not cell.flag"),
            "self.order": (
                lambda: f"self.order = {self.random.choice(['1', '2', '3'])}",
                "cell.order = 4 - cell.order",
            ),
            "self.settings": (lambda: "self.settings = Settings(0.6, Mode.SOFT)", "cell.settings.scale = -0.5"),
            "self.act(": (
                lambda: f"self.act = {self.random.choice(ACTIVATIONS)}",
                "cell.act = torch.sin if not isinstance(cell.act, nn.Module) else nn.Sigmoid()",
            ),
            "self.t ": (lambda: "self.t = 0", ""),
            "self.seen": (lambda: "self.seen = []", ""),
            "self.last": (lambda: "self.last = None", ""),
            "self.count": (lambda: 'self.register_buffer("count", torch.tensor(0.0))', ""),
            "self.beta": (None, "type(cell).beta = -0.4"),
            "SCALE": (None, "module['SCALE'] = 0.3"),
            "half(": (None, "module['half'] = lambda v: v * 0.25"),
            "self.helper": (None, "type(cell).helper = lambda self, v: v * 0.2"),
        }
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
                v
                for v in self.values
                if self.batched(v)
                and self.large[v].dtype == kind
                and len(self.tail(v)) == len(tail)
                and all(n in (1, m) for n, m in zip(self.tail(v), tail, strict=True))
            ]
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
        try:
            exec(text, self.large)
            exec(text, self.small)
            one, other = self.large[v], self.small[v]
        except Exception as error:
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
        kind = (
            table
            or self.random.choices(
                ["pointwise", "products", "shapes", "constants", "numbers", "unknown", "statements", "inner", "held"],
                [36, 14, 12, 10, 1, 0, 3, self.inner, 5]
                if self.tame
                else [25, 10, 12, 16, 10, self.unknown, 10, self.inner, 12],
            )[0]
        )
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
            if tag == "counts":
                self.must.add(self.body[-1])
        return made
