"""The table of the tasks but text: trains each by its command, with default settings, and scores it.

    python benchmarks/tasks.py DATA OUT [--only classify tag …] [--minutes 10 15 …] [--memoryless]

DATA holds classify/sst2, text/wikitext-2 (for init-from: a language model of it reads for the classifier), tag/ewt,
translate/multi30k, forecast/ett, forecast/m4, forecast/m3, forecast/small, speech/an4, speech/fsdd and music; OUT is a new
folder for the runs and `tasks.md`. The minutes are one for each that is asked for; those of init-from are the language
model's, of m3 those of all four frequencies together, of fsdd those of each speaker who is left out. With --memoryless the
same network without its memory is trained beside an4 and fsdd.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime.tasks.source import Source
from throughtime.tasks.tables import rows as labelled_rows

# in minutes
MINUTES = {
    **{"classify": 10.0, "init-from": 20.0, "tag": 15.0, "de-en": 30.0, "en-fr": 30.0},
    **{"etth1": 10.0, "m4-hourly": 10.0, "m4-steps": 10.0, "m3": 15.0, "airline": 2.0},
    **{"an4": 10.0, "an4-streaming": 30.0, "fsdd": 5.0},
    **{"jsb": 10.0, "abc": 10.0, "midi": 10.0},
}
WITHOUT = ("--model.cell", "none")  # a memory
FORECASTS = ("etth1", "m4-hourly", "m4-steps", "m3", "airline")


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
    rows, held = (list(labelled_rows(Source.of(path), labelled=True)) for path in (train, dev))

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


def forecasts(data: Path, out: Path, names: list[str], minutes: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """Which of `FORECASTS`, what was held out, and the scores beside those of the seasonal naive forecast."""
    if "etth1" in names:
        etth1 = data / "ett" / "ETTh1.csv"
        split = ("--data.split", "8640,2880,2880", "--data.horizon", 720)
        for look_back in (("--model.look-back", 96), ()):
            folder = out / ("etth1-96" if look_back else "etth1")
            throughtime("train", "forecast", etth1, *split, *look_back, "--minutes", minutes["etth1"], "--out", folder)
            found = [scored(folder, etth1, "--horizon", horizon) for horizon in (96, 192, 336, 720)]
            words = " ".join(f"{f['mse_scaled']:.3f}" for f in found)
            naive = " ".join(f"{f['naive']['mse_scaled']:.3f}" for f in found)
            free = "look-back 96" if look_back else "look-back free"
            yield (
                "etth1",
                f"ETTh1 test, {free}",
                f"mse_scaled {words} (naive {naive}); {coverage(found[-1])}",
            )
    train, test = (data / "m4" / f"hourly-{part}.csv" for part in ("train", "test"))
    for name, kind in (("m4-hourly", "segments"), ("m4-steps", "steps")):
        if name in names:
            folder = out / name
            given = ("--data.horizon", 48, "--model.kind", kind, "--minutes", minutes[name])
            throughtime("train", "forecast", train, *given, "--out", folder)
            words = percentage(scored(folder, train, test))
            if kind == "steps":
                words += f"; {many_cutoffs(folder, train)}"
            yield name, f"M4 Hourly, the competition's test, {kind}", words
    if "m3" in names:
        found = []
        for period, season, horizon in (("YEARLY", 1, 6), ("QUARTERLY", 4, 8), ("MONTHLY", 12, 18), ("OTHER", 1, 8)):
            train, test = m3_of(period, data / "m3" / "m3.csv.gz", out)
            folder = out / f"m3-{period.lower()}"
            given = ("--data.season", season, "--data.horizon", horizon, "--minutes", minutes["m3"] / 4)
            throughtime("train", "forecast", train, *given, "--out", folder)
            found.append(scored(folder, train, test))
        weights = [f["series"] * f["horizon"] for f in found]
        ours, naive = (
            sum(w * f["smape"] for w, f in zip(weights, some, strict=True)) / sum(weights)
            for some in (found, [f["naive"] for f in found])
        )
        apart = " ".join(f"{f['smape']:.2f}" for f in found)
        yield "m3", "M3, all series", f"sMAPE {ours:.2f} (naive {naive:.2f}); yearly, quarterly, monthly, other {apart}"
    if "airline" in names:
        rows = (data / "small" / "airline-passengers.csv").read_text().splitlines(keepends=True)
        parts = [out / "airline-history.csv", out / "airline-truth.csv"]
        parts[0].write_text("".join(rows[:-24]))
        parts[1].write_text("".join([rows[0], *rows[-24:]]))
        folder = out / "airline"
        given = ("--data.horizon", 24, "--minutes", minutes["airline"])
        throughtime("train", "forecast", parts[0], *given, "--out", folder)
        yield "airline", "airline passengers, the last 24 months", percentage(scored(folder, *parts))


def many_cutoffs(folder: Path, path: Path) -> str:
    """How long forecasts at 500 cutoffs of the first series take, beside five single ones: the middle of nine tries."""
    torch.set_num_threads(1)
    model = tt.load(folder, task="forecast")
    series = model.task.read(model.config, [path])[:1]
    last = len(series[0].values)

    def seconds(parts: list[range]) -> float:
        start = time.perf_counter()
        for cutoffs in parts:
            windows = model._windows(series, np.array([[0, cut] for cut in cutoffs]))
            count = sum(1 for _ in model.forecasts(windows, [80.0]))
            assert count == len(cutoffs)
        return time.perf_counter() - start

    many, few = [range(last - 500, last)], [range(last - i - 1, last - i) for i in range(5)]
    seconds(many), seconds(few)
    tries = [(seconds(many), seconds(few)) for _ in range(9)]
    one, other = (1e3 * statistics.median(times) for times in zip(*tries, strict=True))
    return f"500 cutoffs of a series {one:.0f} ms, five single ones {other:.0f} ms"


def scored(folder: Path, *arguments: object) -> dict[str, Any]:
    """What `evaluate` gives."""
    found: dict[str, Any] = json.loads(throughtime("evaluate", folder, *arguments, "--json"))
    return found


def coverage(found: dict[str, Any]) -> str:
    """How much of what came the interval of 80 % held."""
    return f"80 % interval {found['coverage']['80']:.0f} %"


def percentage(found: dict[str, Any]) -> str:
    """sMAPE, MASE and CRPS, and those of the seasonal naive forecast."""
    ours, naive = (
        f"sMAPE {f['smape']:.2f}, MASE {f['mase']:.3f}, CRPS {f['crps']:.3f}" for f in (found, found["naive"])
    )
    return f"{ours} (naive {naive}); {coverage(found)}"


def m3_of(period: str, path: Path, out: Path) -> list[Path]:
    """The series of one frequency, to train on and to test."""
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    parts = []
    for split in ("train", "test"):
        parts.append(out / f"m3-{period.lower()}-{split}.csv")
        with parts[-1].open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["unique_id", "ds", "y"])
            writer.writerows(
                [r["unique_id"], r["t"], r["y"]] for r in rows if (r["period"], r["split"]) == (period, split)
            )
    return parts


def an4(data: Path, out: Path, minutes: float, *more: object) -> str:
    """Error rates on speakers of AN4 who were not in training, of what is likeliest at each step and of what is written."""
    train, dev = (data / "an4" / f"{part}.jsonl" for part in ("train", "dev"))
    throughtime("train", "transcribe", train, "--valid", dev, "--minutes", minutes, "--out", out, *more)
    greedy, chosen = scored(out, dev, "--decoding", "greedy"), scored(out, dev)
    words = [
        f"{name} CER {f['cer']:.1f}, WER {f['wer']:.1f}"
        for name, f in (("greedy", greedy), (chosen["decoding"], chosen))
    ]
    return f"{'; '.join(words)}; real-time factor {chosen['real_time_factor']:.3f}"


def fsdd(data: Path, out: Path, minutes: float, *more: object) -> str:
    """The digits of each speaker, heard by a network that was trained and chosen on those of the others: word accuracy."""
    rows = {
        part: [json.loads(line) for line in (data / "fsdd" / f"{part}.jsonl").read_text().splitlines()]
        for part in ("train", "dev")
    }
    out.mkdir()
    right = {}
    for left_out in sorted({row["speaker"] for row in rows["train"]}):
        parts = {part: [r for r in some if r["speaker"] != left_out] for part, some in rows.items()}
        parts["test"] = [r for some in rows.values() for r in some if r["speaker"] == left_out]
        files = {}
        for part, some in parts.items():
            files[part] = out / f"{left_out}-{part}.jsonl"
            located = (row | {"audio": str((data / "fsdd" / row["audio"]).resolve())} for row in some)
            files[part].write_text("".join(json.dumps(row) + "\n" for row in located))
        given = ("--valid", files["dev"], "--minutes", minutes, "--out", out / left_out)
        throughtime("train", "transcribe", files["train"], *given, *more)
        right[left_out] = 100 - scored(out / left_out, files["test"])["wer"]
    each = ", ".join(f"{speaker} {value:.1f}" for speaker, value in right.items())
    return f"word accuracy {statistics.mean(right.values()):.1f} % ({each})"


def speech(
    data: Path, out: Path, names: list[str], minutes: dict[str, float], memoryless: bool
) -> Iterator[tuple[str, str, str]]:
    """Which of the recognisers, what was held out, and how much of it was wrong or right."""
    if "an4" in names:
        yield "an4", "AN4 dev, speakers not in training", an4(data, out / "an4", minutes["an4"])
        if memoryless:
            yield "an4", "the same without a memory", an4(data, out / "an4-none", minutes["an4"], *WITHOUT)
    if "an4-streaming" in names:
        words = an4(data, out / "an4-streaming", minutes["an4-streaming"], "--model.streaming")
        yield "an4-streaming", "AN4 dev, streaming, 270 ms ahead", words
    if "fsdd" in names:
        yield "fsdd", "FSDD, a speaker left out in turn", fsdd(data, out / "fsdd", minutes["fsdd"])
        if memoryless:
            yield "fsdd", "the same without a memory", fsdd(data, out / "fsdd-none", minutes["fsdd"], *WITHOUT)


def music(data: Path, out: Path, names: list[str], minutes: dict[str, float]) -> Iterator[tuple[str, str, str]]:
    """Which pieces, what was held out, and what it costs; of a folder of MIDI what is written after them."""
    if "jsb" in names:
        file = data / "jsb" / "jsb-chorales-quarter.json"
        throughtime("train", "music", file, "--minutes", minutes["jsb"], "--out", out / "jsb")
        found = json.loads(throughtime("evaluate", out / "jsb", file, "--json"))  # its part `test`
        beside = ", ".join(f"{name} {found[name]['nats_per_frame']:.2f}" for name in ("chain", "markov"))
        yield "jsb", "JSB chorales, test", f"{found['nats_per_frame']:.2f} nats a frame ({beside})"
    if "abc" in names:
        files = (data / "abc" / f"{name}.abc" for name in ("oneills", "ryans-mammoth"))
        throughtime("train", "music", *files, "--minutes", minutes["abc"], "--out", out / "abc")
        found = tt.load(out / "abc").info()["scores"]
        nats, chain = found["nats_per_note"], found["chain_nats_per_note"]
        under = f"{100 * (1 - nats / chain):.0f} % under the chain's {chain:.2f}"
        yield "abc", "O'Neill and Ryan, a tenth of the tunes", f"{nats:.2f} nats a note, {under}"
    if "midi" in names:
        throughtime("train", "music", data / "midi", "--minutes", minutes["midi"], "--out", out / "midi")
        file = out / "midi.mid"
        asked = ("--out", file, "--seconds", 60, "--seed", 0, "--json")
        written = json.loads(throughtime("generate", out / "midi", *asked))
        words = f"{written['seconds']:.0f} s, {written['notes']} notes, {100 * (written['copied'] or 0):.0f} % copied"
        yield "midi", "a folder of MIDI, one piece written", words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(MINUTES), default=list(MINUTES))
    parser.add_argument("--minutes", nargs="*", type=float)
    parser.add_argument("--memoryless", action="store_true")
    given = parser.parse_args()
    data, out = given.data, given.out
    out.mkdir(parents=True)
    minutes = MINUTES | dict(zip(given.only, given.minutes or [MINUTES[name] for name in given.only], strict=True))
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
    for name, held, measured in forecasts(data / "forecast", out, [n for n in given.only if n in FORECASTS], minutes):
        done("forecast", name, held, measured)
    for name, held, measured in speech(data / "speech", out, given.only, minutes, given.memoryless):
        done("transcribe", name, held, measured)
    for name, held, measured in music(data / "music", out, given.only, minutes):
        done("music", name, held, measured)
    text = "\n".join(lines) + "\n"
    (out / "tasks.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
