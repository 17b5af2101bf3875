"""An export as an object, run here and, of another processor, in an emulator where there is one."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

from throughtime.exporting.c.checking import Export
from throughtime.exporting.c.files import Sizes, header
from throughtime.exporting.c.readme import Made
from throughtime.exporting.compilers import program, zig
from throughtime.exporting.dots_llvm import summed
from throughtime.exporting.running import AsProgram, InProcess, OtherBits, RunningBlocks
from throughtime.exporting.steps_llvm import StepModule, step_module
from throughtime.exporting.targets import ExportTarget
from throughtime.scanning.cpu.target import compile_object


def write_object(export: Export, folder: Path, target: ExportTarget, named: str | None) -> Made:
    """NAME.h and NAME.o."""
    try:
        return _written(export, folder, target, named)
    except OtherBits:  # the compiler fuses other products with sums where some of them are given
        return _written(export, folder, replace(target, steps=1), named)


def _written(export: Export, folder: Path, target: ExportTarget, named: str | None) -> Made:
    name, stack = export.name, export.stack
    module = step_module(stack, name, target, int8=export.int8, reading=export.reading)
    sizes = Sizes(module.inputs, module.outputs, module.state, module.stack, module.block, module.own)
    code = target.compiled(module.text)
    note = f"{named or 'native'}: {target.note}. {export.note}".strip()
    (folder / f"{name}.o").write_bytes(code)
    (folder / f"{name}.h").write_text(header(name, stack, sizes, note, export.reading, module.libm), encoding="utf-8")
    loaded = code if target.runs_here else compile_object(step_module(
        stack, name, target.here, int8=export.int8, reading=export.reading).text, target.here)  # fmt: skip
    worst = export.check(
        lambda read: InProcess(loaded, name, sizes.state, sizes.outputs, own=sizes.own, read=read), f"{name}.o"
    )
    how = "run on this machine"
    if not target.runs_here:
        how = _emulated(export, folder, target, module, sizes)
    before = len(target.compiled(step_module(stack, name, target, reading=export.reading).text)) if export.int8 else 0
    return Made(named or f"this machine ({target.cpu})", sizes, worst, how, module.libm, len(code), before, False,
                summed(target))  # fmt: skip


def _emulated(export: Export, folder: Path, target: ExportTarget, module: StepModule, sizes: Sizes) -> str:
    """Run an object for another machine in an emulator. Returns: how it was checked."""
    missing = [] if target.emulator and shutil.which(target.emulator) else [target.emulator or "an emulator"]
    missing += [] if zig() else ["a linker (pip install 'throughtime[wasm]')"]
    missing += ["a C library of it"] if module.libm and not target.library else []
    if missing:
        said = (
            f"compiled for {target.cpu or target.triple}, not run there, for which {' and '.join(missing)} would be needed; "
            "the same text, compiled for this machine, was run here"
        )
        warnings.warn(f"{export.name}.o: {said}", stacklevel=2)
        return said
    options = [
        *target.linked,
        "-O1",
        "-static",
        *(["-DHOSTED", "-lm"] if module.libm else ["-nostdlib", "-ffreestanding"]),
    ]
    with tempfile.TemporaryDirectory(prefix="throughtime-") as made:

        def running(read: bool) -> RunningBlocks:
            files = [folder / f"{export.name}.o"]
            made_of = program(zig(), export.name, Path(made), folder, files, options, read=read)
            return AsProgram([target.emulator, str(made_of)], sizes.state, sizes.outputs)

        export.check(running, f"{export.name}.o under {target.emulator}")
    return f"run under {target.emulator}, and the same text on this machine"
