"""Layers made of cells: torch.nn's, any cell stacked, and attention."""

from throughtime.layers.attention import Attention, Memory
from throughtime.layers.dropin import GRU, LSTM, RNN
from throughtime.layers.recurrent import Recurrent

__all__ = ["GRU", "LSTM", "RNN", "Attention", "Memory", "Recurrent"]
