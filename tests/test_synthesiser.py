"""What is heard: the right pitch at the right time, nothing beside it, never too loud."""

import subprocess
import sys
import wave

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.clock import bars, seconds, seconds_at
from throughtime.tasks.instruments import ROW, TIMBRES, drum, timbre_of
from throughtime.tasks.instruments import wave as rendered
from throughtime.tasks.pieces import Metre, Piece, Tempo, Track, notes_of
from throughtime.tasks.synthesiser import BLOCK, KEPT, PEAK, sound, write_wav

RATE = 44_100
ALL = sorted(TIMBRES)
PROGRAMS = {"piano": 0, "organ": 19, "strings": 48, "plucked": 24, "wind": 73}
SLOW = (Tempo(0, 60),)  # a quarter note is a second


def piece(*rows, program=0, drums=False, tempos=SLOW, tracks=None):
    """Rows of start and length in seconds, key, velocity and track."""
    notes = notes_of([(round(s * 480), round(d * 480), key, velocity, track) for s, d, key, velocity, track in rows])
    return Piece(notes, 480, "tune.mid", tracks=tracks or (Track("", program, drums),), tempos=tempos)


def heard(*rows, rate=RATE, **how):
    return np.concatenate(list(sound(piece(*rows, **how), rate)))


def peak_frequency(samples, rate=RATE):
    """Where the spectrum is highest, by the parabola through its logarithm."""
    spectrum = np.log(np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) + 1e-12)
    k = int(spectrum.argmax())
    a, b, c = spectrum[k - 1 : k + 2]
    return (k + (a - c) / (2 * (a - 2 * b + c))) * rate / len(samples)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize(("pitch", "hertz"), [(69, 440.0), (60, 261.6256), (93, 1760.0)])
def test_the_pitch_is_right_to_a_cent(family, pitch, hertz):
    found = heard((0, 3, pitch, 90, 0), program=PROGRAMS[family])
    channels = found[4000 : 4000 + 2 * RATE].T
    # strings play a little apart in the two channels: their mean is right
    cents = [1200 * np.log2(peak_frequency(channel) / hertz) for channel in channels]
    assert abs(np.mean(cents)) < 1
    assert max(map(abs, cents)) < (7 if family == "strings" else 1)


def test_every_program_has_a_family():
    assert {timbre_of(program) for program in range(128)} == set(TIMBRES.values())
    assert all(timbre_of(program) == TIMBRES[name] for name, program in PROGRAMS.items())


@pytest.mark.parametrize("family", ALL)
def test_a_note_is_the_sum_of_its_partials(family):
    """Against the sum written out, sample by sample, from wherever it is asked for."""
    timbre, pitch, velocity, (begin, end) = TIMBRES[family], 55, 70, (3 * ROW - 5, 9 * ROW + 17)
    times = np.arange(begin, end) / RATE
    base, numbers = 440 * 2 ** ((pitch - 69) / 12), np.arange(1, 33)
    hertz = base * numbers * np.sqrt((1 + timbre.stiffness * numbers**2) / (1 + timbre.stiffness))
    fall = np.exp(-hertz / (timbre.cutoff * (0.3 + 0.7 * velocity / 127) + base))
    sizes = numbers ** -(timbre.tilt + 0.8 * (1 - velocity / 127)) * np.where(numbers % 2, 1, timbre.even) * fall
    sizes *= np.exp(-hertz / (timbre.cutoff + base)) > np.exp(-7.0)  # what is never heard is left out
    phases = np.pi * numbers * (numbers - 1) / 32
    waves = np.sin(2 * np.pi * hertz[:, None] * times + phases[:, None])
    if timbre.decay:
        speeds = 7.0 / (timbre.decay * 2 ** ((60 - pitch) / 16)) * (1 + 0.3 * (numbers - 1))
        falling = [np.exp(-fast * speeds[:, None] * times) for fast in (1, 0.3)]
        waves, power = waves * (0.8 * falling[0] + 0.2 * falling[1]), (sizes**2).sum() * (0.8**2 + 0.2**2)
    else:
        power = (sizes**2).sum()
    loudness = timbre.level * (velocity / 127) ** 1.5 * 2 ** ((60 - pitch) / 48)
    expected = (sizes[:, None] * waves).sum(0) * loudness / np.sqrt(power)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(rendered(timbre, pitch, velocity, RATE, begin, end), expected, atol=2e-5)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("rate", [32_000, RATE])
def test_nothing_is_folded_back(family, rate):
    """Whatever stands in the spectrum of a high note is a partial of it: one above half the rate would come back beside."""
    timbre = TIMBRES[family]
    for pitch in (96, 108, 120, 127):
        samples = rendered(timbre, pitch, 127, rate, 0, 2 * rate) * np.blackman(2 * rate)
        spectrum = np.abs(np.fft.rfft(samples))
        base = 440 * 2 ** ((pitch - 69) / 12)
        numbers = np.arange(1, 9)
        partials = base * numbers * np.sqrt((1 + timbre.stiffness * numbers**2) / (1 + timbre.stiffness))
        frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
        beside = np.abs(frequencies[:, None] - partials).min(1) > 60
        assert spectrum.max() > 100 * spectrum[beside].max(initial=0), "a frequency that is no partial"
        assert spectrum[frequencies > 0.46 * rate].max() < 1e-3 * spectrum.max()


