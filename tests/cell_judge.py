"""Runs a random cell by `scan` and by a loop of its own, and says where they differ.

The loop takes one sequence at a time, a batch of one, as its lengths and resets say; a cell that mixes the sequences of its
batch runs on the whole batch, with the masks written here. Nothing of the library is asked but to collect what a cell watches.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import throughtime as tt
from cell_spec import Spec, draw_tensor
from throughtime.cells.base import watching

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
FINE = (
    "equal",
    "equal on the loop",
    "both raise",
    "ill-conditioned",
    "zero times infinity",
    "finite where the loop gives NaN",
    "runs where the loop raises",
)


@dataclass
class Judged:
    """What became of one cell: a verdict for each run, the worst of them, and where it ran."""

    seed: int
    runs: list[tuple[str, str, str]] = field(default_factory=list)  # what was run, verdict, detail
    chosen: str = ""
    reason: str = ""
    tags: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        order = (
            "BROKEN",
            "WRONG",
            "RAISED",
            "DEAD",
            "ill-conditioned",
            "zero times infinity",
            "finite where the loop gives NaN",
            "runs where the loop raises",
            "both raise",
            "equal on the loop",
            "equal",
        )
        return next((v for v in order if any(r[1] == v for r in self.runs)), "equal")


@dataclass
class Given:
    """The tensors of a call: the leaves that gradients are asked of, and what is made of them."""

    xs: list[Tensor]
    states: list[Tensor]
    firsts: list[Tensor] | None
    leaves: dict[str, Tensor]
    lengths: list[int] | None
    resets: Tensor | None


def prepared(spec: Spec, dtype: torch.dtype, gradients: bool = True, nudge: float = 0.0) -> Given:
    """The tensors of the call of a spec. nudge: how far, in parts of itself, every float is moved."""
    call = spec.call
    T, B, seed = call["T"], call["B"], call["seed"]
    own = getattr(torch, spec.dtype)
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, kind: str, shape: list[int], number: int) -> Tensor:
        value = draw_tensor(kind, shape, seed + number, own)
        if kind == "float":
            value = value.to(dtype)
            if nudge:
                value = value * (1 + nudge * draw_tensor("float", shape, seed + number + 5000, dtype))
            wanted = {"all": True, "none": False, "some": number % 3 != 0}[call["gradients"]]
            leaves[name] = value.requires_grad_(gradients and wanted)
        return value

    xs = []
    for k, ((kind, tail), layout) in enumerate(zip(spec.input_shapes, call["layouts"], strict=True)):
        layout = "plain" if layout == "every other feature" and not tail else layout
        shapes = {
            "plain": [T, B, *tail],
            "batch first": [B, T, *tail],
            "every other step": [2 * T, B, *tail],
            "one for all time": [B, *tail],
            "one for all rows": [T, *tail],
            "every other feature": [T, B, *tail[:-1], 2 * (tail or [0])[-1]],
        }
        value = leaf(f"input {k}", kind, shapes[layout], 10 * k + 1)
        if call["poison"] and kind == "float" and "one" not in layout and call["lengths"] is not None:
            with torch.no_grad():
                past = torch.arange(T).unsqueeze(1) >= torch.tensor(call["lengths"], dtype=torch.long)
                viewed(value, layout, T, B)[past] = float("nan")
        xs.append(viewed(value, layout, T, B))
    states = [leaf(f"state {k}", kind, [B, *tail], 10 * k + 101) for k, (kind, tail) in enumerate(spec.state_shapes)]
    firsts = None
    if call["initial"]:
        firsts = [
            leaf(f"initial {k}", kind, [B, *tail], 10 * k + 201) for k, (kind, tail) in enumerate(spec.state_shapes)
        ]
    resets = torch.rand(T, B, generator=torch.Generator().manual_seed(seed)) < 0.4 if call["resets"] else None
    return Given(xs, states, firsts, leaves, call["lengths"], resets)


def viewed(value: Tensor, layout: str, T: int, B: int) -> Tensor:
    """A leaf as an input [T, B, …]."""
    match layout:
        case "batch first":
            return value.transpose(0, 1)
        case "every other step":
            return value[::2]
        case "every other feature":
            return value[..., ::2]
        case "one for all time":
            return value.expand(T, *value.shape)
        case "one for all rows":
            return value.unsqueeze(1).expand(T, B, *value.shape[1:])
    return value


def put_together(text: str, prefix: str, tensors: list[Tensor]) -> Any:
    """Tensors in the structure that a spec writes down."""
    return eval(text, {f"{prefix}{k}": t for k, t in enumerate(tensors)})


def flat(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else [t for part in value for t in flat(part)]


# What the loop gives


class Loop:
    """The plain loop: `step` by step, one sequence at a time or all at once."""

    def __init__(self, spec: Spec, cell: nn.Module, given: Given, nudge: float = 0.0) -> None:
        self.spec, self.cell, self.given, self.nudge = spec, cell, given, nudge
        self.T, self.B = spec.call["T"], spec.call["B"]
        self.firsts = given.firsts or [torch.zeros_like(s) for s in given.states]
        if spec.starts and given.firsts is None:
            self.firsts = flat(cell.initial_state(self.B))  # type: ignore[operator]
        self.start = self.firsts if spec.call["own"] else given.states

    def step(self, xs: list[Tensor], states: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Output and records, and the new state."""
        x, h = put_together(self.spec.inputs, "x", xs), put_together(self.spec.state, "h", states)
        with watching() as seen:
            result = self.cell(x, h)
        output, new = result if self.spec.has_output else (flat(result)[0], result)
        states = [s * (1 + self.nudge) if self.nudge and s.is_floating_point() else s for s in flat(new)]
        return [output, *(seen[name] for name in self.spec.record)], states

    def times(self, length: int) -> range:
        return range(length - 1, -1, -1) if self.spec.call["reverse"] else range(length)

    def blank(self) -> list[Tensor]:
        """Zeros in the shapes of one step's outputs."""
        with torch.no_grad():
            outs, _ = self.step([x.new_zeros(x.shape[1:]) for x in self.given.xs], self.start)
        return [torch.zeros_like(o) for o in outs]

    def run(self) -> dict[str, Tensor]:
        names = ["outputs", *(f"record {n}" for n in self.spec.record)]
        outs, ends = self.alone() if self.spec.alone and self.B else self.together()
        return dict(zip(names, outs, strict=True)) | {f"end {k}": e for k, e in enumerate(ends)}

    def alone(self) -> tuple[list[Tensor], list[Tensor]]:
        given, rows, ends = self.given, [], []
        for b in range(self.B):
            states = [s[b : b + 1] for s in self.start]
            made: dict[int, list[Tensor]] = {}
            for t in self.times(self.T if given.lengths is None else given.lengths[b]):
                if given.resets is not None:  # not a branch: the state that is thrown away stays in the graph
                    states = [
                        pick(given.resets[t, b : b + 1], f[b : b + 1], s)
                        for f, s in zip(self.firsts, states, strict=True)
                    ]
                made[t], states = self.step([x[t, b : b + 1] for x in given.xs], states)
            rows.append(made)
            ends.append(states)
        some = next((outs for made in rows for outs in made.values()), None)
        blanks = [torch.zeros_like(o) for o in some] if some is not None else [b[:1] for b in self.blank()]
        outs = [
            torch.stack([torch.cat([made[t][k] if t in made else blank for made in rows]) for t in range(self.T)])
            if self.T
            else blank.new_zeros(0, self.B, *blank.shape[1:])
            for k, blank in enumerate(blanks)
        ]
        return outs, [torch.cat(parts) for parts in zip(*ends, strict=True)]

    def together(self) -> tuple[list[Tensor], list[Tensor]]:
        given, made, states = self.given, {}, self.start
        for t in self.times(self.T):
            if given.resets is not None:
                real = given.resets[t] if given.lengths is None else given.resets[t] & (t < torch.tensor(given.lengths))
                states = [pick(real, f, s) for f, s in zip(self.firsts, states, strict=True)]
            xs = [x[t] for x in given.xs]
            if given.lengths is None:
                made[t], states = self.step(xs, states)
                continue
            active = t < torch.tensor(given.lengths, dtype=torch.long)
            if not active.any():
                made[t] = None  # no step is taken, and none is counted
                continue
            # a sequence that has ended stands in for nobody: its row is that of the first which still runs
            who = [b if active[b] else int(active.nonzero()[0]) for b in range(len(active))]
            outs, new = self.step(
                [torch.stack([x[b] for b in who]) for x in xs], [torch.stack([s[b] for b in who]) for s in states]
            )
            made[t] = [pick(active, o, torch.zeros_like(o)) for o in outs]
            states = [pick(active, n, s) for n, s in zip(new, states, strict=True)]
        if not made:
            return [b.new_zeros(0, *b.shape) for b in self.blank()], states
        blank = next((m for m in made.values() if m is not None), None) or self.blank()
        made = {t: [torch.zeros_like(b) for b in blank] if m is None else m for t, m in made.items()}
        return [torch.stack([made[t][k] for t in range(self.T)]) for k in range(len(made[0]))], states


