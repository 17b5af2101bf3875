"""A text written token by token: each drawn from what the network expects, and read before the next is drawn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.decode.sampling import draw
from throughtime.serve.readers import TextReader, finite
from throughtime.serve.stepping import Writing
from throughtime.tasks.text_session import writable

LAST = 4  # inputs that tell whether a line, or half a character, begins


@dataclass(frozen=True)
class Manner:
    """How a text is to be written. length: tokens. stop: what ends it, and is not part of it. top: show log p of each token, and so
    many of the likeliest in its place; None: show nothing."""

    length: int
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    top: int | None


class Token(NamedTuple):
    """One that was drawn or read: what it is called, the text it adds, log p, and log p of the likeliest in its place."""

    name: str
    text: str
    log_p: float | None
    top: dict[str, float | None]


@dataclass
class Part:
    """Text that is certain to stay, and the tokens whose text begins in it. end: why it is the last: "stop" or "length"."""

    text: str
    tokens: list[Token] = field(default_factory=list)
    end: str | None = None


@dataclass(frozen=True)
class Prompt:
    """What is read before a text is written. begun: the beginning of a token that is to be written whole: the first that is drawn
    begins with it."""

    ids: Tensor
    text: str
    begun: str = ""


def prompt_of(reader: TextReader, given: str | Sequence[int], *, whole: bool) -> Prompt:
    """A prompt of what a user gives. What the vocabulary does not know is left out, as `generate` does, but for words.

    Args: whole: whether all of it is to be read, though it may end in the middle of a word.
    """
    tokens = reader.tokens
    if not isinstance(given, str):
        ids = reader.engine.checked(list(given))
        return Prompt(ids, tokens.decode(ids.tolist()))
    text = given
    if tokens.kind != "words":
        unknown = set(tokens.unknown_in(given))
        text = "".join(c for c in given if c not in unknown)
    found, begun = tokens.encode(text), ""
    if not whole:
        found, begun = reader.model.reopened(found, text)
    return Prompt(torch.from_numpy(found.astype("int32")), given, begun)


async def read_prompt(reader: TextReader, stream: Writing, prompt: Prompt, top: int | None) -> list[Token]:
    """Let a stream read a prompt. Returns: its tokens, where they are to be shown."""
    if not len(prompt.ids):
        return []
    before = stream.output
    outputs = await stream.read(prompt.ids)
    if top is None:
        return []
    assert before is not None
    text_of = reader.tokens.decoder()
    log_p = reader.log_p(torch.stack([before, *outputs[:-1]]))
    return [_token(reader, row, int(i), text_of(int(i)), top) for row, i in zip(log_p, prompt.ids, strict=True)]


async def write(
    reader: TextReader, stream: Writing, prompt: Prompt, manner: Manner, going: Callable[[], bool]
) -> AsyncIterator[Part]:
    """Write after a prompt that a stream has read, until the length or a stop. going: whether anybody still wants it."""
    chance = torch.Generator()
    chance.seed() if manner.seed is None else chance.manual_seed(manner.seed)
    text_of = reader.tokens.decoder()
    for token in torch.cat([stream.last(LAST), prompt.ids])[-LAST:].tolist():
        text_of(token)  # so that it knows whether a line, or half a character, begins
    begun, held, tokens = prompt.begun, "", list[Token]()
    for _ in range(manner.length):
        if not going():
            return
        assert stream.output is not None
        log_p = await reader.expected.after(stream.output)
        fit = writable(log_p)
        if begun:
            fit = fit.masked_fill(~torch.tensor([e.startswith(begun) for e in reader.tokens.entries]), -torch.inf)
        drawn = draw(fit.unsqueeze(0), temperature=manner.temperature, top_p=manner.top_p, generator=chance)
        token = int(drawn)
        text = text_of(token)[len(begun) :]
        begun = ""
        await stream.read(drawn.to(torch.int32))
        held += text
        if manner.top is not None:
            tokens.append(_token(reader, log_p, token, text, manner.top))
        found = [at for at in (held.find(stop) for stop in manner.stop) if at >= 0]
        if found:
            yield Part(held[: min(found)], _first(tokens, min(found)), "stop")
            return
        sure = len(held) - _half(held, manner.stop)
        if sure:
            shown = _first(tokens, sure)
            yield Part(held[:sure], shown)
            held, tokens = held[sure:], tokens[len(shown) :]
    yield Part(held, tokens, "length")


def _half(text: str, stops: Sequence[str]) -> int:
    """How long an end of a text is that may be the beginning of a stop."""
    longest = max(map(len, stops), default=1) - 1
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(s.startswith(text[-n:]) for s in stops)), 0)


def _first(tokens: Sequence[Token], size: int) -> list[Token]:
    """The tokens that begin in the first `size` characters of their text."""
    found, at = [], 0
    for token in tokens:
        if at >= size:
            break
        found.append(token)
        at += len(token.text)
    return found


def _token(reader: TextReader, log_p: Tensor, token: int, text: str, top: int) -> Token:
    names = reader.tokens.entries
    shown: dict[str, float | None] = {}
    if top:
        best, values = reader.likeliest(log_p, top)
        shown = {names[i]: finite(v) for i, v in zip(best.tolist(), values.tolist(), strict=True)}
    return Token(names[token], text, finite(float(log_p[token])), shown)
