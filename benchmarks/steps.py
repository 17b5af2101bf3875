"""Where the time of a step of training goes, a task at a time, by default settings, in one thread.

    python benchmarks/steps.py DATA [--tasks text tag] [--precision auto] [--steps 20]

DATA holds what benchmarks/tasks.py reads. Prints a table: milliseconds of processor time a step, median, and the share of each
kind of work as PyTorch's profiler counts it, in percent.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parent))
from precision import FILES, trainer

KINDS = {
    "scans": ("_Loop", "_LoopBackward"),
    "other products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear", "aten::mkldnn"),
    "softmax, loss": ("aten::_log_softmax", "aten::_softmax", "aten::nll_loss", "aten::logsumexp", "aten::_ctc"),
    "optimiser, clipping": ("aten::_fused", "aten::linalg_vector_norm", "aten::_foreach", "Optimizer"),
    "embeddings, order": ("aten::embedding", "aten::index", "aten::gather", "aten::scatter", "_InOrder"),
    "pointwise, copies": ("aten::",),
}
WARM = 10  # steps before any is counted


def shares(found: profile) -> dict[str, float]:
    """The share of each of `KINDS` in the processor time of what was profiled, and of the rest, in percent."""
    events = [(e.key, e.self_cpu_time_total) for e in found.key_averages()]
    total, made = sum(time for _, time in events), dict.fromkeys([*KINDS, "rest"], 0.0)
    for name, took in events:
        kind = next((k for k, names in KINDS.items() if name.startswith(names)), "rest")
        made[kind] += 100 * took / total
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--precision", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=20)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    never = threading.Event()
    print("| task | ms | " + " | ".join([*KINDS, "rest"]) + " |\n|" + "---|" * (len(KINDS) + 3))
    for name in asked.tasks:
        files = [asked.data / file for file in FILES[name]]
        with tempfile.TemporaryDirectory() as folder:
            one = trainer(name, files, Path(folder) / "run", asked.precision, 0)
            for _ in range(WARM):
                one._one_step(never)
            times = []
            for _ in range(asked.steps):
                begun = time.process_time()
                one._one_step(never)
                times.append(1e3 * (time.process_time() - begun))
            with profile(activities=[ProfilerActivity.CPU]) as found:
                for _ in range(asked.steps):
                    one._one_step(never)
        row = " | ".join(f"{share:.0f}" for share in shares(found).values())
        print(f"| {name} | {statistics.median(times):.0f} | {row} |", flush=True)


if __name__ == "__main__":
    main()
