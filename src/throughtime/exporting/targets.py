"""Processors that can be compiled for: what LLVM calls them, and what they have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from throughtime.errors import UserError, unknown
from throughtime.scanning.cpu.target import Target, compile_object, host, machine

TOGETHER = 4  # steps of a block, where there are vectors; those of SSE gain nothing


@dataclass(frozen=True)
class ExportTarget(Target):
    """A processor, and how its objects are made.

    rows, vectors: of sums that registers hold. whole: its natural whole number. relocation: "pic" where objects go into
    executables that may lie anywhere, "static" on bare metal. abi: where the triple does not say it. rounds: whether it has
    instructions that round to whole numbers. note: for whoever links, of how numbers are passed. needs: features that a
    processor of its kind must have to run it. linked: what `zig cc` is told to link a Linux program. emulator: what runs it.
    library: whether it has a C library to link, for what needs one. turns: whether weights that its first cache does not hold are
    read from either end in turn: what was read last is still in it. steps: of a block that are taken together, so that they share
    weights; 1: a block is its steps one after the other.
    """

    whole: str = "i64"
    relocation: str = "pic"
    abi: str = ""
    rounds: bool = True
    note: str = ""
    needs: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    emulator: str = ""
    library: bool = True
    turns: bool = False
    dots: str = ""
    steps: int = 1

    def compiled(self, text: str) -> bytes:
        """LLVM assembly as an object file that needs nothing but what its text declares."""
        return compile_object(text, self, machine(self, "default", self.relocation, self.abi))

    @property
    def runs_here(self) -> bool:
        """Whether its objects run in this process."""
        here = host()
        features = set(here.features.split(","))
        return self.triple == here.triple and all(f"+{need}" in features for need in self.needs)

    @property
    def here(self) -> ExportTarget:
        """One that has the same text, and runs here; or as near to it as this machine comes."""
        mine = host()
        if self.bits > mine.bits:
            return target_of(None)
        dots = self.dots if mine.triple.startswith("x86") else ""
        return replace(
            self, triple=mine.triple, cpu=mine.cpu, features=mine.features, relocation="pic", abi="", dots=dots
        )


def _x86(cpu: str, bits: int, vectors: int, *needs: str) -> ExportTarget:
    features = "-prefer-256-bit" if bits == 512 else ""
    return ExportTarget(
        "x86_64-unknown-linux-gnu", cpu, features, bits, 1, vectors, note="System V ABI", needs=needs, turns=True,
        dots="pairs", steps=TOGETHER if bits > 128 else 1,
    )  # fmt: skip


def _arm(triple: str, cpu: str, features: str, bits: int, vectors: int, *, rounds: bool) -> ExportTarget:
    bare = "none" in triple
    how = f"-mcpu={cpu} -mfloat-abi=hard" if bare else "NEON"
    return ExportTarget(
        triple, cpu, features, bits, 1, vectors, "i32", "static" if bare else "pic", rounds=rounds,
        note=f"AAPCS, hard float: {how}", linked=("-target", "arm-linux-musleabihf"), emulator="qemu-arm",
        steps=1 if bare else TOGETHER,
    )  # fmt: skip


def _riscv(bits: int, system: str, features: str, abi: str, relocation: str) -> ExportTarget:
    return ExportTarget(
        f"riscv{bits}-unknown-{system}", f"generic-rv{bits}", features, 32, 1, 16, f"i{bits}", relocation, abi,
        note=f"{abi}: numbers are passed in floating-point registers",
        linked=("-target", f"riscv{bits}-linux-musl", f"-mabi={abi}"), emulator=f"qemu-riscv{bits}", library=bits == 64,
    )  # fmt: skip


TARGETS = {
    "x86-64-v2": _x86("x86-64-v2", 128, 12, "sse4.2"),
    "x86-64-v3": _x86("x86-64-v3", 256, 12, "avx2", "fma", "bmi2"),
    "x86-64-v4": _x86("x86-64-v4", 512, 16, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"),
    "aarch64": ExportTarget(
        "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 1, 16, note="AAPCS64", linked=("-target", "aarch64-linux-musl"),
        emulator="qemu-aarch64", steps=TOGETHER,
    ),
    "armv7": _arm("armv7-unknown-linux-gnueabihf", "generic", "+neon", 128, 8, rounds=False),
    "cortex-m4": _arm("thumbv7em-unknown-none-eabihf", "cortex-m4", "", 32, 16, rounds=False),
    # LLVM 22 overlaps the steps of a loop here and forgets a value on the way out
    "cortex-m7": _arm("thumbv7em-unknown-none-eabihf", "cortex-m7", "-use-mipipeliner", 32, 16, rounds=True),
    "cortex-m33": _arm("thumbv8m.main-unknown-none-eabihf", "cortex-m33", "", 32, 16, rounds=True),
    "riscv64": _riscv(64, "linux-gnu", "+m,+a,+f,+d,+c", "lp64d", "pic"),
    "riscv32": _riscv(32, "none-elf", "+m,+a,+f,+c", "ilp32f", "static"),
}  # fmt: skip
NATIVE = "native"


def target_of(name: str | None) -> ExportTarget:
    """The processor of a name; None or "native": this one. Raises: UserError with the nearest name."""
    if name in (None, NATIVE):
        here = host()
        wide = 16 if here.bits == 512 else 12
        rounds = not here.triple.startswith("x86") or "+sse4.1" in here.features.split(",")
        return ExportTarget(
            here.triple, here.cpu, here.features, here.bits, 1, wide, rounds=rounds, note=f"for {here.cpu}, which made it",
            turns=here.triple.startswith("x86"), dots=_dots(here),
            steps=1 if here.triple.startswith("x86") and here.bits == 128 else TOGETHER,
        )  # fmt: skip
    if name not in TARGETS:
        raise UserError(unknown("target", name, [*TARGETS, NATIVE]))
    return TARGETS[name]


def _dots(here: Target) -> str:
    """How a machine sums products of whole numbers."""
    has = set(here.features.split(","))
    if not here.triple.startswith("x86") or (here.bits == 512 and "+avx512bw" not in has):
        return ""
    vnni = {"+avx512vnni", "+avx512vl"} <= has or (here.bits == 256 and "+avxvnni" in has)
    return "bytes" if vnni and here.bits > 128 else "pairs"
