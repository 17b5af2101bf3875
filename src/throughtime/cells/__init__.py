"""Cells: one step of a recurrent network each, as equations. No time, no kernels."""

from throughtime.cells.base import Cell, State, chrono_, orthogonal_, set_forget_bias_
from throughtime.cells.coupled import CoupledLSTM
from throughtime.cells.elman import Elman
from throughtime.cells.gru import GRU
from throughtime.cells.highway import Highway
from throughtime.cells.indrnn import IndRNN
from throughtime.cells.layernorm import LayerNormGRU, LayerNormLSTM
from throughtime.cells.lstm import LSTM
from throughtime.cells.minimal import UGRNN, MinimalGated
from throughtime.cells.noise import RecurrentDropout, Zoneout, drop_weights
from throughtime.cells.peephole import PeepholeLSTM
from throughtime.cells.resetbefore import ResetBeforeGRU

NAMED: dict[str, type[Cell]] = {  # as in settings and on the command line
    "elman": Elman,
    "gru": GRU,
    "lstm": LSTM,
    "coupled-lstm": CoupledLSTM,
    "highway": Highway,
    "indrnn": IndRNN,
    "layernorm-gru": LayerNormGRU,
    "layernorm-lstm": LayerNormLSTM,
    "minimal-gated": MinimalGated,
    "peephole-lstm": PeepholeLSTM,
    "reset-before-gru": ResetBeforeGRU,
    "ugrnn": UGRNN,
}

__all__ = [
    "GRU",
    "LSTM",
    "NAMED",
    "UGRNN",
    "Cell",
    "CoupledLSTM",
    "Elman",
    "Highway",
    "IndRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "MinimalGated",
    "PeepholeLSTM",
    "RecurrentDropout",
    "ResetBeforeGRU",
    "State",
    "Zoneout",
    "chrono_",
    "drop_weights",
    "orthogonal_",
    "set_forget_bias_",
]
