"""Processors that can be compiled for: what LLVM calls them, and what they have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from throughtime.errors import UserError, unknown
from throughtime.scanning.cpu.target import Target, compile_object, host, machine


@dataclass(frozen=True)
class ExportTarget(Target):
    """A processor, and how its objects are made.

    rows, vectors: of sums that registers hold. whole: its natural whole number. relocation: "pic" where objects go into
    executables that may lie anywhere, "static" on bare metal. abi: where the triple does not say it. rounds: whether it has
    instructions that round to whole numbers. note: for whoever links, of how numbers are passed.
    """

    whole: str = "i64"
    relocation: str = "pic"
    abi: str = ""
    rounds: bool = True
    note: str = ""

    def compiled(self, text: str) -> bytes:
        """LLVM assembly as an object file that needs nothing but what its text declares."""
        return compile_object(text, self, self._machine())

    def _machine(self) -> Any:
        return machine(self, "default", self.relocation, self.abi)


def _x86(cpu: str, bits: int, vectors: int) -> ExportTarget:
    features = "-prefer-256-bit" if bits == 512 else ""
    return ExportTarget("x86_64-unknown-linux-gnu", cpu, features, bits, 1, vectors, note="System V ABI")


def _cortex(triple: str, cpu: str, rounds: bool) -> ExportTarget:
    return ExportTarget(
        f"{triple}-none-eabihf", cpu, "", 32, 1, 16, "i32", "static", rounds=rounds,
        note=f"AAPCS, hard float: -mcpu={cpu} -mfloat-abi=hard",
    )  # fmt: skip


def _riscv(bits: int, system: str, features: str, abi: str, relocation: str) -> ExportTarget:
    return ExportTarget(
        f"riscv{bits}-unknown-{system}", f"generic-rv{bits}", features, 32, 1, 16, f"i{bits}", relocation, abi,
        note=f"{abi}: numbers in floating-point registers",
    )  # fmt: skip


TARGETS = {
    "x86-64-v2": _x86("x86-64-v2", 128, 12),
    "x86-64-v3": _x86("x86-64-v3", 256, 12),
    "x86-64-v4": _x86("x86-64-v4", 512, 16),
    "aarch64": ExportTarget("aarch64-unknown-linux-gnu", "generic", "+neon", 128, 1, 16, note="AAPCS64"),
    "armv7": ExportTarget(
        "armv7-unknown-linux-gnueabihf", "generic", "+neon", 128, 1, 8, "i32", rounds=False, note="AAPCS, hard float, NEON"
    ),
    "cortex-m4": _cortex("thumbv7em", "cortex-m4", rounds=False),
    "cortex-m7": _cortex("thumbv7em", "cortex-m7", rounds=True),
    "cortex-m33": _cortex("thumbv8m.main", "cortex-m33", rounds=True),
    "riscv64": _riscv(64, "linux-gnu", "+m,+a,+f,+d,+c", "lp64d", "pic"),
    "riscv32": _riscv(32, "none-elf", "+m,+a,+f,+c", "ilp32f", "static"),
}  # fmt: skip
NATIVE = "native"


def target_of(name: str | None) -> ExportTarget:
    """The processor of a name; None or "native": this one. Raises: UserError with the nearest name."""
    if name in (None, NATIVE):
        here = host()
        wide = {512: 16, 256: 12, 128: 12}[here.bits]
        return ExportTarget(
            here.triple, here.cpu, here.features, here.bits, 1, wide, note="of the machine that made it"
        )
    if name not in TARGETS:
        raise UserError(unknown("target", name, [*TARGETS, NATIVE]))
    return TARGETS[name]
