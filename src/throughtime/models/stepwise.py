"""What comes next in a series, read value by value: from the state after any of them comes the whole horizon.

Shapes: T time, B series, H horizon, C covariates of a step, K of those known ahead, Q quantiles, N hidden, M season, n cutoffs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from throughtime.cells import NAMED, State, orthogonal_, set_forget_bias_
from throughtime.layers import Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.models.forecaster import LARGEST, pinball
from throughtime.scanning import initial_state

MIXED = 32  # of what is known ahead and the state
SEEN = 2  # numbers of a step beside its covariates: the value, and whether it is known


class Course(NamedTuple):
    """Series side by side, and where they are to be forecast.

    steps: [T, B, 2 + C]: the value, less the first of its series and in its scale; whether it is known; covariates of the step.
    at: [n, 2], after which step of which series. scale: of that series, [n]. known: covariates ahead of each cutoff, [n, H, K].
    target: what came, [n, H], less the first and in the scale, NaN where that is not known.
    """

    steps: Tensor
    at: Tensor
    scale: Tensor
    known: Tensor
    target: Tensor


class Seasonal(nn.Module):
    """A cell that carries the last season beside its state, so that it reads a value by how it differs from its level and from a
    season before.

        v_t = x_t where it is known, else r_{t-1}[0];  r_t = [r_{t-1}[1:]; v_t];  l_t = mean r_t
        h_t = cell([v_t - l_t; v_t - r_{t-1}[0]; l_t - l_{t-1}; m_t; c_t], h_{t-1})

    x_t is a value, m_t whether it is known, c_t covariates.
    Output: [h_t; r_t]. State: that of the cells, and r.

    Args: cell: a name in `throughtime.cells.NAMED`. covariates: C. size: N. layers: cells above each other. season: M.
    """

    def __init__(self, cell: str, covariates: int, size: int, layers: int, season: int) -> None:
        super().__init__()
        made = NAMED[cell]
        widths = [4 + covariates, *[size] * (layers - 1)]
        self.cells = nn.ModuleList(made(width, size) for width in widths)
        for one in self.cells:
            if made.has_recurrent_weights:
                orthogonal_(one)
            if made.forget_gate is not None:
                set_forget_bias_(one, 1.0)
        self.season, self.output_size = season, size + season

    def initial_state(
        self, batch: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[Tensor, ...]:
        """Zeros: the season before is as the first value."""
        parts: list[Tensor] = []
        for one in self.cells:
            state = initial_state(one, batch)
            parts += state if isinstance(state, tuple) else [state]
        like = parts[0]
        parts.append(like.new_zeros(batch, self.season))
        return tuple(p.to(device=device or like.device, dtype=dtype or like.dtype) for p in parts)

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """One step: x [B, 2 + C]: a value, whether it is known, covariates. Returns: the output [B, N + M], and the state after
        it."""
        *inner, ring = state
        before = ring[:, :1]
        value = torch.where(x[:, 1:2] > 0.5, x[:, :1], before)
        season = torch.cat([ring[:, 1:], value], -1)
        level, former = season.mean(-1, keepdim=True), ring.mean(-1, keepdim=True)
        read = torch.cat([value - level, value - before, level - former], -1).clamp(-LARGEST, LARGEST)
        hidden, after = torch.cat([read, x[:, 1:]], -1), list[Tensor]()
        each = len(inner) // len(self.cells)
        for i, cell in enumerate(self.cells):
            own = inner[i * each : (i + 1) * each]
            new: State = cell(hidden, tuple(own) if each > 1 else own[0])
            after += new if isinstance(new, tuple) else [new]
            hidden = new[0] if isinstance(new, tuple) else new
        return torch.cat([hidden, season], -1), (*after, season)


class Stepwise(nn.Module):
    """A recurrent network over a series, and from its state after a step the quantiles of all the horizon, beside the last
    season.

        y_{t+k} = l_t + W_k h_t + V relu(U c_{t+k} + D h_t) + v_k (r_t[k] - l_t)

    So one pass over a series forecasts from every step of it, and a stream goes on by one step.

    Args: cell, size, layers: as of `Seasonal`. dropout: before the output. season, horizon: M, H. naive: steps that the
        seasonal naive forecast says again, M at most. covariates, ahead: C, K. levels: of the quantiles, ascending, [Q].
    Source: Wen et al. (2017), forked sequences of a recurrent network with a quantile for each step of the horizon.
    """

    def __init__(
        self,
        cell: str,
        size: int,
        layers: int,
        dropout: float,
        *,
        season: int,
        naive: int,
        horizon: int,
        covariates: int,
        ahead: int,
        levels: Sequence[float],
    ) -> None:
        super().__init__()
        self.size, self.season, self.naive, self.horizon, self.known = size, season, naive, horizon, ahead
        self.stack = Recurrent(Seasonal(cell, covariates, size, layers, season), SEEN + covariates, size)
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(size, horizon * len(levels))
        self.ahead = nn.Linear(ahead + size, MIXED) if ahead else None
        self.mixed = nn.Linear(MIXED, len(levels), bias=False) if ahead else None
        for part in (self.output, self.mixed):
            for parameter in () if part is None else part.parameters():
                nn.init.zeros_(parameter)
        self.voice = nn.Parameter(torch.full((horizon,), 0.5))  # of the last season
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def forward(self, batch: Course, state: None) -> tuple[Tensor, Tensor, None]:
        """The pinball loss of the values that are known after the cutoffs, summed, and how many they are."""
        found, _ = self.quantiles(batch)
        known = batch.target.isfinite()
        return (pinball(found, batch.target.nan_to_num(0.0), self.levels) * known).sum(), known.sum(), None

    def forecast(self, batch: Course) -> tuple[Tensor, Tensor]:
        """Quantiles of what comes after each cutoff, [n, H, Q], and the seasonal naive forecast, [n, H], less the first value of
        each series."""
        found, naive = self.quantiles(batch)
        return found * batch.scale.view(-1, 1, 1), naive * batch.scale.unsqueeze(1)

    def normalised(self, batch: Course) -> Tensor:
        """The quantiles in the scale of each series, [n, H, Q]."""
        return self.quantiles(batch)[0]

    def quantiles(self, batch: Course) -> tuple[Tensor, Tensor]:
        """The same in the scale of each series; ascending where nothing is learned."""
        outputs, _ = self.stack(batch.steps)
        return self.answer(outputs[batch.at[:, 0], batch.at[:, 1]], batch.known)

    def answer(self, output: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """The same of outputs of the stack, [n, N + M], and what is known ahead, [n, H, K]."""
        hidden, season = output[:, : self.size], output[:, self.size :]
        level = season.mean(-1, keepdim=True)
        steps = torch.arange(self.horizon, device=season.device)
        again, naive = season[:, steps % self.season], season[:, self.season - self.naive + steps % self.naive]
        hidden = self.dropout(hidden)
        out: Tensor = self.output(hidden).view(hidden.shape[0], self.horizon, -1)
        if self.ahead is not None and self.mixed is not None:
            both = torch.cat([known, hidden.unsqueeze(1).expand(-1, self.horizon, -1)], -1)
            out = out + self.mixed(torch.relu(self.ahead(both)))
        out = out + (level + self.voice * (again - level)).unsqueeze(-1)
        return out if self.training else out.sort(-1).values, naive
