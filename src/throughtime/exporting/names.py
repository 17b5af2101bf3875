"""What the functions and files of an export are called."""

from __future__ import annotations

import re

from throughtime.errors import UserError
from throughtime.exporting.stack import Stack

KEYWORDS = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed",
    "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while",
}  # fmt: skip
# of C's library: a file of such a name would be read in the place of the compiler's own
HEADERS = {
    "assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits", "locale", "math", "setjmp",
    "signal", "stdarg", "stdbool", "stddef", "stdint", "stdio", "stdlib", "string", "tgmath", "time", "wchar", "wctype",
}  # fmt: skip


def name_of(stack: Stack, name: str | None) -> str:
    """What functions and files are called: what was asked for, or the stack in small letters.

    Raises: UserError where what was asked for is no name in C, or that of a header of its library.
    """
    if name is None:
        made = re.sub(r"\W+", "_", stack.name.lower(), flags=re.ASCII).strip("_")
        return made if _is_name(made) else f"net_{made}"
    if not _is_name(name):
        header = ", but for those of C's own headers" if name.lower() in HEADERS else ""
        raise UserError(
            f"name: {name!r} is no name in C; give one of letters, digits and _ that begins with a letter{header}"
        )
    return name


def _is_name(text: str) -> bool:
    # in small letters: some systems do not tell the names of files apart by capitals
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) is not None and text.lower() not in KEYWORDS | HEADERS
