"""Words that are easily told apart, as sounds, for tests."""

from __future__ import annotations

import json

import numpy as np

RATE = 16000
WORDS = ("up", "down", "wave")


def quiet(seconds, rng):
    return rng.normal(0, 1e-4, round(RATE * seconds)).astype(np.float32)


def said(word, rng):
    """A word: a tone that rises, falls, or goes up and down."""
    t = np.arange(int(RATE * rng.uniform(0.22, 0.3))) / RATE
    share = t / t[-1]
    pitch = {"up": 300 + 2500 * share, "down": 2800 - 2500 * share, "wave": 700 + 500 * np.sign(np.sin(75 * t))}[word]
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return (0.3 * (np.sin(phase) + 0.3 * np.sin(2 * phase)) * np.sin(np.pi * share) ** 0.5).astype(np.float32)


def spoken(words, seed, around=0.3, pause=0.0):
    """Words one after the other. around: seconds of quiet before and after; pause: after each word, besides a moment."""
    rng = np.random.default_rng(seed)
    parts = [quiet(around, rng)]
    for word in words:
        parts += [said(word, rng), quiet(rng.uniform(0.08, 0.2) + pause, rng)]
    return np.concatenate([*parts, quiet(around, rng)])


def write_table(folder, part, count, labelled=False):
    """Recordings of up to three words, or of one and its label, and the table that names them."""
    import soundfile

    rng, rows = np.random.default_rng(len(part)), []
    for i in range(count):
        words = rng.choice(WORDS, 1 if labelled else rng.integers(1, 4)).tolist()
        soundfile.write(folder / f"{part}{i}.wav", spoken(words, i), RATE)
        rows.append({"audio": f"{part}{i}.wav", "label" if labelled else "text": " ".join(words)})
    (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / f"{part}.jsonl"
