"""What single units do: their order in a picture, how far their gates open, how long they remember, what they follow.

Shapes: T time, N hidden.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from throughtime.scanning.observe import STATE, Observed
from throughtime.tasks.look import Steps, visible

Array = np.ndarray[Any, Any]
CLOSED, OPEN = 0.1, 0.9  # under the one a gate is left-saturated, over the other right-saturated
FOLLOWS = 0.6  # correlation from which a unit is said to follow something
LEAST = 12  # steps, under which correlations say nothing


def order_of(states: Array) -> list[int]:
    """An order of the units [T, N] in which those that move alike stand together: each is followed by the one, of those left, whose
    course is most like its own."""
    moved = states - states.mean(0)
    length = np.linalg.norm(moved, axis=0)
    moved = moved / np.where(length > 1e-9, length, np.inf)
    alike = moved.T @ moved
    np.fill_diagonal(alike, -np.inf)
    now = int(length.argmax())
    found = [now]
    for _ in range(len(alike) - 1):
        alike[:, now] = -np.inf  # it has been placed
        now = int(alike[now].argmax())
        found.append(now)
    return found


def gates_of(scan: Observed) -> dict[str, Array]:
    """What a cell watches that opens and closes: values of the first sequence that stay from 0 to 1, name -> [T, N]."""
    states = [s[:, 0] for s in scan.states]
    found = {}
    for name, value in scan.records.items():
        one = value[:, 0].detach()
        shown = any(one.shape == s.shape and bool((one == s).all()) for s in states)
        if not shown and one.dim() == 2 and one.numel() and float(one.min()) >= 0 and float(one.max()) <= 1:
            found[name] = one.cpu().numpy()
    return found


def openness(gate: Array) -> dict[str, Any]:
    """Of a gate [T, N]: mean of each unit; the share of steps at which each is closed (left-saturated) and open
    (right-saturated). Source: Karpathy, Johnson, Fei-Fei (2015), section 4.2."""
    return {
        "mean": gate.mean(0).tolist(),
        "closed": (gate < CLOSED).mean(0).tolist(),
        "open": (gate > OPEN).mean(0).tolist(),
    }


def time_constants(scan: Observed, gates: dict[str, Array]) -> list[float] | None:
    """Steps until 1/e of what a unit holds is left, from the mean of the gate that keeps it: -1 / ln(mean f).

    The gate is the one the cell names by `keep_gate`, else one watched as "forget". None where there is none.
    """
    gate = gates.get(getattr(scan.cell, "keep_gate", None) or "forget")
    if gate is None:
        return None
    return (-1 / np.log(np.clip(gate.mean(0), 1e-9, 1 - 1e-9))).tolist()  # type: ignore[no-any-return]


def features_of(read: Steps, outputs: list[str]) -> dict[str, Array]:
    """What can be read off each step: of a text by its signs, of others what its `Steps` say. Name -> [T]."""
    if read.values is not None or read.features:
        found = {name: np.array(value, dtype=float) for name, value in read.features.items()}
        return {name: value for name, value in found.items() if value.std() > 0}
    steps = read.labels if read.texts is None else read.texts
    column, quotes, inside, since = [], [], 0, 0
    for step in steps:
        inside ^= step.count('"') % 2
        quotes.append(inside)
        column.append(since)
        since = 0 if "\n" in step else since + len(step)
    found = {
        "position": np.arange(len(steps), dtype=float),
        "characters since the line began": np.array(column, dtype=float),
        "inside quotes": np.array(quotes, dtype=float),
        "capital": np.array([any(c.isupper() for c in s) for s in steps], dtype=float),
        "sign": np.array([bool(re.fullmatch(r"\s*[^\w\s]+\s*", s)) for s in steps], dtype=float),
        "digit": np.array([any(c.isdigit() for c in s) for s in steps], dtype=float),
        "white space": np.array([s[:1].isspace() for s in steps], dtype=float),
        "length": np.array([len(s.strip()) for s in steps], dtype=float),
    }
    if len(outputs) == len(steps):
        for name in sorted(set(outputs)):
            if 2 <= outputs.count(name) <= len(outputs) - 2:
                found[f"answer {visible(name)}"] = np.array([o == name for o in outputs], dtype=float)
    if found["length"].max(initial=0) <= 1:  # characters: it is white space the other way round
        del found["length"]
    return {name: value for name, value in found.items() if value.std() > 0}


def followers(states: Array, features: dict[str, Array]) -> list[dict[str, Any]]:
    """For each feature the unit [T, N] that follows it most closely, where the correlation is at least `FOLLOWS`: feature, unit,
    correlation; the closest first. A correlation found among many units over few steps may be chance."""
    moved = states - states.mean(0)
    spread = moved.std(0)
    found = []
    for name, feature in features.items():
        if len(feature) < LEAST:
            continue
        r = (moved * (feature - feature.mean())[:, None]).mean(0) / (
            np.where(spread > 1e-9, spread, np.inf) * feature.std()
        )
        unit = int(np.abs(r).argmax())
        if abs(r[unit]) >= FOLLOWS:
            found.append({"feature": name, "unit": unit, "correlation": float(r[unit])})
    return sorted(found, key=lambda f: -abs(f["correlation"]))


def state_of(scan: Observed, number: int) -> tuple[str, Array]:
    """A tensor of the state after each step of the first sequence, [T, N], and what to call it: as the cell watches it, or by its
    number."""
    value = scan.states[number][:, 0].detach()
    for name, record in scan.records.items():
        if record[:, 0].shape == value.shape and bool((record[:, 0] == value).all()):
            return name, value.cpu().numpy()
    return STATE.format(number), value.cpu().numpy()
