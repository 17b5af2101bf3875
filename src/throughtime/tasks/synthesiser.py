"""To hear a piece: stereo samples, block by block, and a WAV file.

Shapes: n notes, N samples.
"""

from __future__ import annotations

import wave as wav
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from throughtime.errors import UserError
from throughtime.files import check_free, replacing
from throughtime.tasks import instruments
from throughtime.tasks.clock import seconds
from throughtime.tasks.pieces import Array, Piece
from throughtime.tasks.soundfonts import play

RATE = 44_100  # Hz
SLOWEST, FASTEST = 32_000, 192_000  # Hz: from the first on the highest of 128 keys can be heard
BLOCK, STEP = 1 << 16, 1 << 14  # samples that are rendered together, and of which transforms have a multiple
KEPT = 128  # blocks, 3 minutes: what is longer is rendered again once its loudness is known
PEAK, LOUDNESS = 0.84, 0.1  # the loudest sample, -1.5 dBFS, and the mean, -20 dBFS: whichever comes first
WIDTH = 0.5  # how far from the middle the outermost tracks or keys are heard, where 1 is one channel alone
ECHO, PAUSE = 0.9, 0.012  # seconds that a room rings, and before it answers
ECHOES, WALLS = 0.35, (200, 2500)  # its loudness beside the notes, and the Hz between which its walls give back most
LONGEST = 6 * 3600  # seconds; a WAV file has no room for more


def sound(piece: Piece, rate: int = RATE) -> Iterator[Array]:
    """A piece as it sounds, in the memory of three minutes however long it is. It is rendered once before the first block comes, to
    know how loud it gets: so nothing is clipped or limited. The same piece gives the same samples.

    Args: piece: tracks are heard side by side, of a single one low keys on the left; drums as short noises. rate: Hz.
    Yields: [n, 2] float32, left and right, from -1 to 1: silent up to the first note, and on until the last has died away.
    Raises: UserError where the piece holds no note or lasts longer than six hours, or the rate is not from 32,000 to 192,000 Hz.
    """
    if not SLOWEST <= rate <= FASTEST:
        raise UserError(f"rate: got {rate}; it takes {SLOWEST:,} to {FASTEST:,} Hz")
    if not len(piece):
        raise UserError(f"{piece.place or 'the piece'}: holds no note; there is nothing to hear")
    if (length := float(seconds(piece).max())) > LONGEST:
        raise UserError(f"{piece.place or 'the piece'}: lasts {length / 3600:.1f} hours; sound takes 6 at most: cut it")
    mix = _Mix(piece, rate)
    return _levelled(mix.blocks, mix.first)


