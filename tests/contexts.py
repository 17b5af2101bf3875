"""The table of PyTorch's contexts: what a layer of throughtime gives in each, cold and warm, beside torch.nn's or a plain loop.

    python tests/contexts.py                            print the table
    python tests/contexts.py --write docs/contexts.md   write it
    python tests/contexts.py --json FILE                every verdict, and the table's text
    python tests/contexts.py --quick                    two of its columns, without the slow rows
    python tests/contexts.py --swift                    all of its columns, without the slow rows
    python tests/contexts.py --only jvp --subject GRU   some rows and columns, with what went wrong

This process runs nothing itself. Each case runs in a fork of it, in which its program was never made (cold), or was by a step of
training (warm). The layers of a row share a fork; where one goes wrong, it and those behind it run again, each in a fork of its
own, so that one that dies takes nothing along. This process must not run a parallel region of OpenMP's, or its children would hang.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import re
import select
import signal
import sys
import tempfile
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

import contexts_graphs  # noqa: F401
import contexts_layers  # noqa: F401
import contexts_modes  # noqa: F401
import contexts_transforms  # noqa: F401
import throughtime as tt
import translations
from contexts_list import CONTEXTS, Context
from contexts_subjects import SUBJECTS, Case, Subject, everything
from throughtime.scanning import reference

QUICK = ("GRU", "scan, own cell")  # the columns that every run of the tests looks at; all run by hand
PATIENCE = 120  # seconds until a case hangs
GOOD = ("as ", "better", "loop, said", "refused", "fails too", "not run")
HOME = str(Path(tt.__file__).parent)


@dataclass
class Verdict:
    """What became of one case. detail: the line of a refusal, the reason for the loop, or how it went wrong."""

    context: str
    group: str
    subject: str
    temperature: str
    verdict: str
    detail: str = ""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        return self.verdict.startswith(GOOD)


@dataclass
class Ran:
    """A run in a context: what it gave, or raised."""

    value: Any = None
    error: BaseException | None = None


def attempt(run: Callable[[], Any]) -> Ran:
    try:
        return Ran(run())
    except Exception as error:
        return Ran(error=error)


# ------------------------------------------------------------------------------------------------ one case, in a child


class Spy:
    """Counts the runs of the plain loop, and asks `explain` there and then what it says of them."""

    def __init__(self, heard: list[warnings.WarningMessage]) -> None:
        self.runs, self.reasons, self.asking, self._heard = 0, [], False, heard  # type: ignore[var-annotated]
        self._run = reference.run

    def __call__(self, call: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() or self.asking:
            return self._run(call)
        self.runs += 1
        if self.runs == 1 and not self.warned():
            self.asking = True
            try:
                said = tt.explain(call.cell, call.inputs, call.state, reverse=call.reverse)
                self.reasons.append(None if said.chosen == "cpu" else said.reasons["cpu"])
            except Exception as error:
                self.reasons.append(f"explain raises {type(error).__name__}: {error}")
            finally:
                self.asking = False
        return self._run(call)

    def warned(self) -> str | None:
        """The first warning of throughtime's own."""
        found = (str(w.message) for w in self._heard if "throughtime" in str(w.message))
        return next(found, None)


def judge(context: Context, subject: Subject, temperature: str, stage: Callable[[str], None]) -> tuple[str, str]:
    """Run the case and all it is compared with. stage: told what comes next, in case it is the last thing heard."""
    torch.manual_seed(0)
    dtype = torch.float64 if context.double else torch.float32
    ours = Case(subject, subject.ours, dtype)
    heard: list[warnings.WarningMessage]
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        if temperature == "warm":
            stage("warming")
            everything(ours.layer, ours.x)
            with torch.no_grad():
                ours.layer(ours.x)
        del heard[:]
        spy = Spy(heard)
        reference.run = spy
        stage("ours")
        found = attempt(lambda: context.run(ours))
        reference.run = spy._run
        stage("after")
        remembered = after(subject, ours, dtype)
        stage("reference")
        beside = Case(subject, subject.reference, dtype)
        right = attempt(lambda: (context.right or context.run)(beside))
        fell_back = right.error is not None and subject.fallback is not None
        if fell_back:
            stage("fallback")
            beside = Case(subject, subject.fallback, dtype)
            right = attempt(lambda: context.run(beside))
    verdict, detail = compare(found, right, fell_back, context, subject, spy)
    if remembered and verdict.startswith(GOOD):
        return "REMEMBERED", remembered
    return verdict, f"{detail}; {remembered}" if remembered else detail


