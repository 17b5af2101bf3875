"""A stack of cells as a folder: NAME.wasm, and NAME.js, which runs it."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from throughtime.errors import UserError
from throughtime.exporting.agreement import check
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.folder import check_free, new_folder
from throughtime.exporting.interface import interface_of
from throughtime.exporting.readme import write_mark, write_readme
from throughtime.exporting.stack import Stack
from throughtime.exporting.steps_llvm import ATTRIBUTES, StepModule, step_module
from throughtime.exporting.targets import ExportTarget
from throughtime.exporting.vectors import write_vectors
from throughtime.exporting.wasm.linking import check_linker, link
from throughtime.exporting.wasm.node import OLDEST, find_node, running
from throughtime.exporting.wasm.script import TYPES, es_module, sections

WASM = ExportTarget("wasm32-unknown-unknown", "generic", "+simd128,+bulk-memory", 128, 1, 8, "i32", "static")
STACK = 16384  # bytes, beside the arrays of a step


def write(stack: Stack, path: Path, *, overwrite: bool = False, name: str | None = None, int8: bool = False) -> Path:
    """Write a stack that can step as a folder: NAME.wasm, NAME.js, NAME.d.ts, test vectors and a README.

    name: None: that of the stack in small letters. int8: matrices in eight bits.
    Raises: UserError where an operation cannot be exported, where there is no linker, where what was written does not agree with
        the reference, or where something is in the way. Where there is no Node it is not run here, and a warning says so.
    """
    check_free(path, overwrite=overwrite)
    check_linker()
    name = _checked(stack, name)
    made = step_module(stack, name, WASM, int8=int8)
    exports = [f"{name}_{what}" for what in ("init", "step", "steps")]
    code = link(WASM.compiled(f"{made.text}\n{many(name, made)}\n"), exports, STACK + made.stack)
    names, node = interface_of(stack), find_node()
    reference = evaluated(stack, int8=True) if int8 else stack
    with new_folder(path, overwrite=overwrite) as folder:
        (folder / f"{name}.wasm").write_bytes(code)
        script = folder / f"{name}.js"
        script.write_text(es_module(name, stack, names, made.libm), encoding="utf-8")
        (folder / f"{name}.d.ts").write_text(TYPES.read_text(encoding="utf-8"), encoding="utf-8")
        package = {"name": name, "version": "1.0.0", "private": True, "type": "module", "exports": f"./{name}.js"}
        (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
        if node is None:
            warnings.warn(f"{name}.wasm: there is no Node {OLDEST} here: it was linked, but not run", stacklevel=2)
        else:
            with running(node, script, stack, names.output.shape) as run:
                check(reference, run, f"{name}.wasm")
        write_vectors(folder, reference)
        write_mark(folder, stack, "wasm", name=name, int8=int8, run=node is not None)
        write_readme(folder, f"{stack.name} as WebAssembly", sections(name, names, ran=node is not None, int8=int8))
    return path


def _checked(stack: Stack, name: str | None) -> str:
    """What files and functions are called. Raises: UserError where that is no name."""
    if name is None:
        return re.sub(r"\W+", "_", stack.name.lower(), flags=re.ASCII).strip("_") or "network"
    if not re.fullmatch(r"[A-Za-z_]\w*", name, flags=re.ASCII):
        raise UserError(f"name {name!r}: functions are called so; use letters, digits and _")
    return name


def many(name: str, made: StepModule) -> str:
    """NAME_steps(count, state, x, y): a step of each of some streams, whose rows lie one after the other."""
    rows = [("state", made.state), ("x", made.inputs), ("y", made.outputs)]
    return "\n".join([
        f"define void @{name}_steps(i32 %count, ptr %state, ptr %x, ptr %y) {ATTRIBUTES} {{",
        "entry:",
        "  br label %each",
        "each:",
        "  %i = phi i32 [ 0, %entry ], [ %next, %each ]",
        *(f"  %{what}_at = mul i32 %i, {4 * width}" for what, width in rows),
        *(f"  %{what}_i = getelementptr i8, ptr %{what}, i32 %{what}_at" for what, _ in rows),
        f"  call void @{name}_step(ptr %state_i, ptr %x_i, ptr %y_i)",
        "  %next = add i32 %i, 1",
        "  %more = icmp slt i32 %next, %count",
        "  br i1 %more, label %each, label %done",
        "done:",
        "  ret void",
        "}",
    ])  # fmt: skip
