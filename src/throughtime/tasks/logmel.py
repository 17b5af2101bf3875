"""Log-mel features of speech, of a whole recording or piece by piece: as Kaldi computes them, without dither."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks.audio import Samples

if TYPE_CHECKING:
    import torch

Features: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

LOW = 20.0  # Hz: where the lowest filter begins; the highest ends at half the rate
PREEMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)  # of the energy in a filter
BLOCK = 256  # frames that are computed together
ROWS = 16  # a product of fewer rows may be summed in another order


@dataclass(frozen=True)
class LogMel:
    """Which features there are: `bins` filters, equally wide on the mel scale from 20 Hz to half of `rate`, in frames of
    `window_ms` that begin every `hop_ms`.

    Of a frame the mean is taken away, then x_n − 0.97 x_{n−1} is multiplied by Povey's window, (½ − ½ cos)^0.85. The power of its
    spectrum, of the next power of two, goes through triangles that overlap by half; a feature is the natural logarithm of that,
    of 1.19e-7 at least. A frame is there where all its samples are (Kaldi's `snip_edges`): none is made up at an edge, so a frame
    depends on nothing after its window, and a stream has the same ones as the recording in one go.

    Raises: UserError where a number is out of range, or there are so many filters that one holds no line of the spectrum.
    Source: Kaldi, `compute-fbank-feats`, with dither 0 and energies of samples from −1 to 1 rather than of 16-bit ones, so that
        the floor lies where the rounding of 16-bit samples does, and digital silence is no outlier.
    """

    rate: int = 16000
    bins: int = 80
    window_ms: float = 25.0
    hop_ms: float = 10.0

    def __post_init__(self) -> None:
        for name in ("rate", "bins", "window_ms", "hop_ms"):
            if not 0 < (value := getattr(self, name)) < 1_000_000:
                raise UserError(f"{name}: got {value}; it takes a number above 0")
        if not 1 <= self.hop <= self.window or self.window < 2:
            what = f"got {self.window_ms:g} and {self.hop_ms:g} at {self.rate:,} Hz"
            raise UserError(f"window_ms, hop_ms: {what}; a hop is at least a sample, and at most the window")
        if empty := int((self.filters().max(axis=0) == 0).sum()):
            what = f"of a window of {self.window_ms:g} ms at {self.rate:,} Hz {empty} would be empty"
            raise UserError(f"bins: got {self.bins}; {what}: take fewer, or a longer window")

    @property
    def window(self) -> int:
        """Samples of a frame, rounded down."""
        return int(self.rate * self.window_ms / 1000)

    @property
    def hop(self) -> int:
        """Samples from the beginning of a frame to that of the next, rounded down."""
        return int(self.rate * self.hop_ms / 1000)

    def time(self, frame: float) -> float:
        """The second at which the middle of a frame lies."""
        return (frame * self.hop + self.window / 2) / self.rate

    def filters(self) -> np.ndarray[Any, Any]:
        """The share of each line of the spectrum in each filter, [lines, bins]; mel(f) = 1127 ln(1 + f / 700)."""
        size = 1 << (self.window - 1).bit_length()
        mels = 1127 * np.log1p(np.arange(size // 2 + 1) * self.rate / size / 700)
        edges = np.linspace(1127 * np.log1p(LOW / 700), mels[-1], self.bins + 2)
        rising = (mels[:, None] - edges[:-2]) / np.diff(edges)[:-1]
        falling = (edges[2:] - mels[:, None]) / np.diff(edges)[1:]
        return np.asarray(np.clip(np.minimum(rising, falling), 0, None))


DEFAULT = LogMel()


def bins_below(frequency: float, kind: LogMel = DEFAULT) -> int:
    """How many filters, from the lowest on, end at a frequency in Hz or below it."""
    mels = 1127 * np.log1p(np.array([LOW, frequency, kind.rate / 2]) / 700)
    ends = np.linspace(mels[0], mels[2], kind.bins + 2)[2:]
    return int((ends <= mels[1] + 1e-6).sum())


def frames_of(samples: int, kind: LogMel = DEFAULT) -> int:
    """How many frames so many samples have: 1 + ⌊(N − window) / hop⌋, none where they are fewer than a window."""
    return max(0, 1 + (samples - kind.window) // kind.hop)


def features(samples: Samples, kind: LogMel = DEFAULT) -> Features:
    """The log-mel features of samples.

    Args: samples: [N] float32 from −1 to 1, at `kind.rate`.
    Returns: [T, bins] float32, T = `frames_of(N)`.
    """
    import torch

    count = frames_of(len(samples), kind)
    found = np.empty((count, kind.bins), np.float32)
    if not count:
        return found
    window, filters, size = _tables(kind)
    frames = torch.from_numpy(np.require(samples, np.float32, ["C", "W"])).unfold(0, kind.window, kind.hop)
    for start in range(0, count, BLOCK):
        block = frames[start : start + BLOCK]
        block = block - block.mean(dim=1, keepdim=True)
        spectrum = torch.fft.rfft((block[:, 1:] - PREEMPHASIS * block[:, :-1]) * window, size)
        power = torch.zeros(-(-len(block) // ROWS) * ROWS, len(filters))
        torch.add(spectrum.real.square(), spectrum.imag.square(), out=power[: len(block)])
        found[start : start + BLOCK] = (power @ filters)[: len(block)].clamp_(min=FLOOR).log_().numpy()
    return found


class LogMelStream:
    """The features of samples that come piece by piece. Their frames, one after the other, are those of all samples in one go;
    samples that are left at the end are too few for a frame."""

    def __init__(self, kind: LogMel = DEFAULT) -> None:
        self.kind = kind
        self._rest = np.empty(0, np.float32)  # samples from the beginning of the next frame on

    def push(self, samples: Samples) -> Features:
        """The frames that these samples complete.

        Args: samples: [n] float32 from −1 to 1, at `kind.rate`, of any count.
        Returns: [t, bins] float32, t = 0 where none is complete.
        """
        given = np.concatenate([self._rest, samples])
        found = features(given, self.kind)
        self._rest = given[len(found) * self.kind.hop :].copy()
        return found


@lru_cache(maxsize=16)
def _tables(kind: LogMel) -> tuple[torch.Tensor, torch.Tensor, int]:
    """The window without its first weight, which is 0, [window − 1]; the filters [lines, bins]; the points of the spectrum."""
    import torch

    place = np.arange(1, kind.window) / (kind.window - 1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * place)) ** 0.85
    filters = kind.filters().astype(np.float32)
    return torch.from_numpy(window.astype(np.float32)), torch.from_numpy(filters), 2 * (len(filters) - 1)
