"""LLVM assembly, written a line at a time."""

from __future__ import annotations

import copy
import itertools
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Assembly:
    """The body of one function.

    Values are names (`%5`) or literals, as strings; the caller knows their types. Variables that change live in stack slots,
    which LLVM turns into registers.
    """

    def __init__(self, module: Module) -> None:
        self.module, self.dtype, self.lanes, self.whole = module, module.dtype, module.lanes, module.whole
        self.vector = f"<{self.lanes} x {self.dtype}>"
        self.bytes = 4 if self.dtype == "float" else 8
        self.lines: list[str] = []
        self.slots: list[str] = []
        self._numbers = itertools.count(1)

    def name(self) -> str:
        return f"%v{next(self._numbers)}"

    def label(self) -> str:
        return f"L{next(self._numbers)}"

    def wide(self) -> Assembly:
        """The same function, where it works on vectors of so many float64 numbers."""
        made = copy.copy(self)
        made.dtype, made.vector, made.bytes = "double", f"<{self.lanes} x double>", 8
        return made

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def let(self, text: str) -> str:
        """A value."""
        name = self.name()
        self.line(f"{name} = {text}")
        return name

    def place(self, label: str) -> None:
        """Go on at a label."""
        self.line(f"br label %{label}")
        self.lines.append(f"{label}:")

    def slot(self, type_: str) -> str:
        name = self.name()
        self.slots.append(f"  {name} = alloca {type_}")
        return name

    # whole numbers

    def add(self, a: str, b: str | int) -> str:
        return a if b in (0, "0") else str(b) if a == "0" else self.let(f"add {self.whole} {a}, {b}")

    def sub(self, a: str, b: str | int) -> str:
        return self.let(f"sub {self.whole} {a}, {b}")

    def mul(self, a: str | int, b: str | int) -> str:
        return self.let(f"mul {self.whole} {a}, {b}")

    def less(self, a: str | int, b: str | int) -> str:
        return self.let(f"icmp slt {self.whole} {a}, {b}")

    def choose(self, condition: str, a: str, b: str, type_: str = "") -> str:
        type_ = type_ or self.whole
        return self.let(f"select i1 {condition}, {type_} {a}, {type_} {b}")

    def least(self, a: str, b: str | int) -> str:
        return self.choose(self.less(a, b), a, str(b))

    # memory

    def load(self, type_: str, pointer: str, align: int = 0) -> str:
        return self.let(f"load {type_}, ptr {pointer}, align {align or (8 if type_ in ('i64', 'ptr') else self.bytes)}")

    def store(self, type_: str, value: str, pointer: str, align: int = 0) -> None:
        self.line(
            f"store {type_} {value}, ptr {pointer}, align {align or (8 if type_ in ('i64', 'ptr') else self.bytes)}"
        )

    def at(self, pointer: str, index: str | int, type_: str = "") -> str:
        """The address of entry `index`, of numbers unless another type is named."""
        if index in (0, "0"):
            return pointer
        return self.let(f"getelementptr {type_ or self.dtype}, ptr {pointer}, {self.whole} {index}")

    # control

    @contextmanager
    def loop(self, count: str | int, start: str | int = 0, step: str | int = 1) -> Iterator[str]:
        """A loop from start to count, exclusive."""
        counter = self.slot(self.whole)
        self.store(self.whole, str(start), counter)
        head, body, done = self.label(), self.label(), self.label()
        self.place(head)
        index = self.load(self.whole, counter)
        self.line(f"br i1 {self.less(index, count)}, label %{body}, label %{done}")
        self.lines.append(f"{body}:")
        yield index
        self.store(self.whole, self.add(index, step), counter)
        self.line(f"br label %{head}")
        self.lines.append(f"{done}:")

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        yes, done = self.label(), self.label()
        self.line(f"br i1 {condition}, label %{yes}, label %{done}")
        self.lines.append(f"{yes}:")
        yield
        self.place(done)

    # vectors

    def splat(self, value: str) -> str:
        """A number in every lane."""
        one = self.let(f"insertelement {self.vector} poison, {self.dtype} {value}, i64 0")
        return self.let(
            f"shufflevector {self.vector} {one}, {self.vector} poison, <{self.lanes} x i32> zeroinitializer"
        )

    def literal(self, value: float) -> str:
        """A constant in every lane."""
        return "<" + ", ".join([f"{self.dtype} {number(value, self.dtype)}"] * self.lanes) + ">"

    def intrinsic(self, name: str, *args: str) -> str:
        """A function of vectors that LLVM knows."""
        suffix = f"v{self.lanes}f{self.bytes * 8}"
        types = ", ".join([self.vector] * len(args))
        self.module.declare(f"declare {self.vector} @llvm.{name}.{suffix}({types})")
        return self.let(f"call {self.vector} @llvm.{name}.{suffix}({', '.join(f'{self.vector} {a}' for a in args)})")

    def mask(self, count: int) -> str:
        """The first `count` lanes."""
        return "<" + ", ".join(f"i1 {'true' if i < count else 'false'}" for i in range(self.lanes)) + ">"

    def lanes_below(self, count: str) -> str:
        """The same where the count is found at work."""
        index = f"<{self.lanes} x i64>"
        one = self.let(f"insertelement {index} poison, i64 {count}, i64 0")
        all_ = self.let(f"shufflevector {index} {one}, {index} poison, <{self.lanes} x i32> zeroinitializer")
        numbers = "<" + ", ".join(f"i64 {i}" for i in range(self.lanes)) + ">"
        return self.let(f"icmp slt {index} {numbers}, {all_}")

    def load_vector(self, pointer: str, count: int | None = None, mask: str | None = None) -> str:
        """A vector, of which `count` lanes or those of a mask; zeros in the others."""
        mask = self.masked(count, mask)
        if mask is None:
            return self.load(self.vector, pointer)
        name, kind = f"llvm.masked.load.v{self.lanes}f{self.bytes * 8}.p0", f"<{self.lanes} x i1>"
        self.module.declare(f"declare {self.vector} @{name}(ptr, i32, {kind}, {self.vector})")
        return self.let(
            f"call {self.vector} @{name}(ptr {pointer}, i32 {self.bytes}, {kind} {mask}, {self.vector} zeroinitializer)"
        )

    def store_vector(self, value: str, pointer: str, count: int | None = None, mask: str | None = None) -> None:
        mask = self.masked(count, mask)
        if mask is None:
            self.store(self.vector, value, pointer)
            return
        name, kind = f"llvm.masked.store.v{self.lanes}f{self.bytes * 8}.p0", f"<{self.lanes} x i1>"
        self.module.declare(f"declare void @{name}({self.vector}, ptr, i32, {kind})")
        self.line(f"call void @{name}({self.vector} {value}, ptr {pointer}, i32 {self.bytes}, {kind} {mask})")

    def masked(self, count: int | None, mask: str | None = None) -> str | None:
        """The mask of so many lanes, or the one given; None where all are meant."""
        return self.mask(count) if mask is None and count not in (None, self.lanes) else mask

    def binary(self, op: str, a: str, b: str) -> str:
        """fadd, fsub, fmul, fdiv; a product may be fused with a sum."""
        return self.let(f"{op} contract {self.vector} {a}, {b}")

    def fma(self, a: str, b: str, c: str) -> str:
        """a · b + c: rounded once, or as the processor does it sooner where it need not be the same everywhere."""
        return self.intrinsic("fma" if self.module.fused else "fmuladd", a, b, c)

    def compare(self, how: str, a: str, b: str) -> str:
        return self.let(f"fcmp {how} {self.vector} {a}, {b}")

    def select(self, mask: str, a: str, b: str) -> str:
        return self.let(f"select <{self.lanes} x i1> {mask}, {self.vector} {a}, {self.vector} {b}")