def pick(rows: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)


# What both are asked for


def with_gradients(
    found: dict[str, Tensor], given: Given, cell: nn.Module, loss: str, zeros: bool = False
) -> dict[str, Tensor]:
    """What was found, and the gradient of every leaf and parameter of a fixed sum of it, or of a part of it.

    zeros: what the sum leaves out is given a gradient of zeros, not none.
    """
    wanted = {n: t for n, t in (given.leaves | dict(cell.named_parameters())).items() if t.requires_grad}
    asked = [
        (k, v)
        for k, (n, v) in enumerate(found.items())
        if v.requires_grad and v.numel() and (zeros or loss in ("all", n.split()[0]))
    ]
    result = {n: v.detach() for n, v in found.items()}
    if not wanted:
        return result
    gradients = [torch.zeros_like(t) for t in wanted.values()]
    if asked:
        weights = [draw_tensor("float", list(v.shape), 900 + k, torch.float64).to(v.dtype) for k, v in asked]
        names = list(found)
        weights = [
            w if loss in ("all", names[k].split()[0]) else 0 * w for w, (k, _) in zip(weights, asked, strict=True)
        ]
        values = [v for _, v in asked]
        gradients = list(
            torch.autograd.grad(values, list(wanted.values()), weights, allow_unused=True, materialize_grads=True)
        )
    return result | {f"gradient of {n}": g for n, g in zip(wanted, gradients, strict=True)}


