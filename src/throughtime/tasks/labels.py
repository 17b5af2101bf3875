"""What classifiers have in common, whatever they read: labels that are uneven, and how well they are told apart."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

from throughtime.tasks.metrics import class_scores, confusion, f1

UNEVEN = 3  # how many times as frequent one label may be as another


def balance_of(counts: Counter[str], asked: float | None) -> float:
    """How much rare labels count for more: what is asked for, else 0.5 where labels are uneven; says where they are."""
    (often, most), (rare, least) = counts.most_common()[0], counts.most_common()[-1]
    uneven = most > UNEVEN * least
    balance = asked if asked is not None else 0.5 if uneven else 0.0
    if uneven:
        how = "rare ones count more" if balance else "each example counts the same"
        kept = "macro F1" if balance else "accuracy"
        warnings.warn(
            f"the labels are uneven ({often!r} {most:,}, {rare!r} {least:,}): {how} (data.balance {balance:g}), and the "
            f"weights that do best by {kept} are kept",
            stacklevel=3,
        )
    return balance


def class_weights(counts: list[int], balance: float) -> list[float] | None:
    """How much an example of each class counts: frequency^-balance, 1 for the mean example."""
    if balance == 0:
        return None
    raw = [c**-balance for c in counts]
    mean = sum(c * w for c, w in zip(counts, raw, strict=True)) / sum(counts)
    return [w / mean for w in raw]


def label_scores(log_p: Any, truth: list[int], labels: list[str], unit: str = "text") -> dict[str, Any]:
    """How well examples are told apart, of log p of every label for every example, [n, C], and the numbers of the right ones.

    Returns: examples, accuracy, macro_f1, calibration_error (expected, 10 bins), nats an example, `unit` being what one is called;
        per label precision, recall, F1 and how many; the confusion matrix, rows the true labels, columns the given ones.
    """
    matrix = confusion(log_p.argmax(-1).tolist(), truth, len(labels))
    return {
        "examples": len(truth),
        **class_scores(log_p, truth, unit),
        "labels": {label: f1(matrix, i) for i, label in enumerate(labels)},
        "confusion": {label: dict(zip(labels, matrix[i], strict=True)) for i, label in enumerate(labels)},
    }
