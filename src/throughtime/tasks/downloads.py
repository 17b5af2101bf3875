"""What a file is that is no plain text, told from its first bytes, and what makes a text of it."""

from __future__ import annotations

import re

HEAD = 4096  # bytes that are looked at
_ARCHIVE = "unpack it"
# how a file begins -> what it is, and what helps
_BINARY = {
    b"\x1f\x8b": ("gzip", "unpack it (gunzip)"),
    b"BZh": ("bzip2", "unpack it (bunzip2)"),
    b"\xfd7zXZ\0": ("xz", "unpack it (unxz)"),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "unpack it (unzstd)"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", _ARCHIVE),
    b"Rar!\x1a\x07": ("a RAR archive", _ARCHIVE),
    b"PAR1": ("Parquet", "export it as CSV or JSON lines"),
    b"ARROW1": ("an Arrow file", "export it as CSV or JSON lines"),
    b"SQLite format 3\0": ("an SQLite database", "export the table as CSV"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document", "save it as CSV, or as plain text"),
    b"%PDF-": ("a PDF", "export its text (pdftotext)"),
    b"\x93NUMPY": ("a NumPy array", "export it as CSV"),
    b"\x89HDF\r\n\x1a\n": ("HDF5", "export it as CSV"),
    b"\x89PNG\r\n\x1a\n": ("a PNG picture", "name a text file"),
    b"\xff\xd8\xff": ("a JPEG picture", "name a text file"),
}
# these are texts, but of markup: nothing for who reads rows, sentences or pairs
_MARKUP = (
    (r"\s*(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", "a web page", "download the file itself, not its page"),
    (r"\{\\rtf", "RTF", "save it as plain text"),
    (r"version https://git-lfs\.", "a pointer of Git LFS", "fetch the file itself (git lfs pull)"),
)


def not_plain(head: bytes) -> tuple[str, str] | None:
    """What a file with these first bytes is, where it cannot be read as text, and what would help; None where it may be text."""
    if head.startswith(b"PK\x03\x04"):
        for name, what in (
            (b"xl/", "an Excel workbook"),
            (b"word/", "a Word document"),
            (b"opendocument", "OpenDocument"),
        ):
            if name in head[:HEAD]:
                return what, "save it as CSV, or as plain text"
        return "a zip archive", _ARCHIVE
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it (tar xf)"
    return next((told for begins, told in _BINARY.items() if head.startswith(begins)), None)


def markup(text: str) -> tuple[str, str] | None:
    """What a text is that begins so, where it is written for a browser or a word processor, and what would help."""
    return next(((what, how) for pattern, what, how in _MARKUP if re.match(pattern, text[:HEAD], re.I | re.S)), None)
