"""Problems that only a memory solves, as long as one likes, with the score that guessing gets.

Shapes: T time, B batch, I input, A answered steps at the end, O output.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

HELD_OUT = 1000  # sequences that a score is a mean over
HELD_OUT_SEED = 10_000_019  # one held-out set, whatever the seed of the training
PIECE = 250  # of them side by side


class Batch(NamedTuple):
    """inputs [T, B, I]; targets: what `loss` and `scores` take."""

    inputs: Tensor
    targets: Tensor


class Problem(ABC):
    """Sequences, what is asked at their end, and how answers are scored.

    Args: lag: over how many steps something must be remembered.
    Attributes:
        inputs, outputs: I and O. answered: A. steps: T.
        score: what the score is called. rising: whether more of it is better. chance: what it is without a memory.
        goal: from where on the problem counts as learned. ends: whether training ends there.
        parameters, batch_size, learning_rate, clip, budget: of the training, where nothing else is asked for; budget in steps.
        every: steps between scores. falls: whether the learning rate falls along half a cosine as the budget is spent.
        lags, cells: what is measured where nothing else is asked for. least: the shortest lag there is.
    """

    name: ClassVar[str]
    inputs: ClassVar[int]
    outputs: ClassVar[int]
    score: ClassVar[str]
    rising: ClassVar[bool]
    ends: ClassVar[bool] = True
    parameters: ClassVar[int] = 70_000
    batch_size: ClassVar[int] = 32
    learning_rate: ClassVar[float] = 1e-3
    clip: ClassVar[float] = 1.0
    budget: ClassVar[int] = 5000
    every: ClassVar[int] = 100
    falls: ClassVar[bool] = False
    lags: ClassVar[tuple[int, ...]]
    least: ClassVar[int] = 1
    cells: ClassVar[tuple[str, ...]] = ("rnn", "lstm", "gru")
    answered: int = 1
    chance: float
    goal: float

    def __init__(self, lag: int) -> None:
        self.lag = lag

    @property
    @abstractmethod
    def steps(self) -> int:
        """T: the length of each of its sequences."""

    @abstractmethod
    def batch(self, generator: Generator, size: int) -> Batch:
        """Draw `size` sequences to learn from."""

    def held_out(self) -> Iterator[Batch]:
        """The sequences that are scored while it learns: always the same."""
        generator = Generator().manual_seed(HELD_OUT_SEED)
        for low in range(0, HELD_OUT, PIECE):
            yield self.batch(generator, min(PIECE, HELD_OUT - low))

    def test(self) -> Iterator[Batch]:
        """The sequences that are scored at the end. Nothing drawn without end can be learned by heart: the same."""
        return self.held_out()

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs: [A, B, O]. Returns: a mean over the sequences."""

    @abstractmethod
    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs: [A, B, O]. Returns: the score of each sequence, [B]."""

    def better(self, score: float, than: float) -> bool:
        """Whether a score is better than another."""
        return score > than if self.rising else score < than

    def learned(self, score: float) -> bool:
        """Whether a score meets the goal."""
        return score == self.goal or self.better(score, self.goal)


class Named(Problem):
    """Problems that are answered by the number of a class at the last step: targets are int64 [B]."""

    score = "accuracy"
    rising = True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs[-1], targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[-1].argmax(-1) == targets).to(outputs)


class Recall(Named):
    """Symbols of eight, one of them marked; after `lag` more of them the marked one is to be named.

    Ten stand before the mark, so that it is the mark that counts and not the beginning. I: one-hot of the symbol, and the mark.
    All are drawn alike: without a memory one answer in eight is right.
    """

    name = "recall"
    SYMBOLS, BEFORE = 8, 10
    inputs, outputs = SYMBOLS + 1, SYMBOLS
    parameters = 16_000
    batch_size = 64
    learning_rate = 3e-3
    budget = 1000
    every = 50
    lags = (5, 10, 20, 50, 100, 200, 500)
    chance = 1 / SYMBOLS
    goal = 0.95

    @property
    def steps(self) -> int:
        return self.BEFORE + 1 + self.lag

    def batch(self, generator: Generator, size: int) -> Batch:
        symbols = torch.randint(self.SYMBOLS, (self.steps, size), generator=generator)
        inputs = torch.zeros(self.steps, size, self.inputs)
        inputs[..., : self.SYMBOLS] = F.one_hot(symbols, self.SYMBOLS)
        inputs[self.BEFORE, :, -1] = 1
        return Batch(inputs, symbols[self.BEFORE])


class Adding(Problem):
    """Numbers from 0 to 1, two of them marked: the sum of these two. `lag` is the length of the sequence.

    I: the number, and the mark. The error is squared; always to say 1 has the mean 1/6. Targets [B].
    Source: Hochreiter, Schmidhuber (1997), experiment 4, as in Bai, Kolter, Koltun (2018), appendix A: any two are marked.
    """

    name = "adding"
    inputs, outputs = 2, 1
    score, rising = "mse", False
    learning_rate = 4e-3
    budget = 10_000
    lags: ClassVar[tuple[int, ...]] = (25, 50, 100, 200, 400, 600)
    least = 2
    chance = 1 / 6
    goal = 1e-3

    @property
    def steps(self) -> int:
        return self.lag

    def batch(self, generator: Generator, size: int) -> Batch:
        values = torch.rand(self.lag, size, generator=generator)
        marked = torch.rand(self.lag, size, generator=generator).topk(2, 0).indices
        marks = torch.zeros_like(values).scatter_(0, marked, 1.0)
        return Batch(torch.stack([values, marks], -1), (values * marks).sum(0))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(outputs[-1, :, 0], targets)

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[-1, :, 0] - targets).square()


class Copy(Problem):
    """Ten symbols of eight; `lag` steps of nothing, the last of which is the first of eleven delimiters; in the ten steps after
    it the symbols, in order. Everywhere else: nothing.

    T = lag + 20. I: one-hot of nothing, the symbols 1 to 8 and the delimiter 9. The score is the cross entropy, in nats, over
    all steps: 10 ln 8 / T for who knows the rules and remembers nothing. Targets: int64 [T, B].
    Source: Hochreiter, Schmidhuber (1997), Arjovsky et al. (2016), as in Bai, Kolter, Koltun (2018), appendix A, whose inputs
    are the digits as numbers.
    """

    name = "copy"
    SYMBOLS, ITEMS = 8, 10
    inputs, outputs = SYMBOLS + 2, SYMBOLS + 1
    score, rising = "nats", False
    parameters = 16_000
    learning_rate = 4e-3
    budget = 10_000
    lags = (5, 10, 30, 100, 300, 1000)

    def __init__(self, lag: int) -> None:
        super().__init__(lag)
        self.answered = self.steps
        self.chance = self.ITEMS * math.log(self.SYMBOLS) / self.steps
        self.goal = self.chance / 10

    @property
    def steps(self) -> int:
        return self.lag + 2 * self.ITEMS

    def batch(self, generator: Generator, size: int) -> Batch:
        items = torch.randint(1, self.SYMBOLS + 1, (self.ITEMS, size), generator=generator)
        digits, targets = torch.zeros(2, self.steps, size, dtype=torch.int64)
        digits[: self.ITEMS], targets[-self.ITEMS :] = items, items
        digits[-self.ITEMS - 1 :] = self.SYMBOLS + 1
        return Batch(F.one_hot(digits, self.inputs).float(), targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def scores(self, outputs: Tensor, targets: Tensor) -> Tensor:
        nats = F.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.view_as(targets).mean(0)


class Exploding(Adding):
    """Adding, from recurrent weights that stretch the state, by gradient descent as it is: without clipping and with it.

    Source: Pascanu, Mikolov, Bengio (2013), sections 2.1 and 3.2.
    """

    name = "exploding"
    parameters = 5_000
    learning_rate = 1e-2
    budget = 100
    every = 1
    lags = (50,)
    cells = ("rnn-relu",)
