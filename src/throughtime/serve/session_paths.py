"""Sessions over HTTP: make, step, look, go back, branch, change, compare."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Query, Request, Response
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from throughtime.cells import State
from throughtime.serve.answers import Owner, TheServer, plain
from throughtime.serve.bodies import Branch, Create, Diff, Edit, Rewind, Steps
from throughtime.serve.refused import Refused
from throughtime.serve.sessions import Sessions
from throughtime.serve.store import Kept
from throughtime.travel import Engine

BYTES = "application/octet-stream"
router = APIRouter(prefix="/v1/sessions", tags=["sessions"])
AtTime = Annotated[int | None, Query(ge=0, lt=2**53, description="[default: the present]")]


def _told(kept: Kept) -> dict[str, Any]:
    return {
        "id": kept.id,
        "object": "session",
        "model": kept.model,
        "time": kept.time,
        "made": round(kept.made, 3),
        "touched": round(kept.touched, 3),
    }


@router.post("", status_code=201)
async def create(server: TheServer, owner: Owner, body: Create | None = None) -> dict[str, Any]:
    """A new session."""
    body = Create() if body is None else body
    reader, sessions = server.find(body.model).streaming()
    with server.busy():
        id = await reader.create(sessions, owner, body)
    return _told(await sessions.about(owner, id))


@router.get("")
async def every(
    server: TheServer,
    owner: Owner,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(max_length=128)] = "",
) -> dict[str, Any]:
    """The sessions of a token, by their ids; `after` an id, those that follow."""
    found = server.store.all_of(owner, limit + 1, after)
    return {"object": "list", "data": [_told(kept) for kept in found[:limit]], "has_more": len(found) > limit}


@router.get("/{id}")
async def about(server: TheServer, owner: Owner, id: str) -> dict[str, Any]:
    """What a session is."""
    return _told(await server.of_session(id)[1].about(owner, id))


@router.delete("/{id}")
async def delete(server: TheServer, owner: Owner, id: str) -> dict[str, Any]:
    """Forget a session."""
    await server.of_session(id)[1].delete(owner, id)
    return {"id": id, "object": "session", "deleted": True}


@router.post("/{id}/steps")
async def steps(server: TheServer, owner: Owner, id: str, body: Steps) -> dict[str, Any]:
    """Let a session read. A request that comes twice is answered the same twice, and is read once."""
    reader, sessions = server.of_session(id)
    with server.busy():
        return await reader.step(sessions, owner, id, body)


@router.post("/{id}/audio", openapi_extra={"requestBody": {"required": True, "content": {BYTES: {}}}})
async def audio(
    request: Request,
    server: TheServer,
    owner: Owner,
    id: str,
    first: Annotated[int, Query(ge=0, lt=2**53)],
    last: bool = False,
) -> dict[str, Any]:
    """Let a session hear samples: 16-bit, little-endian, of one channel. What is answered is that of `steps`."""
    reader, sessions = server.of_session(id)
    with server.busy():
        body = base64.b64encode(await request.body()).decode()
        return await reader.step(sessions, owner, id, Steps(first=first, last=last, audio=body))


@router.get("/{id}/state", response_class=Response)
async def state(server: TheServer, owner: Owner, id: str, time: AtTime = None) -> Response:
    """The state of a session as safetensors: LAYER.TENSOR, and the output of the step that led to it."""
    _, sessions = await server.with_past(owner, id)
    at, moment = await sessions.moment(owner, id, time)
    tensors = {f"{i}.{j}": t.contiguous() for i, s in enumerate(moment.state) for j, t in enumerate(_tensors(s))}
    if moment.output is not None:
        tensors["output"] = moment.output.contiguous()
    about = {"model": sessions.name, "network": sessions.engine.fingerprint(), "time": str(at)}
    return Response(save(tensors, about), media_type=BYTES)


@router.put("/{id}/state", openapi_extra={"requestBody": {"required": True, "content": {BYTES: {}}}})
async def put_state(request: Request, server: TheServer, owner: Owner, id: str, time: AtTime = None) -> dict[str, Any]:
    """Put another state in the place of the one that is there, as safetensors that name tensors as GET does."""
    _, sessions = await server.with_past(owner, id)
    tensors = _loaded(await request.body())
    output = tensors.pop("output", None)
    like = sessions.engine.first()
    names = [[f"{i}.{j}" for j in range(len(_tensors(s)))] for i, s in enumerate(like.state)]
    if sorted(tensors) != sorted(name for layer in names for name in layer):
        wanted = ", ".join(name for layer in names for name in layer)
        raise Refused(
            400,
            f"state: there must be the tensors {wanted}, and perhaps output; there are {', '.join(sorted(tensors))[:200]}",
        )
    layers = [[tensors[name] for name in layer] for layer in names]
    at = await sessions.edit(owner, id, time, state=_state(sessions.engine, layers), output=_output(sessions, output))
    return {"id": id, "time": at}


def _loaded(body: bytes) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load(body)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Refused(400, f"body: is no safetensors: {error}") from error
    return tensors


def _state(engine: Engine, layers: list[list[Tensor]]) -> tuple[State, ...]:
    """Raises: Refused, UserError where it does not fit."""
    made = [
        tuple(layer) if isinstance(like, tuple) else layer[0]
        for layer, like in zip(layers, engine.first().state, strict=True)
    ]
    if any(not bool(t.isfinite().all()) for layer in layers for t in layer):
        raise Refused(400, "state: holds what is not finite")
    return engine.checked_state(made)


def _output(sessions: Sessions, output: Tensor | None) -> Tensor | None:
    width = sessions.batcher.streams.width_out
    if output is not None and (output.shape != (width,) or not bool(output.isfinite().all())):
        raise Refused(400, f"output: [{width}] finite numbers, got {list(output.shape)}")
    return (
        None
        if output is None
        else output.to(sessions.engine.empty().dtype if output.dtype.is_floating_point else torch.float32)
    )


def _tensors(state: State) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


@router.post("/{id}/rewind")
async def rewind(server: TheServer, owner: Owner, id: str, body: Rewind) -> dict[str, Any]:
    """Go back; what came after is forgotten (branch first to keep it)."""
    _, sessions = server.of_session(id)
    await sessions.rewind(owner, id, body.time)
    return {"id": id, "time": body.time}


@router.post("/{id}/branch", status_code=201)
async def branch(server: TheServer, owner: Owner, id: str, body: Branch | None = None) -> dict[str, Any]:
    """Another session with the same past."""
    body = Branch() if body is None else body
    _, sessions = server.of_session(id)
    return _told(await sessions.about(owner, await sessions.branch(owner, id, body.id, body.time)))


@router.post("/{id}/edit")
async def edit(server: TheServer, owner: Owner, id: str, body: Edit) -> dict[str, Any]:
    """Change an input, or a state; all that was read later is read again."""
    reader, sessions = await server.with_past(owner, id)
    with server.busy():
        if body.state is None:
            await reader.edit(sessions, owner, id, body)
        else:
            if body.model_fields_set - {"time", "state"}:
                raise Refused(400, "edit: give an input or a state, just one of them")
            await sessions.edit(owner, id, body.time, state=_of_numbers(sessions.engine, body.state))
    return _told(await sessions.about(owner, id))


def _of_numbers(engine: Engine, layers: list[list[list[float]]]) -> tuple[State, ...]:
    """A state that came as numbers. Raises: Refused where it does not fit."""
    like = [_tensors(s) for s in engine.first().state]
    sizes = [[t.numel() for t in layer] for layer in like]
    if [[len(numbers) for numbers in layer] for layer in layers] != sizes:
        raise Refused(400, f"state: of each layer its tensors, of each its numbers, so many: {sizes}")
    made = [
        [torch.tensor(numbers, dtype=t.dtype).view(t.shape) for numbers, t in zip(layer, tensors, strict=True)]
        for layer, tensors in zip(layers, like, strict=True)
    ]
    return _state(engine, made)


@router.post("/{id}/diff")
async def diff(server: TheServer, owner: Owner, id: str, body: Diff) -> dict[str, Any]:
    """Where and how far two sessions of one model part."""
    _, sessions = await server.with_past(owner, id)
    with server.busy():
        found = await sessions.diff(owner, id, body.other, body.start, body.stop)
    return {name: plain(value) for name, value in found.as_json().items()}
