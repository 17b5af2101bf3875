"""An object as a WebAssembly module, by wasm-ld, which the extra `wasm` (ziglang) brings along."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from throughtime.errors import UserError
from throughtime.exporting.targets import ExportTarget

WASM = ExportTarget(
    "wasm32-unknown-unknown", "generic", "+simd128,+bulk-memory", 128, 1, 8, "i32", "static", dots="pairs"
)
STACK = 16384  # bytes, beside the arrays of a step

# what WebAssembly has no instruction for, by its name in C: in JavaScript, and rounded to float32 where it comes back
LIBM = {
    **{f"{name}f": f"Math.{name}" for name in ("sin", "cos", "tan")},
    "powf": "(a, b) => (a === 1 || (a === -1 && Math.abs(b) === Infinity) ? 1 : a ** b)",  # where JavaScript says NaN
}


def check_linker() -> None:
    """Raises: UserError, naming the extra, where there is no linker."""
    try:
        import ziglang  # noqa: F401
    except ImportError as error:
        raise UserError("wasm needs a linker (ziglang): pip install 'throughtime[wasm]'") from error


def link(code: bytes, exports: Sequence[str], stack_bytes: int) -> bytes:
    """A module of an object file, with its memory, which may grow.

    exports: the functions it shows. stack_bytes: for what they hold while they run; it lies first, so that what needs more
    traps, and writes over nothing.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "net.o").write_bytes(code)
        (folder / "libm").write_text("\n".join(LIBM))
        command = [
            sys.executable, "-m", "ziglang", "wasm-ld", "net.o", "-o", "net.wasm", "--no-entry", "--strip-all", "--stack-first",
            "-z", f"stack-size={stack_bytes}", "--allow-undefined-file=libm",
            *(f"--export={name}" for name in (*exports, "__heap_base")),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"wasm-ld: {done.stderr.strip()}")
        return (folder / "net.wasm").read_bytes()
