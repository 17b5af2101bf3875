"""A piece played by a soundfont: that which pretty_midi brings along, where it is installed."""

import importlib.util
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.pieces import Piece, Tempo, notes_of
from throughtime.tasks.synthesiser import PEAK, write_wav

PIECE = Piece(notes_of([(4, 8, 69, 100, 0)]), 4, "tune.mid", tempos=(Tempo(0, 60),))
LONG = Piece(notes_of([(0, 4 * 60 * 21, 69, 100, 0)]), 4, "tune.mid", tempos=(Tempo(0, 60),))


def refused(path, soundfont, piece=PIECE):
    with pytest.raises(UserError) as error:
        write_wav(piece, path / "a.wav", soundfont=soundfont)
    assert not (path / "a.wav").exists()
    return str(error.value)


def test_a_piece_played_by_a_soundfont(tmp_path):
    pytest.importorskip("midirenderer")
    pytest.importorskip("symusic")
    package = importlib.util.find_spec("pretty_midi")
    fonts = sorted(Path(package.origin).parent.glob("*.sf2")) if package else []
    if not fonts:
        pytest.skip("pretty_midi, which brings a soundfont, is not installed")
    write_wav(PIECE, tmp_path / "a.wav", soundfont=fonts[0])
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 48_000)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2) / 32768
    assert 2.9 < len(samples) / 48_000 < 8
    assert np.abs(samples[:47_900]).max() < 1e-3 < 0.1 < np.abs(samples).max() <= PEAK + 1e-3
    spectrum = np.abs(np.fft.rfft(samples[60_000:108_000, 0] * np.hanning(48_000)))
    peaks = spectrum[[440, 880]]
    assert spectrum.argmax() in range(438, 443) or peaks.max() > 0.5 * spectrum.max()


def test_what_cannot_be_played(tmp_path):
    pytest.importorskip("midirenderer")
    pytest.importorskip("symusic")
    font = tmp_path / "a.sf2"
    assert refused(tmp_path, font) == f"{font}: cannot read it: No such file or directory"
    font.write_bytes(b"RIFF junk")
    assert refused(tmp_path, font).startswith(f"{font}: cannot be played: ")
    how = "a soundfont takes 20 at most: cut it, or leave the soundfont out"
    assert refused(tmp_path, font, LONG) == f"tune.mid: lasts 21.0 minutes; {how}"


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "midirenderer", None)
    what = "a soundfont needs midirenderer, which is not installed (pip install 'throughtime[music]')"
    assert refused(tmp_path, tmp_path / "a.sf2") == what
