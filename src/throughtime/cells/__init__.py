"""Cells: one step of a recurrent network each, as equations. No time, no kernels."""

from throughtime.cells.base import Cell, State, orthogonal_, set_forget_bias_
from throughtime.cells.elman import Elman
from throughtime.cells.gru import GRU
from throughtime.cells.lstm import LSTM
from throughtime.cells.noise import RecurrentDropout, Zoneout, drop_weights

NAMED: dict[str, type[Cell]] = {"elman": Elman, "gru": GRU, "lstm": LSTM}  # as in settings and on the command line

__all__ = [
    "GRU",
    "LSTM",
    "NAMED",
    "Cell",
    "Elman",
    "RecurrentDropout",
    "State",
    "Zoneout",
    "drop_weights",
    "orthogonal_",
    "set_forget_bias_",
]
