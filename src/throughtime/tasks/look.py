"""One input of a trained network, whatever it is made of, for looking inside.

Shapes: T steps, O outputs, C classes, F features.
"""

from __future__ import annotations

import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

LONGEST, CHARACTERS = 300, 3000  # words and characters of an input that is shown


@dataclass(frozen=True, eq=False)
class Steps:
    """The steps of a sequence: what each is called and, where it is numbers, what it holds.

    labels: a word for each. values: [T, F], drawn as curves; None where a step is a sign. features: of each step something that a
    unit might follow, by name, [T]. texts: the text that each stands for; None: as labelled.
    """

    labels: list[str]
    values: Tensor | None = None
    features: Mapping[str, list[float]] = field(default_factory=dict)
    texts: list[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """What a stack of cells steps through. name: of it, to a user. steps: of which a step of the stack is `stride`. whole: its
    steps are no outputs; each of these is made of all of them. last: each is made of the state after the last. at: of each output
    the step at which it is made; None: there is an output of each of `steps`. lasts: how long a step of the stack is, in words."""

    name: str
    steps: Steps
    stride: int = 1
    whole: bool = False
    last: bool = False
    at: Sequence[int] | None = None
    lasts: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Look:
    """One input as a network takes it, and what is asked of it.

    inputs: what the steps read. outputs: what each answer is about: its label is the answer that is looked at.
    batch: goes into `score`, which gives how likely the network takes each answer for, [O] (log p of a class, log density at a
    value), and lets gradients pass.
    stacks: module name -> what it steps through.
    distribution: log p of all classes, [O, C], where there are classes; names: of class k.
    without: the batch with an input replaced by what is not known; None where that input cannot be.
    attention: the weights of the inputs, [O, T]; None where the network has none.
    discrete: whether an answer is one of many, so that its likelihood is a probability, where these are too many for classes.
    verb: what the network does with an answer, after "to": expect a token, write a word.
    about: the text that each answer is about, where it is about a part of the input: of a tag its word.
    """

    inputs: Steps
    outputs: Steps
    batch: Any
    score: Callable[[Any], Tensor]
    stacks: Mapping[str, Stack]
    distribution: Callable[[Any], Tensor] | None = None
    names: Callable[[int], str] = str
    without: Callable[[int], Any | None] = lambda _: None
    attention: Callable[[Any], Tensor] | None = None
    numbers: Tensor | None = None
    discrete: bool = False
    verb: str = "answer"
    about: Sequence[str] | None = None


def of_classes(answers: Callable[[Any], Tensor], classes: list[int]) -> Callable[[Any], Tensor]:
    """The score of given classes, [O], of answers that give log p of all, [O, C]."""

    def score(batch: Any) -> Tensor:
        log_p = answers(batch)
        return log_p[range(len(classes)), classes]

    return score


SIGNS = str.maketrans({"\t": "⇥", "\n": "⏎", "\r": "␍", "\u3000": "·", "\xa0": "·"})


def visible(label: str) -> str:
    """A label as it can be drawn: white space at its ends, tabs and line ends are seen, other signs without a picture by
    number."""
    text = re.sub("^ +| +$", lambda found: "·" * len(found.group()), label).translate(SIGNS)
    return "".join(s if s.isprintable() else f"U+{ord(s):04X}" for s in text) or "·"


def beginning(text: str) -> str:
    """The beginning of a text that is too long to be shown."""
    words = list(itertools.islice(re.finditer(r"\S+", text), LONGEST + 1))
    end = words[LONGEST].start() if len(words) > LONGEST else CHARACTERS
    if end >= len(text):
        return text
    warnings.warn(
        f"an input of {len(text):,} characters is too long to be shown: its first {end:,} are read", stacklevel=4
    )
    return text[:end]
