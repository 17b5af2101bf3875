"""What is compiled for: a processor, its vectors and registers. And the compiler, with its cache on disk."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from throughtime.scanning import locks


@dataclass(frozen=True)
class Target:
    """A processor. bits: of a vector. registers: how many vectors it holds; rows × vectors of sums must fit beside operands."""

    triple: str
    cpu: str
    features: str
    bits: int
    rows: int  # of a tile of the product
    vectors: int  # of a tile of the product

    def lanes(self, dtype: str) -> int:
        """Numbers in a vector of `float` or `double`."""
        return self.bits // (32 if dtype == "float" else 64)

    @property
    def key(self) -> str:
        return f"{self.triple} {self.cpu} {self.features} {self.bits} {self.rows} {self.vectors}"


AVX512 = {"bits": 512, "rows": 6, "vectors": 4}
AVX2 = {"bits": 256, "rows": 6, "vectors": 2}
NEON = {"bits": 128, "rows": 6, "vectors": 4}
PLAIN = {"bits": 128, "rows": 3, "vectors": 2}  # SSE2, and whatever else LLVM knows


@functools.cache
def _llvm() -> Any:
    """llvmlite's binding, which takes some time to load: when it is first needed."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


ARM = ("aarch64", "arm64")
QUICK_DOTS = ("znver4", "znver5")  # of x86: whose dot product of bfloat16 numbers does twice what float32's does


def has_bfloat16(target: Target) -> bool:
    """Whether a processor has a dot product of bfloat16 numbers that `pairs` writes: that of AVX-512, or that of ARM."""
    features = target.features.split(",")
    if target.triple.startswith(ARM):
        return "+bf16" in features
    return target.bits == 512 and "+avx512bf16" in features


def has_int8(target: Target) -> bool:
    """Whether a processor has the dot product of four bytes (VNNI) that `quads` writes."""
    features = target.features.split(",")
    return {512: "+avx512vnni", 256: "+avxvnni"}.get(target.bits) in features


@functools.cache
def why_not_bfloat16() -> str | None:
    """Why products in bfloat16 are left to float32 on this machine, in words; None where they are not.

    THROUGHTIME_BFLOAT16=1 asks for them wherever the processor can, 0 nowhere. Intel's dot product (VDPBF16PS) does half of what
    its float32 does: what is quick there are tiles (AMX). ARM's (BFDOT) starts as often as its float32 product and does twice as
    much (Arm Neoverse V1 and N2 software optimization guides).
    """
    target, asked = host(), os.environ.get("THROUGHTIME_BFLOAT16", "")
    if asked not in ("", "0", "1"):
        raise ValueError(f"THROUGHTIME_BFLOAT16={asked!r}: it is 0 or 1, or not set")
    if asked == "0":
        return "THROUGHTIME_BFLOAT16=0 says so"
    if not has_bfloat16(target):
        return "this processor has no dot product of bfloat16 numbers, or was not asked for it"
    if asked != "1" and target.cpu not in QUICK_DOTS and not target.triple.startswith(ARM):
        return f"the dot product of bfloat16 numbers of this processor ({target.cpu}) is slower than float32's"
    return None


@functools.cache
def host() -> Target:
    """This machine. THROUGHTIME_VECTOR (avx512, avx2, plain) asks for a narrower kind."""
    with locks.COMPILER:
        llvm = _llvm()
    features = llvm.get_host_cpu_features()
    triple = llvm.get_process_triple()
    names = {"avx512": AVX512, "avx2": AVX2, "neon": NEON, "plain": PLAIN}
    if triple.startswith(ARM):
        best = "neon"
    elif features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        best = "avx512"
    elif features.get("avx2") and features.get("fma"):
        best = "avx2"
    else:
        best = "plain"
    kind = os.environ.get("THROUGHTIME_VECTOR", best)
    if kind not in names:
        raise ValueError(f"THROUGHTIME_VECTOR={kind!r}: it is one of {', '.join(names)}, or not set")
    flat = ",".join(sorted(f for f in features.flatten().split(",") if f))
    if kind == "avx512":
        flat += ",-prefer-256-bit"
    elif kind == "avx2" and best == "avx512":
        flat = ",".join(f for f in flat.split(",") if "avx512" not in f and "avx10" not in f) + ",-avx512f"
    return Target(triple, llvm.get_host_cpu_name(), flat, **names[kind])


def cache_folder() -> Path | None:
    """Where compiled code is kept: THROUGHTIME_CACHE, else the user's cache folder. An empty THROUGHTIME_CACHE keeps none."""
    named = os.environ.get("THROUGHTIME_CACHE")
    if named is not None:
        return Path(named) if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    if sys.platform == "darwin" and not base:
        return Path.home() / "Library" / "Caches" / "throughtime"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "throughtime" / "cache"
    return Path(base or Path.home() / ".cache") / "throughtime"


