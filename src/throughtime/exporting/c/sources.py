"""An export as C99, compiled and run where there is a compiler."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

from throughtime.exporting.agreement import check
from throughtime.exporting.c.checking import Export
from throughtime.exporting.c.files import sources
from throughtime.exporting.c.readme import Made
from throughtime.exporting.compilers import compiler, program, zig
from throughtime.exporting.evaluated import evaluated
from throughtime.exporting.running import AsProgram, RunningBlocks


def write_source(export: Export, folder: Path) -> Made:
    """NAME.h, NAME.c and NAME_weights.h."""
    name, stack = export.name, export.stack
    files, sizes, libm = sources(name, stack, export.note, export.reading, int8=export.int8)
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    command = compiler()
    if command:
        with tempfile.TemporaryDirectory(prefix="throughtime-") as made:

            def running(read: bool) -> RunningBlocks:
                options = ["-std=c99", "-O2", "-DHOSTED", "-lm"]
                made_of = program(command, name, Path(made), folder, [folder / f"{name}.c"], options, read=read)
                return AsProgram([str(made_of)], sizes.state, sizes.outputs)

            worst = export.check(running, f"{name}.c")
        how = f"compiled by {Path(command[0]).name if command != zig() else 'zig cc'} and run on this machine"
    else:
        worst = check(stack, evaluated(stack).run, f"{name}.c")
        how = "not compiled, since there is no C compiler here; the same program was run by PyTorch"
        warnings.warn(f"{name}.c: {how}", stacklevel=2)
    size = sum(len(text) for text in files.values())
    before = 0
    if export.int8:
        before = sum(len(text) for text in sources(name, stack, "", export.reading, int8=False)[0].values())
    return Made("C99", sizes, worst, how, tuple(libm), size, before, True)
