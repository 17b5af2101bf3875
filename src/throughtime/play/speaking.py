"""Commands of `travel`, spoken to a text that the page has; the page keeps what comes of it."""

from __future__ import annotations

from typing import Any

from throughtime.play.bodies import Speak
from throughtime.serve.answers import plain
from throughtime.serve.refused import Refused
from throughtime.tasks.futures import StreamFutures, obeyed
from throughtime.tasks.text import TextModel
from throughtime.tasks.timeline import Timeline


def spoken(model: TextModel, asked: Speak) -> dict[str, Any]:
    """What a command gives (values), and the text, the time and the original after it.

    Raises: Refused, UserError where it cannot be done; nothing has come of it then.
    """
    here = StreamFutures(_timeline(model, asked.text, asked.time))
    if asked.original is not None:
        here.other = _timeline(model, asked.original, asked.time)
    values = obeyed(here, asked.line)
    return {
        "values": plain(values),
        "text": _text(model, here.here, asked.text),
        "time": here.here.present,
        "original": None if here.other is None else _text(model, here.other, asked.original or asked.text),
    }


def _timeline(model: TextModel, text: str, time: int) -> Timeline:
    """A text that has been read, token by token, and the present in it."""
    session, ids = model.session(), model.tokens.encode(text).tolist()
    if ids:
        session.feed(ids)
    made = Timeline(session, "tokens")
    made.go(min(time, len(ids)))
    return made


def _text(model: TextModel, line: Timeline, before: str) -> str:
    """What a timeline has read, and what lies ahead. Raises: Refused where no text is cut into these tokens."""
    ids, tokens = line.session.inputs().tolist(), model.tokens
    if ids == tokens.encode(before).tolist():
        return before
    text = tokens.decode(ids)
    if tokens.encode(text).tolist() != ids:
        raise Refused(
            400,
            "what comes of it is no text that is cut into the same tokens; `throughtime travel --tokens` can hold it",
        )
    return text