class Module:
    """Functions and what they declare, over vectors of so many lanes of one type of number.

    whole: the type of whole numbers. fused: whether a product and a sum are rounded once, whatever that costs. rounds: whether
    the processor has instructions that round to whole numbers. pairs: whether the operands of products are words of two bfloat16
    numbers each (`pairs`). quads: where they are words of four bytes (`quads`), how many bytes a number of the left one has.
    """

    def __init__(
        self,
        dtype: str,
        lanes: int,
        *,
        whole: str = "i64",
        fused: bool = True,
        rounds: bool = True,
        pairs: bool = False,
        quads: int = 0,
    ) -> None:
        self.dtype, self.lanes, self.whole, self.fused, self.rounds = dtype, lanes, whole, fused, rounds
        self.pairs, self.quads = pairs, quads
        self.declarations: dict[str, None] = {}
        self.functions: dict[str, str] = {}

    def declare(self, text: str) -> None:
        self.declarations.setdefault(text)

    def define(
        self,
        name: str,
        signature: str,
        body: Callable[[Assembly], None],
        *,
        returns: str = "void",
        kind: str = "",
        attributes: str = "nounwind",
    ) -> None:
        """A function; `body` writes it. One that returns nothing is closed here."""
        if name in self.functions:
            return
        self.functions[name] = ""  # its place
        code = Assembly(self)
        body(code)
        if returns == "void":
            code.line("ret void")
        self.functions[name] = "\n".join(
            [f"define {kind}{returns} @{name}({signature}) {attributes} {{", "entry:", *code.slots, *code.lines, "}"]
        )

    def text(self) -> str:
        defined = {f"@{name}(" for name in self.functions}
        wanted = [d for d in self.declarations if not any(n in d for n in defined)]
        return "\n".join([*wanted, *self.functions.values()]) + "\n"


def number(value: float, dtype: str) -> str:
    """A literal, exact to the bit."""
    if dtype == "float":
        value = _as_float(value)
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _as_float(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
