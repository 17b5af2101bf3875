"""C compilers: the system's, or that of `ziglang`, which also links for other machines."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from throughtime.errors import UserError
from throughtime.exporting.running import PROGRAM


def zig() -> list[str]:
    """The command of `zig cc`; nothing where it is not installed."""
    return [sys.executable, "-m", "ziglang", "cc"] if importlib.util.find_spec("ziglang") is not None else []


def compiler() -> list[str]:
    """The command of a C compiler for this machine: CC, cc, gcc, clang or zig cc; nothing where there is none."""
    named = shlex.split(os.environ.get("CC", ""))
    return next(([*c] for c in (named, ["cc"], ["gcc"], ["clang"]) if c and shutil.which(c[0])), zig())


def build(command: Sequence[str], files: Sequence[Path], made: Path, options: Sequence[str] = ()) -> Path:
    """Compile and link files into a program. Raises: UserError with what the compiler says first."""
    called = [*command, *map(str, files), "-o", str(made), *options]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip())
        raise UserError(f"{Path(command[0]).name} does not compile what was written: {said}: nothing was written")
    return made


def program(
    command: Sequence[str],
    name: str,
    made: Path,
    folder: Path,
    files: Sequence[Path],
    options: Sequence[str],
    *,
    read: bool,
) -> Path:
    """The program that runs an export."""
    main, big = made / "main.c", name.upper()
    main.write_text(PROGRAM, encoding="utf-8")
    defined = {"HEADER": f'"{name}.h"', "NAME": name, "STATE": f"{big}_STATE", "INPUTS": f"{big}_INPUTS",
               "OUTPUTS": f"{big}_OUTPUTS"}  # fmt: skip
    flags = [f"-I{folder}", *(f"-D{key}={value}" for key, value in defined.items()), *(["-DTOKENS"] if read else [])]
    return build([*command, *flags], [main, *files], made / f"{name}-{read}", options)
