"""Layers in PyTorch's other contexts: no wrong number, no dead process, nothing remembered; and the page in docs/ is true.

The work is done by tests/contexts.py, in a process of its own that forks one for each row. Two columns of the table
run here, without the slow rows; all run with THROUGHTIME_CONTEXTS=all, or by hand by
`python tests/contexts.py --write docs/contexts.md`.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "contexts.md"
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")]),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The verdicts, and the page that they make."""
    file = tmp_path_factory.mktemp("contexts") / "verdicts.json"
    columns = [] if os.environ.get("THROUGHTIME_CONTEXTS") == "all" else ["--quick"]
    command = [sys.executable, str(ROOT / "tests" / "contexts.py"), "--json", str(file), *columns]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=900)
    return json.loads(file.read_text())


def test_every_context_is_as_torch_nn_or_says_why_not(made):
    bad = [v for v in made["verdicts"] if not v["good"]]
    lines = [f"{v['context']}, {v['subject']}, {v['temperature']}: {v['verdict']} {v['detail']}" for v in bad]
    assert not lines, "\n".join(lines)
    assert len(made["verdicts"]) > 350


def rows(page):
    """(context, column) -> what stands there, without the numbers of the notes."""
    found, names = {}, []
    for line in page.splitlines():
        cells = [c.strip() for c in line.strip("|").split(" | ")]
        if line.startswith("| |"):
            names = cells
        elif line.startswith("| ") and len(names) > 2:
            found |= {(cells[0], n): re.sub(r" \(\d+\)", "", c) for n, c in zip(names[1:], cells[1:], strict=True)}
    return found


def test_the_page_is_what_the_script_makes(made):
    written, now = rows(PAGE.read_text(encoding="utf-8")), rows(made["page"])
    assert now and {key: written.get(key) for key in now} == now


FAULTS = """
import os, torch
from torch import nn
import throughtime as tt
import contexts, contexts_subjects
from contexts_list import Context
from throughtime.scanning.cpu import backend

class Scaled(tt.GRU):  # a number that is a little wrong
    def forward(self, x, hx=None):
        y, h = super().forward(x, hx)
        return y * 1.001, h

class Zero(tt.GRU):  # no derivative, silently
    def forward(self, x, hx=None):
        return super().forward(x.detach(), hx)

class Dead(tt.GRU):
    def forward(self, x, hx=None):
        os.abort()

class Inner(tt.GRU):
    def forward(self, x, hx=None):
        return super().forward(torch.ones(2, 3) @ x, hx)

class Remembers(tt.GRU):  # says no for ever after
    def forward(self, x, hx=None):
        y = super().forward(x, hx)
        for key in list(backend.programs.known):
            backend.programs.known[key] = "because of what was"
        return y

contexts.import_all()
torch.set_num_threads(1)
gradient = lambda case: contexts.everything(case.layer, case.x)
for kind in (tt.GRU, Scaled, Zero, Dead, Inner, Remembers):
    subject = contexts.Subject("GRU", lambda: kind(3, 4), lambda: nn.GRU(3, 4), lambda: nn.GRU(3, 4))
    print(kind.__name__, contexts.run_row(Context("gradients", "", gradient), [subject], "cold")[0].verdict)
"""


def test_the_table_catches_what_is_wrong():
    ran = subprocess.run([sys.executable, "-c", FAULTS], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    verdicts = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    assert verdicts == {
        "GRU": "as torch.nn",
        "Scaled": "WRONG",
        "Zero": "INNER WORDS",  # autograd finds that nothing leads to the inputs
        "Dead": "DEAD",
        "Inner": "INNER WORDS",
        "Remembers": "REMEMBERED",
    }, ran.stderr
