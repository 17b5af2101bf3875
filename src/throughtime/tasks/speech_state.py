"""Where a stream of speech is, as bytes, so that another session of the same model goes on from there.

What is not kept is the tree of a beam: it reads again the steps of the utterance. Of one that went on for so long that its first
words were given before its end (`HELD`), the words before are not known to it then.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save

from throughtime.cells import State
from throughtime.tasks.speech_stream import SpeechSession, StepwiseEar

_ARRAY = "array"


def settled(session: SpeechSession) -> bool:
    """Whether nothing of it is lost where it is kept now."""
    ear = _ear(session)
    return ear._beam is None or ear._all


def packed(session: SpeechSession) -> bytes:
    """A session of a streaming network as safetensors."""
    arrays: dict[str, torch.Tensor] = {}
    ear, resampler = _ear(session), session._resampler
    values = [[getattr(one, name) for name in names] for one, names in _parts(session)]
    states = [list(_tensors(state)) for state in ear._stepper.state]
    whole = [values, ear._hidden, states, None if resampler is None else resampler.state]
    about = json.dumps(_put(whole, arrays))
    found: bytes = save(arrays, {"state": about})
    return found


def resume(session: SpeechSession, data: bytes) -> None:
    """Let a new session of the same model and rate go on from where another was."""
    size = int.from_bytes(data[:8], "little")
    about = json.loads(data[8 : 8 + size])["__metadata__"]["state"]
    arrays = {name: tensor.numpy() for name, tensor in load(data).items()}
    values, hidden, states, resampler = _got(json.loads(about), arrays)
    for (one, names), some in zip(_parts(session), values, strict=True):
        for name, value in zip(names, some, strict=True):
            before = getattr(one, name)
            setattr(one, name, deque(value, before.maxlen) if isinstance(before, deque) else value)
    ear = _ear(session)
    ear._hidden = [torch.from_numpy(one) for one in hidden]
    like: list[State] = ear._stepper.state
    made = [[torch.from_numpy(one) for one in some] for some in states]
    ear._stepper.state = [tuple(m) if isinstance(s, tuple) else m[0] for m, s in zip(made, like, strict=True)]
    if ear._beam is not None and ear._rows:
        ear._beam.advance(np.stack(ear._rows))
    if session._resampler is not None:
        session._resampler.resume(*resampler)


def _ear(session: SpeechSession) -> StepwiseEar:
    ear = session._ear
    assert isinstance(ear, StepwiseEar)
    return ear


def _parts(session: SpeechSession) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """What a stream consists of, and what of each changes as it goes on."""
    ear, pauses = _ear(session), session._pauses
    yield session, ("_count", "_said", "_finished")
    yield session._features, ("_rest",)
    yield pauses, ("_count", "_last", "_levels", "_held", "_loud", "_run")
    yield pauses._least, ("least",)
    yield pauses._most, ("least",)
    yield pauses._variation, ("count", "sum", "square")
    yield ear, ("_seen", "_rest", "_first", "_rows", "_quiet", "_speech", "_all")
    yield ear._normal, ("count", "sum", "square")


def _tensors(state: State) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def _put(value: Any, arrays: dict[str, torch.Tensor]) -> Any:
    """A value as JSON, its arrays beside it."""
    if isinstance(value, torch.Tensor | np.ndarray):
        name = str(len(arrays))
        arrays[name] = torch.as_tensor(value).clone(memory_format=torch.contiguous_format)
        return {_ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple | deque):
        return [_put(one, arrays) for one in value]
    return value


def _got(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return arrays[value[_ARRAY]]
    return [_got(one, arrays) for one in value] if isinstance(value, list) else value
