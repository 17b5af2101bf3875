"""bench in other precisions: the layers in bfloat16 beside torch.nn's, and forward with weights in int8 and beside onnxruntime, in
float32 and int8."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from typing import Any

from throughtime.cli.peers import Row, Shape, onnx_model, onnx_session

WIDE = 512  # units
# what torch.nn can be asked for, whose best counts
TORCH = {"torch_ms": "float32", "torch_autocast_ms": "autocast", "torch_module_ms": ".bfloat16()"}


def autocast_job(layer: Callable[..., Any], x: Any, what: str) -> Callable[[], None]:
    """A layer inside autocast to bfloat16: "forward", or "both" with all gradients."""
    import torch

    def forward() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            layer(x)

    def both() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)[0]
        out.sum().backward()

    return both if what == "both" else forward


def bfloat16_jobs(ours: Any, theirs: Any, x: Any, what: str, job: Callable[..., Any]) -> dict[str, Callable[[], None]]:
    """Our layer in autocast; torch.nn's in autocast, and as a module of bfloat16. job: makes one of a layer in its own type."""
    half = copy.deepcopy(theirs).bfloat16()
    given = x.detach().bfloat16().requires_grad_()
    return {
        "ours_bf16_ms": autocast_job(ours, x, what),
        "torch_autocast_ms": autocast_job(theirs, x, what),
        "torch_module_ms": job(half, given, what),
    }


def int8_jobs(layer: Any, x: Any, job: Callable[..., Any]) -> dict[str, Callable[[], None]]:
    """Our layer with weights in int8, forward. job: as of `bfloat16_jobs`."""
    return {"ours_int8_ms": job(copy.deepcopy(layer).quantize(), x, "forward")}


def onnx_jobs(layer: Any, shape: Shape, threads: int) -> dict[str, Callable[[], Any]]:
    """A layer of torch.nn's, forward, by onnxruntime: in float32, and with weights in int8 where it has that, of LSTMs alone; empty
    where it is not installed."""
    try:
        import numpy as np

        from throughtime.exporting.onnx.quantised import quantised
    except ImportError:
        return {}
    steps, batch, inputs, _ = shape
    given = {"X": np.random.default_rng(0).standard_normal((steps, batch, inputs)).astype(np.float32)}
    model = onnx_model(layer, steps, batch)
    jobs = {"onnxruntime_ms": onnx_session(model, threads, given)}
    if layer.mode == "LSTM":
        jobs["onnxruntime_int8_ms"] = onnx_session(quantised(model), threads, given)
    return jobs


def parted(row: Row, times: dict[str, float], work: float, limits: dict[str, float]) -> list[Row]:
    """What was measured of one layer in turn, as a row for each precision. row: what it is; work: operations."""
    plain = {k: times[k] for k in ("ours_ms", "torch_ms", "jax_ms") if k in times}
    rows = [row | plain | {"share": work / limits["float32"] / (times["ours_ms"] / 1e3)}]
    halves = {k: times[k] for k in ("ours_bf16_ms", "torch_autocast_ms", "torch_module_ms")}
    share = {"share_bf16": work / limits["bfloat16"] / (times["ours_bf16_ms"] / 1e3)} if "bfloat16" in limits else {}
    rows.append(row | {"precision": "bfloat16"} | halves | share)
    if "ours_int8_ms" in times:
        whole = times["ours_int8_ms"]
        share = {"share_int8": work / limits["int8"] / (whole / 1e3)} if "int8" in limits else {}
        rows.append(row | {"precision": "int8", "ours_int8_ms": whole} | share)
    others = {k: v for k, v in times.items() if k.startswith("onnxruntime")}
    if others:
        rows.append(row | {"precision": "onnxruntime"} | others)
    return rows


