"""What bench says: a line for each measurement, and the report, as Markdown."""

from __future__ import annotations

import re
import textwrap
from datetime import date

from throughtime.cli.peers import Row
from throughtime.cli.precisions import mean, tables


def line_of(row: Row) -> str:
    """What was measured, in lines that fit a terminal; the rest stands in the report."""
    head = " ".join(f"{row.get(key, ''):{width}}" for key, width in (("name", 14), ("shape", 15)))
    found = [f"{head} {row.get('what') or row.get('machine'):7}"]
    for key, value in row.items():
        name = re.sub("_(ms|us|s)$", "", key).replace("onnxruntime", "onnx").replace("_", " ")
        if isinstance(value, float) and not key.startswith(("share", "others")):
            found.append(f"{name} {value:.0f}" if value >= 1000 else f"{name} {value:.3g}")
        elif key == "threads":
            found.append(f"threads {value}")
    units = {key.rpartition("_")[2] for key in row if key.endswith(("_ms", "_us"))}
    return wrapped(found, "  ") + "".join(f" {unit}" for unit in units)


def wrapped(pieces: list[str], between: str) -> str:
    """Pieces in lines of at most 76 columns, none of them broken, those after the first under the first one's figures."""
    whole = between.join(piece.replace(" ", "\u00a0") for piece in pieces)
    return textwrap.fill(whole, 76, subsequent_indent=" " * 40).replace("\u00a0", " ")


def report(machine: Row, rows: list[Row]) -> str:
    """The tables, as Markdown."""
    limits = f"{machine['gflops']} GFLOP/s"
    for kind in ("bfloat16", "int8"):
        if f"gops_{kind}" in machine:
            limits += f", of {kind} operands {machine[f'gops_{kind}']}"
    lines = [
        f"# {machine['cpu']}, {machine['threads']} threads",
        "",
        f"{date.today()}; torch {machine['torch']}; arithmetic limit {limits}, measured in the same run. "
        "Medians, warm, in turn, in milliseconds.",
        "",
        "| | T·B·I·H | | ours | torch.nn | × | JAX | × | share of the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    layers = [r for r in rows if "torch_ms" in r]
    for r in layers:
        jax = f"{r['jax_ms']:.2f} | {r['jax_ms'] / r['ours_ms']:.2f}" if "jax_ms" in r else "| "
        lines.append(
            f"| {r['name']} | {r['shape']} | {r['what']} | {r['ours_ms']:.2f} | {r['torch_ms']:.2f} | "
            f"{r['torch_ms'] / r['ours_ms']:.2f} | {jax} | {r['share']:.0%} |"
        )
    lines += ["", "| over the shapes | mean × torch.nn | least | mean × JAX | least |", "|---|---|---|---|---|"]
    for kind in ("RNN", "GRU", "LSTM"):
        for what in ("forward", "both"):
            mine = [r for r in layers if (r["name"], r["what"]) == (kind, what)]
            cells = []
            for peer in ("torch_ms", "jax_ms"):
                ratios = [r[peer] / r["ours_ms"] for r in mine if peer in r]
                cells.append(f"{mean(ratios):.2f} | {min(ratios):.2f}" if ratios else "| ")
            lines.append(f"| {kind}, {what} | {cells[0]} | {cells[1]} |")
    lines += tables(rows)
    lines += [
        "",
        "| cell, forward and backward | T·B·I·H | ours | loop in Python | × | our LSTM | time of it |",
        "|---|---|---|---|---|---|---|",
    ]
    cells_ = [r for r in rows if "loop_ms" in r]
    for r in cells_:
        lines.append(
            f"| {r['name']} | {r['shape']} | {r['ours_ms']:.2f} | {r['loop_ms']:.2f} | {r['loop_ms'] / r['ours_ms']:.1f} | "
            f"{r['our_lstm_ms']:.2f} | {r['ours_ms'] / r['our_lstm_ms']:.2f} |"
        )
    for r in rows:
        if r["what"] == "step":
            others = ", ".join(
                f"{k.removesuffix('_us')} {v:.1f}" for k, v in r.items() if k.endswith("_us") and k != "ours_us"
            )
            lines += [
                "",
                f"One GRU step, one stream, N = 64, called from Python, one thread: {r['ours_us']:.2f} µs; {others}.",
            ]
    return "\n".join([*lines, ""])
