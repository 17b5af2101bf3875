"""Stacks of layers that are exported in several tests."""

import torch

import throughtime as tt


def stacks(inputs, size):
    """Of several layers, by name; the same weights each time."""
    torch.manual_seed(4)
    return {
        "GRU": tt.GRU(inputs, size, num_layers=3),
        "LSTM with projection": tt.LSTM(inputs, size, num_layers=2, proj_size=5),
        "residual with zoneout": tt.Recurrent(tt.cells.LSTM, size, size, 3, residual=True, zoneout=0.1).eval(),
        "layer-norm": tt.Recurrent(tt.cells.LayerNormGRU, inputs, size, 2, residual=True).eval(),
    }
