"""Texts written as OpenAI's API has it, so that its clients can ask for them: `POST /v1/completions`."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import APIRouter, Response

from throughtime.serve.answers import Answer, Owner, TheServer
from throughtime.serve.bodies import Completion
from throughtime.serve.events import DONE, Flow, event, sent
from throughtime.serve.readers import TextReader
from throughtime.serve.refused import Refused
from throughtime.serve.server import Server
from throughtime.serve.sessions import Sessions
from throughtime.serve.stepping import Writing
from throughtime.serve.warned import told
from throughtime.serve.writing import Manner, Part, Prompt, Token, prompt_of, read_prompt, write

MOST = 128  # texts in a request
router = APIRouter(prefix="/v1", tags=["completions"])


@dataclass
class _Texts:
    """The texts of a request. flow: their parts as they come, each with the place of its text."""

    server: Server
    reader: TextReader
    sessions: Sessions
    owner: str
    asked: Completion
    name: str
    prompts: list[Prompt]
    manner: Manner
    unknown: list[str]
    flow: Flow[tuple[int, Part]]
    written: int = 0  # tokens
    time: int | None = None  # of the session, at the end
    made: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")

    async def write(self, index: int) -> None:
        """Write one of them."""
        asked = self.asked
        if asked.session is None:
            async with self.sessions.write_anew() as stream:
                await self._write(index, stream)
            return
        async with self.sessions.write_on(self.owner, asked.session, asked.first) as stream:
            try:
                await self._write(index, stream)
            finally:
                self.time = stream.time

    async def _write(self, index: int, stream: Writing) -> None:
        n = self.asked.n or 1
        prompt = self.prompts[index // n]
        tokens = await read_prompt(self.reader, stream, prompt, self.manner.top if self.asked.echo else None)
        if self.asked.echo:
            await self.flow.put((index, Part(prompt.text, tokens)))
        seed = self.manner.seed
        manner = self.manner if seed is None else Manner(**{**vars(self.manner), "seed": seed + index % n})
        before = stream.time
        async for part in write(self.reader, stream, prompt, manner, lambda: not self.flow.gone):
            await self.flow.put((index, part))
        self.written += stream.time - before
        self.server.written += stream.time - before

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.prompts) * (self.asked.n or 1)

    def parts(self) -> AsyncGenerator[tuple[int, Part], None]:
        """Parts of them all as they come. Raises: what went wrong with one."""
        return self.flow.parts([partial(self.write, index) for index in range(self.count)])

    def usage(self) -> dict[str, int]:
        """How many tokens were read and written."""
        read = sum(len(prompt.ids) for prompt in self.prompts)
        return {"prompt_tokens": read, "completion_tokens": self.written, "total_tokens": read + self.written}

    def body(self, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """An answer, or a part of one, as the API has it."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.made,
            "model": self.name,
            "choices": list(choices),
        }


@router.post("/completions", response_model=None)
async def completions(server: TheServer, owner: Owner, body: Completion) -> Response:
    """Write after a prompt. With `session` the prompt and what is written are read by that session."""
    texts = _texts(server, owner, body)
    if not body.stream:
        with server.busy(texts.count):
            return Answer(await _whole(texts))
    return await sent(_events(texts))


def _texts(server: Server, owner: str, asked: Completion) -> _Texts:
    """What a request asks for. Raises: Refused, UserError."""
    served = server.find(asked.model)
    reader, sessions = served.streaming()
    if not isinstance(reader, TextReader) or not isinstance(sessions, Sessions):
        raise Refused(400, f"model: {served.name!r} writes no text")
    n = asked.n or 1
    given: Any = "" if asked.prompt is None else asked.prompt
    prompts = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not 1 <= len(prompts) * n <= MOST:
        raise Refused(400, f"prompt: {len(prompts)} of them, n {n}: from 1 to {MOST} texts in a request")
    if asked.session is not None and len(prompts) * n > 1:
        raise Refused(400, "session: one text is written on from a session; branch it for several")
    if asked.session is None and asked.first is not None:
        raise Refused(400, "first: is of a session; name it")
    if asked.best_of not in (None, n):
        raise Refused(400, f"best_of: got {asked.best_of}; as many as n, or leave it out")
    length = 16 if asked.max_tokens is None else asked.max_tokens
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            try:
                prompt.encode()
            except UnicodeEncodeError as error:
                raise Refused(400, f"prompt.{index}: character {error.start} is not UTF-8 text") from error
    whole = length == 0 or (bool(asked.echo) and asked.logprobs is not None)
    made = [prompt_of(reader, prompt, whole=whole) for prompt in prompts]
    for what, size in (("prompt", max(len(p.ids) for p in made)), ("max_tokens", length)):
        if size > server.settings.longest:
            raise Refused(413, f"{what}: {size} tokens; up to {server.settings.longest} in a request")
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if "" in stop:
        raise Refused(400, "stop: is empty; name what ends a text")
    manner = Manner(
        length=length,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
        stop=(*stop, *([reader.end] if reader.end else [])),
        top=asked.logprobs,
    )
    strings = [prompt for prompt in prompts if isinstance(prompt, str)]
    unknown = list(dict.fromkeys(entry for prompt in strings for entry in reader.tokens.unknown_in(prompt)))
    flow = Flow[tuple[int, Part]](server.settings.slow)
    return _Texts(server, reader, sessions, owner, asked, served.name, made, manner, unknown, flow)


async def _whole(texts: _Texts) -> dict[str, Any]:
    """All texts, once they are written."""
    found: list[list[Part]] = [[] for _ in range(texts.count)]
    async for index, part in texts.parts():
        found[index].append(part)
    choices = []
    for index, parts in enumerate(found):
        tokens = list(itertools.chain.from_iterable(part.tokens for part in parts))
        shown = None if texts.manner.top is None else _log_probabilities(tokens, 0)
        text = "".join(part.text for part in parts)
        choices.append({"text": text, "index": index, "logprobs": shown, "finish_reason": parts[-1].end})
    return texts.body(choices) | {"usage": texts.usage()} | _besides(texts)


def _besides(texts: _Texts) -> dict[str, Any]:
    """What the API does not have: where the session is, and what of the prompts the vocabulary does not know."""
    session = {} if texts.asked.session is None else {"session": {"id": texts.asked.session, "time": texts.time}}
    return session | ({"unknown": texts.unknown} if texts.unknown else {})


async def _events(texts: _Texts) -> AsyncGenerator[str, None]:
    """Texts as they are written, as server-sent events."""
    usage = texts.asked.stream_options is not None and texts.asked.stream_options.include_usage
    offsets = [0] * texts.count

    def shown(index: int, part: Part) -> str:
        found = None if texts.manner.top is None else _log_probabilities(part.tokens, offsets[index])
        offsets[index] += len(part.text)
        choice = {"text": part.text, "index": index, "logprobs": found, "finish_reason": part.end}
        return event(texts.body([choice]) | ({"usage": None} if usage else {}))

    with texts.server.busy(texts.count):
        async with contextlib.aclosing(texts.parts()) as parts:
            async for index, part in parts:
                yield shown(index, part)
        last = ({"usage": texts.usage()} if usage else {}) | _besides(texts) | told()
        if last:
            yield event(texts.body([]) | last)
        yield DONE


def _log_probabilities(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """As the API has them."""
    offsets = itertools.accumulate((len(token.text) for token in tokens[:-1]), initial=offset)
    return {
        "tokens": [token.name for token in tokens],
        "token_logprobs": [token.log_p for token in tokens],
        "top_logprobs": [token.top for token in tokens],
        "text_offset": list(offsets)[: len(tokens)],
    }
