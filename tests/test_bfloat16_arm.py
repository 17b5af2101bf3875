"""Products of bfloat16 by ARM's own dot product, as code for another machine, run in its emulator."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

import throughtime as tt
from assembled import assembly
from throughtime.exporting import compilers
from throughtime.scanning.backward import backward
from throughtime.scanning.call import make_call
from throughtime.scanning.cpu import backend, product, target
from throughtime.scanning.cpu.loop import LoopCode
from throughtime.scanning.cpu.packing import packed_size
from throughtime.scanning.cpu.tiles import panel

ARM = target.Target("aarch64-unknown-linux-gnu", "neoverse-v1", "+bf16", **target.NEON)
WITHOUT = target.Target("aarch64-unknown-linux-gnu", "neoverse-n1", "", **target.NEON)

# what `matrices` does around the functions: a [m, k] @ w [k, n], and a.T @ g
HARNESS = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int64_t pair_rows(int64_t *), pair_columns(int64_t *), pack(int64_t *), multiply(int64_t *), outer(int64_t *);
static float *space(int64_t n) { return calloc(n + 4096, 4); }
static float *read_in(int64_t n) { float *p = space(n); if (fread(p, 4, n, stdin) != (size_t)n) exit(2); return p; }
#define P(x) ((int64_t)(intptr_t)(x))
int main(int argc, char **argv) {
    int64_t m = atoi(argv[1]), k = atoi(argv[2]), n = atoi(argv[3]), packed = atoi(argv[4]), wide = atoi(argv[5]);
    float *a = read_in(m * k), *w = read_in(k * n), *g = read_in(m * n);
    int64_t half = (k + 1) / 2, row = (half + 3) / 4 * 4, column = (n + 3) / 4 * 4;
    float *rows = space(m * row), *columns = space(half * column), *panels = space(packed);
    float *c = space(m * n), *d = space(k * n), *scratch = space(256 * (k + 8 + wide));
    int64_t r[] = {0, (m + 6) / 7, P(a), k, m, k, P(rows), row, 7};
    pair_rows(r);
    int64_t p[] = {0, (half + 2) / 3, P(w), n, k, n, P(columns), column, 3};
    pair_columns(p);
    int64_t q[] = {0, (n + wide - 1) / wide, P(columns), column, 1, half, n, P(panels)};
    pack(q);
    int64_t x[] = {0, (m + 11) / 12, P(rows), row, 1, P(panels), P(c), n, 0, 0, m, n, half, 12};
    multiply(x);
    int64_t chunk = (k + 3) / 4 * 4, count = (n + wide - 1) / wide;
    int64_t o[] = {0, 1, P(a), k, P(g), n, P(d), n, k, n, m, chunk, count, P(scratch), 0, 0};
    outer(o);
    fwrite(c, 4, m * n, stdout);
    fwrite(d, 4, k * n, stdout);
    return 0;
}
"""


def rounded(x):
    return x.to(torch.bfloat16).double()


def off(found, a, b):
    """How far a sum is from the exact one, in units of what it may be, where products are rounded too."""
    return float(((found.double() - a @ b).abs() / (2 * (a.shape[1] + 2) * 2.0**-24 * (a.abs() @ b.abs()))).max())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("qemu-aarch64") is None or not compilers.zig():
        pytest.skip("qemu-aarch64 or ziglang is not here")
    folder = tmp_path_factory.mktemp("arm")
    (folder / "products.o").write_bytes(target.compile_object(product.text(ARM, "bfloat16"), ARM))
    (folder / "main.c").write_text(HARNESS)
    command = [*compilers.zig(), "-target", "aarch64-linux-musl", "-static", "-O2"]
    return compilers.build(command, [folder / "main.c", folder / "products.o"], folder / "main")


@pytest.mark.parametrize("sizes", [(7, 5, 3), (13, 64, 70), (97, 513, 65), (5, 1100, 130), (11, 1, 9), (530, 33, 16)])
def test_products_in_the_emulator(program, sizes):
    m, k, n = sizes
    a, w, g = (
        torch.randn(*s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate([(m, k), (k, n), (m, n)])
    )
    given = b"".join(x.numpy().tobytes() for x in (a, w, g))
    numbers = [m, k, n, packed_size(-(-k // 2), n, ARM, "float"), panel(ARM, "float")]
    done = subprocess.run(
        ["qemu-aarch64", "-cpu", "max", program, *map(str, numbers)], input=given, capture_output=True, check=True
    )
    made = torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())
    product_, outer = made[: m * n].view(m, n), made[m * n :].view(k, n)
    assert off(product_, rounded(a), rounded(w)) <= 1 and off(outer, rounded(a).t(), rounded(g)) <= 1
    assert off(product_, a.double(), w.double()) > 1 and off(outer, a.t().double(), g.double()) > 1


def test_loops_round_by_its_instruction():
    torch.manual_seed(0)
    state = torch.zeros(5, 40)
    for cell, begin in ((tt.cells.GRU(21, 40), state), (tt.cells.LayerNormLSTM(21, 40), (state, state))):
        program = backend.find(make_call(cell, torch.randn(9, 5, 21), begin)).program
        loops = [(program.forward, False), (backward(program, frozenset({("w", 1)})).loop, True)]
        for loop, backwards in loops:
            assert "bfcvt" in assembly(LoopCode(program, loop, ARM, "bfloat16", backwards).text(), ARM)
    assert "bfdot" in assembly(product.text(ARM, "bfloat16"), ARM)


@pytest.mark.parametrize(("there", "why"), [(ARM, None), (WITHOUT, "this processor has no dot product of bfloat16")])
def test_who_has_it_takes_it(there, why, monkeypatch):
    monkeypatch.setattr(target, "host", lambda: there)
    monkeypatch.delenv("THROUGHTIME_BFLOAT16", raising=False)
    target.why_not_bfloat16.cache_clear()
    try:
        said = target.why_not_bfloat16()
    finally:
        target.why_not_bfloat16.cache_clear()
    assert said == why if why is None else said.startswith(why)
