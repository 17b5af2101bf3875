"""Where the arrays of a loop are at a step."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime.scanning.cpu.assembly import Assembly
from throughtime.scanning.cpu.rows import Block
from throughtime.scanning.program import Array


@dataclass(frozen=True)
class Time:
    """A step's number in the loop's order and in memory, the direction, the thread's first sequence, and the arrays in bfloat16."""

    code: Assembly
    s: str
    t: str
    step: str
    low: str
    halved: frozenset[Array]

    def block(self, array: Array, words: list[str]) -> Block:
        """Where an array is at this step."""
        code = self.code
        if array[0] in ("v", "m"):
            return Block(words[0], "0")
        stride, dtype = words[2], "bfloat" if array in self.halved else ""
        if array[0] in ("c", "C"):  # two buffers in turn: step s reads number (s + 1) % 2 and writes number s % 2
            number = code.let(f"and i64 {code.add(self.s, 1) if array[0] == 'c' else self.s}, 1")
            even = code.let(f"icmp eq i64 {number}, 0")
            base = code.choose(even, words[0], words[3], "ptr")
        elif array[0] in ("s", "H"):  # the state before: the initial one at first, then what the step before left
            first = code.let(f"icmp eq i64 {self.s}, 0")
            before = code.at(words[0], code.mul(code.sub(self.t, self.step), words[1]), dtype)
            base = code.choose(first, words[3], before, "ptr")
            stride = code.choose(first, words[4], words[2])
        else:
            base = code.at(words[0], code.mul(self.t, words[1]), dtype)
        return Block(code.at(base, code.mul(self.low, stride), dtype), stride, dtype)