def write_wav(piece: Piece, path: Path | str, *, overwrite: bool = False, soundfont: Path | str | None = None) -> None:
    """Write a piece as a stereo WAV file of 16 bits, in one step.

    Args: soundfont: a SoundFont 2 file (.sf2), whose instruments play it, at 48,000 Hz; it takes the extra `music`, and 120 MB a
        minute. None: what `sound` gives, at 44,100 Hz.
    Raises: UserError as `sound`; where the file is there already and `overwrite` is not asked for, or cannot be written; with a
        soundfont, where that cannot be read, midirenderer is not installed, or the piece lasts longer than 20 minutes.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    blocks, rate = sound(piece), RATE
    if soundfont is not None:
        played, rate = play(piece, Path(soundfont))
        blocks = _levelled(lambda: (played[:, i : i + BLOCK] for i in range(0, played.shape[1], BLOCK)))
    with replacing(path) as temporary, wav.open(str(temporary), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(rate)
        for block in blocks:
            file.writeframesraw(np.rint(block * 32767).astype("<i2").tobytes())


def _levelled(mix: Callable[[], Iterator[Array]], silent: int = 0) -> Iterator[Array]:
    """So many samples of silence and the blocks of a mix, as loud as they may be."""
    peak, power, count = 0.0, 0.0, 0
    kept: list[Array] | None = []
    for block in mix():
        peak = max(peak, float(np.abs(block).max()))
        power += float(np.vdot(block, block))
        count += block.size
        kept = [*kept, block] if kept is not None and len(kept) < KEPT else None
    gain = np.float32(min(PEAK / max(peak, 1e-9), LOUDNESS / max((power / count) ** 0.5, 1e-9)))
    while silent:
        yield np.zeros((min(silent, BLOCK), 2), np.float32)
        silent -= min(silent, BLOCK)
    for block in mix() if kept is None else kept:
        yield np.ascontiguousarray((block * gain).T)


class _Mix:
    """The notes of a piece, ready to be rendered. first: the sample at which the first begins."""

    def __init__(self, piece: Piece, rate: int) -> None:
        self.rate, self.notes = rate, piece.notes
        times = np.rint(seconds(piece) * rate).astype(np.int64)
        self.timbres = [instruments.timbre_of(track.program) for track in piece.tracks]
        self.drums = np.array([track.drums for track in piece.tracks])[piece.notes["track"]]
        self.starts, self.offs = times[:, 0], np.maximum(times[:, 1], times[:, 0] + 1)
        self.stops = np.array([self._stop(i) for i in range(len(piece))])
        self.first = int(self.starts.min())
        self.gains = _panned(piece, self.drums)

    def _stop(self, i: int) -> int:
        """The sample at which a note has died away."""
        pitch = int(self.notes["pitch"][i])
        if self.drums[i]:
            return int(self.starts[i]) + len(instruments.drum(pitch, self.rate))
        timbre = self.timbres[self.notes["track"][i]]
        held = instruments.length_of(timbre, pitch) * self.rate
        return int(self.starts[i] + min(held, self.offs[i] - self.starts[i] + round(timbre.release * self.rate)))

    def blocks(self) -> Iterator[Array]:
        """The sum of all from the first note on, in a room: [2, N] float32, the last until the room is silent."""
        room = _Room(self.rate)
        end = int(self.stops.max()) + room.length
        for begin in range(self.first, end, BLOCK):
            stop = min(begin + BLOCK, end)
            block = np.zeros((2, BLOCK), np.float32)
            for i in np.flatnonzero((self.starts < stop) & (self.stops > begin)):
                self._add(int(i), begin, stop, block)
            yield room.add(block)[:, : stop - begin]

    def _add(self, i: int, begin: int, end: int, block: Array) -> None:
        """Add what sounds of a note between two samples to the block that begins at the first."""
        start, stop = int(self.starts[i]), int(self.stops[i])
        low, high = max(begin, start), min(end, stop)
        into = block[:, low - begin : high - begin]
        low, high, velocity, pitch = (
            low - start,
            high - start,
            int(self.notes["velocity"][i]),
            int(self.notes["pitch"][i]),
        )
        if self.drums[i]:
            size = np.float32((velocity / 127) ** 1.5)
            into += self.gains[i][:, None] * (size * instruments.drum(pitch, self.rate)[low:high])
            return
        timbre = self.timbres[self.notes["track"][i]]
        shape = self._shape(i, timbre, low, high)
        if not timbre.chorus:
            one = instruments.wave(timbre, pitch, velocity, self.rate, low, high) * shape
            into += self.gains[i][:, None] * one
            return
        for channel, cents in enumerate((-timbre.chorus, timbre.chorus)):
            one = instruments.wave(timbre, pitch, velocity, self.rate, low, high, cents) * shape
            into[channel] += self.gains[i, channel] * one

    def _shape(self, i: int, timbre: instruments.Timbre, low: int, high: int) -> Array:
        """How a note swells and is let go: [high - low] float32, from 0 to 1; it ends at 0."""
        times = np.arange(low, high, dtype=np.float32)
        swell, held = round(timbre.attack * self.rate), int(self.offs[i] - self.starts[i])
        length = int(self.stops[i] - self.starts[i])
        shape = np.ones(high - low, np.float32)
        if low < swell:
            begun = np.minimum(times, min(swell, held)) / swell
            shape *= np.sin(np.float32(np.pi / 2) * begun) ** 2
        if high > held:
            over = max(held - low, 0)
            passed = (times[over:] - held) / (round(timbre.release * self.rate))
            shape[over:] *= np.exp(-np.float32(instruments.SILENT) * passed)
        fade = round(0.01 * self.rate)
        if high > length - fade:
            shape *= np.minimum((length - times) / fade, 1)
        return shape


def _panned(piece: Piece, drums: Array) -> Array:
    """The gains of the left and the right channel for each note, of equal power: [n, 2] float32."""
    used = [int(track) for track in np.unique(piece.notes["track"][~drums])]
    places = np.zeros(len(piece))
    if len(used) > 1:
        side = np.linspace(-WIDTH, WIDTH, len(used))
        places = side[np.searchsorted(used, piece.notes["track"]).clip(max=len(used) - 1)]
    else:
        places = ((piece.notes["pitch"] - 64.0) / 44 * WIDTH).clip(-WIDTH, WIDTH)
    angles = (np.where(drums, 0, places) + 1) * np.pi / 4
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


class _Room:
    """A small room: what was played comes back as noise that dies away, from other walls into each ear."""

    def __init__(self, rate: int) -> None:
        self.length = round(ECHO * rate)
        times = np.arange(self.length) / rate
        noise = np.random.default_rng(0).standard_normal((2, self.length))
        spectrum = np.fft.rfft(noise * np.exp(-instruments.SILENT * times / ECHO))
        low, high = ((np.fft.rfftfreq(self.length, 1 / rate) / hertz) ** 2 for hertz in WALLS)
        answer = np.fft.irfft(spectrum * low / (1 + low) / (1 + high), self.length)
        answer *= (times >= PAUSE) * (1 - times / ECHO)
        self.size = -(-(BLOCK + self.length) // STEP) * STEP
        self.answer = np.fft.rfft(answer.astype(np.float32), self.size)
        frequencies = np.fft.rfftfreq(self.size, 1 / rate)
        between = (frequencies > WALLS[0]) & (frequencies < WALLS[1])
        self.answer *= np.float32(ECHOES / np.sqrt((np.abs(self.answer[:, between]) ** 2).mean()))
        self.rest: Array = np.zeros((2, self.size - BLOCK), np.float32)

    def add(self, block: Array) -> Array:
        """A block, [2, BLOCK], and what the room makes of it and of those before it."""
        wet = np.fft.irfft(np.fft.rfft(block.mean(0), self.size) * self.answer, self.size)
        wet[:, : self.rest.shape[1]] += self.rest
        self.rest = wet[:, BLOCK:].copy()
        return block + wet[:, :BLOCK]
