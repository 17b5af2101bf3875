"""The table of classify, tag and translate: trains each by its command, with default settings, and scores it.

    python benchmarks/tasks.py DATA OUT [--only classify init-from tag de-en en-fr] [--minutes 10 20 15 30 30]

DATA holds classify/sst2, text/wikitext-2 (for init-from: a language model of it reads for the classifier), tag/ewt and
translate/multi30k; OUT is a new folder for the runs and `tasks.md`. The minutes of init-from are those of the language model.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from throughtime.tasks.tables import read_labelled


def throughtime(*arguments: object) -> str:
    command = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    print("$ throughtime " + " ".join(command[3:]), file=sys.stderr)
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def run(task: str, train: list[Path], valid: list[Path], minutes: float, out: Path, *more: object) -> dict[str, Any]:
    """Train with default settings; the scores on the held-out files."""
    throughtime("train", task, *train, "--valid", *valid, "--minutes", minutes, "--out", out, *more)
    scores: dict[str, Any] = json.loads(throughtime("evaluate", out, *valid, "--json"))
    return scores


def tf_idf_and_logistic_regression(train: Path, dev: Path) -> float:
    """Accuracy of what comes without a network: words and pairs weighted by TF-IDF, ridge-penalised logistic regression, the
    penalty chosen on a tenth of the training data."""
    rows, held = read_labelled([train]), read_labelled([dev])

    def terms(text: str) -> set[str]:
        words = text.lower().split()
        return {*words, *(f"{a} {b}" for a, b in itertools.pairwise(words))}

    frequency = Counter(t for r in rows for t in terms(r.text))
    index = {t: i for i, (t, n) in enumerate(frequency.items()) if n > 1}
    index = {t: i for i, t in enumerate(index)}
    weight = torch.tensor([math.log(len(rows) / frequency[t]) + 1 for t in index])

    def matrix(texts: list[str]) -> torch.Tensor:
        at = [(i, index[t]) for i, text in enumerate(texts) for t in terms(text) if t in index]
        ij = torch.tensor(at).t()
        values = weight[ij[1]]
        norm = torch.zeros(len(texts)).index_add(0, ij[0], values**2).sqrt().clamp(min=1e-9)
        return torch.sparse_coo_tensor(ij, values / norm[ij[0]], (len(texts), len(index))).coalesce()

    labels = sorted({r.label for r in rows})
    y = torch.tensor([labels.index(r.label) for r in rows])
    x, x_dev = matrix([r.text for r in rows]), matrix([r.text for r in held])

    def fit(some: torch.Tensor, penalty: float) -> torch.nn.Linear:
        torch.manual_seed(0)
        model = torch.nn.Linear(len(index), len(labels))
        part, goal = x.index_select(0, some), y[some]
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            logits = torch.sparse.mm(part, model.weight.t()) + model.bias
            value = torch.nn.functional.cross_entropy(logits, goal) + penalty * model.weight.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        return model

    def right(model: torch.nn.Linear, x: torch.Tensor, y: torch.Tensor) -> float:
        with torch.no_grad():
            return float((torch.sparse.mm(x, model.weight.t()) + model.bias).argmax(-1).eq(y).float().mean())

    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    inner, tenth = order[len(rows) // 10 :], order[: len(rows) // 10]
    penalties = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3]
    best = max(penalties, key=lambda p: right(fit(inner, p), x.index_select(0, tenth), y[tenth]))
    return right(fit(order, best), x_dev, torch.tensor([labels.index(r.label) for r in held]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    names = ["classify", "init-from", "tag", "de-en", "en-fr"]
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--minutes", nargs=len(names), type=float, default=[10, 20, 15, 30, 30])
    given = parser.parse_args()
    data, out = given.data, given.out
    out.mkdir(parents=True)
    minutes = dict(zip(names, given.minutes, strict=True))
    lines = ["| task | data | minutes | measured |", "|---|---|---|---|"]

    def done(task: str, name: str, held: str, measured: str) -> None:
        lines.append(f"| {task} | {held} | {minutes[name]:g} | {measured} |")

    if "classify" in given.only:
        train, dev = (data / "classify" / "sst2" / f"{part}.csv" for part in ("train", "dev"))
        scores = run("classify", [train], [dev], minutes["classify"], out / "classify")
        plain = tf_idf_and_logistic_regression(train, dev)
        words = ", ".join(
            f"{k.replace('_', ' ')} {scores[k]:.1%}" for k in ("accuracy", "macro_f1", "calibration_error")
        )
        done("classify", "classify", "SST-2 dev", f"{words}; TF-IDF and logistic regression {plain:.1%}")
    if "init-from" in given.only:
        train, dev = (data / "classify" / "sst2" / f"{part}.csv" for part in ("train", "dev"))
        text, held = (data / "text" / "wikitext-2" / f"{part}.txt" for part in ("train", "valid"))
        of_words = ("--model.tokens", "words")
        found = run("text", [text], [held], minutes["init-from"], out / "language", *of_words)
        scores = run("classify", [train], [dev], 10, out / "init-from", "--init-from", out / "language")
        words = f"accuracy {scores['accuracy']:.1%} (language model: perplexity {found['perplexity']:.0f})"
        done("classify --init-from", "init-from", "SST-2 dev", words)
    if "tag" in given.only:
        train, dev = (data / "tag" / "ewt" / f"{part}.conllu" for part in ("train", "dev"))
        scores = run("tag", [train], [dev], minutes["tag"], out / "tag")
        words = f"accuracy {scores['accuracy']:.1%}, unknown words {scores['unknown_accuracy']:.1%}"
        done("tag", "tag", "EWT dev, UPOS", words)
    for pair in ("de-en", "en-fr"):
        if pair in given.only:
            folder, sides = data / "translate" / "multi30k", pair.split("-")
            train, valid, test = ([folder / f"{p}.{side}" for side in sides] for p in ("train", "valid", "test_2016"))
            found = {"valid": run("translate", train, valid, minutes[pair], out / pair)}
            found["test_2016"] = json.loads(throughtime("evaluate", out / pair, *test, "--json"))
            for name, scores in found.items():
                words = f"BLEU {scores['bleu']:.1f}, chrF {scores['chrf']:.1f} (beam 5; {scores['bleu_signature']})"
                done(f"translate {pair}", pair, f"Multi30k {name}", words)
    text = "\n".join(lines) + "\n"
    (out / "tasks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
