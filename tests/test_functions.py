"""Functions on vectors, beside what they are in wider numbers: over a grid of all float32, at random float64, and at borders.

Bounds are units in the last place, a tenth above the worst that is known: of every 31st float32, and of 12,000 float64 each.
"""

from __future__ import annotations

import functools

import mpmath
import numpy as np
import pytest
import torch

from throughtime.scanning.cpu import functions, target
from throughtime.scanning.cpu.assembly import Module
from throughtime.scanning.cpu.circular import LARGEST
from throughtime.scanning.cpu.tasks import fields

BOUNDS = {  # of float32 and of float64
    "exp": (2.9, 1.1), "expm1": (1.8, 1.9), "sigmoid": (3.2, 2.2), "tanh": (5.0, 2.7), "sinh": (2.4, 2.4), "cosh": (1.8, 1.6),
    "erf": (1.2, 1.2), "log": (0.9, 0.9), "log1p": (1.5, 1.2), "asinh": (1.9, 1.9), "acosh": (2.0, 2.0), "atanh": (2.1, 1.7),
    "sin": (1.7, 1.7), "cos": (1.7, 1.6), "tan": (3.7, 3.2), "asin": (2.2, 2.4), "acos": (1.5, 1.4), "atan": (1.7, 1.6),
}  # fmt: skip
NUMPY = {"float": np.float32, "double": np.float64}
LEAST = {"float": 2.0**-126, "double": 2.0**-1022}  # normal number
SPECIAL = [
    0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0, 3.0, -3.0, 1e-45, -1e-40, 1.2e-38, 88.7, 89.5,
    -87.4, -103.9, -150.0, 1e30, -1e30, 3.4e38, -3.4e38, 1e5, -1e5, 100001.0, 2.0**24, 33554430.0, -7.0, 0.1,
]  # fmt: skip
WIDE = [1e300, -1e300, 709.7, 710.4, 710.5, -745.2, 1e6, 5e-324, -1e-310]  # float64 besides
every_dtype = pytest.mark.parametrize("dtype", ["float", "double"])
every_function = pytest.mark.parametrize("name", BOUNDS)


@functools.cache
def compiled(name, dtype, count=1, fused=True):
    """A function as one of arrays."""
    lanes = target.host().lanes(dtype)
    module = Module(dtype, lanes, fused=fused)
    names = [f"x{k}" for k in range(count)]

    def body(code):
        with code.loop("%n", step=lanes) as i:
            value = functions.VECTORS[name](code, *(code.load_vector(code.at(f"%{x}", i)) for x in names))
            code.store_vector(value, code.at("%y", i))

    # the argument block of a library's functions: words
    def entry(code):
        *pointers, n = fields(code, "%args", *(f"{x}*" for x in names), "y*", "n", first=0)
        code.line(f"call void @inner({', '.join(f'ptr {p}' for p in pointers)}, i64 {n})")

    module.define("inner", ", ".join([*(f"ptr %{x}" for x in names), "ptr %y", "i64 %n"]), body)
    module.define("entry", "ptr %args", entry)
    library = target.Library(target.compile_object(module.text(), target.host()))

    def run(*given):
        padded = [np.concatenate([x, np.zeros(-len(x) % lanes, x.dtype)]) for x in given]
        y = np.empty_like(padded[0])
        block = np.array([*(x.ctypes.data for x in padded), y.ctypes.data, len(y)], dtype=np.int64)
        library.function("entry")(block.ctypes.data)
        return y[: len(given[0])]

    return run


def assert_near(found, truth, bound):
    """Within so many units in the last place; equal where there is none; below the least normal number within two of the least."""
    kind = "float" if found.dtype == np.float32 else "double"
    with np.errstate(all="ignore"):
        rounded = truth.astype(found.dtype)
        normal = np.isfinite(rounded) & (np.abs(truth) >= LEAST[kind])
        off = np.abs(found.astype(np.float64) - truth)[normal] / np.spacing(np.abs(rounded[normal]))
        assert np.max(off, initial=0) <= bound
        small = np.isfinite(rounded) & ~normal
        assert np.max(np.abs(found.astype(np.float64) - truth)[small], initial=0) <= 2 * np.spacing(NUMPY[kind](0))
    endless = np.isinf(rounded)
    assert np.array_equal(np.isnan(found), np.isnan(rounded))
    assert np.array_equal(found[endless], rounded[endless])


@every_function
@pytest.mark.parametrize("fused", [True, False])
def test_over_a_grid_of_all_float32(name, fused):
    x = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x, np.linspace(-4, 4, 300_000, dtype=np.float32), np.array(SPECIAL, np.float32)])
    if name == "sigmoid":  # 1 / (1 + e^-x) has no numbers below 1 / e^88.7
        x = x[~((x < -87) & (x > -104))]
    truth = getattr(torch, name)(torch.from_numpy(x).double()).numpy()
    found = compiled(name, "float", fused=fused)(x)
    # the parts of ln 2 and π/2 are only exact in a product that is not rounded
    assert_near(found, truth, BOUNDS[name][0] + (0 if fused else 1))
    zeros = (x == 0) & (truth == 0)
    assert np.array_equal(np.signbit(found[zeros]), np.signbit(truth[zeros]))