def compare(found: Ran, right: Ran, fell_back: bool, context: Context, subject: Subject, spy: Spy) -> tuple[str, str]:
    """The verdict on what ours gave. fell_back: torch.nn failed, and `right` is a loop's."""
    if found.error is not None:
        return refusal(found.error, fell_back or right.error is not None)
    if right.error is not None:
        return "better", f"{subject.beside} raises {one_line(right.error)}"
    wrong = difference(found.value, right.value, context)
    if wrong:
        return "WRONG", wrong
    if spy.runs and spy.warned():
        return "loop, said", str(spy.warned())
    if spy.runs:
        reason = spy.reasons[0] if spy.reasons else None
        return ("loop, said", str(reason)) if reason else ("SILENT loop", "explain says that it runs on 'cpu'")
    return ("better", "torch.nn fails") if fell_back else (f"as {subject.beside}", "")


def after(subject: Subject, ours: Case, dtype: torch.dtype) -> str | None:
    """What is not as it was before the context: a plain call of the same layer is right, and runs compiled."""
    ours.layer.backend = "cpu"  # type: ignore[assignment]
    ran = attempt(lambda: everything(ours.layer, ours.x))
    if ran.error is not None:
        return f"a plain call afterwards does not run compiled: {one_line(ran.error)}"
    plain = Case(subject, subject.reference, dtype)
    wrong = difference(ran.value, everything(plain.layer, plain.x))
    if wrong:
        return f"a plain call afterwards is wrong: {wrong}"
    cell = getattr(ours.layer, "cell", None)
    if cell is not None and (said := tt.explain(cell, ours.x)).chosen != "cpu":
        return f"explain afterwards: {said.reasons['cpu']}"
    return None


def refusal(error: BaseException, other_fails: bool) -> tuple[str, str]:
    """Whether throughtime itself says in one line why not, or PyTorch from within."""
    text = str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = bool(frames) and frames[-1].filename.startswith(HOME) and "throughtime" in text
    if own and "\n" not in text.strip() and len(text) <= 300:
        return "refused", one_line(error)
    told = re.search(r"Message: (throughtime.*)", text)  # torch.compile sets the reason among lines of its own
    if told:
        return "refused", f"{type(error).__name__}: {told[1]}"
    if other_fails:
        return "fails too", one_line(error)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return "INNER WORDS", one_line(error) + where


def one_line(error: BaseException) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:220]


def difference(found: Any, right: Any, context: Context | None = None) -> str | None:
    """Where two results differ, in words; None where they agree."""
    if isinstance(right, Tensor) or isinstance(found, Tensor):
        if not (isinstance(found, Tensor) and isinstance(right, Tensor)):
            return f"{_shown(found)}, right is {_shown(right)}"
        for what in ("shape", "dtype", "device"):
            if getattr(found, what) != getattr(right, what):
                return f"{what} {getattr(found, what)}, right is {getattr(right, what)}"
        if found.is_meta or (context and context.alike):
            return None
        found, right = found.detach().double(), right.detach().double()
        tolerance = context.tolerance if context else 1e-5
        if torch.allclose(found, right, rtol=10 * tolerance, atol=tolerance):
            return None
        return f"norm {found.norm():.4g}, right is {right.norm():.4g}, apart by {(found - right).abs().max():.2g}"
    if isinstance(right, dict) and isinstance(found, dict):
        return difference([found[k] for k in sorted(found)], [right[k] for k in sorted(right)], context)
    if isinstance(right, list | tuple) and isinstance(found, list | tuple):
        if len(found) != len(right):
            return f"{len(found)} values, right are {len(right)}"
        return next((d for f, r in zip(found, right, strict=True) if (d := difference(f, r, context))), None)
    return None if found == right else f"{_shown(found)}, right is {_shown(right)}"


