"""What a language model does with a text, step by step: its gates, its state, and what it expects.

Shapes: n rows, T time, N hidden, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from throughtime.inspect.units import order_of
from throughtime.play.strands import Strand, Strands, beside, tensors
from throughtime.scanning.observe import STATE, Observed, observing
from throughtime.serve.readers import TextReader
from throughtime.tasks.text_session import writable
from throughtime.tasks.tokens import START

ROWS = 512  # steps that are looked into together
WRITTEN = 384  # tokens that a network writes for the order of its units
SEED = 5
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Band:
    """A tensor of a layer that has a number a unit at every step.

    kind: gate: from 0 to 1; value: another that the cell watches; state: what goes on to the next step. tensor: which one of the
    state it is. order: the units so that those which move alike stand together. most: what 9 of 10 of its numbers do not exceed.
    """

    layer: int
    name: str
    kind: Literal["gate", "value", "state"]
    tensor: int | None
    order: list[int]
    most: float

    @property
    def key(self) -> str:
        """Its name among all."""
        return f"{self.layer}.{self.name}"

    def as_json(self) -> dict[str, Any]:
        """As the page has it."""
        return {
            "key": self.key,
            "layer": self.layer,
            "name": self.name,
            "kind": self.kind,
            "tensor": self.tensor,
            "units": len(self.order),
            "order": self.order,
            "most": self.most,
        }


class Columns:
    """The columns of texts of one model. strands: what it has read. sample: tokens that it wrote by itself."""

    def __init__(self, reader: TextReader) -> None:
        self.reader = reader
        self.strands = Strands(reader.engine)
        self.sample = self._write()
        strand = self.strands.of(self.sample, {})
        self.bands = self._bands(strand)

    # ------------------------------------------------------------------------------------------ what there is

    def _write(self) -> list[int]:
        """Tokens as likely as the model has them, always the same."""
        engine, draw = self.reader.engine, torch.Generator().manual_seed(SEED)
        moment, found = engine.first(), list[int]()
        for _ in range(WRITTEN):
            assert moment.output is not None
            chances = writable(engine.answer(moment.output)).double().exp().cpu()
            found.append(int(torch.multinomial(chances, 1, generator=draw)))
            moment = engine.run(moment, torch.tensor(found[-1:], dtype=torch.int32))
        return found

    def _bands(self, strand: Strand) -> list[Band]:
        """Of each layer what its cell watches, in its order, and then its state."""
        found: list[Band] = []
        states = beside([moment.state for moment in strand.moments[1:]])
        for layer, (scans, state) in enumerate(zip(self._watched(strand, 1), states, strict=True)):
            kept = {name: t.numpy() for name, t in zip(_names(scans[0]), tensors(state), strict=True)}
            watched = {name: np.concatenate([s.records[name][0].numpy() for s in scans]) for name in scans[0].records}
            watched = {name: v for name, v in watched.items() if name not in kept and v.ndim == 2}
            # one order for all of as many units: a unit stands in one line in every band of its layer
            orders = {v.shape[1]: order_of(v) for v in reversed([*kept.values(), *watched.values()])}
            for name, v in watched.items():
                gate = bool(v.min() >= 0 and v.max() <= 1)
                found.append(Band(layer, name, "gate" if gate else "value", None, orders[v.shape[1]], _most(v, gate)))
            found += [
                Band(layer, name, "state", number, orders[v.shape[1]], _most(v))
                for number, (name, v) in enumerate(kept.items())
            ]
        return found

    # ------------------------------------------------------------------------------------------ what a text makes of it

    def rows(self, strand: Strand, since: int, top: int) -> dict[str, Array]:
        """Of the times from `since` on, [n, …]: each band by its key; next.token, next.p: what is likeliest to come; p: how likely
        the token that was read last was, NaN at time 0."""
        found: dict[str, list[Array]] = {b.key: [] for b in self.bands if b.kind != "state"}
        for layer, scans in enumerate(self._watched(strand, since)):
            for band in (b for b in self.bands if b.layer == layer and b.kind != "state"):
                found[band.key] = [scan.records[band.name][0].numpy() for scan in scans]
        rows = {key: np.concatenate(parts) for key, parts in found.items()}
        states = beside([moment.state for moment in strand.moments[since:]])
        for band in (b for b in self.bands if b.tensor is not None):
            rows[band.key] = tensors(states[band.layer])[band.tensor or 0].numpy()
        return rows | self._expected(strand, since, top)

    def _expected(self, strand: Strand, since: int, top: int) -> dict[str, Array]:
        before = max(since - 1, 0)
        outputs = [moment.output for moment in strand.moments[before:]]
        assert all(output is not None for output in outputs)
        log_p = self.reader.log_p(torch.stack(outputs)).cpu()  # type: ignore[arg-type]
        best, values = self.reader.likeliest(log_p[since - before :], top)
        p = np.full(len(strand.moments) - since, np.nan, dtype=np.float32)
        read = torch.tensor(strand.tokens[before:], dtype=torch.int64)
        p[len(p) - len(read) :] = log_p[: len(read)].gather(1, read.unsqueeze(1))[:, 0].exp().numpy()
        return {"next.token": best.numpy().astype("<i4"), "next.p": values.exp().numpy(), "p": p}

    @torch.no_grad()
    def _watched(self, strand: Strand, since: int) -> list[list[Observed]]:
        """Each layer's scans of the steps that lead to the times from `since` on: one step of as many rows as there are times."""
        engine = self.reader.engine
        found: list[list[Observed]] = [[] for _ in strand.moments[0].state]

        def look(tokens: Sequence[int], state: Any) -> None:
            with observing() as scans:
                engine.stack(engine.prepared(torch.tensor(tokens, dtype=torch.int32)).unsqueeze(0), state)
            for layer, scan in enumerate(scans):
                found[layer].append(scan)

        if since == 0:
            look([START], None)
        for low in range(max(since - 1, 0), len(strand.tokens), ROWS):
            tokens = strand.tokens[low : low + ROWS]
            state = beside([moment.state for moment in strand.moments[low : low + len(tokens)]])
            look(tokens, tuple((s,) for s in state))
        return found


def _most(values: Array, gate: bool = False) -> float:
    return 1.0 if gate else float(f"{np.quantile(np.abs(values), 0.9):.2g}") or 1.0


def _names(scan: Observed) -> list[str]:
    """What each tensor of the state is called: as the cell watches it, or by its number."""
    found = []
    for number, state in enumerate(scan.states):
        same = (name for name, r in scan.records.items() if r.shape == state.shape and bool((r == state).all()))
        found.append(next(same, STATE.format(number)))
    return found


def packed(head: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """An answer in binary: the length of the head (u32), the head as JSON, filled up with spaces so that what follows begins at a
    multiple of four, and the arrays one after the other, little-endian. The head has their names, types (f4, i4) and shapes."""
    named = [
        {"name": name, "type": "i4" if a.dtype.kind == "i" else "f4", "shape": a.shape} for name, a in arrays.items()
    ]
    text = json.dumps({**head, "arrays": named}, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    numbers = (a.astype("<i4" if a.dtype.kind == "i" else "<f4").tobytes() for a in arrays.values())
    return b"".join((len(text).to_bytes(4, "little"), text, *numbers))
