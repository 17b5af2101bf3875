"""How the bytes of a text stand for characters: what its mark tells, what its user says, and what to do where neither fits."""

from __future__ import annotations

import codecs

from throughtime.errors import UserError, unknown

# byte-order marks, the longer first: that of UTF-16 begins that of UTF-32
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
USUAL = (
    "utf-8",
    "latin-1",
    "windows-1252",
    "windows-1251",
    "utf-16-le",
    "utf-16-be",
    "gb18030",
    "shift_jis",
    "big5",
    "euc-kr",
)
SHOWN = 12  # bytes before and after one that cannot be read that are shown


def check_encoding(name: str, option: str = "--data.") -> str:
    """The name of an encoding as Python has it. Raises: UserError where there is none of that name that reads bytes as text."""
    try:
        "".encode(name), b"".decode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError):
        raise UserError(f"{option}encoding: " + unknown("encoding", name, USUAL)) from None
    # these look for a mark, and here there is none
    return {"utf-8-sig": "utf-8", "utf-16": "utf-16-le", "utf-32": "utf-32-le"}.get(found, found)


def marked(head: bytes) -> tuple[str, int] | None:
    """The encoding that the first bytes of a file tell by a mark, and how long the mark is."""
    return next(((name, len(mark)) for mark, name in MARKS if head.startswith(mark)), None)


def may_be_marked(head: bytes) -> bool:
    """Whether more bytes are needed to say which mark a file begins with."""
    return any(len(head) < len(mark) and mark.startswith(head) for mark, _ in MARKS)


def cannot_decode(
    place: str, byte: int, error: UnicodeDecodeError, encoding: str, option: str, also: str = ""
) -> UserError:
    """What to raise for a byte that does not fit the encoding. place: file and line. byte: its number in the file. also: what else
    would help."""
    low, high = max(error.start - SHOWN, 0), error.start + SHOWN
    around = error.object[low:high].decode("cp1252", "replace")
    word = next((w for w in around.split() if not w.isascii()), around.strip())
    other = f"if it is Windows-1252, which makes {word!r} of it, give {option}encoding windows-1252, "
    if error.reason == "unexpected end of data":
        other = "the file ends within a character, as one does that was cut off; fetch it again, "
    elif encoding != "utf-8":
        other = f"name its encoding by {option}encoding, "
    return UserError(
        f"{place}: byte {byte} (0x{error.object[error.start]:02x}) is not {'UTF-8' if encoding == 'utf-8' else encoding}; {other}"
        f"or save the file as UTF-8{also}"
    )


def is_binary(place: str, byte: int, around: bytes, option: str, also: str = "") -> UserError:
    """What to raise for a NUL in a text. around: bytes of the file, from an even one on."""
    for name, low in (("utf-16-le", 1), ("utf-16-be", 0)):
        half = around[low::2]
        if half.count(0) > len(half) // 2:
            return UserError(
                f"{place}: byte {byte} is NUL: it looks like UTF-16 without a mark; give {option}encoding {name}{also}"
            )
    return UserError(f"{place}: byte {byte} is NUL: this is a binary file, not text{also}")
