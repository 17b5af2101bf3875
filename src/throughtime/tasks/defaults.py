"""Settings that a user left open, from how much data there is and what budget: each task's choice. Measured in docs/defaults.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from throughtime.config import RunConfig

LONG = 256  # steps of a series that are learned from at once, where it is read step by step


def expected_passes(config: RunConfig, examples: float, examples_a_minute: float, examples_a_step: float) -> float:
    """About how many passes through the data a budget is; minutes are those of a laptop.

    Args: examples: in the data. examples_a_minute, examples_a_step: what is learned from in either.
    """
    if config.minutes:
        return config.minutes * examples_a_minute / examples
    return config.epochs or (config.steps or 1) * examples_a_step / examples


def at(value: float, steps: Sequence[tuple[float, Any]], beyond: Any) -> Any:
    """The entry of the first step that `value` does not pass."""
    return next((chosen for limit, chosen in steps if value <= limit), beyond)


def left_open(settings: Any, fitting: Mapping[str, Any]) -> dict[str, Any]:
    """Of what would fit, what has not been set."""
    return {name: value for name, value in fitting.items() if getattr(settings, name) is None}


def batch_and_rate(config: RunConfig, examples: int, batch: int, rate: float) -> dict[str, Any]:
    """The size of a batch, no larger than the data, and the learning rate: what is set, or else these."""
    set_ = config.training
    return {"batch_size": min(set_.batch_size or batch, examples), "learning_rate": set_.learning_rate or rate}


def classify(config: RunConfig, texts: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a classifier of so many texts: what is left open of the network's settings, and the training's."""
    few = texts < 20_000  # they want a small network and much noise
    network = {
        "hidden_size": 64 if few else 128,
        "embedding_size": 64 if few else 128,
        "dropout": 0.6 if few else 0.3,
        "word_dropout": 0.5 if few else 0.1,
    }
    return left_open(config.model, network), batch_and_rate(config, texts, 50, 2e-3)  # type: ignore[attr-defined]


def tag(config: RunConfig, sentences: int) -> dict[str, Any]:
    """For a tagger of so many sentences: the training's settings."""
    return batch_and_rate(config, sentences, 32, 3e-3)


def translate(config: RunConfig, pairs: int, characters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a translator of so many pairs, so many characters on both sides: what is left open of the network's settings, and
    the training's."""
    few = characters < 1_000_000
    passes = expected_passes(config, pairs, 2e6 * pairs / characters, config.training.batch_size or 32)
    # what is seen a few times is not learned by heart: many hot steps, and little noise, which would only slow them
    dropout, batch, rate = at(passes, [(7, (0.1, 32, 3e-3)), (12, (0.2, 32, 3e-3))], (0.3, 64, 2e-3))
    size = 128 if few else 256
    network = {"hidden_size": size, "embedding_size": size, "dropout": dropout}
    return left_open(config.model, network), batch_and_rate(config, pairs, batch, rate)  # type: ignore[attr-defined]


def forecast(
    config: RunConfig, lengths: Sequence[int], seasons: Sequence[int], horizon: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a forecaster of series of so many steps: what is left open of the network's settings, and the training's."""
    m: Any = config.model  # type: ignore[attr-defined]
    segment = m.segment or _segment(seasons[0], horizon, m.look_back)
    longest = max(lengths)
    wanted = max(2 * seasons[0], 2 * segment, *(2 * s for s in seasons[1:]))
    look_back = m.look_back or max(1, -(-min(wanted, max(longest - horizon, 1)) // segment)) * segment
    windows = sum(max(1, n - horizon) for n in lengths)
    size = at(windows, [(1_000, 32), (20_000, 64)], 128)
    network = {"hidden_size": size, "dropout": 0.2}
    if m.kind != "steps":
        network |= {"look_back": look_back, "segment": segment, "members": 1}
    # a series that is read step by step is many windows at once
    examples, batch = (sum(-(-n // LONG) for n in lengths), 32) if m.kind == "steps" else (windows, 128)
    return left_open(m, network), batch_and_rate(config, examples, batch, 2e-3)


def _segment(season: int, horizon: int, look_back: int | None) -> int:
    """Steps that are read together: the season, halved until the horizon has two of them, and the look-back whole ones."""
    size = max(season, 1)
    while size > 1 and (size > max(horizon // 2, 1) or (look_back or size) % size):
        size //= next(d for d in range(2, size + 1) if size % d == 0)
    return size
