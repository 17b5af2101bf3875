"""Prefix beam search: the likeliest sequence of units, each the sum of its paths, frame by frame as a stream comes.

Shapes: T frames, U units; unit 0 is the blank.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from throughtime.decode.ctc import BLANK, Array, checked
from throughtime.decode.lexicon import Lexicon, Place
from throughtime.decode.trie import ROOT

NEVER = -math.inf  # log 0


class Decoded(NamedTuple):
    """Units without blanks; log p(units | frames), natural, summed over the paths that the search has kept; and the score that
    ranks them, which is that and what the words add."""

    units: list[int]
    log_probability: float
    score: float


_ANYWHERE = Place(ROOT, 0.0, None, 0.0)  # where there are no words


class _Prefix:
    """A sequence of units, as its last unit and the sequence before it. In the beam it is a hypothesis.

    blank, label, total: log p of its paths that end in a blank, of those that end in its last unit, of all; next_blank and
    next_label: the same after the frame that is being read. children: those in the beam, and those that lead to one in it.
    """

    __slots__ = (
        "blank", "children", "held", "label", "next_blank", "next_label", "parent", "place", "places", "total", "unit",
    )  # fmt: skip

    def __init__(self, parent: _Prefix | None, unit: int, place: Place) -> None:
        self.parent, self.unit, self.place = parent, unit, place
        self.children: dict[int, _Prefix] = {}
        self.held = True  # in the beam
        self.blank = self.label = self.total = self.next_blank = self.next_label = NEVER
        self.places: dict[int, Place | None] = {}  # after one more unit, as far as asked

    def leave(self) -> None:
        """Out of the beam, and out of the tree where nothing goes on from it."""
        self.places = {}
        prefix = self
        while not prefix.held and not prefix.children and prefix.parent is not None:
            parent, prefix.parent = prefix.parent, None
            del parent.children[prefix.unit]
            prefix = parent


class PrefixBeam:
    """Prefix beam search over the frames of a stream.

        score(units) = log p(units | frames) + Σ over words (weight · log P(word | words before) + bonus)

    at the end of an utterance also weight · log P(end | words); before the end of a word, what the lexicon expects of it. With
    margin and most as large as can be, a beam that holds every prefix and no recombination, the scores are exact.

    Frames may come in any pieces: the result is the same to the bit. An utterance ends with `finish`; in one that is long,
    `drop` keeps memory and time bounded.

    Source: Graves, Jaitly (2014), algorithm 1; Hannun et al. (2014), algorithm 1, who add the words' part as we do. Ours adds
    what is expected of a begun word, and prunes by a margin.
    """

    def __init__(
        self,
        size: int = 16,
        *,
        margin: float = 12.0,
        most: int = 16,
        lexicon: Lexicon | None = None,
        recombine: bool = True,
    ) -> None:
        """Args:
            size: hypotheses kept, 1 or more.
            margin: nats. A unit this far below the likeliest of its frame is not followed in it, nor a hypothesis this far
                below the best; a frame in which nothing but the blank is followed costs next to nothing.
            most: units followed in a frame beside the blank, the likeliest; those as likely as the last of them too.
            lexicon: words outside which nothing is written, and what they add; None: any units, and the score is log p.
            recombine: of hypotheses with the same last unit and place among the words, whose futures are alike, keep the best
                alone: a beam reaches farther, and units become stable sooner. False: all, so that `best` has alternatives.
        Raises: ValueError where a number is out of range.
        """
        if size < 1 or most < 1 or not margin > 0:
            raise ValueError(f"size and most are 1 or more, margin over 0; got {size}, {most}, {margin}")
        self.size, self.margin, self.most, self.lexicon, self.recombine = size, margin, most, lexicon, recombine
        self.reset()

    def reset(self) -> None:
        """Forget all that was read: an utterance begins."""
        self._root = _Prefix(None, BLANK, _ANYWHERE if self.lexicon is None else self.lexicon.begin())
        self._root.blank = self._root.total = 0.0
        self._beam = [self._root]  # the best first
        self._shift = 0.0  # log p of frames that were the same for all
        self._resting = True  # every hypothesis ends in a blank

    def advance(self, log_probs: Array) -> None:
        """Read frames.

        Args: log_probs: [t, U], natural logarithms of probabilities; any number of frames.
        Raises: ValueError where they are not; nothing has been read then.
        """
        log_probs = checked(log_probs)
        followed = log_probs >= log_probs.max(1, keepdims=True) - self.margin
        units = log_probs.shape[1]
        if self.most < units - 1:
            followed &= log_probs >= np.partition(log_probs[:, 1:], -self.most, axis=1)[:, -self.most, None]
        followed &= log_probs > NEVER
        followed[:, BLANK] = False
        pairs = list(zip(np.nonzero(followed)[1].tolist(), log_probs[followed].tolist(), strict=True))
        at = 0
        for blank, count in zip(log_probs[:, BLANK].tolist(), followed.sum(1).tolist(), strict=True):
            if count:
                self._read(blank, pairs[at : at + count])
                at += count
            else:
                self._rest(blank)

    def partial(self) -> list[int]:
        """The units of the likeliest hypothesis so far, since what was dropped; its last word may be unfinished."""
        return self._units(self._beam[0]) if self._beam else []

    def stable(self) -> list[int]:
        """The first units of `partial` in which all hypotheses begin: these will not change."""
        prefix, stable = self._root, []
        while not prefix.held and len(prefix.children) == 1:
            (prefix,) = prefix.children.values()
            stable.append(prefix.unit)
        return stable

    def drop(self, count: int) -> None:
        """Forget the first `count` units of `partial`: they are not given again, and memory and time are as if the utterance
        had begun after them. Where they are stable nothing later is changed; else hypotheses that begin otherwise are given up.

        Raises: ValueError where `partial` has fewer.
        """
        chain = self._chain(self._beam[0]) if self._beam else []
        if not 0 <= count <= len(chain):
            raise ValueError(f"there are {len(chain)} units; {count} cannot be dropped")
        if count:
            root = chain[count - 1]
            self._beam = [prefix for prefix in self._beam if prefix is root or root in self._chain(prefix)]
            self._root, root.parent = root, None

    def best(self, count: int = 1) -> list[Decoded]:
        """The `count` best hypotheses, the best first, if the utterance ended here: those whose last word is whole.

        Where there is none, the likeliest without its begun word, with the probability of all of it. Fewer than `count` where
        the beam holds no more; none where no sequence of these words has a probability above 0.
        """
        found = []
        for prefix in self._beam:
            words = 0.0 if self.lexicon is None else self.lexicon.end(prefix.place)
            if words is not None:
                found.append((prefix.total + words, prefix, prefix))
        if not found and self._beam:
            prefix = self._beam[0]
            found = [(prefix.total, prefix, self._begun(prefix))]
        found.sort(key=itemgetter(0), reverse=True)
        return [
            Decoded(self._units(written), prefix.total + self._shift, score + self._shift)
            for score, prefix, written in found[:count]
        ]

    def finish(self) -> Decoded:
        """End the utterance: its best hypothesis, since what was dropped. Another may begin."""
        found = self.best() or [Decoded([], NEVER, NEVER)]
        self.reset()
        return found[0]

    def _rest(self, blank: float) -> None:
        """Read a frame in which the blank alone is followed: the order of the hypotheses stays."""
        if not self._resting:
            for prefix in self._beam:
                prefix.blank, prefix.label = prefix.total, NEVER
            self._resting = True
        self._shift += blank

    def _read(self, blank: float, pairs: list[tuple[int, float]]) -> None:
        """Read a frame: its blank's log p, and the units followed with theirs."""
        log_p, beam = dict(pairs), self._beam
        for prefix in beam:
            again = log_p.get(prefix.unit)
            prefix.next_blank = prefix.total + blank
            prefix.next_label = NEVER if again is None else prefix.label + again
        floor = max((prefix.next_blank + prefix.place.added for prefix in beam), default=NEVER) - self.margin
        grown = self._grow(pairs, floor)
        for prefix in beam:
            prefix.blank, prefix.label = prefix.next_blank, prefix.next_label
            prefix.total = _either(prefix.blank, prefix.label)
            prefix.held = False
        ranked: list[tuple[Any, ...]] = [(prefix.total + prefix.place.added, prefix) for prefix in beam]
        ranked += grown
        ranked.sort(key=itemgetter(0), reverse=True)
        floor = max(floor, ranked[0][0] - self.margin) if ranked else NEVER
        self._beam = self._kept(ranked, floor)
        for prefix in self._beam:
            prefix.held = True
        for prefix in beam:
            if not prefix.held:
                prefix.leave()
        self._resting = False

    def _kept(self, ranked: list[tuple[Any, ...]], floor: float) -> list[_Prefix]:
        """The hypotheses that stay in the beam, of all in order, those that are to have one more unit given it."""
        kept: list[_Prefix] = []
        futures = set()
        for score, prefix, *more in ranked:
            if score <= floor or len(kept) == self.size:
                break
            if self.recombine:
                unit, place = (more[0], prefix.places[more[0]]) if more else (prefix.unit, prefix.place)
                future = unit, place.node, place.state
                if future in futures:
                    continue
                futures.add(future)
            kept.append(_grown(prefix, *more) if more else prefix)
        return kept

    def _grow(self, pairs: list[tuple[int, float]], floor: float) -> list[tuple[float, _Prefix, int, float]]:
        """Every hypothesis with one more unit: added to the hypothesis that it is already, else given as its score, the
        hypothesis, the unit and log p. What scores no more than `floor` is left out."""
        grown = []
        for prefix in self._beam:
            total, after_blank, unit = prefix.total, prefix.blank, prefix.unit
            places, children = prefix.places, prefix.children
            for u, log_p in pairs:
                place = places[u] if u in places else places.setdefault(u, self._step(prefix.place, u))
                if place is None:
                    continue
                value = (after_blank if u == unit else total) + log_p
                score = value + place.added
                if score <= floor:
                    continue
                child = children.get(u)
                if child is not None and child.held:
                    child.next_label = _either(child.next_label, value)
                else:
                    grown.append((score, prefix, u, value))
        return grown

    def _step(self, place: Place, unit: int) -> Place | None:
        return place if self.lexicon is None else self.lexicon.step(place, unit)

    def _begun(self, prefix: _Prefix) -> _Prefix:
        """A hypothesis without its last word."""
        starts = frozenset() if self.lexicon is None else self.lexicon.trie.starts
        while prefix is not self._root and prefix.place.node != ROOT:
            first = prefix.unit in starts
            prefix = prefix.parent or self._root
            if first:
                break
        return prefix

    def _chain(self, prefix: _Prefix) -> list[_Prefix]:
        """A hypothesis and those it went on from, in order, without the root."""
        chain = []
        while prefix is not self._root:
            chain.append(prefix)
            prefix = prefix.parent or self._root
        return chain[::-1]

    def _units(self, prefix: _Prefix) -> list[int]:
        return [one.unit for one in self._chain(prefix)]


def _grown(prefix: _Prefix, unit: int, value: float) -> _Prefix:
    """A hypothesis with one more unit, in the tree."""
    child = prefix.children.get(unit)  # one that others go on from
    if child is None:
        place = prefix.places[unit]
        assert place is not None
        child = prefix.children[unit] = _Prefix(prefix, unit, place)
    child.blank, child.label, child.total = NEVER, value, value
    return child


def _either(a: float, b: float) -> float:
    """log(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
