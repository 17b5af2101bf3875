"""Settings that a user left open, from how much data there is and what budget: each task's choice. Measured in docs/defaults.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from throughtime.config import RunConfig

FEW_WINDOWS = 1_000  # with none of what they forecast in common
MANY_WINDOWS = 20_000  # what comes is learned from so many without a linear forecast
FEW_STEPS = 1_000  # windows: a pass through them is a few steps
MOST_READ = 768  # steps back: the work of a linear forecast grows with their cube
LEAST_READ = 8  # steps of a series without a season
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


def classify_audio(config: RunConfig, recordings: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a classifier of so many recordings: what is left open of the network's settings, and the training's."""
    network = {"hidden_size": 128, "dropout": 0.3}
    return left_open(config.model, network), batch_and_rate(config, recordings, 32, 2e-3)  # type: ignore[attr-defined]


def tag(config: RunConfig, sentences: int) -> dict[str, Any]:
    """For a tagger of so many sentences: the training's settings."""
    return batch_and_rate(config, sentences, 32, 3e-3)


def translate(config: RunConfig, pairs: int, characters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a translator of so many pairs, so many characters on both sides: what is left open of the network's settings, and
    the training's."""
    few = characters < 50_000  # single words, or some hundred sentences
    passes = expected_passes(config, pairs, 2e6 * pairs / characters, config.training.batch_size or 32)
    # what is seen a few times is not learned by heart: many hot steps, and little noise, which would only slow them
    dropout, batch, rate = at(passes, [(7, (0.1, 32, 3e-3)), (12, (0.2, 32, 3e-3))], (0.3, 64, 2e-3))
    size = 128 if few else 256
    network = {"hidden_size": size, "embedding_size": size, "dropout": dropout}
    return left_open(config.model, network), batch_and_rate(config, pairs, batch, rate)  # type: ignore[attr-defined]


def histories(model: Any, lengths: Sequence[int], seasons: Sequence[int], horizon: int) -> list[int]:
    """How far back a linear forecast of series of so many steps may read, ascending: what is set, or else some seasons, as long
    as half of the series have as much before a horizon."""
    if model.history or model.look_back:
        return [model.history or model.look_back]
    season, segment = seasons[-1], model.segment or _segment(seasons[0], horizon, None)
    wanted = [2, 3, 4] if len(seasons) > 1 else [2, 3, 4, 6] if season > 1 else [4, 8, 12, 24]
    most = max(min(sorted(lengths)[len(lengths) // 2] - horizon, MOST_READ), 2 * segment)
    found = {-(-times * season // segment) * segment for times in wanted}
    return sorted(n for n in found if n <= most) or [max(most // segment, 1) * segment]


def forecast(
    config: RunConfig, lengths: Sequence[int], seasons: Sequence[int], horizon: int, history: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a forecaster of series of so many steps: what is left open of the network's settings, and the training's. history: how
    far back is read, where windows are."""
    m: Any = config.model  # type: ignore[attr-defined]
    windows = sum(max(1, n - horizon) for n in lengths)
    apart = sum(max(1, n // horizon) for n in lengths)  # windows that share no value to forecast
    size = at(windows, [(1_000, 32), (20_000, 64)], 128)
    few = apart < FEW_WINDOWS
    network = {"hidden_size": size, "dropout": 0.5 if few and history else 0.2}
    if history is not None:
        wanted = max(2 * seasons[-1], LEAST_READ)
        given = m.look_back or (history if history < wanted else None)
        segment = m.segment or _segment(seasons[0], horizon, given)
        look_back = given or wanted // segment * segment or segment
        unaided = 1 if m.members is m.unaided is None and windows >= MANY_WINDOWS else 0
        network |= {"history": history, "look_back": look_back, "segment": segment, "symmetric": few}
        network |= {"members": 1 + unaided, "unaided": unaided}
    # a series that is read step by step is many windows at once
    examples, batch = (sum(-(-n // LONG) for n in lengths), 32) if m.kind == "steps" else (windows, 128)
    training = batch_and_rate(config, examples, batch, 2e-3)
    if windows <= FEW_STEPS and "patience" not in config.training.model_fields_set:
        # evaluations are few steps apart, and the linear forecast is ahead of what is learned beside it for many
        training["patience"] = 15
    return left_open(m, network), training


def _segment(season: int, horizon: int, look_back: int | None) -> int:
    """Steps that are read together: the season, halved until the horizon has two of them, and the look-back whole ones."""
    size = max(season, 1)
    while size > 1 and (size > max(horizon // 2, 1) or (look_back or size) % size):
        size //= next(d for d in range(2, size + 1) if size % d == 0)
    return size


def transcribe(
    config: RunConfig, recordings: int, seconds: float, single: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a recogniser of so many recordings, so many seconds together: what is left open of the network's settings, with the
    masks and the noise of its data, and the training's. single: whether its units are whole words, and each recording is one."""
    together = at(
        seconds / 3600, [(2, 12.0), (20, 24.0)], 48.0
    )  # seconds of speech: few recordings are learned by many steps
    batch = min(max(round(together * recordings / seconds), 4), 16)
    passes = expected_passes(config, recordings, 1e4 * recordings / seconds, config.training.batch_size or batch)
    one_way = config.model.streaming  # type: ignore[attr-defined]
    # single words are soon known by heart, and a stranger's are heard so or so by each training: several at once err less
    members = 2 if single and not one_way else 1
    network = {"hidden_size": 384 if one_way else 256, "dropout": 0.3, "members": members}
    # a decoder that writes one word learns slower than CTC alone places it, and of strangers hears no more
    network["attention"] = 0.0 if single else 0.3
    # what is hidden of the input helps where it is met often, and else keeps the alignment from being found
    masks, noise = at(passes, [(80, (0.0, 0.0))], (0.5, 0.2))
    fitted = left_open(config.model, network)  # type: ignore[attr-defined]
    return fitted | {"masks": masks, "noise": noise}, batch_and_rate(config, recordings, batch, 1e-3)


def music(config: RunConfig, stretches: int, symbols: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """For a model of so many stretches of music, so many symbols together: what is left open of the network's settings, and the
    training's."""
    batch = config.training.batch_size or 8
    passes = expected_passes(config, symbols, 6e5, batch * symbols / stretches)
    # what is met often is soon known by heart: a small network, and much that keeps it from that
    size, dropout, decay = at(passes, [(10, (384, 0.2, 0.05)), (30, (384, 0.4, 0.1))], (256, 0.6, 0.3))
    network = {"hidden_size": size, "chain_size": size // 2, "embedding_size": size // 4, "dropout": dropout}
    training = batch_and_rate(config, stretches, batch, 2e-3)
    if "weight_decay" not in config.training.model_fields_set:
        training["weight_decay"] = decay
    return left_open(config.model, network), training  # type: ignore[attr-defined]
