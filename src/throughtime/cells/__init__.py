"""Cells: one step of a recurrent network each, as equations. No time, no kernels."""

from throughtime.cells.base import Cell, State, chrono_, orthogonal_, set_forget_bias_
from throughtime.cells.coupled import CoupledLSTM
from throughtime.cells.elman import Elman
from throughtime.cells.gru import GRU
from throughtime.cells.highway import Highway
from throughtime.cells.indrnn import IndRNN
from throughtime.cells.layernorm import LayerNormGRU, LayerNormLSTM
from throughtime.cells.lstm import LSTM
from throughtime.cells.mingru import MinGRU
from throughtime.cells.minimal import UGRNN, MinimalGated
from throughtime.cells.minlstm import MinLSTM
from throughtime.cells.noise import RecurrentDropout, Zoneout, drop_weights
from throughtime.cells.peephole import PeepholeLSTM
from throughtime.cells.resetbefore import ResetBeforeGRU
from throughtime.cells.rglru import RGLRU
from throughtime.cells.sru import SRU

NAMED: dict[str, type[Cell]] = {  # as in settings and on the command line
    "elman": Elman,
    "gru": GRU,
    "lstm": LSTM,
    "coupled-lstm": CoupledLSTM,
    "highway": Highway,
    "indrnn": IndRNN,
    "layernorm-gru": LayerNormGRU,
    "layernorm-lstm": LayerNormLSTM,
    "mingru": MinGRU,
    "minimal-gated": MinimalGated,
    "minlstm": MinLSTM,
    "peephole-lstm": PeepholeLSTM,
    "reset-before-gru": ResetBeforeGRU,
    "rglru": RGLRU,
    "sru": SRU,
    "ugrnn": UGRNN,
}

__all__ = [
    "GRU",
    "LSTM",
    "NAMED",
    "RGLRU",
    "SRU",
    "UGRNN",
    "Cell",
    "CoupledLSTM",
    "Elman",
    "Highway",
    "IndRNN",
    "LayerNormGRU",
    "LayerNormLSTM",
    "MinGRU",
    "MinLSTM",
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
