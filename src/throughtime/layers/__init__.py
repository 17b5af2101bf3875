"""Layers: nn.Modules made of cells."""

from throughtime.layers.dropin import GRU, LSTM, RNN
from throughtime.layers.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]
