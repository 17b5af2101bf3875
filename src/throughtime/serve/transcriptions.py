"""Recordings that are transcribed as OpenAI's API has it, so that its clients can ask: `POST /v1/audio/transcriptions`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import ValidationError

from throughtime.config import Strict
from throughtime.errors import UserError
from throughtime.serve.answers import Answer, Owner, TheServer
from throughtime.serve.bodies import Failure
from throughtime.serve.forms import KIND, fields
from throughtime.serve.inputs import NAMED, as_files
from throughtime.serve.invalid import in_words
from throughtime.serve.refused import Refused
from throughtime.serve.warned import renamed
from throughtime.tasks.audio import duration
from throughtime.tasks.transcribe_model import TranscribeModel, transcript_of
from throughtime.tasks.transcripts import WRITERS, Transcript

FILE, GRAINS = "file", "timestamp_granularities"
router = APIRouter(prefix="/v1/audio", tags=["audio"])


class Transcription(Strict):
    """What is asked for of a recording, beside its file."""

    model: str | None = None
    """[default: the first that is served]"""
    response_format: Literal["json", "text", "srt", "vtt", "verbose_json"] = "json"
    timestamp_granularities: list[Literal["word", "segment"]] | None = None
    """verbose_json: words or utterances, or both. [default: segment]"""
    language: str | None = None
    """Is given back by verbose_json; a model knows the language that it was trained on."""
    temperature: Literal["0", "0.0"] | None = None
    """Nothing is drawn."""
    stream: Literal["false", "False"] | None = None
    """What is said is known at the end; a session tells as it comes."""


SCHEMA = {
    "type": "object",
    "required": [FILE],
    "properties": {
        FILE: {"type": "string", "format": "binary", "description": "WAV, FLAC, OGG, MP3 and others."},
        **Transcription.model_json_schema()["properties"],
    },
}


@router.post(
    "/transcriptions",
    openapi_extra={"requestBody": {"required": True, "content": {KIND: {"schema": SCHEMA}}}},
    responses={413: {"model": Failure, "description": "It is too long, or too large."}},
)
async def transcribe(request: Request, server: TheServer, owner: Owner) -> Response:
    """What is said in a recording."""
    given = await asyncio.to_thread(fields, request.headers.get("content-type", ""), await request.body())
    asked, file = _asked(given)
    served = server.find(asked.model)
    model = served.model
    if not isinstance(model, TranscribeModel):
        raise Refused(400, f"model: {served.name!r} is of the task {served.task!r}, which does not transcribe")
    with server.busy():
        async with served.predicting:
            try:
                seconds, found = await asyncio.to_thread(_heard, model, file, server.settings.longest)
            except (Refused, UserError) as error:
                status = error.status if isinstance(error, Refused) else 400
                raise Refused(status, str(error).replace(f"{NAMED}0", FILE)) from error
    return _written(asked, seconds, found)


def _asked(given: Sequence[tuple[str, bytes]]) -> tuple[Transcription, bytes]:
    """What a form asks for, and its file. Raises: Refused."""
    values: dict[str, Any] = {}
    for name, content in given:
        key = name.removesuffix("[]")
        text = content if key == FILE else content.decode("utf-8", "replace")
        if key == GRAINS:
            values.setdefault(key, []).append(text)
        elif key in values:
            raise Refused(400, f"{key}: stands there twice")
        else:
            values[key] = text
    if FILE not in values:
        raise Refused(400, f"{FILE}: is missing; send the recording as a field of that name")
    file = values.pop(FILE)
    try:
        asked = Transcription.model_validate(values)
    except ValidationError as error:
        raise Refused(400, in_words(error.errors())) from error
    if asked.timestamp_granularities and asked.response_format != "verbose_json":
        raise Refused(400, f"{GRAINS}: response_format {asked.response_format!r} has none; use verbose_json")
    return asked, file


def _heard(model: TranscribeModel, file: bytes, longest: int) -> tuple[float, list[Transcript]]:
    """How long a recording is, and what is said in it, an utterance each."""
    with renamed({f"{NAMED}0": FILE}), as_files([file], longest) as recordings:
        found = map(transcript_of, model.predict(recordings, format="srt"))
        return duration(recordings[0]), [one._replace(audio=FILE) for one in found]


def _written(asked: Transcription, seconds: float, found: list[Transcript]) -> Response:
    text, form = " ".join(one.text for one in found), asked.response_format
    if form == "json":
        return Answer({"text": text})
    if form == "text":
        return PlainTextResponse(text + "\n")
    if form in ("srt", "vtt"):
        return PlainTextResponse("".join(part + "\n" for part in WRITERS[form](found)))
    grains = asked.timestamp_granularities or ["segment"]
    words = [{"word": w.word, "start": w.start, "end": w.end} for one in found for w in one.words]
    about = {"task": "transcribe", "language": asked.language or "unknown", "duration": round(seconds, 3), "text": text}
    return Answer(
        about
        | ({"segments": [_segment(number, one) for number, one in enumerate(found)]} if "segment" in grains else {})
        | ({"words": words} if "word" in grains else {})
    )


def _segment(number: int, one: Transcript) -> dict[str, Any]:
    """An utterance. avg_logprob: the mean of log of the words' confidence."""
    logs = [math.log(max(word.confidence, 1e-6)) for word in one.words]
    return {
        "id": number,
        "start": one.start,
        "end": one.end,
        "text": one.text,
        "avg_logprob": round(sum(logs) / max(len(logs), 1), 4),
    }