def machine(target: Target, model: str = "jitdefault", relocation: str = "pic", abi: str = "") -> Any:
    """LLVM's code generator for a target. model, relocation: of the code; abi: where the triple does not say it."""
    with locks.COMPILER:
        llvm = _llvm()
        if target.triple != llvm.get_process_triple():
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
        return llvm.Target.from_triple(target.triple).create_target_machine(
            cpu=target.cpu, features=target.features, opt=3, reloc=relocation, codemodel=model, abiname=abi
        )


def compile_object(text: str, target: Target, generator: Any = None) -> bytes:
    """LLVM assembly as an object file. generator: what `machine` has made; None: for code that is loaded here."""
    generator = generator or machine(target)
    with locks.COMPILER:
        llvm = _llvm()
        module = llvm.parse_assembly(text)
        module.triple = target.triple
        module.data_layout = str(generator.target_data)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_unrolling = False
        options.loop_vectorization = False
        options.slp_vectorization = False
        builder = llvm.create_pass_builder(generator, options)
        builder.getModulePassManager().run(module, builder)
        return bytes(generator.emit_object(module))


@functools.cache
def _linker() -> Any:
    """What puts compiled code into this process: all parts of an object side by side. LLVM's older MCJIT puts each where there is
    room, and ends the process where this is farther away than code reaches, which is 2 GB. Asked for under `locks.COMPILER`."""
    linker = _llvm().create_lljit_compiler(use_jit_link=True)
    linker._owned = True  # it lives as long as the process: what it has loaded may be let go of last
    return linker


_numbers = itertools.count()


class Library:
    """Compiled functions, alive in this process."""

    def __init__(self, code: bytes) -> None:
        with locks.COMPILER:
            self._name = f"library {next(_numbers)}"
            builder = _llvm().JITLibraryBuilder().add_object_img(code).add_current_process()
            self._held = [builder.link(_linker(), self._name)]  # unloaded when these are let go of
        self._addresses: dict[str, int] = {}
        self._functions: dict[str, Callable[[int], None]] = {}

    def address(self, name: str) -> int:
        """Raises: RuntimeError for a function that it has not."""
        found = self._addresses.get(name)
        if found is None:
            with locks.COMPILER:
                held = _linker().lookup(self._name, name)
            self._held.append(held)
            found = self._addresses[name] = int(held[name])
        return found

    def function(self, name: str) -> Callable[[int], None]:
        """A function of one pointer. While it runs, other Python threads run too."""
        found = self._functions.get(name)
        if found is None:
            found = self._functions[name] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.address(name))
        return found

    def quick(self, name: str) -> Callable[[int], None]:
        """The same without letting other threads run: for what takes microseconds."""
        made: Callable[[int], None] = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(self.address(name))
        return made


_MOST = 512  # libraries held for programs to come; those that a program has live as long as it
_libraries: OrderedDict[str, Library] = OrderedDict()
compiled = 0  # programs compiled in this process, not found in a cache; for tests


def library(key: str, text: Callable[[], str]) -> Library:
    """The functions of a program: from this process, the cache on disk, or the compiler.

    key: all that the code depends on beside the processor. text: makes its LLVM assembly.
    """
    global compiled
    target = host()
    name = hashlib.sha256("\n".join([_sources(), version("llvmlite"), target.key, key]).encode()).hexdigest()[:40]
    with locks.LIBRARIES:
        found = _libraries.get(name)
        if found is None:
            code = _read(name)
            if code is None:
                code = compile_object(text(), target)
                compiled += 1
                _write(name, code)
            found = _libraries[name] = Library(code)
            if len(_libraries) > _MOST:
                _libraries.popitem(last=False)
        else:
            _libraries.move_to_end(name)
        return found


@functools.cache
def _sources() -> str:
    """A sum over what writes the code and calls it: what another version of it has compiled is not taken for its own."""
    import throughtime

    made = hashlib.sha256(throughtime.__version__.encode())
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        made.update(path.read_bytes())
    return made.hexdigest()


def _read(name: str) -> bytes | None:
    """Code from the cache; None where there is none, or where it is damaged."""
    folder = cache_folder()
    if folder is None:
        return None
    try:
        data = (folder / f"{name}.o").read_bytes()
    except OSError:
        return None
    digest, code = data[:32], data[32:]
    return code if _digest(name, code) == digest else None


def _digest(name: str, code: bytes) -> bytes:
    """Of the name too: a file that was renamed holds another program's code."""
    return hashlib.sha256(name.encode() + code).digest()


def _write(name: str, code: bytes) -> None:
    """Keep code: written whole beside its place, then moved there, so that no reader sees a part."""
    folder = cache_folder()
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, path = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_digest(name, code) + code)
            os.replace(path, folder / f"{name}.o")
        except BaseException:
            os.unlink(path)
            raise
    except OSError:
        pass  # a cache that cannot be written to is only slower
