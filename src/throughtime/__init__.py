"""throughtime: recurrent neural networks, from equations to a running stream.

What is named here is imported when it is first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "cells": "throughtime.cells",
    "scan": "throughtime.scanning:scan",
    "explain": "throughtime.scanning:explain",
    "Scanned": "throughtime.scanning:Scanned",
    "RNN": "throughtime.layers:RNN",
    "LSTM": "throughtime.layers:LSTM",
    "GRU": "throughtime.layers:GRU",
    "Inspection": "throughtime.inspect.inspection:Inspection",
    "Recurrent": "throughtime.layers:Recurrent",
    "Session": "throughtime.travel:Session",
    "export": "throughtime.exporting:export",
    "load": "throughtime.tasks:load",
    "train": "throughtime.training:train",
    "UserError": "throughtime.errors:UserError",
}
__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Inspection",
    "Recurrent",
    "Scanned",
    "Session",
    "UserError",
    "cells",
    "explain",
    "export",
    "load",
    "scan",
    "train",
]

if TYPE_CHECKING:
    from throughtime import cells
    from throughtime.errors import UserError
    from throughtime.exporting import export
    from throughtime.inspect.inspection import Inspection
    from throughtime.layers import GRU, LSTM, RNN, Recurrent
    from throughtime.scanning import Scanned, explain, scan
    from throughtime.tasks import load
    from throughtime.training import train
    from throughtime.travel import Session


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'throughtime' has no attribute {name!r}")
    home, _, attribute = _HOMES[name].partition(":")
    module = importlib.import_module(home)
    globals()[name] = value = getattr(module, attribute) if attribute else module
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