def _shown(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else str(value)


# ------------------------------------------------------------------------------------------------ all cases, from the parent


def run_row(context: Context, subjects: list[Subject], temperature: str) -> list[Verdict]:
    """The verdicts of a row's layers: all in one child, and again in one of its own for each that that child did not do well."""
    left = [s for s in subjects if _not_run(context, s, temperature) is None]
    together = {v.subject: v for v in run_child(context, left, temperature)} if left else {}
    found = []
    for subject in subjects:
        why = _not_run(context, subject, temperature)
        if why is not None:
            found.append(Verdict(context.name, context.group, subject.name, temperature, "not run", why))
            continue
        first = together.get(subject.name)
        if first is not None and (first.good or len(left) == 1):
            found.append(first)
            continue
        alone = run_child(context, [subject], temperature)[0]
        if alone.good and first is not None and first.verdict != "DEAD":
            alone = replace(first, detail=f"after other layers in this context: {first.detail}")
        found.append(alone)
    return found


def _not_run(context: Context, subject: Subject, temperature: str) -> str | None:
    """Why a case is not run, which may be nothing to speak of; None where it is."""
    if context.missing:
        return context.missing
    there = temperature in context.temperatures and (context.only is None or subject.name in context.only)
    return None if there else ""


def run_child(context: Context, subjects: list[Subject], temperature: str) -> list[Verdict]:
    """The verdicts of some layers by one child: one for each that it came to."""
    inlet, outlet = os.pipe()
    with tempfile.TemporaryFile() as noise:
        child = os.fork()
        if child == 0:
            os.close(inlet)
            _child(context, subjects, temperature, outlet, noise.fileno())
        os.close(outlet)
        text, hangs = _read(inlet)
        os.close(inlet)
        if hangs:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        noise.seek(0)
        last = " ".join(noise.read().decode(errors="replace").split("\n")[-2:])[:200]
    found: dict[str, Verdict] = {}
    stage = "start"
    for subject, said in map(json.loads, text.splitlines()):
        stage = said if isinstance(said, str) else "next"
        if isinstance(said, list):
            found[subject] = Verdict(context.name, context.group, subject, temperature, *said)
    if len(found) < len(subjects):
        subject = subjects[len(found)]
        how = "hangs" if hangs else f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        lived = stage in ("reference", "fallback")  # ours did
        verdict = ("better", f"{subject.beside}: {how}") if lived else ("DEAD", f"{how} ({stage}) {last}".strip())
        found[subject.name] = Verdict(context.name, context.group, subject.name, temperature, *verdict)
    return list(found.values())


def _child(context: Context, subjects: list[Subject], temperature: str, outlet: int, noise: int) -> None:
    """Run the cases and end the process."""
    os.dup2(noise, 1)
    os.dup2(noise, 2)
    try:
        for subject in subjects:

            def tell(value: Any, name: str = subject.name) -> None:
                os.write(outlet, (json.dumps([name, value]) + "\n").encode())

            try:
                tell(list(judge(context, subject, temperature, tell)))
            except Exception as error:
                traceback.print_exc()
                tell(["DEAD", f"the test itself: {one_line(error)}"])
    finally:
        os._exit(0)


def _read(inlet: int) -> tuple[str, bool]:
    """All that the child says until it closes the pipe, and whether it took too long."""
    parts, end = b"", time.monotonic() + PATIENCE
    while True:
        ready, _, _ = select.select([inlet], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            return parts.decode(), True
        part = os.read(inlet, 65536)
        if not part:
            return parts.decode(), False
        parts += part


def run_table(only: str, names: Sequence[str], temperature: str, slow: bool) -> list[Verdict]:
    """The verdicts of the rows whose name holds `only`, for the subjects named, row by row."""
    import_all()
    torch.set_num_threads(1)
    subjects = [s for s in SUBJECTS if s.name in names]
    found = []
    for context in CONTEXTS:
        if only not in f"{context.group}: {context.name}" or (context.slow and not slow):
            continue
        for warmth in ("cold", "warm"):
            if temperature in ("", warmth):
                start = sum(os.times()[2:4])
                row = run_row(context, subjects, warmth)
                row[0].seconds = round(sum(os.times()[2:4]) - start, 3)  # of the processor, for all the row
                print(f"{row[0].seconds:6.2f} s  {context.name}, {warmth}", file=sys.stderr, flush=True)
                found += row
    return found


def import_all() -> None:
    """What the children would each import for themselves."""
    import llvmlite.binding  # noqa: F401
    import torch._decomp.decompositions_for_jvp
    import torch._dynamo
    import torch._functorch.aot_autograd
    import torch._higher_order_ops
    import torch.ao.quantization
    import torch.export
    import torch.fx.experimental.proxy_tensor
    import torch.onnx
    import torch.testing._internal.two_tensor
    import torch.utils.checkpoint
    import torch.utils.flop_counter

    with contextlib.suppress(ImportError):
        import onnxscript  # noqa: F401
        import torch.onnx._internal.exporter._core  # noqa: F401

        apis, name, reading = translations.read_once()
        setattr(apis, name, reading)
        reading()
    gc.collect()
    gc.freeze()  # a collection writes to all that it looks through, and copies it


# ------------------------------------------------------------------------------------------------ the table

HEAD = f"""\
# In PyTorch's other contexts

Made by `python tests/contexts.py --write docs/contexts.md` with PyTorch {torch.__version__.split("+")[0]};
`tests/test_contexts.py` makes it again and compares.

Each row runs in processes of its own, `cold` (the layers never ran before) and `warm` (after a step of training); where both
give the same, it is written once. "GRU, deep" has two layers in two directions, batch first; Recurrent is two bidirectional layers
of peephole cells; scan runs `tt.cells.MinimalGated`, and a cell of the test's own.
After every case, whatever came of it, a plain call of the same layer gives the right numbers on the compiled loop.

torch.export fixes every size that it is not told to leave open, by `dynamic_shapes=({{0: Dim.DYNAMIC, 1: Dim.DYNAMIC}},)` for
[T, B, I]. Then, and wherever there are lengths, a layer or a scan is one `while_loop` of PyTorch's in the graph: right at any
number of steps and sequences, as are its gradients, and to be saved, loaded and made ONNX without throughtime. It copies all
outputs at each step, so that long sequences are slow. It has no records, takes no PackedSequence (give lengths), and no
gradient of no steps.

| | |
|---|---|
| same | what torch.nn gives in this context, or for Recurrent and scan what a plain loop gives: values, types, gradients |
| loop | the same, by the plain loop; a warning or `explain` says so, with the reason below |
| refused | an exception of one line, shown below |
| more | works where torch.nn, or the plain loop, does not |
| fails too | torch.nn, or the plain loop, fails there too |
| – | not run |
"""


def markdown(verdicts: list[Verdict]) -> str:
    """The table as a page."""
    notes: list[str] = []
    lines = [HEAD]
    for group in dict.fromkeys(v.group for v in verdicts):
        rows = [v for v in verdicts if v.group == group]
        names = list(dict.fromkeys(v.subject for v in rows))
        lines += [f"## {group}", "", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for context in dict.fromkeys(v.context for v in rows):
            cells = [_cell([v for v in rows if (v.context, v.subject) == (context, n)], notes) for n in names]
            lines.append(f"| {context} | " + " | ".join(cells) + " |")
        lines.append("")
    if notes:
        lines += ["## Reasons", "", *(f"{i + 1}. {note}" for i, note in enumerate(notes)), ""]
    return "\n".join(lines)


def _cell(pair: list[Verdict], notes: list[str]) -> str:
    """Cold and warm of one subject in one context."""
    words = [_word(v, notes) for v in pair if v.verdict != "not run" or len(pair) == 1 or v.detail]
    if not words:
        return "–"
    return (
        words[0]
        if len(set(words)) == 1
        else "; ".join(f"{v.temperature}: {w}" for v, w in zip(pair, words, strict=True))
    )


def _word(verdict: Verdict, notes: list[str]) -> str:
    short = {"better": "more", "loop, said": "loop"}.get(verdict.verdict, verdict.verdict)
    if short.startswith("as "):
        return "same"
    if short == "not run":
        return f"– ({verdict.detail})" if verdict.detail else "–"
    if short in ("more", "fails too") or not verdict.detail:
        return short
    note = verdict.detail.replace("|", "\\|")
    if note not in notes:
        notes.append(note)
    return f"{short} ({notes.index(note) + 1})"


def main() -> None:
    parser = argparse.ArgumentParser(description="The table of PyTorch's contexts.")
    parser.add_argument("--write", metavar="FILE", help="write the table as markdown")
    parser.add_argument("--json", metavar="FILE", help="write every verdict, and the table's text")
    parser.add_argument("--quick", action="store_true", help="two columns, without the slow rows, as in the tests")
    parser.add_argument("--swift", action="store_true", help="all columns, without the slow rows")
    parser.add_argument("--only", default="", help="contexts whose name holds this")
    parser.add_argument("--subject", default="", help="one column")
    parser.add_argument("--temperature", default="", choices=["", "cold", "warm"])
    options = parser.parse_args()
    names = QUICK if options.quick else [options.subject] if options.subject else [s.name for s in SUBJECTS]
    verdicts = run_table(options.only, names, options.temperature, slow=not (options.quick or options.swift))
    page = markdown(verdicts)
    if options.write:
        Path(options.write).write_text(page, encoding="utf-8")
    if options.json:
        Path(options.json).write_text(
            json.dumps({"verdicts": [asdict(v) | {"good": v.good} for v in verdicts], "page": page})
        )
    if not options.json and not options.write:
        for v in verdicts:
            line = f"{v.group}: {v.context} · {v.subject} · {v.temperature}: {v.verdict}  {v.detail}"
            print(textwrap.shorten(line, 300))
    bad = sum(not v.good for v in verdicts)
    print(f"{len(verdicts)} cases, {bad} bad", file=sys.stderr)


if __name__ == "__main__":
    main()
