"""What a forecaster is trained on: where series are cut, what is fitted on them, and the windows in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks import defaults, linear, quantiles
from throughtime.tasks.base import Advance
from throughtime.tasks.courses import Courses
from throughtime.tasks.fitted import Fitted
from throughtime.tasks.forecast_model import APART, HELD
from throughtime.tasks.linear import Linear
from throughtime.tasks.series import Series, continued, season_of
from throughtime.tasks.settings import chosen, settled
from throughtime.tasks.windows import Windows, cutoffs_before, open_saved, save, scored_cutoffs
from throughtime.weights import write_tensors

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.forecast_settings import ForecastConfig

LINEAR = "linear.safetensors"
HELD_WINDOWS = 500  # that intervals are calibrated on
SCORED_WINDOWS = 2_000  # that are scored in training
TRAINED_WINDOWS = 2_000_000
SHORT = 12  # steps of a horizon that is left open, where nothing says a season


def split(config: ForecastConfig, items: list[Series]) -> tuple[list[Series], list[Series]]:
    """What is trained on, and what is held out: what comes last in each series, at least a horizon of it, where enough is left to
    learn from. Raises: UserError where in none there is."""
    season, horizon = shape_of(config, items)
    rows, share = config.data.split, config.data.held_out
    train, held = [], []
    for series in items:
        steps = len(series.values)
        if rows is not None and sum(rows) > steps:
            raise UserError(
                f"{series.place}: {series.id} has {steps:,} rows, fewer than the {sum(rows):,} of data.split"
            )
        end = steps if rows is None else rows[0] + rows[1]
        begin = end - max(horizon, round(share * steps)) if rows is None else rows[0]
        if rows is None and begin < 2 * season + 1:
            begin = end - horizon
        if begin < 2:
            train.append(series)  # too short to be held out from
        else:
            train.append(series.upto(begin))
            held.append(replace(series.upto(end), begin=begin))
    if not held:
        longest = max(items, key=lambda s: len(s.values))
        raise UserError(
            f"{longest.place}: the longest series, {longest.id}, has {len(longest.values):,} values: too few to forecast "
            f"{horizon} from those before; use a smaller --data.horizon"
        )
    return train, held


def prepare(
    config: ForecastConfig, train: list[Series], held: list[Series], run: Run, advance: Advance
) -> ForecastConfig:
    """Fit what is fitted on the training series, and choose every setting left open. advance: as of `Task.prepare`."""
    known = {s.id: s for s in train}
    held = [s if s.begin is not None else _begun(s, known.get(s.id)) for s in held]
    season, horizon = shape_of(config, list({**known, **{s.id: s for s in held}}.values()))
    lengths = [len(s.values) for s in train]
    seasons = (season, *_longer_seasons(train, season, config.model.history or config.model.look_back))
    about = Fitted.of(train, seasons, horizon, config.model.logarithm)
    about.save(run)
    for name, some in (("train", train), ("valid", held)):
        begins = [len(s.values) if s.begin is None else s.begin for s in some]
        save(run.corpus / f"{name}.safetensors", [about.prepared(s) for s in some], begins)
    history = _linear(config, run, advance) if config.model.kind != "steps" else None
    sizes, trained = defaults.forecast(config, lengths, seasons, horizon, history)
    settings: ForecastConfig = settled(
        config, model=sizes, data={"horizon": horizon, "season": season}, training=trained
    )
    windows = examples(settings, run, "valid")
    spread = np.unique(np.linspace(0, len(windows.lengths) - 1, HELD_WINDOWS).astype(int))
    apart = sum(max(1, (len(s.values) - (s.begin or 0)) // horizon) for s in held)
    write_tensors(run.folder / HELD, windows.batch(spread)._asdict(), {APART: apart})
    return settings


def _linear(config: ForecastConfig, run: Run, advance: Advance) -> int:
    """Fit the linear forecast that the network adds to. Returns: how far back it reads."""
    about = Fitted.open(run)
    train, _ = open_saved(run.corpus / "train.safetensors")
    whole, begins = open_saved(run.corpus / "valid.safetensors")
    lengths, horizon = [len(s.values) for s in train], about.horizon
    histories = defaults.histories(config.model, lengths, about.seasons, horizon)
    learned = cutoffs_before(lengths, histories[-1], horizon, about.seasons[0])
    first = [max(1, int(linear.ENDS[0] * begin)) for begin in begins]
    judging = scored_cutoffs([len(s.values) for s in whole], first, horizon, 1, None)
    learn, judge = (
        Windows(series, cutoffs, histories[-1], horizon, about.seasons, 1)
        for series, cutoffs in ((train, learned), (whole, judging))
    )
    found = linear.fitted(learn, judge, begins, histories, advance)
    found.save(run.corpus / LINEAR)
    return len(found.weights)


def examples(config: ForecastConfig, run: Run, part: str) -> Windows | Courses:
    """The windows that are learned from, or held out."""
    series, begins = open_saved(run.corpus / f"{part}.safetensors")
    lengths = [len(s.values) for s in series]
    about, history = Fitted.open(run), config.model.history
    horizon = about.horizon
    if part == "train" and config.model.kind == "steps":
        return Courses.to_train(series, horizon, about.seasons[0])
    if part == "train":
        assert history is not None
        cutoffs = cutoffs_before(lengths, history, horizon, about.seasons[0])
        stride = -(-len(cutoffs) // TRAINED_WINDOWS)
    else:
        cutoffs = scored_cutoffs(lengths, begins, horizon, 1, None)
        stride = max(1, len(cutoffs) // SCORED_WINDOWS)
    return about.windows(config.model, series, cutoffs[::stride])


def network(config: ForecastConfig, run: Run) -> nn.Module:
    """A fresh network of the settings and of what was fitted."""
    from throughtime.models.forecaster import Attending, Forecaster, Segments, Sizes, Unrolled
    from throughtime.models.stepwise import Stepwise

    m, about = config.model, Fitted.open(run)
    windows = () if m.kind == "steps" else ("history", "look_back", "segment", "members", "symmetric")
    got = chosen(m, ("hidden_size", "dropout", *windows), run)
    ahead = len(about.calendar) + len(about.future)
    if m.kind == "steps":
        return Stepwise(
            m.cell,
            got["hidden_size"],
            m.layers,
            got["dropout"],
            season=about.seasons[-1],
            naive=about.seasons[0],
            horizon=about.horizon,
            covariates=ahead + len(about.past) + sum(map(len, about.static.values())),
            ahead=ahead,
            levels=quantiles.LEVELS,
        )
    sizes = Sizes(
        history=got["history"],
        look_back=got["look_back"],
        horizon=about.horizon,
        segment=got["segment"],
        known=ahead,
        past=len(about.past),
        static=sum(map(len, about.static.values())),
        series=about.numbers,
        quantiles=len(quantiles.LEVELS),
    )

    def make(aided: bool) -> nn.Module:
        kind = Attending if m.kind == "transformer" else Unrolled
        network = kind(m.cell, got["hidden_size"], m.layers, got["dropout"])
        return Segments(network, got["hidden_size"], got["dropout"], sizes, about.seasons[0], got["symmetric"], aided)

    aided = got["members"] - (m.unaided or 0)
    return Forecaster([partial(make, i < aided) for i in range(got["members"])], quantiles.LEVELS)


def put_linear(network: Any, run: Run) -> None:
    """Put into a fresh network the linear forecast that was fitted, and how far it is off, for its quantiles to begin with."""
    import torch

    found = Linear.open(run.corpus / LINEAR)
    with torch.no_grad():
        for member in network.members:
            if member.aided:
                member.linear.copy_(found["weights"].t())
            member.spread.copy_(found["spread"])


def shape_of(config: ForecastConfig, series: Sequence[Series]) -> tuple[int, int]:
    """(season, horizon) in steps: what is set, or what fits the series."""
    data = config.data
    season = data.season or series[0].clock.frequency.season or _found_season(series)
    if data.horizon is not None:
        return season, data.horizon
    typical = int(np.median([len(s.values) for s in series]))
    return season, max(1, min(2 * season if season > 1 else SHORT, typical // 4))


def _found_season(series: Sequence[Series]) -> int:
    """The season that most of the longest series have."""
    longest = sorted(series, key=lambda s: -len(s.values))[:20]
    found = [season_of(s.values) for s in longest]
    return max(set(found), key=lambda season: (found.count(season), -season))


def _longer_seasons(series: Sequence[Series], season: int, read: int | None) -> tuple[int, ...]:
    """A week beside a day, where it can be read and the series are long enough to show it."""
    frequency, week = series[0].clock.frequency, 7 * season
    of_a_day = frequency.season in (None, season) and season in (24, 48, 96, 144, 288)
    enough = np.median([len(s.values) for s in series]) >= 3 * week
    return (week,) if of_a_day and enough and (read is None or read >= week) else ()


def followed(histories: Sequence[Series], truths: Sequence[Series]) -> list[Series]:
    """Histories with the truth that follows each, which is to be forecast. Raises: UserError for a truth without a history."""
    by_id = {s.id: s for s in histories}
    found = []
    for truth in truths:
        if truth.id not in by_id:
            raise UserError(f"{truth.place}: there is no history of {truth.id}; the first file is to hold it")
        history = by_id[truth.id]
        found.append(replace(continued(history, truth), begin=len(history.values)))
    return found


def _begun(series: Series, trained: Series | None) -> Series:
    """A held-out series, and from where it is to be forecast: after what was trained on, or its last part."""
    if trained is not None:
        return followed([trained], [series])[0]
    return replace(series, begin=max(1, len(series.values) * 4 // 5))
