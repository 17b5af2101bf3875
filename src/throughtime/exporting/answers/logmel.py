"""Log-mel features as Kaldi computes them, without dither: 80 filters, windows of 25 ms every 10 ms, of 16,000 samples a second.

Needs numpy; soundfile for what is no 16-bit WAV, soxr for another rate.
"""

import wave
from typing import Any

import numpy as np

RATE, BINS, WINDOW, HOP = 16000, 80, 400, 160


def samples(path: str) -> Any:
    """The samples of a recording, [N] from -1 to 1, of one channel."""
    if path.lower().endswith(".wav"):
        with wave.open(path) as file:
            rate, channels = file.getframerate(), file.getnchannels()
            found = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, channels) / np.float32(
                32768
            )
    else:
        import soundfile

        found, rate = soundfile.read(path, dtype="float32", always_2d=True)
    found = found.mean(1)
    if rate != RATE:
        import soxr

        found = soxr.resample(found, rate, RATE)
    return found


def features(heard: Any) -> Any:
    """The features of samples, [T, 80]."""
    if len(heard) < WINDOW:
        return np.empty((0, BINS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(heard, WINDOW)[::HOP].astype(np.float32)
    frames = frames - frames.mean(1, keepdims=True)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1, WINDOW) / (WINDOW - 1))) ** 0.85
    spectrum = np.fft.rfft((frames[:, 1:] - np.float32(0.97) * frames[:, :-1]) * window.astype(np.float32), 512)
    mels = 1127 * np.log1p(np.arange(257) * RATE / 512 / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), mels[-1], BINS + 2)
    rising, falling = (
        (mels[:, None] - edges[:-2]) / np.diff(edges)[:-1],
        (edges[2:] - mels[:, None]) / np.diff(edges)[1:],
    )
    filters = np.clip(np.minimum(rising, falling), 0, None).astype(np.float32)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return np.log(np.maximum(power @ filters, np.finfo(np.float32).eps))


def normalised(found: Any, *others: Any) -> Any:
    """How many deviations features [T, 80] are from the mean of theirs and others'."""
    every = np.concatenate([found, *others]).astype(np.float64)
    mean, deviation = every.mean(0), np.maximum(every.std(0), 0.1)
    return ((found - mean.astype(np.float32)) / deviation.astype(np.float32)).astype(np.float32)