def tables(rows: list[Row]) -> list[str]:
    """The tables of other precisions, as Markdown. rows: of a bench, in which those of one layer follow each other."""
    plain = {_key(r): r for r in rows if "torch_ms" in r}
    halves = [(plain[_key(r)], r) for r in rows if "ours_bf16_ms" in r]
    others = [(plain[_key(r)], r) for r in rows if "onnxruntime_ms" in r]
    whole = [(plain[_key(r)], r) for r in rows if "ours_int8_ms" in r]
    lines = [
        "",
        "In bfloat16: ours in autocast; torch.nn's best of float32, autocast and a module of bfloat16.",
        "",
        "| | T·B·I·H | | ours | × our float32 | torch.nn's best | by | × | share of bfloat16's limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r, half in halves:
        by, best = _best(r, half)
        share = f"{half['share_bf16']:.0%}" if "share_bf16" in half else ""
        ours = half["ours_bf16_ms"]
        lines.append(
            f"| {r['name']} | {r['shape']} | {r['what']} | {ours:.2f} | {r['ours_ms'] / ours:.2f} | {best:.2f} | {by} | "
            f"{best / ours:.2f} | {share} |"
        )
    lines += ["", "| in bfloat16, over the shapes | mean × our float32 | least | mean × torch.nn's best | least |"]
    lines += ["|---|---|---|---|---|"]
    for kind in dict.fromkeys((r["name"], r["what"]) for r, _ in halves):
        mine = [(r, half) for r, half in halves if (r["name"], r["what"]) == kind]
        gains = [r["ours_ms"] / half["ours_bf16_ms"] for r, half in mine]
        beside = [_best(r, half)[1] / half["ours_bf16_ms"] for r, half in mine]
        lines.append(
            f"| {', '.join(kind)} | {mean(gains):.2f} | {min(gains):.2f} | {mean(beside):.2f} | {min(beside):.2f} |"
        )
    lines += _int8_tables(whole, {_key(r): r["onnxruntime_int8_ms"] for r in rows if "onnxruntime_int8_ms" in r})
    if others:
        lines += [
            "",
            "| forward | T·B·I·H | ours | ours in bfloat16 | onnxruntime | × | onnxruntime, int8 | × ours in bfloat16 |",
            "|---|---|---|---|---|---|---|---|",
        ]
    known = {_key(half): half["ours_bf16_ms"] for _, half in halves}
    for r, other in others:
        ours, half, onnx = r["ours_ms"], known[_key(r)], other["onnxruntime_ms"]
        small = other.get("onnxruntime_int8_ms")
        int8 = "| " if small is None else f"{small:.2f} | {small / half:.2f}"
        lines.append(
            f"| {r['name']} | {r['shape']} | {ours:.2f} | {half:.2f} | {onnx:.2f} | {onnx / ours:.2f} | {int8} |"
        )
    return lines


def _int8_tables(measured: list[tuple[Row, Row]], onnx: dict[tuple[str, str, str], float]) -> list[str]:
    """The tables of weights in int8. measured: of each layer its rows in float32 and in int8. onnx: milliseconds of onnxruntime's
    int8, by layer."""
    lines = [
        "",
        "| forward, weights in int8 | T·B·I·H | ours | × our float32 | share of int8's limit | onnxruntime, int8 | × |",
        "|---|---|---|---|---|---|---|",
    ]
    gains: dict[str, dict[str, float]] = {}
    for r, whole in measured:
        ours = whole["ours_int8_ms"]
        gain = gains.setdefault(r["name"], {})[r["shape"]] = r["ours_ms"] / ours
        share = f"{whole['share_int8']:.0%}" if "share_int8" in whole else ""
        other = f"{onnx[_key(r)]:.2f} | {onnx[_key(r)] / ours:.2f}" if _key(r) in onnx else "| "
        lines.append(f"| {r['name']} | {r['shape']} | {ours:.2f} | {gain:.2f} | {share} | {other} |")
    lines += [
        "",
        "| in int8, over the shapes | mean × our float32 | least | of 512 units and more |",
        "|---|---|---|---|",
    ]
    for name, found in gains.items():
        wide = [gain for shape, gain in found.items() if int(shape.rpartition("·")[2]) >= WIDE]
        values = list(found.values())
        lines.append(f"| {name} | {mean(values):.2f} | {min(values):.2f} | {f'{mean(wide):.2f}' if wide else ''} |")
    return lines


def _key(row: Row) -> tuple[str, str, str]:
    return row["name"], row["shape"], row["what"]


def _best(row: Row, half: Row) -> tuple[str, float]:
    """By what torch.nn is quickest, and its milliseconds."""
    found = {name: (row | half)[key] for key, name in TORCH.items()}
    by = min(found, key=lambda name: found[name])
    return by, found[by]


def mean(values: list[float]) -> float:
    """The geometric one."""
    return math.exp(statistics.fmean(map(math.log, values)))
