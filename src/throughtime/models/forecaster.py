"""What comes next in a series of numbers, with how sure that is.

Shapes: B windows, L steps that are known, H horizon, R seasons, S segments of the look-back, which is the last of these, M of
the horizon, W steps of a segment, K covariates known ahead, P known only in the past, Q quantiles, N hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers import Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.models.stacks import recurrent
from throughtime.models.transformer import TransformerStack, matched, parameters_of
from throughtime.scanning.call import map_leaves

LARGEST = 30.0  # of a normalised value that is read; what is further out is read as that
UNKNOWN = 0  # the number of a series that training never had
SMALL = 0.02  # deviation of embeddings, to begin with
HIDDEN = 0.1  # how often a series is read as one of those, in training


class Window(NamedTuple):
    """Windows of series, side by side.

    values: [B, L], less the window's level, NaN where missing. naive: the seasonal naive forecasts, [B, H, R], less the level.
    level, scale: what a window is normalised by, [B].
    known: covariates known ahead, [B, L + H, K]. past: [B, L, P]. static: of each series, [B, D]. series: its number, [B].
    target: what came, [B, H], less the level, NaN where missing or not known.
    """

    values: Tensor
    naive: Tensor
    level: Tensor
    scale: Tensor
    known: Tensor
    past: Tensor
    static: Tensor
    series: Tensor
    target: Tensor


class Sizes(NamedTuple):
    """Of windows and what is made of them; see `Segments`."""

    history: int
    look_back: int
    horizon: int
    segment: int
    known: int
    past: int
    static: int
    series: int
    quantiles: int


class Unrolled(nn.Module):
    """A recurrent network over what is read, and a step of another from its last state for each thing asked: h_i = cell(e_i,
    h_{i-1}), o_j = cell'(q_j, h_S)."""

    def __init__(self, cell: str, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.stack: Recurrent = recurrent(cell, size, size, layers, dropout=between)
        self.decoder: Recurrent = recurrent(cell, size, size, layers, dropout=between)
        self.output_size = self.decoder.output_size

    def forward(self, read: Tensor, asked: Tensor) -> Tensor:
        """read [S, B, N], asked [B, M, N]. Returns: [B, M, N]."""
        _, state = self.stack(read)
        ahead = asked.shape[1]
        wide = map_leaves(lambda s: s.repeat_interleave(ahead, 0), state)
        hidden, _ = self.decoder(asked.flatten(0, 1).unsqueeze(0), wide)
        found: Tensor = hidden.view(-1, ahead, self.output_size)
        return found


class Attending(nn.Module):
    """A Transformer of as many parameters, over what is read and what is asked together."""

    def __init__(self, cell: str, size: int, layers: int, dropout: float) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # made to be counted
            like = parameters_of(Unrolled(cell, size, layers, dropout))
        stack = matched(lambda width: TransformerStack(size, width, max(layers, 2), dropout), like)
        assert isinstance(stack, TransformerStack)
        self.stack, self.output_size = stack, stack.output_size

    def forward(self, read: Tensor, asked: Tensor) -> Tensor:
        """As of `Unrolled`."""
        every = torch.cat([read, asked.transpose(0, 1)])
        lengths = torch.full((every.shape[1],), every.shape[0], device=every.device)
        hidden: Tensor = self.stack(every, lengths=lengths)[0]
        return hidden[read.shape[0] :].transpose(0, 1)


class Segments(nn.Module):
    """Segments in, a network over them, all segments of the horizon out at once.

        e_i = relu(W_e [x_i; m_i; c_i] + b_e);  y_j = W_o o_j + b_o + s_j + v_j A_j x

    x_i is a normalised segment, m_i where it is known, c_i the covariates in it; o_j is what the network makes of all e and of
    the question q_j: which segment of the horizon, of which series, under which covariates. A is a linear forecast
    from the look-back, which is not learned here but put in by what knows the windows, and s how its quantiles lie about it to
    begin with: what is learned is the difference.

    symmetric: a network f is made f'(x) = (f(x) - f(-x)) / 2, of quantiles those of the other side of f(-x): it then forecasts
    the mirror image of a series as the mirror image of its forecast. One whose data show few horizons would else learn as a rule
    that they went up, or down.

    aided: False: v = 0, so that the network learns all of what comes.

    Args: network: makes that over the segments (`Unrolled`, `Attending`). size: N. dropout: before the output. season: in steps.
    Source: Lin et al. (2023), SegRNN, with its parallel decoding.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        dropout: float,
        sizes: Sizes,
        season: int,
        symmetric: bool = False,
        aided: bool = True,
    ) -> None:
        super().__init__()
        self.sizes, width = sizes, sizes.segment
        self.behind, self.ahead = -(-sizes.look_back // width), -(-sizes.horizon // width)
        self.inner = nn.Linear(width * (2 + sizes.known + sizes.past), size)
        self.network = network
        self.place = nn.Parameter(torch.randn(self.ahead, size) * SMALL)
        self.which = nn.Embedding(sizes.series, size)
        nn.init.normal_(self.which.weight, std=SMALL)
        says = width * sizes.known + sizes.static
        self.asked = nn.Linear(says, size, bias=False) if says else None
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(network.output_size, width * sizes.quantiles)  # type: ignore[arg-type]
        self.season, self.symmetric, self.aided = season, symmetric, aided
        self.spread = nn.Parameter(torch.zeros(sizes.horizon, sizes.quantiles))
        if aided:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
            self.voice = nn.Parameter(torch.ones(sizes.horizon))  # of the linear forecast
            self.linear: Tensor
            self.register_buffer("linear", torch.zeros(sizes.horizon, sizes.history))

    def forward(self, window: Window) -> Tensor:
        """Normalised quantiles, [B, H, Q]."""
        found = self.added(window) + self.spread
        if self.symmetric:
            mirrored = self.added(window._replace(values=-window.values)) + self.spread
            found = (found - mirrored.flip(-1)) / 2
        if not self.aided:
            return found
        plain: Tensor = F.linear(filled(window, self.season), self.linear) * self.voice
        return found + plain.unsqueeze(-1)

    def added(self, window: Window) -> Tensor:
        """What the network says, to be added to the linear forecast where there is one, [B, H, Q]."""
        hidden = self.network(self.read(window), self.questions(window))
        out: Tensor = self.output(self.dropout(hidden)).view(hidden.shape[0], self.ahead * self.sizes.segment, -1)
        return out[:, : self.sizes.horizon]

    def read(self, window: Window) -> Tensor:
        """The segments of the look-back as the network reads them, [S, B, N]."""
        low, high = self.sizes.history - self.sizes.look_back, self.sizes.history
        values = window.values[:, low:]
        here, x = values.isfinite().to(values.dtype), normalised(window, values)
        known, past = window.known[:, low:high], window.past[:, low:]
        every = torch.cat([x.unsqueeze(-1), here.unsqueeze(-1), known, past], -1)
        return torch.relu(self.inner(self._cut(every, self.behind))).transpose(0, 1)

    def questions(self, window: Window) -> Tensor:
        """What is asked for each segment of the horizon, [B, M, N]."""
        series = window.series
        if self.training:
            series = series.masked_fill(torch.rand(series.shape, device=series.device) < HIDDEN, UNKNOWN)
        asked: Tensor = self.place + self.which(series).unsqueeze(1)
        if self.asked is not None:
            known = window.known[:, self.sizes.history :]
            known = F.pad(known, (0, 0, 0, self.ahead * self.sizes.segment - known.shape[1]))
            static = window.static.unsqueeze(1).expand(-1, self.ahead, -1)
            asked = asked + self.asked(torch.cat([self._cut(known, self.ahead), static], -1))
        return asked

    def _cut(self, steps: Tensor, count: int) -> Tensor:
        """[B, count · W, F] as segments, [B, count, W · F]."""
        return steps.reshape(steps.shape[0], count, self.sizes.segment * steps.shape[2])


def normalised(window: Window, values: Tensor) -> Tensor:
    """Values [B, T, ...] less their window's level in its scale; 0 where missing."""
    return (values / window.scale.view(-1, *[1] * (values.dim() - 1))).nan_to_num(0.0).clamp(-LARGEST, LARGEST)


def filled(window: Window, season: int) -> Tensor:
    """Normalised values [B, L]; in place of those that are missing what stood a season before, or 0."""
    x = window.values / window.scale.unsqueeze(1)
    if season < x.shape[1]:
        before = F.pad(x[:, :-season], (season, 0))
        x = torch.where(x.isfinite(), x, before)
    return x.nan_to_num(0.0).clamp(-LARGEST, LARGEST)


def pinball(found: Tensor, target: Tensor, levels: Tensor) -> Tensor:
    """The pinball loss of quantiles [..., Q] of some levels [Q], mean over them, [...]; it is least at the true quantiles.

    Source: Koenker, Bassett (1978). Twice this is the continuous ranked probability score, summed at these levels.
    """
    over = target.unsqueeze(-1) - found
    return torch.maximum(levels * over, (levels - 1) * over).mean(-1)


def log_density(quantiles: Tensor, target: Tensor, deviates: Tensor) -> Tensor:
    """log of the density at target [...] of distributions given by their quantiles [..., Q] at normal deviates [Q], ascending:
    between two of them, and beyond the last two, a normal one through both."""
    low = ((quantiles <= target.unsqueeze(-1)).sum(-1, keepdim=True) - 1).clamp(0, quantiles.shape[-1] - 2)
    below, above = quantiles.gather(-1, low).squeeze(-1), quantiles.gather(-1, low + 1).squeeze(-1)
    z0, z1 = deviates[low.squeeze(-1)], deviates[low.squeeze(-1) + 1]
    deviation = (above - below).clamp(min=1e-6) / (z1 - z0)
    z = z0 + (target - below) / deviation
    return -0.5 * z.square() - deviation.log() - 0.5 * math.log(2 * math.pi)


class Forecaster(nn.Module):
    """Several networks that forecast the same, and the median of what they say; of two, their mean.

    heard: the numbers of those that have a say, all to begin with.

    Args: make: makes each of them. levels: of the quantiles, ascending, [Q].
    """

    def __init__(self, make: Sequence[Callable[[], nn.Module]], levels: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(one() for one in make)
        self.heard = list(range(len(self.members)))
        self.levels: Tensor
        self.register_buffer("levels", torch.tensor(levels), persistent=False)

    def quantiles(self, window: Window) -> Tensor:
        """Quantiles of what comes, less the level of each window, ascending, [B, H, Q]."""
        return self.normalised(window) * window.scale.view(-1, 1, 1)

    def forecast(self, window: Window) -> tuple[Tensor, Tensor]:
        """Quantiles of what comes and the seasonal naive forecast, [B, H], less the level of each window."""
        return self.quantiles(window), window.naive[..., 0]

    def normalised(self, window: Window) -> Tensor:
        """The same in the scale of each window."""
        return _median([self.members[i](window) for i in self.heard])

    def choose(self, windows: Iterable[Window]) -> None:
        """Hear all members, or those alone that add to a linear forecast, or those alone that do not: whichever have the least
        loss in some windows."""
        parts = [[i for i, member in enumerate(self.members) if bool(member.aided) == aided] for aided in (True, False)]
        if not all(parts):
            return
        choices = [list(range(len(self.members))), *parts]
        losses = torch.zeros(len(choices), dtype=torch.float64)
        for window in windows:
            every = [member(window) for member in self.members]
            for number, choice in enumerate(choices):
                losses[number] += float(self._loss(window, _median([every[i] for i in choice])))
        self.heard = choices[int(losses.argmin())]

    def forward(self, batch: Window, state: None) -> tuple[Tensor, Tensor, None]:
        """The pinball loss of normalised values, summed over the values that are known, and how many they are."""
        if self.training:
            total = torch.stack([self._loss(batch, member(batch)) for member in self.members]).mean()
        else:
            total = self._loss(batch, self.normalised(batch))
        return total, batch.target.isfinite().sum(), None

    def _loss(self, window: Window, found: Tensor) -> Tensor:
        target = window.target / window.scale.unsqueeze(1)
        return (pinball(found, target.nan_to_num(0.0), self.levels) * target.isfinite()).sum()


def _median(found: list[Tensor]) -> Tensor:
    """The median of quantiles [..., Q], ascending; of an even number of them the mean of the two in the middle."""
    ordered, count = torch.stack(found).sort(0).values, len(found)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2  # by what every runtime has
    return median.sort(-1).values
