"""Streams of a language model: text or tokens in; what is expected next, and how likely what was read was.

Shapes: n steps, N output, V vocabulary.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.serve.bodies import Given, Steps
from throughtime.serve.past import Read
from throughtime.serve.readers.reader import Array, Stepwise, finite
from throughtime.serve.refused import Refused
from throughtime.tasks.text import TextModel
from throughtime.tasks.text_session import ENDS, writable

TOGETHER = 8  # outputs whose answers are computed together, always as many, so that their bits do not depend on how many are asked


class TextReader(Stepwise):
    """Of a language model: text or tokens in; what is expected next, and how likely what was read was."""

    keys, shows = ("text", "tokens"), ("top", "logprobs")
    input = np.dtype("<i4")

    @staticmethod
    def reads(model: Any) -> bool:
        return isinstance(model, TextModel)

    def __init__(self, model: TextModel) -> None:
        self.engine = model.engine()
        self.stack, self.model, self.tokens = self.engine.stack, model, model.tokens
        self.end = ENDS.get(model.config.data.documents)  # of a document
        self._most = len(self.tokens) - 2
        self.expected = Expected(self)

    def value(self, asked: Given, at: int) -> Any:
        if asked.text is None:
            return asked.tokens
        try:
            asked.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refused(400, f"text: character {error.start} is not UTF-8 text") from error
        return self.tokens.encode(asked.text).astype("int32")

    def unknown(self, asked: Given) -> list[str]:
        return [] if asked.text is None else self.tokens.unknown_in(asked.text)

    def log_p(self, outputs: Tensor) -> Tensor:
        """log p of what comes next after each output [n, N]: [n, V]."""
        rows, width = outputs.shape
        padded = torch.zeros(-(-rows // TOGETHER) * TOGETHER, width, dtype=outputs.dtype)
        padded[:rows] = outputs
        return torch.cat([self.engine.answer(block) for block in padded.split(TOGETHER)])[:rows]  # type: ignore[no-untyped-call]

    def likeliest(self, log_p: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """The tokens that most likely come next, but for those that are never written, and log p of each: [..., top]."""
        best = writable(log_p).topk(min(top, self._most))
        return best.indices, best.values

    def answers(self, inputs: Tensor, read: Read, asked: Steps) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if asked.top:
            tokens, values = self.likeliest(self.log_p(read.outputs[-1].unsqueeze(0))[0], asked.top)
            found["next"] = [
                {"text": self.tokens.entries[token], "token": token, "p": finite(p)}
                for token, p in zip(tokens.tolist(), values.exp().tolist(), strict=True)
            ]
        if asked.logprobs:
            assert read.before is not None
            log_p = self.log_p(torch.stack([read.before, *read.outputs[:-1]]))
            found["logprobs"] = [finite(v) for v in log_p.gather(1, inputs.long().unsqueeze(1))[:, 0].tolist()]
        return found

    def answer(self, top: int) -> np.dtype[Any]:
        top = min(top, self._most)
        return np.dtype([("token", "<i4", (top,)), ("p", "<f4", (top,))])

    def numbers(self, outputs: Tensor, top: int) -> Array:
        made = np.zeros(len(outputs), dtype=self.answer(top))
        if top:
            tokens, values = self.likeliest(self.log_p(outputs), top)
            made["token"], made["p"] = tokens.numpy(), values.exp().numpy()
        return made


class Expected:
    """What many streams expect next: of those that ask in one turn of the loop it is computed together."""

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader
        self._asked: list[tuple[Tensor, asyncio.Future[Tensor]]] = []

    def after(self, output: Tensor) -> asyncio.Future[Tensor]:
        """log p after an output [N]: [V]."""
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._answer)
        self._asked.append((output, loop.create_future()))
        return self._asked[-1][1]

    def _answer(self) -> None:
        asked, self._asked = self._asked, []
        for (_, future), row in zip(
            asked, self._reader.log_p(torch.stack([output for output, _ in asked])), strict=True
        ):
            if not future.done():
                future.set_result(row)
