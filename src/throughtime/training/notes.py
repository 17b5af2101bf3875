"""What was said of a user's data while it was read, cut or left out: kept for the summary and the model card."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from throughtime.runs import write_text

NOTES = "notes.json"


@contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Write what the block warns of into `folder`, and let it be seen."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
    finally:
        for one in caught:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    write_text(folder / NOTES, json.dumps([str(w.message) for w in caught if w.category is UserWarning]))


def notes_in(folder: Path) -> list[str]:
    """What `noting` wrote; nothing where it did not."""
    path = folder / NOTES
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
