"""Where the coefficients of `scanning/cpu/coefficients.py` come from: `python tests/minimax.py [NAME ...]` prints them.

Each is the polynomial of its degree whose largest error, weighed as below, is the least (Remez's exchange, in 40 digits, on a
grid of Chebyshev points), rounded to the type of number. The error printed is that of the fit, before rounding.
Source: Remez (1934); Muller, Elementary Functions (3rd edition, 2016), chapter 3.
"""

import sys
import textwrap

import numpy as np
from mpmath import mp, mpf

mp.dps = 40
HALF_LN2, QUARTER = mp.log(2) / 2 + mpf("1e-4"), mpf("0.79")


def _expm1(r):
    return (mp.expm1(r) - r) / r**2 if abs(r) > mpf("1e-12") else mpf(1) / 2 + r / 6


def _sin(z):
    r = mp.sqrt(z)
    return (mp.sin(r) - r) / r**3 if z > mpf("1e-12") else -mpf(1) / 6 + z / 120


def _cos(z):
    r = mp.sqrt(z)
    return (mp.cos(r) - 1 + z / 2) / z**2 if z > mpf("1e-10") else mpf(1) / 24 - z / 720


def _atanh(z):
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / s**3 if z > mpf("1e-12") else mpf(2) / 3 + 2 * z / 5


def _erf(z):
    r = mp.sqrt(z)
    return mp.erf(r) / r - 1 if z > mpf("1e-24") else 2 / mp.sqrt(mp.pi) - 1


def _beyond(function, first, second):
    """(function(r) / r - first) / z with r = √z, where the series begins first r + second r³."""

    def of(z):
        r = mp.sqrt(z)
        return (function(r) / r - first) / z if z > mpf("1e-12") else mpf(second)

    return of


def _complement(t):
    return -mp.log(mp.erfc(t))


def _share(t):
    return mp.erfc(t) / mp.erf(t)


# name: what is fitted, from, to, how an error weighs, degree for float32 and for float64
FITS = {
    "EXPM1": (_expm1, -HALF_LN2, HALF_LN2, lambda r: 1, 4, 10),
    "ATANH": (_atanh, 0, mpf("0.0295"), lambda z: 1, None, 7),
    "SIN": (_sin, 0, QUARTER**2, lambda z: 1, 2, 6),
    "COS": (_cos, 0, QUARTER**2, lambda z: 1, 2, 6),
    "ERF": (_erf, 0, 1, lambda z: 1, 6, 12),
    "ERFC": (_complement, 1, {"float": 4, "double": 6}, _share, 6, 18),
    "ATAN": (_beyond(mp.atan, 1, -mpf(1) / 3), 0, 1, lambda z: 1, 8, 19),
    "ASIN": (_beyond(mp.asin, 1, mpf(1) / 6), 0, mpf("0.25"), lambda z: 1, 4, 11),
}


def minimax(function, low, high, weight, degree):
    """Coefficients, the lowest power first, and the largest weighed error."""
    count = 60 * (degree + 2)
    middle, half = (mpf(low) + high) / 2, (mpf(high) - low) / 2
    x = [middle - half * mp.cos(mp.pi * i / count) for i in range(count + 1)]
    y, w = [function(v) for v in x], [mpf(weight(v)) for v in x]
    at = [round(i * count / (degree + 1)) for i in range(degree + 2)]
    for _ in range(12):
        rows = mp.matrix(degree + 2, degree + 2)
        for k, i in enumerate(at):
            for j in range(degree + 1):
                rows[k, j] = x[i] ** j
            rows[k, degree + 1] = (-1) ** k / w[i]
        found = mp.lu_solve(rows, mp.matrix([y[i] for i in at]))
        terms = list(found)[:-1]
        error = [w[i] * (mp.polyval(terms[::-1], x[i]) - y[i]) for i in range(count + 1)]
        new = _alternating(error, degree + 2)
        if new == at:
            break
        at = new
    return terms, max(map(abs, error))


def _alternating(error, count):
    """The places of so many extrema whose signs alternate, the largest of each sign kept."""
    runs, best = [], 0
    for i in range(1, len(error)):
        if (error[i] > 0) == (error[best] > 0):
            best = i if abs(error[i]) > abs(error[best]) else best
        else:
            runs.append(best)
            best = i
    runs.append(best)
    while len(runs) > count:
        if len(runs) == count + 1:
            runs.pop(0 if abs(error[runs[0]]) < abs(error[runs[-1]]) else -1)
        else:  # two neighbours, so that signs still alternate
            k = min(range(len(runs) - 1), key=lambda k: max(abs(error[runs[k]]), abs(error[runs[k + 1]])))
            del runs[k : k + 2]
    return runs


def main(names):
    for name in names or FITS:
        function, low, high, weight, *degrees = FITS[name]
        print(f"{name} = {{")
        for dtype, degree in zip(("float", "double"), degrees, strict=True):
            if degree is None:
                continue
            end = high[dtype] if isinstance(high, dict) else high
            terms, error = minimax(function, low, end, weight, degree)
            rounded = [float(np.float32(str(t)) if dtype == "float" else t) for t in terms]
            text = ", ".join(repr(t) for t in rounded)
            print(f"    # off by {mp.nstr(error, 2)}")
            print(f'    "{dtype}": (\n        {textwrap.fill(text, 108).replace(chr(10), chr(10) + 8 * " ")},\n    ),')
        print("}  # fmt: skip")


if __name__ == "__main__":
    main(sys.argv[1:])
