"""What the streams of a model read, and what they answer: as JSON, and as numbers. A class a task.

Shapes: n steps, I input, N output, V vocabulary.
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from throughtime.serve.bodies import Edit, Given
from throughtime.serve.past import Read
from throughtime.serve.refused import Refused
from throughtime.tasks.text import TextModel
from throughtime.tasks.text_session import ENDS, writable
from throughtime.travel import Engine

TOGETHER = 8  # outputs whose answers are computed together, always as many, so that their bits do not depend on how many are asked
Array = np.ndarray[Any, Any]


class Reader(ABC):
    """What streams of a network read and answer.

    Attributes: engine, stack: the network. input: the type of the numbers in one input, as NumPy has it.
    """

    kind: ClassVar[str]
    keys: ClassVar[tuple[str, ...]]  # of a request, what may be read
    engine: Engine
    stack: Any
    input: np.dtype[Any]

    def given(self, asked: Given) -> Tensor:
        """The inputs of a request, [n, ...]. Raises: Refused, UserError."""
        said = [key for key in Given.model_fields if getattr(asked, key) is not None]
        if len(said) != 1 or said[0] not in self.keys:
            raise Refused(
                400, f"{' and '.join(said) or 'nothing to read'}: give {' or '.join(self.keys)}, just one of them"
            )
        return self.engine.checked(self.value(asked))

    @abstractmethod
    def value(self, asked: Given) -> Any:
        """What a request says is to be read, as the engine takes it."""

    def changed(self, asked: Edit) -> Tensor:
        """The one input of an edit, [1, ...]. Raises: Refused, UserError."""
        made = Given(
            text=asked.text,
            tokens=None if asked.token is None else [asked.token],
            inputs=None if asked.input is None else [asked.input],
        )
        found = self.given(made)
        if len(found) != 1:
            raise Refused(400, f"edit: one input goes in the place of another, and this is {len(found)}")
        return found

    @abstractmethod
    def answers(self, inputs: Tensor, read: Read, top: int, logprobs: bool) -> dict[str, Any]:
        """What a request is answered, beside its time, as JSON."""

    @abstractmethod
    def answer(self, top: int) -> np.dtype[Any]:
        """The type of the numbers that answer one step."""

    @abstractmethod
    def numbers(self, outputs: Tensor, top: int) -> Array:
        """The answers after steps of several streams, of their outputs [n, N], as numbers: [n] of the type of `answer`."""

    def unknown(self, asked: Given) -> list[str]:
        """What of a text is read as unknown."""
        return []

    def check(self, top: int, logprobs: bool) -> None:
        """Raises: Refused where it cannot show what a request asks for; here where it asks for probabilities."""
        if top or logprobs:
            raise Refused(
                400, f"{'top' if top else 'logprobs'}: of a model that gives probabilities alone; leave it out"
            )


class NumberReader(Reader):
    """Of a stack of layers: rows of numbers in, rows of numbers out."""

    kind, keys = "numbers", ("inputs",)

    def __init__(self, stack: nn.Module) -> None:
        self.engine = Engine(stack)
        self.stack, self.width = stack, self.engine.width
        like = self.engine.empty().numpy()
        self.input = np.dtype((like.dtype, self.width))
        self._output = np.dtype((like.dtype, stack.streams(1).width_out))  # type: ignore[operator]

    def value(self, asked: Given) -> Any:
        with np.errstate(over="ignore"):
            rows = np.asarray(asked.inputs, dtype=self.input.base) if _even(asked.inputs) else None
        if rows is None or rows.ndim != 2 or not np.isfinite(rows).all():
            raise Refused(400, f"inputs: rows of {self.width} finite numbers each")
        return torch.from_numpy(rows)

    def answers(self, inputs: Tensor, read: Read, top: int, logprobs: bool) -> dict[str, Any]:
        return {"outputs": [[finite(v) for v in output.tolist()] for output in read.outputs]}

    def answer(self, top: int) -> np.dtype[Any]:
        return self._output

    def numbers(self, outputs: Tensor, top: int) -> Array:
        return outputs.numpy()


class TextReader(Reader):
    """Of a language model: text or tokens in; what is expected next, and how likely what was read was."""

    kind, keys = "text", ("text", "tokens")
    input = np.dtype("<i4")

    def __init__(self, model: TextModel) -> None:
        self.engine = model.engine()
        self.stack, self.model, self.tokens = self.engine.stack, model, model.tokens
        self.end = ENDS.get(model.config.data.documents)  # of a document
        self._most = len(self.tokens) - 2
        self.expected = Expected(self)

    def value(self, asked: Given) -> Any:
        if asked.text is None:
            return asked.tokens
        try:
            asked.text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise Refused(400, f"text: character {error.start} is not UTF-8 text") from error
        return self.tokens.encode(asked.text).astype("int32")

    def unknown(self, asked: Given) -> list[str]:
        return [] if asked.text is None else self.tokens.unknown_in(asked.text)

    def check(self, top: int, logprobs: bool) -> None:
        """It can show both."""

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

    def answers(self, inputs: Tensor, read: Read, top: int, logprobs: bool) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if top:
            tokens, values = self.likeliest(self.log_p(read.outputs[-1].unsqueeze(0))[0], top)
            found["next"] = [
                {"text": self.tokens.entries[token], "token": token, "p": finite(p)}
                for token, p in zip(tokens.tolist(), values.exp().tolist(), strict=True)
            ]
        if logprobs:
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


def finite(value: float) -> float | None:
    """A number as JSON can hold it: to seven digits; None where it is not finite."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _even(rows: Any) -> bool:
    return len({len(row) for row in rows}) == 1
