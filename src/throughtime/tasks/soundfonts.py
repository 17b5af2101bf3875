"""A piece played by the instruments of a soundfont. Needs the extra `music`: midirenderer reads SoundFont 2 and plays MIDI."""

from __future__ import annotations

import io
import wave
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.errors import UserError, reason
from throughtime.tasks.clock import seconds
from throughtime.tasks.midi import midi_bytes
from throughtime.tasks.pieces import Array, Piece

LONGEST = 20  # minutes: the whole is rendered in memory, 120 MB a minute


def play(piece: Piece, soundfont: Path) -> tuple[Array, int]:
    """The samples of a piece, [2, N] float32 from -1 to 1, and their rate in Hz.

    Raises: UserError where midirenderer is not installed, the soundfont cannot be read, the piece lasts longer than 20 minutes, or
        cannot stand in a MIDI file.
    """
    try:
        import midirenderer
    except ImportError as error:
        what = "a soundfont needs midirenderer, which is not installed (pip install 'throughtime[music]')"
        raise UserError(what) from error
    if (minutes := float(seconds(piece).max(initial=0)) / 60) > LONGEST:
        how = f"a soundfont takes {LONGEST} at most: cut it, or leave the soundfont out"
        raise UserError(f"{piece.place or 'the piece'}: lasts {minutes:.1f} minutes; {how}")
    try:
        font = soundfont.read_bytes()
    except OSError as error:
        raise UserError(f"{soundfont}: cannot read it: {reason(error)}") from error
    data = midi_bytes(piece)
    try:
        rendered: Any = midirenderer.render_wave_from(font, data)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{soundfont}: cannot be played: {error}; name a SoundFont 2 file (.sf2)") from error
    with wave.open(io.BytesIO(rendered)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        rate = file.getframerate()
    return (samples.T / np.float32(32768)).astype(np.float32), rate
