"""Who can run what, and why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from throughtime.errors import unknown
from throughtime.scanning import native, reference
from throughtime.scanning.call import Call, Scanned
from throughtime.scanning.cpu import autocast, quads
from throughtime.scanning.cpu import backend as cpu
from throughtime.scanning.linearity import why_not_linear
from throughtime.scanning.symbols import Unsupported


class Backend(Protocol):
    """A way to run a scan."""

    name: str

    def why_not(self, call: Call) -> str | None:
        """Why it cannot run this call, in a sentence; None where it can."""

    def run(self, call: Call) -> Scanned:
        """Run it. Raises: Unsupported where it turns out only now that it cannot; `why_not` knows then."""


BACKENDS: tuple[Backend, ...] = (cpu, native, reference)  # type: ignore[assignment]  # modules; the best first


@dataclass(frozen=True)
class Explanation:
    """Which backend runs a call, and why each of the others does not.

    `chosen` is its name; `reasons` holds, for each backend in order of preference, None or why it cannot. `linear` holds, for
    each tensor of the state, None where its new value is a ⊙ h + b with a and b free of its old value h, or what breaks that and
    in which line of the cell; it is None where the step cannot be captured, so that nothing is known of it.
    `products` says in which type products are done where autocast, or the module, asks for one, or weights are in int8.
    """

    chosen: str
    reasons: dict[str, str | None]
    linear: tuple[str | None, ...] | None = None
    products: str | None = None

    def __str__(self) -> str:
        lines = [f"runs on {self.chosen!r}", *([] if self.products is None else [self.products])]
        for backend, reason in self.reasons.items():
            if reason is not None:
                lines.append(f"not on {backend!r}: {reason}")
            elif backend != self.chosen:
                lines.append(f"{backend!r} could run it too")
        for k, reason in enumerate(self.linear or ()):
            which = "the state" if len(self.linear or ()) == 1 else f"tensor {k} of the state"
            lines.append(f"linear in {which}" if reason is None else f"not linear in {which}: {reason}")
        return "\n".join(lines)


def choose(call: Call, backend: str) -> Backend:
    """The backend called `backend`, or for "auto" the first that can.

    Raises: ValueError where the name is unknown; RuntimeError where the named backend cannot run the call, with its reason.
    """
    if backend == "auto":
        for candidate in BACKENDS:
            if _why_not(candidate, call) is None:
                return candidate
        raise RuntimeError(f"weights in int8 cannot run this: {cpu.why_not(call)}; use weights='float'")
    for candidate in BACKENDS:
        if candidate.name == backend:
            reason = _why_not(candidate, call)
            if reason is not None:
                raise RuntimeError(f"backend {backend!r} cannot run this: {reason}; use backend='auto'")
            return candidate
    raise ValueError(unknown("backend", backend, ["auto", *(b.name for b in BACKENDS)]))


def _why_not(backend: Backend, call: Call) -> str | None:
    if call.operands is torch.int8 and backend.name != cpu.name:
        return "it has no weights in int8"
    return backend.why_not(call)


def run_call(call: Call, backend: str) -> Scanned:
    """`scan` for a checked call."""
    try:
        return choose(call, backend).run(call)
    except (
        Unsupported
    ):  # it was found out late, and is remembered: now another backend is chosen, or the named one raises
        return choose(call, backend).run(call)


def explain_call(call: Call, backend: str) -> Explanation:
    """`explain` for a checked call."""
    engine = cpu.find(call)
    linear = None if isinstance(engine, str) else why_not_linear(engine.program.captured)
    chosen = choose(call, backend).name
    products = (quads.said(call.operands) or autocast.said(call)) if chosen == cpu.name else None
    return Explanation(chosen, {b.name: _why_not(b, call) for b in BACKENDS}, linear, products)
