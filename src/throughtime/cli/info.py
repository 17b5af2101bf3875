"""info: what a run is."""

from __future__ import annotations

from throughtime.cli.output import Json, Run, opened, write_values


def info(run: Run, /, *, json: Json = False) -> None:
    """What a model is, trained on what, for how long, with what scores."""
    write_values(opened(run).info(), json)