def inside(name, x):
    """Numbers that a function has a value at."""
    if name in ("asin", "acos", "atanh"):
        return np.clip(x, -0.999, 0.999)
    if name == "log":
        return np.abs(x)
    return np.abs(x) + (1 if name == "acosh" else -0.999) if name in ("acosh", "log1p") else x


@every_function
def test_at_random_float64(name):
    draw = np.random.default_rng(7)
    x = [draw.uniform(-1, 1, 250), draw.uniform(-6, 6, 250), draw.uniform(-700, 700, 100)]
    x = inside(name, np.concatenate([*x, np.exp(draw.uniform(-40, 14, 250)) * draw.choice([-1, 1], 250)]))
    exact = {"sigmoid": lambda v: 1 / (1 + mpmath.exp(-v))}.get(name) or getattr(mpmath, name)
    with mpmath.workdps(40):
        truth = [exact(mpmath.mpf(float(v))) for v in x]
        found = compiled(name, "double")(x)
        finite = [(f, t) for f, t in zip(found, truth, strict=True) if 1e-300 < abs(t) < 1e308]
        off = [abs(mpmath.mpf(float(f)) - t) / float(np.spacing(abs(float(t)))) for f, t in finite]
    assert len(off) > 700
    assert max(off) <= BOUNDS[name][1]


@every_function
@every_dtype
def test_what_is_special_is_as_in_pytorch(name, dtype):
    x = np.array(SPECIAL if dtype == "float" else [*SPECIAL, *WIDE], NUMPY[dtype])
    expected = getattr(torch, name)(torch.from_numpy(x)).numpy()
    found = compiled(name, dtype)(x)
    least = 1e-37 if name == "sigmoid" else 2 * np.spacing(NUMPY[dtype](0))  # PyTorch's log1p is no nearer
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float" else 1e-14, atol=least)
    zeros = (x == 0) & (expected == 0)
    assert np.array_equal(np.signbit(found[zeros]), np.signbit(expected[zeros]))


@every_dtype
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_angles_beside_small_ones(name, dtype):
    """One large angle in a vector sends it to the C library, and changes nothing of the others in it."""
    draw = np.random.default_rng(3)
    x = draw.uniform(-10, 10, 4096).astype(NUMPY[dtype])
    alone, places = compiled(name, dtype)(x), np.arange(0, 4096, 37)
    mixed = x.copy()
    mixed[places] = np.exp(draw.uniform(np.log(LARGEST[dtype]), 80, len(places))) * draw.choice([-1, 1], len(places))
    found = compiled(name, dtype)(mixed)
    others = np.setdiff1d(np.arange(4096), places)
    assert np.array_equal(found[others], alone[others])
    with mpmath.workdps(60):
        truth = np.array([float(getattr(mpmath, name)(mpmath.mpf(float(v)))) for v in mixed[places]])
    assert_near(found[places], truth, 2 if name != "tan" else 4)


@pytest.mark.parametrize("how", ["powers", "near 1", "bits"])
def test_powers_of_float32(how):
    draw, n = np.random.default_rng(5), 200_000
    x, y = {
        "powers": lambda: (np.exp(draw.uniform(-80, 80, n)), draw.uniform(-5, 5, n)),
        "near 1": lambda: (1 + 0.01 * draw.normal(size=n), 1000 * draw.normal(size=n)),
        "bits": lambda: draw.integers(0, 2**32, (2, n), dtype=np.uint32).view(np.float32),
    }[how]()
    x, y = (np.ascontiguousarray(v, dtype=np.float32) for v in (x, y))
    truth = torch.from_numpy(x).double().pow(torch.from_numpy(y).double()).numpy()
    assert_near(compiled("pow", "float", 2)(x, y), truth, 0.55)


@every_dtype
def test_special_powers_are_as_in_pytorch(dtype):
    values = np.array(SPECIAL, dtype=NUMPY[dtype])
    x, y = np.repeat(values, len(values)), np.tile(values, len(values))
    expected = torch.from_numpy(x).pow(torch.from_numpy(y)).numpy()
    found = compiled("pow", dtype, 2)(x, y)
    least = 2 * np.spacing(NUMPY[dtype](0))  # PyTorch's powers are no nearer
    np.testing.assert_allclose(found, expected, rtol=1e-6 if dtype == "float" else 1e-14, atol=least)
    settled = (expected == 0) | np.isinf(expected)
    assert np.array_equal(np.signbit(found[settled]), np.signbit(expected[settled]))