def as_double(cell: nn.Module) -> nn.Module:
    """The cell in float64, with the tensors that it holds without having registered them."""
    cell = cell.double()
    for module in cell.modules():
        for name, value in list(module.__dict__.items()):
            if isinstance(value, Tensor) and value.is_floating_point():
                module.__dict__[name] = value.double()
    return cell


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference, in parts of the largest number (of 1 where all are smaller); NaN and infinities must agree."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.detach().double(), expected.detach().double()
    if not a.numel():
        return 0.0
    odd = ~b.isfinite() | ~a.isfinite()
    if bool((odd & ~((a == b) | (a.isnan() & b.isnan()))).any()):
        return float("inf")
    gap = torch.where(odd, 0.0, (a - b).abs())
    return float(gap.max()) / max(1.0, float(torch.where(odd, 0.0, b.abs()).max()))


def short(value: Tensor) -> str:
    return f"{list(value.shape)} {value.dtype} {[round(float(v), 5) for v in value.detach().double().flatten()[:6]]}"


class Judge:
    """Runs of one cell."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.dtype = getattr(torch, spec.dtype)
        self.namespace = spec.module()
        self.judged = Judged(spec.seed, tags=spec.tags)
        text = "\n".join((*spec.init, *spec.body))
        self.tolerance = TOLERANCE[spec.dtype]
        if "hardswish" in text and spec.dtype == "float64":  # its gradient in PyTorch has a 1/6 of float32
            self.tolerance = 1e-7
        if not spec.pure:
            self.tolerance = max(self.tolerance, 2e-4)
            if "half()" in text or "float16" in text:
                self.tolerance = 3e-2

    def expected(
        self,
        cell: nn.Module,
        mode: str,
        dtype: torch.dtype,
        nudge: float = 0.0,
        *,
        zeros: bool = False,
        states: float = 0.0,
    ) -> dict[str, Tensor]:
        """What the loop gives. nudge, states: by what part its inputs, and each new state, are moved."""
        cell = copy.deepcopy(cell)
        if dtype != self.dtype:
            cell = as_double(cell)
        given = prepared(self.spec, dtype, mode == "gradients", nudge)
        with modes(mode):
            found = Loop(self.spec, cell, given, states).run()
        return with_gradients(found, given, cell, self.spec.call["loss"], zeros) if mode == "gradients" else found

    def scanned(self, cell: nn.Module, mode: str, backend: str) -> dict[str, Tensor]:
        spec, given = self.spec, prepared(self.spec, self.dtype, mode == "gradients")
        with modes(mode):
            args, options = arguments(spec, given)
            outputs, end, records = tt.scan(cell, *args, **options, backend=backend)
            found = {"outputs": outputs} | {f"record {n}": records[n] for n in spec.record}
            found |= {f"end {k}": e for k, e in enumerate(flat(end))}
        return with_gradients(found, given, cell, self.spec.call["loss"]) if mode == "gradients" else found

    def compare(self, what: str, cell: nn.Module, mode: str = "gradients", backend: str = "auto") -> None:
        verdict, detail = self.compared(cell, mode, backend)
        self.judged.runs.append((what, verdict, detail))

    def compared(self, cell: nn.Module, mode: str, backend: str) -> tuple[str, str]:
        double = torch.float64 if self.spec.pure else self.dtype
        before = copy.deepcopy(cell)
        try:
            expected, failure = self.expected(before, mode, double), None
        except Exception as error:
            expected, failure = {}, error
        try:
            found = self.scanned(cell, mode, backend)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:300]}"
            if failure is None:
                return "RAISED", said
            if isinstance(error, type(failure) | ValueError | TypeError | RuntimeError | IndexError):
                return "both raise", said
            return "RAISED", f"{said}, where the loop raises {type(failure).__name__}: {failure}"
        if failure is not None:
            return "runs where the loop raises", f"{type(failure).__name__}: {str(failure)[:200]}"
        worst, detail = 0.0, ""
        for name, value in expected.items():
            if value.dtype == torch.float64 != found[name].dtype and self.spec.pure:
                value = value.to(self.dtype)
            if found[name].dtype != value.dtype:
                return "WRONG", f"{name}: {short(found[name])}, right is {short(value)}"
            gap = difference(found[name], value)
            if not gap <= max(worst, self.tolerance):
                worst, detail = gap, f"{name} by {gap:.3g}: {short(found[name])}, right is {short(value)}"
        if not detail:
            return ("equal on the loop" if self.judged.chosen == "reference" else "equal"), ""
        if self.rounding(before, mode, expected) * 20 >= worst:
            return "ill-conditioned", detail
        if mode == "gradients" and self.spec.call["loss"] != "all":
            # the compiled loop takes an absent gradient for one of zeros, and zero times an infinite derivative is NaN
            others = self.expected(before, mode, double, zeros=True)
            if all(difference(found[n], v.to(found[n].dtype)) <= self.tolerance for n, v in others.items()):
                return "zero times infinity", detail
        known = {name: ~value.isnan() for name, value in expected.items()}  # a way that nothing hangs on may give NaN
        if all(
            difference(found[n][known[n]], v[known[n]].to(found[n].dtype)) <= self.tolerance
            and bool(found[n][~known[n]].isfinite().all())
            for n, v in expected.items()
        ):
            return "finite where the loop gives NaN", detail
        return "WRONG", detail

    def rounding(self, cell: nn.Module, mode: str, expected: dict[str, Tensor]) -> float:
        """How far the loop itself moves where its numbers are moved in their last digits, or are of the cell's own type."""
        found = [self.expected(cell, mode, self.dtype)] if self.spec.pure and self.dtype != torch.float64 else []
        coarse = 1e-6 if self.tolerance > 1e-6 else 1e-14
        own = torch.float64 if self.spec.pure else self.dtype
        found += [self.expected(cell, mode, own, size) for size in (coarse, -coarse, 3 * coarse, -2 * coarse)]
        # a state that is 1 but for its last digit is what floor, say, makes much of
        found += [self.expected(cell, mode, own, states=size) for size in (coarse, -coarse)]
        gaps = [difference(other[name], value) for other in found for name, value in expected.items()]
        return max([g for g in gaps if g == g], default=0.0)

    def all(self) -> Judged:
        spec, call = self.spec, self.spec.call
        cell = self.namespace["FuzzCell"](self.dtype)
        self.explain(cell)
        self.compare("gradients", cell)
        self.compare("no_grad", cell, "no_grad")
        if call["inference"]:
            self.compare("inference_mode", cell, "inference")
        if call["copy"]:
            self.compare("a copy", copy.deepcopy(cell))
        if call["named"]:
            if self.judged.chosen == "cpu":
                self.compare("backend='cpu'", cell, backend="cpu")
            self.compare("backend='reference'", cell, backend="reference")
        done = []
        for change in spec.changes:
            try:
                with torch.no_grad():
                    exec(change, {**self.namespace, "cell": cell, "module": self.namespace})
                done.append(change)
            except Exception:
                continue
        if done:
            self.compare("after " + "; ".join(done), cell, "no_grad" if call["seed"] % 2 else "gradients")
        return self.judged

    def explain(self, cell: nn.Module) -> None:
        given = prepared(self.spec, self.dtype)
        args, options = arguments(self.spec, given)
        try:
            found = tt.explain(cell, *args, **options)
            self.judged.chosen, self.judged.reason = found.chosen, found.reasons["cpu"] or ""
        except Exception as error:  # as scan does, which is judged
            self.judged.chosen, self.judged.reason = (
                "none",
                f"explain raises {type(error).__name__}: {str(error)[:100]}",
            )


def arguments(spec: Spec, given: Given) -> tuple[tuple[Any, Any], dict[str, Any]]:
    """What `scan` and `explain` are given."""
    options: dict[str, Any] = {"reverse": spec.call["reverse"], "lengths": given.lengths, "resets": given.resets}
    if given.firsts is not None:
        options["initial"] = put_together(spec.state, "h", given.firsts)
    if spec.record:
        options["record"] = tuple(spec.record)
    state = None if spec.call["own"] else put_together(spec.state, "h", given.states)
    return (put_together(spec.inputs, "x", given.xs), state), options


def modes(mode: str) -> Any:
    return {"gradients": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[mode]()


def judge(spec: Spec) -> Judged:
    """Run a spec every way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Judge(spec).all()