@pytest.mark.parametrize("start", [0.0, 0.5, 1.25, 3.0])
def test_a_note_begins_at_its_sample_and_not_before(start):
    found = heard((start, 1, 60, 100, 0))
    first = round(start * RATE)
    assert not found[:first].any(), "silence stays silence, to the bit"
    assert found[first : first + 8].any() and np.abs(found[first : first + 200]).max() > 0.01


def test_tempos_are_kept():
    tempos = (Tempo(0, 60), Tempo(480, 120), Tempo(960, 30))
    given = piece((0, 1, 60, 90, 0), (1, 1, 60, 90, 0), (2, 1, 60, 90, 0), (3, 0.5, 60, 90, 0), tempos=tempos)
    assert seconds(given).tolist() == [[0, 1], [1, 1.5], [1.5, 3.5], [3.5, 4.5]]
    plain = piece((1, 1, 60, 90, 0), tempos=())
    assert seconds(plain).tolist() == [[0.5, 1]], "120 quarters a minute where none is said"
    late = piece((0, 4, 60, 90, 0), tempos=(Tempo(960, 60), Tempo(960, 240)))
    assert seconds(late).tolist() == [[0, 1.5]], "of two at a tick the last"
    assert seconds_at(late, 480) == 0.5 and seconds_at(late, [0, 960, 1920]).tolist() == [0, 1, 1.5]


def test_bars_follow_the_metre():
    notes = notes_of([(0, 4 * 480 * 3, 60, 80, 0)])
    assert bars(Piece(notes, 480)).tolist() == [0, 1920, 3840]
    assert bars(Piece(notes, 480, metres=(Metre(0, 6, 8),), upbeat=240)).tolist() == [240, 1680, 3120, 4560]
    changed = (Metre(0, 3, 4), Metre(2880, 2, 2), Metre(4000, 1, 4))
    assert bars(Piece(notes, 480, metres=changed)).tolist() == [0, 1440, 2880, 4000, 4480, 4960, 5440]


def thick(seconds=6, program=0, voices=24):
    """As loud as it gets: many notes struck hardest, again and again."""
    return [(k / 4, 2, 30 + (k * 7 + j * 5) % 70, 127, 0) for k in range(4 * seconds) for j in range(voices)]


@pytest.mark.parametrize("family", ALL)
def test_nothing_is_clipped(family):
    found = heard(*thick(3), program=PROGRAMS[family])
    assert np.isfinite(found).all() and np.abs(found).max() <= PEAK + 1e-6
    assert 0.05 < np.sqrt((found[: 3 * RATE] ** 2).mean()) < 0.3, "but it is not faint"


@pytest.mark.parametrize("family", ALL)
def test_no_click_where_a_note_begins_is_let_go_or_ends(family):
    """Nowhere above its partials, at 15 kHz and more, is there what a jump would bring."""
    found = heard((0.1, 0.6, 50, 110, 0), (0.5, 0.013, 50, 110, 0), program=PROGRAMS[family])[:, 0]
    spectrum = np.fft.rfft(found)
    frequencies = np.fft.rfftfreq(len(found), 1 / RATE)

    def high(samples):
        spectrum = np.fft.rfft(samples)
        spectrum[frequencies < 15_000] = 0
        return np.abs(np.fft.irfft(spectrum, len(samples))).max()

    assert np.abs(spectrum).max() > 1
    assert high(found) < 1e-3
    broken = found.copy()
    broken[round(0.3 * RATE) :] += 0.02
    assert high(broken) > 2e-3, "a jump of a fiftieth is found"
    assert abs(found.mean()) < 1e-3, "no direct current"
    assert np.abs(found[-100:]).max() < 1e-4, "it dies away"


def test_a_held_note_lasts_and_a_struck_one_dies_away():
    def level(samples, at):
        return np.sqrt((samples[round(at * RATE) : round((at + 0.3) * RATE)] ** 2).mean())

    for family, least, most in (("organ", 0.9, 1.1), ("piano", 0.1, 0.6), ("plucked", 0.01, 0.4)):
        found = heard((0, 3, 60, 90, 0), program=PROGRAMS[family])
        assert least < level(found, 2.6) / level(found, 0.2) < most, family
        assert level(found, 3.6) < 0.1 * level(found, 0.2), "let go"


