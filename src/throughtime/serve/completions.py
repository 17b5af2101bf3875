"""Texts written as OpenAI's API has it, so that its clients can ask for them: `POST /v1/completions`."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from throughtime.serve.answers import Answer, Owner, TheServer, as_json
from throughtime.serve.bodies import Completion
from throughtime.serve.readers import TextReader
from throughtime.serve.refused import FAULT, Refused, as_error
from throughtime.serve.server import Server
from throughtime.serve.sessions import Sessions
from throughtime.serve.stepping import Writing
from throughtime.serve.writing import Manner, Part, Prompt, Token, prompt_of, read_prompt, write

MOST = 128  # texts in a request
AHEAD = 256  # parts that are written before somebody takes the first
router = APIRouter(prefix="/v1", tags=["completions"])


@dataclass
class _Texts:
    """The texts of a request. ready: their parts as they come, and None at the end of each, or what went wrong with it."""

    server: Server
    reader: TextReader
    sessions: Sessions
    owner: str
    asked: Completion
    name: str
    prompts: list[Prompt]
    manner: Manner
    unknown: list[str]
    ready: asyncio.Queue[tuple[int, Part | BaseException | None]] = field(default_factory=lambda: asyncio.Queue(AHEAD))
    gone: bool = False
    written: int = 0  # tokens
    time: int | None = None  # of the session, at the end
    made: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")

    async def write(self, index: int) -> None:
        """Write one of them, to its end though nobody is there any more: what it holds is in order then."""
        end: BaseException | None = None
        try:
            asked = self.asked
            if asked.session is None:
                async with self.sessions.write_anew() as stream:
                    await self._write(index, stream)
            else:
                async with self.sessions.write_on(self.owner, asked.session, asked.first) as stream:
                    try:
                        await self._write(index, stream)
                    finally:
                        self.time = stream.time
        except BaseException as error:
            end = error
        await self._put(index, end)

    async def _write(self, index: int, stream: Writing) -> None:
        n = self.asked.n or 1
        prompt = self.prompts[index // n]
        tokens = await read_prompt(self.reader, stream, prompt, self.manner.top if self.asked.echo else None)
        if self.asked.echo:
            await self._put(index, Part(prompt.text, tokens))
        seed = self.manner.seed
        manner = self.manner if seed is None else Manner(**{**vars(self.manner), "seed": seed + index % n})
        before = stream.time
        async for part in write(self.reader, stream, prompt, manner, lambda: not self.gone):
            await self._put(index, part)
        self.written += stream.time - before
        self.server.written += stream.time - before

    async def _put(self, index: int, part: Part | BaseException | None) -> None:
        """Give a part to whoever reads; who does not take anything for long is gone."""
        try:
            async with asyncio.timeout(None if self.gone else self.server.settings.slow):
                if not self.gone:
                    await self.ready.put((index, part))
        except TimeoutError:
            self.gone = True

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.prompts) * (self.asked.n or 1)

    async def parts(self) -> AsyncGenerator[tuple[int, Part], None]:
        """Parts of them all as they come. Raises: what went wrong with one."""
        tasks = [asyncio.create_task(self.write(index)) for index in range(self.count)]
        try:
            left = self.count
            while left:
                index, part = await self.ready.get()
                if isinstance(part, BaseException):
                    raise part
                if part is None:
                    left -= 1
                else:
                    yield index, part
        finally:
            self.gone = True
            while not self.ready.empty():  # whoever waits to put something there goes on, and ends
                self.ready.get_nowait()
            _KEPT.update(tasks)
            for task in tasks:
                task.add_done_callback(_KEPT.discard)

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


_KEPT: set[asyncio.Task[None]] = set()  # tasks that nobody else holds


@router.post("/completions", response_model=None)
async def completions(server: TheServer, owner: Owner, body: Completion) -> Response:
    """Write after a prompt. With `session` the prompt and what is written are read by that session."""
    texts = _texts(server, owner, body)
    if not body.stream:
        with server.busy(texts.count):
            return Answer(await _whole(texts))
    events = _events(texts)
    first = await anext(events)  # so that what cannot be done is refused with its status
    return _Events(first, events)


class _Events(StreamingResponse):
    """Events as they come. However sending them ends, they come to their end as well, and give back what they hold."""

    def __init__(self, first: str, rest: AsyncGenerator[str, None]) -> None:
        super().__init__(_after(first, rest), media_type="text/event-stream")
        self._rest = rest

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with contextlib.aclosing(self._rest):
            await super().__call__(scope, receive, send)


async def _after(first: str, rest: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    yield first
    async for event in rest:
        yield event


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
    return _Texts(server, reader, sessions, owner, asked, served.name, made, manner, unknown)


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
    """Texts as they are written, as server-sent events. Raises: what goes wrong before the first."""
    usage = texts.asked.stream_options is not None and texts.asked.stream_options.include_usage
    offsets, begun = [0] * texts.count, False

    def event(index: int, part: Part) -> str:
        shown = None if texts.manner.top is None else _log_probabilities(part.tokens, offsets[index])
        offsets[index] += len(part.text)
        choice = {"text": part.text, "index": index, "logprobs": shown, "finish_reason": part.end}
        return _event(texts.body([choice]) | ({"usage": None} if usage else {}))

    with texts.server.busy(texts.count):
        try:
            async with contextlib.aclosing(texts.parts()) as parts:
                async for index, part in parts:
                    yield event(index, part)
                    begun = True
            last = ({"usage": texts.usage()} if usage else {}) | _besides(texts)
            if last:
                yield _event(texts.body([]) | last)
            yield "data: [DONE]\n\n"
        except Exception as error:
            if not begun:
                raise
            status, words = (error.status, str(error)) if isinstance(error, Refused) else (500, FAULT)
            yield _event(as_error(status, words))
            if status == 500:
                raise


def _event(body: dict[str, Any]) -> str:
    return f"data: {as_json(body)}\n\n"


def _log_probabilities(tokens: Sequence[Token], offset: int) -> dict[str, Any]:
    """As the API has them."""
    offsets = itertools.accumulate((len(token.text) for token in tokens[:-1]), initial=offset)
    return {
        "tokens": [token.name for token in tokens],
        "token_logprobs": [token.log_p for token in tokens],
        "top_logprobs": [token.top for token in tokens],
        "text_offset": list(offsets)[: len(tokens)],
    }
