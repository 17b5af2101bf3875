"""What the page is answered."""

from __future__ import annotations

import threading
from typing import Any

from throughtime.play.bodies import LONGEST, Ask, Change, Cut, Foresee, Imagine, Parting, Past, Speak, Write
from throughtime.play.columns import Columns, packed
from throughtime.play.composing import Imagining
from throughtime.play.forecasting import Foreseeing
from throughtime.play.instead import instead
from throughtime.play.speaking import spoken
from throughtime.play.strands import Put, Strand
from throughtime.serve.readers import SpeechReader, TextReader, finite
from throughtime.serve.refused import Refused
from throughtime.serve.server import Served, Server
from throughtime.tasks.base import Trained
from throughtime.tasks.forecast_model import ForecastModel
from throughtime.tasks.music_model import MusicModel
from throughtime.tasks.transcribe_model import TranscribeModel
from throughtime.travel.difference import difference

FORGOTTEN = 1e-3  # how far states are apart, at most, that have forgotten in what they differed


class Play:
    """What can be seen of the models of a server. opening: model -> the text that the page begins with, where it is not one that
    the model wrote."""

    def __init__(self, server: Server, opening: dict[str, str] | None = None) -> None:
        self.server = server
        self._opening = opening or {}
        self._columns: dict[str, Columns] = {}
        self._foreseeing: dict[str, Foreseeing] = {}
        self._imagining: dict[str, Imagining] = {}
        self._lock = threading.Lock()

    def models(self) -> list[dict[str, Any]]:
        """The models, and what each can show."""
        return [self._about(served) for served in self.server.models.values()]

    def _about(self, served: Served) -> dict[str, Any]:
        trained: Trained[Any] | None = served.model
        assert trained is not None
        shape = trained.config.model
        about = {
            "name": served.name,
            "task": served.task,
            "kind": getattr(shape, "kind", "recurrent"),
            "cell": getattr(shape, "cell", None),
            "units": getattr(shape, "hidden_size", None),
            "layers": getattr(shape, "layers", None),
            "parameters": sum(p.numel() for p in trained.network.parameters()),
            "columns": None,
            "why_not": served.why_not,
            "instead": instead(trained, served.name),
            **self._panel(served),
        }
        if not isinstance(served.reader, TextReader):
            return about
        columns, tokens = self._of(served), served.reader.tokens
        written = "".join(tokens.entries[t] for t in columns.sample[: len(columns.sample) // 6])
        return about | {
            "tokens": tokens.kind,
            "opening": self._opening.get(served.name, written),
            "columns": [band.as_json() for band in columns.bands],
        }

    def _panel(self, served: Served) -> dict[str, Any]:
        """What the panel of a task has to know: whether there is an example; whether speech is heard as it comes."""
        model = served.model
        if isinstance(model, ForecastModel):
            return {"example": self._foresee(served).example}
        if isinstance(model, TranscribeModel):
            return {"streaming": isinstance(served.reader, SpeechReader)}
        return {}

    def _foresee(self, served: Served) -> Foreseeing:
        if not isinstance(served.model, ForecastModel):
            raise Refused(400, f"model: {served.name!r} is of the task {served.task!r}, which forecasts no series")
        with self._lock:
            return self._foreseeing.setdefault(served.name, Foreseeing(served.model))

    def forecast(self, asked: Foresee) -> dict[str, Any]:
        """See `Foreseeing.answered`. Raises: Refused, UserError."""
        return self._foresee(self.server.find(asked.model)).answered(asked)

    def music(self, asked: Imagine) -> dict[str, Any]:
        """See `Imagining.answered`. Raises: Refused, UserError."""
        served = self.server.find(asked.model)
        if not isinstance(served.model, MusicModel):
            raise Refused(400, f"model: {served.name!r} is of the task {served.task!r}, which writes no music")
        with self._lock:
            found = self._imagining.setdefault(served.name, Imagining(served.model))
        return found.answered(asked)

    def _of(self, served: Served) -> Columns:
        """The columns of a model. Raises: Refused where it has none."""
        if not isinstance(served.reader, TextReader):
            why = served.why_not or f"the task {served.task!r} reads no text step by step"
            raise Refused(400, f"model: {served.name!r} has no columns: {why}")
        with self._lock:
            if served.name not in self._columns:
                self._columns[served.name] = Columns(served.reader)
            return self._columns[served.name]

    def columns(self, asked: Ask) -> bytes:
        """The columns of a text from a time on, in binary: see `packed` and `Columns.rows`. The head has since, time, the tokens,
        what each stands for (labels), and what of the text the vocabulary does not know. Raises: Refused, UserError."""
        columns = self._of(self.server.find(asked.model))
        strand = self._strand(columns, asked)
        _check_time("since", asked.since, strand)
        tokens = columns.reader.tokens
        text = asked.text if asked.text is not None and not asked.changes else ""
        head = {
            "since": asked.since,
            "time": len(strand.tokens),
            "tokens": list(strand.tokens),
            "labels": tokens.named(text, strand.tokens),
            "entries": {},
            "unknown": [] if asked.text is None else tokens.unknown_in(asked.text),
        }
        rows = columns.rows(strand, asked.since, asked.top)
        # what is likeliest to come, by its token
        head["entries"] = {int(t): tokens.entries[t] for t in sorted(set(rows["next.token"].ravel().tolist()))}
        return packed(head, rows)

    def parting(self, asked: Parting) -> dict[str, Any]:
        """Where two pasts part, how far at each time from then on that both have, and from when on the states are no further
        apart than `FORGOTTEN`: None where they are until the end. Raises: Refused, UserError."""
        columns = self._of(self.server.find(asked.model))
        one, other = (self._strand(columns, past) for past in (asked.one, asked.other))
        begin = one.agrees(other.tokens, other.puts)
        times = range(begin, min(len(one.moments), len(other.moments)))
        found = difference(columns.reader.engine, (((t, t), one.moments[t], other.moments[t]) for t in times))
        far = [i for i, layers in enumerate(found.states) if max(layers) >= FORGOTTEN]
        again = far[-1] + 1 if far else 0
        return {
            "parts": found.parts,
            "times": list(times),
            "states": [[finite(d) for d in layers] for layers in found.states],
            "divergence": [finite(d) for d in found.divergence or []],
            "likeliest": found.likeliest,
            "threshold": FORGOTTEN,
            "forgotten": times[again] if again < len(times) else None,
        }

    def written(self, asked: Write) -> dict[str, Any]:
        """What the model would write from a time of a past on, always the likeliest. Raises: Refused, UserError."""
        columns = self._of(self.server.find(asked.model))
        strand = self._strand(columns, asked)
        _check_time("time", asked.time, strand)
        session = columns.reader.model.session()
        for t in range(asked.time + 1):
            if t:
                session.feed(strand.tokens[t - 1])
            if strand.puts[t]:
                session.edit(t, state=list(strand.moments[t].state))
        return {"text": session.write(asked.length)}

    def tokens(self, asked: Cut) -> dict[str, Any]:
        """The tokens of a text; 0 is what the vocabulary does not know. Raises: Refused."""
        return {"tokens": self._tokens(self._of(self.server.find(asked.model)), asked.text)}

    def spoken(self, asked: Speak) -> dict[str, Any]:
        """What a command of `throughtime travel` gives: see `spoken`. Raises: Refused, UserError."""
        columns = self._of(self.server.find(asked.model))
        for text in (asked.text, asked.original or ""):
            self._tokens(columns, text)
        return spoken(columns.reader.model, asked)

    def _tokens(self, columns: Columns, text: str) -> list[int]:
        """Raises: Refused where it is too long, or no text."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise Refused(400, f"text: character {error.start} is not UTF-8 text") from error
        return _checked(columns.reader.tokens.encode(text).tolist())

    def _strand(self, columns: Columns, past: Past) -> Strand:
        """Raises: Refused, UserError where it cannot be read."""
        if (past.text is None) == (past.tokens is None):
            raise Refused(400, "give text or tokens, just one of them")
        tokens = _checked(list(past.tokens or [])) if past.text is None else self._tokens(columns, past.text)
        puts: dict[int, list[Put]] = {}
        for number, change in enumerate(past.changes):
            if change.token is not None:
                if change.time >= len(tokens):
                    raise Refused(
                        400, f"changes.{number}: no token is read at time {change.time}, the last at {len(tokens) - 1}"
                    )
                tokens[change.time] = change.token
            else:
                puts.setdefault(change.time, []).append(_put(number, change))
        return columns.strands.of(tokens, puts)


def _checked(tokens: list[int]) -> list[int]:
    if len(tokens) > LONGEST:
        raise Refused(413, f"text: has {len(tokens):,} tokens; the page shows up to {LONGEST:,}")
    return tokens


def _check_time(name: str, time: int, strand: Strand) -> None:
    if time > len(strand.tokens):
        raise Refused(400, f"{name}: there is no time {time}; they go from 0 to {len(strand.tokens)}")


def _put(number: int, change: Change) -> Put:
    if change.layer is None or change.tensor is None or change.unit is None or change.value is None:
        raise Refused(400, f"changes.{number}: give token, or layer, tensor, unit and value")
    return Put(change.layer, change.tensor, change.unit, change.value)