def test_velocity_is_loudness_and_brightness():
    soft, hard = (rendered(TIMBRES["piano"], 60, velocity, RATE, 0, RATE) for velocity in (40, 120))
    assert np.sqrt((hard**2).mean()) > 3 * np.sqrt((soft**2).mean())

    def brightness(samples):
        spectrum = np.abs(np.fft.rfft(samples)) ** 2
        return (spectrum * np.arange(len(spectrum))).sum() / spectrum.sum()

    assert brightness(hard) > 1.2 * brightness(soft)


def test_tracks_lie_side_by_side_and_keys_of_one_track_too():
    def left(*rows, **how):
        found = heard(*rows, **how)[:RATE]
        return (found[:, 0] ** 2).sum() / (found**2).sum()

    tracks = (Track("a"), Track("b"), Track("drums", 0, True))
    beside = (4, 0.1, 60, 1, 0), (4, 0.1, 60, 1, 1)
    assert left((0, 1, 60, 90, 0), *beside, tracks=tracks) > 0.6
    assert left((0, 1, 60, 90, 1), *beside, tracks=tracks) < 0.4
    assert 0.45 < left((0, 1, 38, 90, 2), *beside, tracks=tracks) < 0.55, "drums in the middle"
    assert left((0, 1, 30, 90, 0)) > 0.6 > 0.4 > left((0, 1, 100, 90, 0))


def test_drums_are_noise_and_are_over_however_long_they_are_held():
    assert np.abs(drum(38, RATE)).max() > 0.3
    hat, kick = (np.abs(np.fft.rfft(drum(key, RATE))) ** 2 for key in (42, 36))
    low = [power[: round(1000 * len(power) / (RATE / 2))].sum() / power.sum() for power in (hat, kick)]
    assert low[0] < 0.1 and low[1] > 0.9
    long, short = (heard((0, d, 38, 100, 0), program=0, drums=True) for d in (0.1, 30))
    assert np.array_equal(long, short)


def test_the_same_piece_gives_the_same_bytes(tmp_path):
    given = piece(*thick(1), (0.3, 0.2, 38, 100, 1), tracks=(Track("", 48), Track("", 0, True)))
    write_wav(given, tmp_path / "a.wav")
    write_wav(given, tmp_path / "b.wav")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
    np.testing.assert_allclose(samples / 32767, np.concatenate(list(sound(given))), atol=0.51 / 32767)


def test_what_is_too_long_to_keep_is_rendered_again_alike():
    """One note in the first block, then silence up to beyond what is kept, then another."""
    far = KEPT * BLOCK / RATE + 2
    rows = (0, 1, 60, 100, 0), (1, 1, 72, 100, 0)
    blocks = list(sound(piece(*rows, (far, 1, 60, 100, 0))))
    assert len(blocks) > KEPT
    long, short = np.concatenate(blocks[:2]), heard(*rows)[: 2 * BLOCK]
    ratio = np.abs(long).max() / np.abs(short).max()
    np.testing.assert_allclose(long[: len(short)], short * ratio, atol=1e-5)
    assert max(map(len, blocks)) == BLOCK


def test_memory_does_not_grow_with_the_length():
    """An hour of notes, beside what three minutes take."""
    code = """
import resource, sys
import numpy as np
from throughtime.tasks.pieces import Piece, notes_of
from throughtime.tasks.synthesiser import sound
minutes = int(sys.argv[1])
notes = notes_of([(16 * k, 4, 60, 90, 0) for k in range(minutes * 30)])
count = sum(len(block) for block in sound(Piece(notes, 4)))
assert count > 44_100 * 60 * minutes * 0.9
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    few, many = (
        int(subprocess.run([sys.executable, "-c", code, minutes], check=True, capture_output=True, text=True).stdout)
        for minutes in ("4", "16")
    )
    assert many < few + 30 * 1024, "kilobytes"


@pytest.mark.parametrize(
    ("given", "rate", "said"),
    [
        (piece(), RATE, "tune.mid: holds no note; there is nothing to hear"),
        (piece((0, 25_000, 60, 90, 0)), RATE, "tune.mid: lasts 6.9 hours; sound takes 6 at most: cut it"),
        (piece((0, 1, 60, 90, 0)), 8000, "rate: got 8000; it takes 32,000 to 192,000 Hz"),
    ],
)
def test_what_cannot_be_heard(given, rate, said):
    with pytest.raises(UserError) as error:
        sound(given, rate)  # before a block is asked for
    assert str(error.value) == said


def test_no_file_is_lost(tmp_path):
    path = tmp_path / "a.wav"
    path.write_text("mine")
    given = piece((0, 0.1, 60, 90, 0))
    with pytest.raises(
        UserError, match=r"a\.wav: is there already; name another file, or replace it by overwrite=True"
    ):
        write_wav(given, path)
    with pytest.raises(UserError, match="holds no note"):
        write_wav(piece(), path, overwrite=True)
    assert path.read_text() == "mine"
    write_wav(given, path, overwrite=True)
    assert path.read_bytes()[:4] == b"RIFF"
    with pytest.raises(UserError, match="cannot write it: No such file"):
        write_wav(given, tmp_path / "none" / "a.wav")
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
