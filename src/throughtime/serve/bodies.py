"""What requests say."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from throughtime.config import Strict

TOP = 100  # likeliest tokens that are shown, at most
BARS = 256  # of music that are written in a request, at most

History = str | Annotated[list[dict[str, str | float | None]], Field(min_length=1)]
Inputs = (
    Annotated[list[str], Field(min_length=1, max_length=10_000)]
    | Annotated[list[dict[str, str | float | None]], Field(min_length=1)]
    | str
)
Value = float | None | list[float | None]
Time = Annotated[int, Field(ge=0, lt=2**53)]
Token = Annotated[int, Field(ge=0, lt=2**31)]
Top = Annotated[int, Field(ge=0, le=TOP)]


class Body(Strict):
    """A request, in which true is no number, and neither is "3"."""

    model_config = ConfigDict(strict=True)


class Create(Body):
    """A new session."""

    id: str | None = None
    """A name of one's own. [default: one is made]"""
    model: str | None = None
    """[default: the first that is served]"""
    history: History | None = None
    """forecast: the series up to now, which is read at once: a CSV, or rows by the names of their columns."""
    rate: Annotated[int, Field(ge=8000, le=384_000)] | None = None
    """transcribe: Hz, of the samples. [default: 16000]"""
    past: Annotated[float, Field(ge=0, le=1e6)] | None = None
    """transcribe: how many seconds of the stream are kept to go back to; a few more are. [default: 0]"""


class Given(Body):
    """What a stream reads: of a language model text or tokens, of a forecaster values, of a model of music notes or moments, of a
    stack of layers rows of numbers."""

    text: str | None = None
    tokens: list[Token] | None = None
    inputs: list[list[float]] | None = None
    values: list[Value] | None = None
    """Numbers, null where one is missing; or rows of a value and the covariates that its time does not tell."""
    audio: str | None = None
    """transcribe: samples of 16 bits, little-endian, of one channel, in base64."""
    notes: str | None = None
    """music: notes (C4 E4+G4), a quarter each, or a file of MIDI or ABC as a data URL."""
    moments: list[list[Token]] | None = None
    """music: moments, each its symbols, as answers give them."""


class Steps(Given):
    """Steps of a session."""

    first: Time
    """The number of the first: how many inputs the session has read before it."""
    top: Top = 0
    """Show so many of the tokens, or moments of music, that most likely come next."""
    logprobs: bool = False
    """Show log p of each token, or moment, that is read, given all before it."""
    level: str | None = None
    """forecast: the intervals that are shown, in percent. [default: 80]"""
    last: bool = False
    """transcribe: the stream ends with these; the end counts as a step."""
    ahead: list[list[float]] | None = None
    """forecast: covariates known ahead of each step to come. [default: as they usually are]"""


class Rewind(Body):
    """Go back."""

    time: Time


class Branch(Body):
    """Another session with the same past."""

    id: str | None = None
    time: Time | None = None
    """[default: the present]"""


class Edit(Body):
    """Change the past: one input, or a state."""

    time: Time
    text: str | None = None
    token: Token | None = None
    input: list[float] | None = None
    value: Value | None = None
    """forecast: null is a value that is missing."""
    notes: str | None = None
    """music: the keys (C4+E4) in the place of those of the moment, as long and as hard as they are."""
    moment: list[Token] | None = None
    """music: the symbols of the moment."""
    state: list[list[list[float]]] | None = None
    """Of each layer its tensors, of each tensor its numbers: of an LSTM [[h, c], …], of a GRU [[h], …]."""


class Compose(Body):
    """music: let a session write on, and read what it writes."""

    first: Time | None = None
    """How many moments the session must have read; otherwise nothing is written. With a seed the same request once more is answered
    the same, and written once."""
    bars: Annotated[int, Field(ge=1, le=BARS)] = 4
    """So many more; one that has begun is finished first."""
    stream: bool = False
    """Send each moment as it is written, as server-sent events."""
    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Diff(Body):
    """Where two sessions part."""

    other: str
    start: Time = 0
    stop: Time | None = None
    """[default: the last time that both have]"""


class Predict(Body):
    """Inputs to be answered whole."""

    inputs: Inputs
    """text, classify, tag, translate: lines. forecast: a CSV as one text, or rows by the names of their columns. transcribe, and
    classify of recordings: files in base64. music: notes (C4 E4+G4), or files of MIDI or ABC as data URLs."""
    model: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the task, as `throughtime predict` has them, but for those that name files; `future` of a forecast is a table as `inputs`
    is."""


class Message(Steps):
    """Steps of a session, over a WebSocket."""

    session: str
    tag: Any = None
    """Comes back with the answer."""


class ComposeMessage(Body):
    """Let a session of music write on, over a WebSocket."""

    session: str
    write: Compose
    tag: Any = None
    """Comes back with the answer."""


class Open(Body):
    """Give sessions numbers, for binary frames on this WebSocket."""

    open: Annotated[list[str], Field(min_length=1, max_length=100_000)]
    make: bool = False
    """Make those that there are not."""
    model: str | None = None
    """Of those that are made. [default: the first that is served]"""
    top: Top = 0
    """Answer binary frames with so many of the tokens that most likely come next."""
    tag: Any = None


class StreamOptions(Body):
    """Of a completion that is sent as it is written."""

    include_usage: bool = False
    include_obfuscation: bool = False


Nothing = Annotated[float, Field(ge=0, le=0)] | None


class Completion(Body):
    """A text to be written, as OpenAI's API has it."""

    model: str | None = None
    prompt: str | list[str] | list[Token] | list[list[Token]] | None = None
    max_tokens: Annotated[int, Field(ge=0)] | None = 16
    temperature: Annotated[float, Field(ge=0, le=100)] | None = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] | None = 1.0
    n: Annotated[int, Field(ge=1, le=128)] | None = 1
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    echo: bool | None = False
    logprobs: Annotated[int, Field(ge=0, le=TOP)] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Has no effect."""
    best_of: int | None = None
    """As many as n."""
    frequency_penalty: Nothing = None
    presence_penalty: Nothing = None
    suffix: Literal[""] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    session: str | None = None
    """A session to write on from, which keeps the prompt and what is written."""
    first: Time | None = None
    """How many inputs the session must have read; otherwise nothing is written."""


class Reason(Strict):
    """Why something is not done. message: what, where, and what to do."""

    message: str
    type: str
    code: str


class Failure(Strict):
    """The answer to what is not done."""

    error: Reason
    warnings: list[str] = Field(default_factory=list)
    """What was warned of until then, where anything was."""
