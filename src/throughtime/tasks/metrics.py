"""Scores of classes (accuracy, F1, calibration) and of lines (exact match, error rate, BLEU, chrF)."""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any

from throughtime.tasks.edits import edits

BINS = 10  # of confidence, for the calibration error
ORDER = 4  # of the longest n-grams of BLEU


def line_scores(found: list[str], truth: list[str], kind: str) -> dict[str, Any]:
    """Scores of lines against what they should be, one for one.

    Args: kind: what a target is cut into: of characters the error rate is that of characters, else that of words.
    Returns: exact, the share of lines that are right; character_error_rate or word_error_rate, edits a unit of the truth; where
        sacrebleu is installed sacreBLEU and chrF (Post 2018; Popović 2015) of whole lines as they are, with their signatures. BLEU
        is None where no line of the truth has four words, which stands in the place of its signature: then exact match and error
        rate come first, else BLEU and chrF.
    """
    truth, found = [t.strip() for t in truth], [f.strip() for f in found]
    exact = sum(a == b for a, b in zip(found, truth, strict=True)) / len(truth)
    name, cut = ("character", list) if kind == "characters" else ("word", str.split)
    units = [(cut(a), cut(b)) for a, b in zip(found, truth, strict=True)]
    wrong, whole = sum(edits(a, b) for a, b in units), sum(len(b) for _, b in units)
    plain = {"exact": exact, f"{name}_error_rate": wrong / max(whole, 1)}
    if importlib.util.find_spec("sacrebleu") is None:
        warnings.warn("no BLEU and chrF: sacrebleu is not installed (pip install 'throughtime[text]')", stacklevel=2)
        return plain
    overlap = bleu_and_chrf(found, truth)
    return plain | overlap if overlap["bleu"] is None else overlap | plain


def bleu_and_chrf(found: list[str], truth: list[str]) -> dict[str, Any]:
    """sacreBLEU and chrF with their signatures; BLEU is None where the truth has no n-gram of its order."""
    from sacrebleu.metrics import BLEU, CHRF
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    values: dict[str, Any] = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        values[name] = float(metric.corpus_score(found, [truth]).score)
        values[f"{name}_signature"] = str(metric.get_signature())
    words: Any = Tokenizer13a()  # type: ignore[no-untyped-call]  # as BLEU cuts its lines
    if all(len(words(line).split()) < ORDER for line in truth):
        values |= {"bleu": None, "bleu_signature": f"undefined: no line has {ORDER} words"}
    return values


def class_scores(log_p: Any, truth: list[int], unit: str = "text") -> dict[str, float]:
    """accuracy, macro F1, expected calibration error (Naeini et al. 2015) and nats a text, or what else an example is called."""
    import torch

    y = torch.tensor(truth)
    confidence, given = log_p.exp().max(-1)
    right = (given == y).double()
    matrix = confusion(given.tolist(), truth, log_p.shape[1])
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for b in range(BINS):
        inside = bins == b
        if bool(inside.any()):
            error += float(inside.double().mean() * (confidence[inside].mean() - right[inside].mean()).abs())
    there = sorted(set(truth) | set(given.tolist()))
    return {
        "accuracy": float(right.mean()),
        "macro_f1": sum(f1(matrix, i)["f1"] for i in there) / len(there),
        "calibration_error": error,
        f"nats_per_{unit}": float(-log_p[torch.arange(len(y)), y].mean()),
    }


def confusion(given: list[int], truth: list[int], classes: int) -> list[list[int]]:
    """How often each true class (rows) was given each class (columns)."""
    matrix = [[0] * classes for _ in range(classes)]
    for g, t in zip(given, truth, strict=True):
        matrix[t][g] += 1
    return matrix


def f1(matrix: list[list[int]], i: int) -> dict[str, float]:
    """Precision, recall, F1 and number of examples of a class."""
    hits, true, given = matrix[i][i], sum(matrix[i]), sum(row[i] for row in matrix)
    return {
        "precision": hits / given if given else 0.0,
        "recall": hits / true if true else 0.0,
        "f1": 2 * hits / (true + given) if true + given else 0.0,
        "examples": true,
    }
