"""Where speech is in a recording, found as its features come, in bounded memory. Needs numpy alone: an export holds this file.

Shapes: F features of a frame, t frames.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Features: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

SMOOTHED = 5  # frames whose mean is looked at
LOUD = 1.5  # nats above the quietest time that a frame lies at least where somebody speaks
SHARE = 0.4  # of the way from the quietest to the loudest time that it does too
WINDOW = 500  # frames back in which the quietest is looked for
LEAST = 8  # loud frames that begin an utterance
AROUND = 20  # frames before the first loud frame and after the last that belong to an utterance
PAUSE = 70  # frames without a loud one that end it
SILENT = -15.9  # the greatest feature of a frame of samples that are 0
HELD = 100  # frames that are looked back to for its beginning
# nats by which features deviate from their mean at least where somebody speaks: on average, or those that do so most
VARIATION, GREATEST = 0.42, 0.75
MOST = 8  # one feature in so many is one of these
EDGE = 5  # loud frames on both sides of one that is looked at for that
FEW = 10  # frames from which that is not to be told


class Piece(NamedTuple):
    """Frames of an utterance. first: the number of the first of them, counted from the beginning of the stream. features: [t, F].
    speech: whether what came of the utterance so far may be speech, and is not as steady as a hum or a noise. ends: whether the
    utterance ends with them."""

    first: int
    features: Features
    speech: bool
    ends: bool


class Pauses:
    """Finds the utterances of a stream.

    A frame is loud where its level, the mean of its features, lies `LOUD` above the least of the last `WINDOW` frames. An
    utterance begins with some loud frames; it ends when none has come for `PAUSE`; `AROUND` frames of quiet belong to it on both
    sides. What is shorter than a look back, and not steady, is an utterance of its own: a word that was cut out without quiet
    around it has none to be compared with.

    Frames of samples that are all 0 are no quiet to compare with, and belong to no utterance's sides: whoever joined the recording
    put them there.

    How the numbers were chosen, on AN4, FSDD and noise: the levels of an utterance of AN4 range over 5.1 nats and more, those of
    white or pink noise and of hum over 0.5 at most; the features of noise vary by 0.40 at most, the eighth of them that does so
    most by 0.71; of 2,500 digits of FSDD 29 vary by less than `VARIATION`, two of these by less than `GREATEST`. `SHARE`, `AROUND`
    and `PAUSE` had the fewest wrong characters on AN4's held-out speakers, joined with pauses.
    """

    def __init__(self) -> None:
        self._count = 0  # frames that have come
        self._last: deque[Features] = deque(maxlen=2 * EDGE + 1)
        self._levels: deque[float] = deque(maxlen=SMOOTHED)
        self._held: deque[tuple[float, Features]] = deque()  # with their levels: the last that came, not passed on
        self._least, self._most = _Extreme(1.0), _Extreme(-1.0)  # of the levels
        self._loud: int | None = None  # the last loud frame; None: between utterances
        self._run = 0  # loud frames one after the other
        self._variation = _Variation()

    def push(self, frame: Features) -> Piece | None:
        """A frame that comes next, [F]. Returns: frames that are known to be of an utterance."""
        self._last.append(frame)
        self._levels.append(float(frame.sum()) / len(frame))
        level = sum(self._levels) / len(self._levels)
        now, self._count = self._count, self._count + 1
        self._held.append((level, frame))
        floor = np.inf
        if frame.max() > SILENT:
            least, most = self._least.push(now, level), self._most.push(now, level)
            floor = least + max(LOUD, SHARE * (most - least))
        if self._loud is None and not self._begin(floor):
            if len(self._held) > HELD:
                self._held.popleft()
            return None
        self._look(now, level > floor)
        assert self._loud is not None
        ends = now - self._loud >= PAUSE
        return self._passed(ends)

    def finish(self) -> Piece | None:
        """The stream ends. Returns: the rest of its last utterance."""
        if self._loud is None:
            if self._count > HELD or not self._held:
                return None
            frames = [frame for _, frame in self._held]
            self._variation = _Variation()
            for i in range(len(frames) - SMOOTHED + 1):
                self._variation.add(np.mean(frames[i : i + SMOOTHED], axis=0))
            self._loud = self._count
        return self._passed(True)

    def _begin(self, floor: float) -> bool:
        """Whether an utterance has begun among the frames that are held, which then begin where it does."""
        loud = [i for i, (level, _) in enumerate(self._held) if level > floor]
        if len(loud) < LEAST:
            return False
        self._loud = self._count - len(self._held) + loud[-1]
        silent = [i for i in range(loud[0]) if self._held[i][1].max() <= SILENT]
        for _ in range(max(loud[0] - AROUND, silent[-1] + 1 if silent else 0)):
            self._held.popleft()
        self._variation, self._run = _Variation(), 0
        return True

    def _look(self, now: int, loud: bool) -> None:
        """Take note of whether a frame within an utterance is loud."""
        self._run = self._run + 1 if loud else 0
        if loud:
            self._loud = now
        if self._run >= 2 * EDGE + 1:
            frames = list(self._last)
            middle = len(frames) // 2
            self._variation.add(np.mean(frames[middle - SMOOTHED // 2 : middle + SMOOTHED // 2 + 1], axis=0))

    def _passed(self, ends: bool) -> Piece | None:
        """The frames held that belong to the utterance."""
        assert self._loud is not None
        first = self._count - len(self._held)
        count = min(max(self._loud + AROUND + 1 - first, 0), len(self._held))
        if silent := [i for i in range(self._loud + 1 - first, count) if i >= 0 and self._held[i][1].max() <= SILENT]:
            count = silent[0]
        if not count and not ends:
            return None
        frames = [self._held.popleft()[1] for _ in range(count)]
        features = np.stack(frames) if frames else np.empty((0, len(self._last[-1])), np.float32)
        if ends:
            self._loud = None
        return Piece(first, features, self._variation.speech, ends)


class _Extreme:
    """The least of the last `WINDOW` numbers; of sign -1 the greatest."""

    def __init__(self, sign: float) -> None:
        self.sign = sign
        self.least: deque[tuple[int, float]] = deque()  # those that are the least of all from them on

    def push(self, now: int, number: float) -> float:
        while self.least and self.least[-1][1] >= self.sign * number:
            self.least.pop()
        self.least.append((now, self.sign * number))
        while self.least[0][0] <= now - WINDOW:
            self.least.popleft()
        return self.sign * self.least[0][1]


class _Variation:
    """How much frames vary."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: Any = 0.0
        self.square: Any = 0.0

    def add(self, frame: Features) -> None:
        own = frame.astype(np.float64)
        self.count, self.sum, self.square = self.count + 1, self.sum + own, self.square + own * own

    @property
    def speech(self) -> bool:
        """Whether it is enough for speech, as far as can be told."""
        if self.count < FEW:
            return True
        mean = self.sum / self.count
        deviations = np.sort(np.sqrt(np.maximum(self.square / self.count - mean**2, 0)))
        return bool(deviations.mean() >= VARIATION or deviations[-max(1, len(mean) // MOST) :].mean() >= GREATEST)


def spoken(features: Features) -> list[tuple[int, int]]:
    """The frames of the utterances of a whole recording, [t, F]: of each the first, and the one after the last."""
    pauses, found, first = Pauses(), list[tuple[int, int]](), 0
    begun = False
    for piece in (*map(pauses.push, features), pauses.finish()):
        if piece is None:
            continue
        first, begun = first if begun else piece.first, not piece.ends
        if piece.ends and piece.speech:
            found.append((first, piece.first + len(piece.features)))
    return found


def quietest(features: Features) -> int:
    """The frame, of some [t, F], around which it is quietest."""
    levels = features.mean(1)
    return int(np.convolve(levels, np.ones(SMOOTHED) / SMOOTHED, "valid").argmin()) + SMOOTHED // 2
