"""A session of a language model: it reads text, and says what it expects next.

Shapes: T time, N output, V vocabulary.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.tasks.tokens import START, UNKNOWN, Tokens
from throughtime.travel import Engine, Moment, Session
from throughtime.travel.session import KEEP, SNAPSHOTS, whole

if TYPE_CHECKING:
    from throughtime.models.language import LanguageModel

PIECE = 256  # tokens whose distributions are in memory together
ENDS = {"line": "\n", "paragraph": "\n\n"}  # of a document


class TextEngine(Engine):
    """Steps a language model token by token. Its first moment is after START, at the beginning of a document."""

    distributions = True

    def __init__(self, network: LanguageModel, tokens: Tokens, backend: str = "auto") -> None:
        if not hasattr(network.stack, "stepper"):
            raise UserError("a Transformer has no state to go back to; train a recurrent network")
        super().__init__(network.stack, backend, network)
        self._model, self.tokens = network, tokens
        self._begin = self.run(Moment(self._first, None), torch.tensor([START], dtype=torch.int32))

    def first(self) -> Moment:
        return self._begin

    def empty(self) -> Tensor:
        return torch.empty(0, dtype=torch.int32)

    def checked(self, given: Any) -> Tensor:
        """Tokens [T] of a text, a number, or numbers."""
        if isinstance(given, str):
            return torch.from_numpy(encoded(self.tokens, given).astype("int32"))
        if isinstance(given, bytes | bytearray):
            raise UserError("a session of a text model reads text or tokens, got bytes; decode them first")
        try:
            found = torch.as_tensor(given if isinstance(given, int | Tensor) else list(given)).reshape(-1)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"a session of a text model reads text or tokens, got a {type(given).__name__}") from error
        if found.numel() and (found.dtype.is_floating_point or found.dtype == torch.bool):
            raise UserError(f"tokens are whole numbers, got {found.dtype}")
        numbers = found.tolist()
        wrong = [t for t in numbers if not 0 <= t < len(self.tokens)]
        if wrong:
            raise UserError(f"there is no token {int(wrong[0])}; they go from 0 to {len(self.tokens) - 1}")
        if START in numbers:
            raise UserError(f"token {START} begins a document: make a new session for it")
        return found.to(torch.int32)

    def prepared(self, inputs: Tensor) -> Tensor:
        return self._model.embedded(inputs.to(self.device).long())

    @torch.no_grad()
    def answer(self, output: Tensor) -> Tensor:
        return self._model.log_p(self._model.project(output))

    def identity(self) -> dict[str, Any]:
        entries = "\0".join([self.tokens.kind, *self.tokens.entries])
        return {
            **super().identity(),
            "vocabulary": hashlib.sha256(entries.encode("utf-8", "surrogatepass")).hexdigest(),
        }


class TextSession(Session):
    """A session of a language model, made by `TextModel.session`. An input is a token; each `feed` cuts its text by itself.

    At time 0 the document has begun and nothing of it is read. A session is one document: where documents are lines or paragraphs,
    what is read past the end of one still belongs to it.
    """

    _engine: TextEngine

    def __init__(
        self, engine: TextEngine, documents: str = "file", *, snapshots: int = SNAPSHOTS, keep: int = KEEP
    ) -> None:
        self.tokens, self._end = engine.tokens, ENDS.get(documents)
        self._begin(engine, None, snapshots, keep)

    def feed(self, x: str | int | Iterable[int]) -> Tensor:
        """Read text, or tokens. What the vocabulary does not know is read as unknown, with a warning.

        Returns: log p of the next token, [V].
        """
        ids = self._engine.checked(x)
        if not len(ids):
            raise UserError("feed: there is no text in it")
        self._feed(ids)
        return self.log_p

    @property
    def log_p(self) -> Tensor:
        """log p of the token that comes next, [V]."""
        assert self._now.output is not None
        return self._engine.answer(self._now.output)

    @property
    def text(self) -> str:
        """What has been read, as far as it is kept; nothing stands for what the vocabulary does not know."""
        return self.tokens.decode(self.inputs(self.first, self.time).tolist())

    def next(self, k: int = 5) -> list[tuple[str, float]]:
        """The k likeliest next tokens and their probabilities."""
        if whole("next: k", k) < 1:
            raise UserError(f"next: got {k}; at least 1")
        best = writable(self.log_p).topk(min(k, len(self.tokens) - 2))
        return [
            (self.tokens.entries[i], p) for i, p in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        ]

    def write(self, length: int) -> str:
        """What would follow if the likeliest token always came next: `length` tokens, or to the end of the document where it is
        a line or a paragraph. The session stays as it is."""
        if whole("write: length", length) < 0:
            raise UserError(f"write: got {length}; at least 0")
        moment, read, written = self._now, self.tokens.decoder(), ""
        for token in self.inputs(max(self.first, self.time - 4), self.time).tolist():
            read(token)  # so that it knows whether a line, or half a character, begins
        for _ in range(length):
            assert moment.output is not None
            token = writable(self._engine.answer(moment.output)).argmax()
            written += read(int(token))
            if self._end and written.endswith(self._end):
                break
            moment = self._engine.run(moment, token.reshape(1).to("cpu", torch.int32))
        return written

    def log_probabilities(self, start: int | None = None, stop: int | None = None) -> list[float]:
        """log p of each token from time `start` to `stop`, given all before it; None: all that are kept."""
        ids = self.inputs(start, stop)
        low = self.first if start is None else start
        found: list[float] = []
        while len(found) < len(ids):
            at = low + len(found)
            part = ids[len(found) : len(found) + PIECE].long()
            outputs = [m.output for m in self._history.walk(range(at, at + len(part))) if m.output is not None]
            log_p = self._engine.answer(torch.stack(outputs)).cpu()
            found += log_p.gather(1, part.unsqueeze(1)).squeeze(1).tolist()
        return found


def encoded(tokens: Tokens, text: str) -> Any:
    """The tokens of a text; warns of what the vocabulary does not know. Raises: UserError where it is not text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"character {error.start} is not UTF-8 text") from error
    unseen = tokens.unknown_in(text)
    if unseen:
        what = "words" if tokens.kind == "words" else "characters"
        warnings.warn(f"the model never saw these {what}, and reads them as unknown: {' '.join(unseen)}", stacklevel=2)
    return tokens.encode(text)


def writable(log_p: Tensor) -> Tensor:
    """log p [..., V] without what is never written."""
    log_p = log_p.clone()
    log_p[..., [UNKNOWN, START]] = -torch.inf
    return log_p
