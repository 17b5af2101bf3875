"""Handwritten digits, read pixel by pixel, in order or shuffled.

Shapes: T time (784), B batch.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Generator, Tensor

from throughtime.errors import UserError
from throughtime.laboratory.problems import Batch, Named

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
HELD_OUT = 10_000  # the last of the file; a sixth where there are fewer than 60,000
WATCHED = 1_000  # of these, scored while it learns; the rest is scored once, at the end
PIECE = 250
ORDER_SEED = 784  # of the one shuffled order
MEAN, SPREAD = 0.1307, 0.3081  # of the pixels, as shares of 255


class Pixels(Named):
    """Sequential MNIST: 784 grey values, one a step, then the digit.

    Args: folder: where the training images and labels are, as idx.gz.
    Raises: UserError where they are missing or damaged.
    Source: Le, Jaitly, Hinton (2015), section 4.3; normalised as in Bai, Kolter, Koltun (2018).
    """

    name = "mnist"
    inputs, outputs = 1, 10
    batch_size = 64
    learning_rate = 3e-3
    budget = 10_000
    every = 250
    falls = True
    ends = False
    lags = (784,)  # where the images are of the usual size
    shuffled = False
    chance = 0.1
    goal = 0.85

    def __init__(self, folder: Path) -> None:
        images, labels = read_idx(folder / IMAGES, 3), read_idx(folder / LABELS, 1)
        if len(images) != len(labels):
            raise UserError(f"{folder}: {len(images)} images but {len(labels)} labels; take both from one place")
        if len(labels) < 12 or int(labels.max()) > 9:
            raise UserError(
                f"{folder / LABELS}: holds {len(labels)} labels up to {int(labels.max())}; digits are asked for"
            )
        super().__init__(images[0].numel())
        order = torch.arange(self.lag)
        if self.shuffled:
            order = torch.randperm(self.lag, generator=Generator().manual_seed(ORDER_SEED))
        self.pixels = images.flatten(1)[:, order]  # [examples, T], uint8
        self.labels = labels.long()
        self.learned_from = len(labels) - min(HELD_OUT, len(labels) // 6)

    @property
    def steps(self) -> int:
        return self.lag

    def _examples(self, which: Tensor) -> Batch:
        values = (self.pixels[which].t().unsqueeze(-1) / 255 - MEAN) / SPREAD
        return Batch(values.contiguous(), self.labels[which])

    def batch(self, generator: Generator, size: int) -> Batch:
        return self._examples(torch.randint(self.learned_from, (size,), generator=generator))

    def _span(self, low: int, high: int) -> Iterator[Batch]:
        for first in range(low, high, PIECE):
            yield self._examples(torch.arange(first, min(first + PIECE, high)))

    @property
    def _watched(self) -> int:
        held_out = len(self.labels) - self.learned_from
        return self.learned_from + min(WATCHED, held_out // 2)

    def held_out(self) -> Iterator[Batch]:
        return self._span(self.learned_from, self._watched)

    def test(self) -> Iterator[Batch]:
        return self._span(self._watched, len(self.labels))


class Shuffled(Pixels):
    """Permuted MNIST: the same pixels in another order, the same for all images."""

    name = "pmnist"
    shuffled = True


def read_idx(path: Path, dimensions: int) -> Tensor:
    """A gzipped idx file of bytes, as uint8 of so many dimensions.

    Raises: UserError where it is missing, not gzip, cut off or not such a file.
    Source: the format as described beside the data by LeCun, Cortes, Burges.
    """
    try:
        with gzip.open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; --mnist takes the folder of {IMAGES} and {LABELS}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot read it: {error}") from error
    head = 4 + 4 * dimensions
    if len(data) < head or data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(
            f"{path}: is not an idx file of bytes in {dimensions} dimensions: it begins with {data[:4].hex(' ')}"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:head])
    if len(data) - head != math.prod(shape) or not math.prod(shape):
        raise UserError(
            f"{path}: is damaged: {len(data) - head:,} bytes where {' × '.join(map(str, shape))} are promised"
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=head).view(shape)
