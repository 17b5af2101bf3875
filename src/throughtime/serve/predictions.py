"""Answers to whole inputs, and which models there are."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter

from throughtime.serve.answers import Owner, TheServer
from throughtime.serve.bodies import Predict
from throughtime.serve.inputs import WHOLE, answered
from throughtime.serve.refused import Refused
from throughtime.serve.server import Served

router = APIRouter(prefix="/v1")


def _told(served: Served) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": served.made,
        "owned_by": "throughtime",
        "task": served.task,
        "streams": served.sessions is not None,
    }


@router.get("/models", tags=["models"])
async def models(server: TheServer) -> dict[str, Any]:
    """The models that are served."""
    return {"object": "list", "data": [_told(served) for served in server.models.values()]}


@router.get("/models/{name}", tags=["models"])
async def model(server: TheServer, name: str) -> dict[str, Any]:
    """One of them."""
    return _told(server.find(name))


@router.post("/predict", tags=["models"])
async def predict(server: TheServer, owner: Owner, body: Predict) -> dict[str, Any]:
    """What a model makes of whole inputs, each by itself: objects as `throughtime predict --json` writes them."""
    served = server.find(body.model)
    trained = served.model
    if trained is None or served.task not in WHOLE:
        raise Refused(400, f"model: {served.name!r} is of the task {served.task!r}, which does not answer whole inputs")
    with server.busy():
        async with served.predicting:
            answers = await asyncio.to_thread(answered, trained, body.inputs, body.options, server.settings.longest)
    return {"model": served.name, "answers": answers}
