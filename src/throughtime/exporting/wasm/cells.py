"""A stack of cells as a folder: NAME.wasm, and NAME.js, which runs it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import check
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.folder import check_free, new_folder
from throughtime.exporting.interface import interface_of
from throughtime.exporting.names import name_of
from throughtime.exporting.numbers_llvm import ATTRIBUTES
from throughtime.exporting.reading import Reading
from throughtime.exporting.readme import write_mark, write_readme
from throughtime.exporting.running import check_reading
from throughtime.exporting.stack import Stack
from throughtime.exporting.steps_llvm import StepModule, step_module
from throughtime.exporting.text import text_stack
from throughtime.exporting.vectors import write_vectors
from throughtime.exporting.wasm.linking import STACK, WASM, check_linker, link
from throughtime.exporting.wasm.node import OLDEST, InNode, beside, find_node, running
from throughtime.exporting.wasm.readme import sections
from throughtime.exporting.wasm.script import Vocabulary, es_module, types
from throughtime.exporting.wasm.training import Training
from throughtime.tasks.base import Trained
from throughtime.tasks.text import TextModel


def write(
    stack: Stack,
    path: Path,
    *,
    overwrite: bool = False,
    name: str | None = None,
    int8: bool = False,
    train: bool = False,
) -> Path:
    """Write a stack that can step as a folder: NAME.wasm, NAME.js, NAME.d.ts, test vectors and a README.

    name: None: that of the stack in small letters. int8: matrices in eight bits. train: also what moves its weights where it goes.
    Raises: UserError where an operation cannot be exported, where there is no linker, where what was written does not agree with
        the reference, or where something is in the way. Where there is no Node it is not run here, and a warning says so.
    """
    return _write(stack, path, None, overwrite=overwrite, name=name, int8=int8, train=train)


def write_trained(
    trained: Trained[Any], path: Path, *, overwrite: bool = False, name: str | None = None, int8: bool = False
) -> Path:
    """Write a trained text model, which reads tokens and writes texts. As `write` otherwise."""
    if not isinstance(trained, TextModel):
        raise UserError(f"a trained model of {trained.task.name} is exported to onnx; to wasm, a text model or a cell")
    stack, reading, log_p = text_stack(trained)
    ends = {"line": "\n", "paragraph": "\n\n"}.get(trained.config.data.documents, "")
    text = Text(reading, log_p, Vocabulary(trained.tokens, ends))
    return _write(stack, path, text, overwrite=overwrite, name=name, int8=int8, train=False)


@dataclass(frozen=True)
class Text:
    """What a text model has beside its steps: how tokens become inputs, its own log p of tokens [T, B], and its vocabulary."""

    reading: Reading
    log_p: Callable[[Tensor], Tensor]
    vocabulary: Vocabulary


def _write(
    stack: Stack, path: Path, text: Text | None, *, overwrite: bool, name: str | None, int8: bool, train: bool
) -> Path:
    check_free(path, overwrite=overwrite)
    check_linker()
    if train and int8:
        raise UserError("train moves weights a little at a time, which eight bits do not hold: leave out int8 or train")
    name, node, names = name_of(stack, name), find_node(), interface_of(stack)
    made = step_module(stack, name, WASM, int8=int8, reading=text.reading if text else None)
    functions = ("init", "step", "steps", *(["read"] if text else []))
    code = link(
        WASM.compiled(f"{made.text}\n{many(name, made)}\n"), [f"{name}_{f}" for f in functions], STACK + made.stack
    )
    reference = evaluated(stack, int8=True, rounded=True) if int8 else stack
    training = Training(stack, name, names) if train else None
    with new_folder(path, overwrite=overwrite) as folder:
        files = {
            f"{name}.js": es_module(name, stack, names, made.libm, text.vocabulary if text else None),
            f"{name}.d.ts": types(reads=text is not None),
            "package.json": _package(name),
        }
        (folder / f"{name}.wasm").write_bytes(code)
        for file, content in files.items():
            (folder / file).write_text(content, encoding="utf-8")
        if training:
            training.write(folder)
        worst = None
        if node is None:
            warnings.warn(f"{name}.wasm: there is no Node {OLDEST} here: it was linked, but not run", stacklevel=3)
        else:
            with running(node, "check.mjs", folder / f"{name}.js", f"{name}.wasm") as pipe:
                worst = _check(InNode(pipe, stack, names.output.shape), reference, text, f"{name}.wasm", int8=int8)
            if training:
                training.check(node, folder)
        write_vectors(folder, reference)
        write_mark(folder, stack, "wasm", name=name, int8=int8, run=node is not None)
        about = sections(
            name, stack, names, worst=worst, eight=reference if int8 else None, text=text is not None, train=train
        )
        write_readme(folder, f"{stack.name} as WebAssembly", about)
    return path


def _check(network: InNode, right: Stack, text: Text | None, what: str, *, int8: bool) -> float:
    """Set a network beside the reference. Returns: the largest difference. Raises: UserError where it is too large."""
    if not torch.equal(network.first(), beside(right.states, 1)[0]):
        raise UserError(f"{what}: it does not start from the state of {right.name}: nothing was written")
    worst = check(right, network.run, what)
    if text is None:
        return worst
    return max(worst, check_reading(network, right, text.reading, what, int8=int8, log_p=text.log_p))


def _package(name: str) -> str:
    """package.json, without which Node takes NAME.js for a script of the older kind."""
    exports = {".": {"types": f"./{name}.d.ts", "default": f"./{name}.js"}, "./*": "./*"}
    values = {"name": name, "version": "1.0.0", "private": True, "type": "module", "exports": exports}
    return json.dumps(values, indent=2) + "\n"


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
