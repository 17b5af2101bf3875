"""Series of numbers as a forecaster reads them: in its scale, with what the calendar says of each step. Needs numpy."""

import csv
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np


def read_series(lines: Iterable[str]) -> dict[str, tuple[list[str], Any]]:
    """Times and values by the name of the series, of lines of CSV: perhaps unique_id, then a time and a number, in their order and
    without gaps; an empty number is a missing value."""
    head, *rows = csv.reader(lines)
    several = head[0] == "unique_id"
    found: dict[str, tuple[list[str], list[float]]] = {}
    for row in rows:
        times, values = found.setdefault(row[0] if several else head[1], ([], []))
        times.append(row[several])
        values.append(float(row[several + 1] or "nan"))
    return {name: (times, np.array(values)) for name, (times, values) in found.items()}


def scale_of(name: str, values: Any, about: dict[str, Any]) -> tuple[bool, float]:
    """Whether the logarithm of a series is read, and its size: as in training, else how far values are from those of a season
    before."""
    known = values[np.isfinite(values)]
    if name in about["series"] and not (about["series"][name][1] and known.min() <= 0):
        return bool(about["series"][name][1]), about["series"][name][2]
    log = about["log"]
    if log is None:
        log = name not in about["series"] and known.min() > 0 and known.min() > 0.01 * np.median(known)
    read = logarithm(values) if log else values
    for lag in (about["seasons"][0], 1):
        apart = np.abs(read[lag:] - read[:-lag])
        apart = apart[np.isfinite(apart)]
        if len(apart) and apart.mean() > 1e-6 * np.nanmax(np.abs(read)):
            return bool(log), float(apart.mean())
    return bool(log), float(np.nanstd(read)) or 1.0


def logarithm(values: Any) -> Any:
    """ln, NaN of what is not over 0."""
    return np.log(np.where(values > 0, values, np.nan))


def calendar(times: list[str], ahead: int, about: dict[str, Any]) -> Any:
    """What the calendar says of each step and of so many more, [T + ahead, K] float32."""
    unit, count = about["step"]
    if not about["calendar"]:
        return np.zeros((len(times) + ahead, 0), np.float32)
    read = np.array(times, "datetime64[us]")
    if unit == "time":
        more = read[-1] + np.arange(1, ahead + 1) * np.timedelta64(count, "us")
    elif unit == "month":
        day = read[-1] - read[-1].astype("datetime64[M]")
        more = read[-1].astype("datetime64[M]") + np.arange(1, ahead + 1) * count + day
    else:
        more = np.busday_offset(read[-1].astype("datetime64[D]"), np.arange(1, ahead + 1) * count).astype(
            "datetime64[us]"
        )
    moments = np.concatenate([read, more])
    days, months, years = (moments.astype(f"datetime64[{u}]") for u in "DMY")
    in_year = (days - years).astype(int) / ((years + 1).astype("datetime64[D]") - years).astype(int)
    weekday = (days.astype(int) + 3) % 7
    told = {
        "hour": (moments - days).astype(int) / 86_400e6,
        "weekday": weekday / 7,
        "weekend": np.where(weekday > 4, 1.0, -1.0),
        "day": (days - months).astype(int) / 15 - 1,
        "month": months.astype(int) % 12 / 12 if unit == "month" else in_year,
    }
    around = {"sin": np.sin, "cos": np.cos}
    columns = []
    for name in about["calendar"]:
        part, _, way = name.partition("_")
        columns.append(around[way](2 * np.pi * told[part]) if way else told[part])
    return np.stack(columns, 1).astype(np.float32)


def at(quantiles: Any, deviate: float, levels: Any) -> Any:
    """The values [H] at a normal deviate of distributions given by their quantiles [H, Q] at other deviates [Q]."""
    low = np.clip(np.searchsorted(levels, deviate) - 1, 0, len(levels) - 2)
    share = (deviate - levels[low]) / (levels[low + 1] - levels[low])
    return quantiles[:, low] + share * (quantiles[:, low + 1] - quantiles[:, low])


def distance(quantiles: Any, values: Any, levels: Any) -> Any:
    """How far values [H] are from the medians of distributions given by their quantiles [H, Q], by the mean of what these say."""
    low = np.clip((quantiles <= values[:, None]).sum(1) - 1, 0, len(levels) - 2)
    rows = np.arange(len(values))
    below, above = quantiles[rows, low], quantiles[rows, low + 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(above > below, (values - below) / (above - below), np.sign(values - below) * np.inf)
    deviates = levels[low] + np.nan_to_num(share, nan=0.5) * (levels[low + 1] - levels[low])
    return np.where(np.isfinite(values), np.minimum(np.abs(deviates), 8) * (np.pi / 2) ** 0.5, np.nan)


def new_from(name: str, times: list[str], about: dict[str, Any]) -> int:
    """The first step of a series that training had not, with a season before it."""
    trained, had = about["series"].get(name), 0
    if trained and trained[4] is None:
        had = len(times)
    elif trained:
        ticks = np.array([int(t) for t in times] if about["frequency"] == "integer" else times, "datetime64[us]")
        had = int((ticks.astype(np.int64) <= trained[4]).sum())
    return max(had, int(about["seasons"][0]) + 1)


def size_of(say: Callable[[int], Any], values: Any, begin: int, about: dict[str, Any]) -> float:
    """The size of what forecasts of a series are off now, by the quantiles that `say` gives from earlier cutoffs: the mean distance
    of what came, the older the less, and some of that in the held-out windows."""
    recent, steps = about["recent"], len(values)
    if recent is None:
        return float(about["size"])
    total, weight = recent["doubt"] * about["size"], recent["doubt"]
    for cut in range(steps - 1, max(begin, steps - recent["reach"]) - 1, -recent["stride"]):
        came = values[cut : cut + recent["horizon"]]
        off = distance(say(cut)[: len(came)], came, np.array(about["deviates"]))
        age = steps - cut - np.arange(1, len(came) + 1)
        share = np.exp(-age / recent["memory"]) * np.isfinite(off) * recent["stride"] / recent["horizon"]
        total, weight = total + (share * np.nan_to_num(off)).sum(), weight + share.sum()
    return float(total / weight)
