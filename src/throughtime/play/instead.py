"""What to do with a model for which the page has little, in a line."""

from __future__ import annotations

from typing import Any

from throughtime.tasks.base import Trained

LINES = {
    "classify": "the page shows how far back a label reaches (Reach); `throughtime predict {run} FILE` labels texts, "
    "`throughtime inspect {run} FILE` says what decided, `throughtime travel {run}` what if a word had been another",
    "tag": "the page shows how far back a tag reaches (Reach); `throughtime predict {run} FILE` tags words, "
    "`throughtime inspect {run} FILE` says what decided, `throughtime travel {run}` what if a word had been another",
    "translate": "the page has nothing to show of a translation; `throughtime predict {run} FILE` translates lines, "
    "`--alignments` draws what each word was read from, `throughtime travel {run}` says what if a word had been another",
    "classify-audio": "the page has nothing to show of a recording's label; `throughtime predict {run} FILE` labels recordings, "
    "`throughtime inspect {run} FILE` says what decided",
}


def instead(model: Trained[Any], run: str) -> str | None:
    """What to do with a model in place of playing. run: what it is called. Returns: None where the page has a panel for it."""
    line = LINES.get(model.task.name)
    return None if line is None else line.format(run=run)
