"""Forecasts series: python answer.py < series.csv

Its columns are unique_id (where there are several series), a time (as 2016-07-31 13:00) and a number. Needs numpy and onnxruntime.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from series import at, calendar, logarithm, new_from, read_series, scale_of, size_of  # the file beside this one

here = Path(__file__).parent
about = json.loads((here / "series.json").read_text(encoding="utf-8"))
forecaster = onnxruntime.InferenceSession(here / "forecaster.onnx")
sizes = {given.name: given.shape for given in forecaster.get_inputs()}
if about["past"] or about["future"] or about["static"]:
    sys.exit("this model reads covariates: give them to forecaster.onnx, as README.md says")


def window(name: str, values: Any, known: Any, size: float) -> tuple[dict[str, Any], float, float]:
    """The last values of a series, and what their forecast is relative to, and in which scale."""
    length, horizon = sizes["values"][1], about["horizon"]
    padded = np.concatenate([np.full(length, np.nan), values])[-length:]
    there = padded[np.isfinite(padded)]
    level = there[-1] if len(there) else 0.0
    within = np.sqrt(np.nanmean((padded - level) ** 2)) if len(there) else 0.0
    asked = {"values": padded - level, "scale": max(size, 0.1 * within), "series": about["series"].get(name, [0])[0]}
    if "known" in sizes:
        asked["known"] = np.concatenate([np.zeros((length, known.shape[1])), known])[-length - horizon :]
    return {name: np.asarray(value)[None] for name, value in asked.items()}, level, 1.0


def steps(name: str, values: Any, known: Any, size: float) -> tuple[dict[str, Any], float, float]:
    """All values of a series, likewise."""
    first = next((value for value in values if np.isfinite(value)), 0.0)
    own, ahead = known[: len(values)], known[len(values) :]
    read = np.concatenate([((values - first) / size)[:, None], np.isfinite(values)[:, None], own], 1)
    asked = {"steps": np.nan_to_num(read)[:, None], "lengths": [len(values)]}
    asked |= {n: np.zeros((1, *shape[1:])) for n, shape in sizes.items() if n.startswith("state")}
    if "known" in sizes:
        asked["known"] = ahead[None]
    return asked, first, size


def said(name: str, values: Any, known: Any, size: float) -> Any:
    """Quantiles [H, Q] of what comes after some values, of which so much more is known ahead."""
    asked, level, unit = (window if "values" in sizes else steps)(name, values, known, size)
    given = {n: np.asarray(value, np.int64 if n in ("lengths", "series") else np.float32) for n, value in asked.items()}
    return forecaster.run(["quantiles"], given)[0][0].astype(np.float64) * unit + level


print("unique_id,step,forecast,forecast-lo-80,forecast-hi-80")
levels, horizon = np.array(about["deviates"]), about["horizon"]
for name, (times, y) in read_series(sys.stdin).items():
    log, size = scale_of(name, y, about)
    values, known = logarithm(y) if log else y, calendar(times, horizon, about)

    def say(cut: int, of: tuple[Any, ...] = (name, values, known, size)) -> Any:
        """Quantiles of what comes after so many steps."""
        return said(of[0], of[1][:cut], of[2][: cut + horizon], of[3])

    off = size_of(say, values, new_from(name, times, about), about)
    quantiles = say(len(values))
    columns = [at(quantiles, z, levels) for z in (0.0, -1.2815515655446 * off, 1.2815515655446 * off)]
    for step, row in enumerate(zip(*columns, strict=True), 1):
        numbers = ",".join(f"{np.exp(number) if log else number:.6g}" for number in row)
        print(name, step, numbers, sep=",")
