"""How instruments sound: a few partials that die away, a table of families, and noise for drums.

A partial that dies away is a geometric series, a · λᵗ of a complex λ at sample t. With t = j B + i the sum of all of a note is

    Im Σ_h (a_h λ_h^{jB}) λ_h^i

a product of two small matrices: exact at any t, without samples before it, and nothing in it lies above the highest partial.

Shapes: H partials, N samples, B samples a row.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

ROW = 512  # samples, B
PARTIALS = 32  # of a note, at most
HIGHEST = 0.45  # of the rate: no partial lies above
DULLER = 0.8  # the tilt of a note that is hardly struck, beyond that of one struck hardest
SILENT = 7.0  # the power of e by which a note has died away: 61 dB


class Timbre(NamedTuple):
    """What a family of instruments has in common. The times are those of middle C; what dies away does so by 61 dB."""

    tilt: float
    """The h-th partial is h^-tilt times the first."""
    even: float
    """The even partials beside the odd ones."""
    cutoff: float
    """Hz, at which partials are down to 1/e, where it is played loudest."""
    stiffness: float
    """Partials lie at h √(1 + stiffness h²), as those of a stiff string."""
    attack: float
    """Seconds in which it swells."""
    decay: float
    """Seconds in which the first partial dies away; 0: it lasts as long as it is held."""
    release: float
    """Seconds in which it dies away once it is let go."""
    chorus: float
    """Cents by which the channels lie apart, which makes it wide."""
    level: float
    """How loud it is beside others."""


TIMBRES = {
    "piano": Timbre(0.7, 0.9, 1800.0, 4e-4, 0.003, 9.0, 0.35, 0.0, 1.0),
    "organ": Timbre(1.1, 1.0, 3000.0, 0.0, 0.030, 0.0, 0.25, 0.0, 0.55),
    "strings": Timbre(1.0, 1.0, 2200.0, 0.0, 0.090, 0.0, 0.40, 5.0, 0.55),
    "plucked": Timbre(0.9, 0.8, 2400.0, 1e-4, 0.002, 4.5, 0.30, 0.0, 1.0),
    "wind": Timbre(1.2, 0.6, 2600.0, 0.0, 0.045, 0.0, 0.15, 0.0, 0.6),
}
# of the programs of General MIDI, by eights, and those that differ from their neighbours
EIGHTS = (
    *("piano", "plucked", "organ", "plucked", "plucked", "strings", "strings", "wind"),
    *("wind", "wind", "wind", "strings", "strings", "plucked", "plucked", "strings"),
)
OTHERS = {
    6: "plucked",
    7: "plucked",
    45: "plucked",
    46: "plucked",
    47: "plucked",
    109: "wind",
    110: "strings",
    111: "wind",
}


def timbre_of(program: int) -> Timbre:
    """The timbre of a program of General MIDI, 0 to 127."""
    return TIMBRES[OTHERS.get(program, EIGHTS[program // 8])]


def length_of(timbre: Timbre, pitch: int) -> float:
    """Seconds after which a note has died away although it is held; infinite where it does not."""
    return _decay(timbre, pitch) / AFTER if timbre.decay else np.inf


STAGES = (0.8, 1.0), (0.2, 0.3)  # how loud, and how fast: the prompt sound of a string, and what is left of it
AFTER = STAGES[1][1]


def wave(timbre: Timbre, pitch: int, velocity: int, rate: int, begin: int, end: int, cents: float = 0.0) -> Array:
    """The samples of a note from `begin` to `end` after its onset, held and without its attack: [end - begin] float32.

    Args: pitch: 60 is middle C; what lies above the highest frequency is silent. velocity: 1 to 127: how loud, and how bright.
        rate: Hz. cents: so much higher.
    """
    bank = _bank(timbre, pitch, rate, cents)
    amplitudes = _amplitudes(timbre, pitch, velocity, bank.frequencies, bank.numbers)
    first = begin // ROW * ROW
    times = np.arange(first, end, ROW) / rate
    turns = times[:, None] * bank.frequencies
    turns = 2 * np.pi * (turns - np.floor(turns)) + bank.phases
    sizes = (amplitudes * np.exp(-times[:, None] * bank.decays)).astype(np.float32)
    turns = turns.astype(np.float32)
    rows = np.concatenate([sizes * np.cos(turns), sizes * np.sin(turns)], 1) @ bank.within
    found: Array = rows.reshape(-1)[begin - first : end - first]
    return found


class _Bank(NamedTuple):
    """The partials of a key. numbers, frequencies (Hz), decays (1/s), phases: [H]. within: [2 H, B], Im and Re of λ^i."""

    numbers: Array
    frequencies: Array
    decays: Array
    phases: Array
    within: Array


@lru_cache(maxsize=512)
def _bank(timbre: Timbre, pitch: int, rate: int, cents: float) -> _Bank:
    base = 440 * 2 ** ((pitch - 69) / 12 + cents / 1200)
    numbers = np.arange(1, PARTIALS + 1)
    stretched = np.sqrt((1 + timbre.stiffness * numbers**2) / (1 + timbre.stiffness))  # the first stays where it is
    frequencies = base * numbers * stretched
    heard = (frequencies < HIGHEST * rate) & (_fall(timbre, frequencies, base, 127) > np.exp(-SILENT))
    numbers, frequencies = numbers[heard], frequencies[heard]
    decays = np.zeros(len(numbers))
    if timbre.decay:
        decays = SILENT / _decay(timbre, pitch) * (1 + 0.3 * (numbers - 1))
        decays = np.concatenate([decays * fast for _, fast in STAGES])
        numbers, frequencies = np.tile(numbers, len(STAGES)), np.tile(frequencies, len(STAGES))
    phases = np.pi * numbers * (numbers - 1) / PARTIALS  # in step they would add up to one high peak a period
    times = np.arange(ROW) / rate
    sizes, turns = np.exp(-decays[:, None] * times), 2 * np.pi * frequencies[:, None] * times
    within = np.concatenate([sizes * np.sin(turns), sizes * np.cos(turns)]).astype(np.float32)
    return _Bank(numbers, frequencies, decays, phases, within)


def _decay(timbre: Timbre, pitch: int) -> float:
    """Seconds in which the first partial of a key dies away: long strings ring longer."""
    return float(timbre.decay * 2 ** ((60 - pitch) / 16))


def _fall(timbre: Timbre, frequencies: Array, base: float, velocity: int) -> Array:
    """How much partials are down, the higher and the softer the more."""
    cutoff = timbre.cutoff * (0.3 + 0.7 * velocity / 127) + base
    found: Array = np.exp(-frequencies / cutoff)
    return found


def _amplitudes(timbre: Timbre, pitch: int, velocity: int, frequencies: Array, numbers: Array) -> Array:
    """[H]; a note's loudness depends on its velocity, and a little on its pitch, not on how many partials it has."""
    if not len(numbers):
        return np.zeros(0)
    sizes = numbers ** -(timbre.tilt + DULLER * (1 - velocity / 127)) * np.where(numbers % 2, 1, timbre.even)
    sizes = sizes * _fall(timbre, frequencies, frequencies[0], velocity)
    loudness = timbre.level * (velocity / 127) ** 1.5 * 2 ** ((60 - pitch) / 48)
    if timbre.decay:
        sizes = sizes * np.repeat([size for size, _ in STAGES], len(sizes) // len(STAGES))
    found: Array = sizes * (loudness / np.sqrt((sizes**2).sum()))
    return found


# -- drums


class Drum(NamedTuple):
    """A burst of noise and a tone. decay: seconds in which it dies away. low, high: Hz, of the noise, whose share `noise` is.
    tone: Hz."""

    decay: float
    low: float
    high: float
    tone: float
    noise: float


DRUMS = {
    "kick": Drum(0.35, 30, 300, 55, 0.15),
    "snare": Drum(0.25, 300, 9000, 185, 0.7),
    "tom": Drum(0.5, 60, 600, 110, 0.2),
    "hat": Drum(0.1, 6000, 14000, 0, 1.0),
    "cymbal": Drum(1.4, 3000, 14000, 0, 1.0),
    "click": Drum(0.08, 800, 6000, 900, 0.5),
}
# of the keys of General MIDI's drums; the others click
KEYS = {
    "kick": (35, 36),
    "snare": (37, 38, 39, 40),
    "tom": (41, 43, 45, 47, 48, 50),
    "hat": (42, 44, 54, 69, 70),
    "cymbal": (46, 49, 51, 52, 53, 55, 57, 59),
}


@lru_cache(maxsize=256)
def drum(key: int, rate: int) -> Array:
    """The whole sound of a drum, struck hardest: [N] float32; it is over when it has died away, however long it is held."""
    name = next((name for name, keys in KEYS.items() if key in keys), "click")
    kind = DRUMS[name]
    times = np.arange(round(kind.decay * rate)) / rate
    noise = np.random.default_rng(key).standard_normal(len(times))
    spectrum = np.fft.rfft(noise)
    frequencies = np.fft.rfftfreq(len(times), 1 / rate)
    spectrum[(frequencies < kind.low) | (frequencies > min(kind.high, HIGHEST * rate))] = 0
    noise = np.fft.irfft(spectrum, len(times))
    noise /= np.sqrt((noise**2).mean())
    pitch = kind.tone * (1 + 0.02 * (key - 35) * (name == "tom"))
    tone = np.sin(
        2 * np.pi * pitch * (times + 0.02 * (1 - np.exp(-times / 0.02)))
    )  # it falls as the skin comes to rest
    shape = np.exp(-SILENT * times / kind.decay) * np.minimum(times / 0.001, 1) * (1 - times / kind.decay)
    found: Array = ((1 - kind.noise) * 1.4 * tone + kind.noise * 0.5 * noise) * shape
    return found.astype(np.float32)
