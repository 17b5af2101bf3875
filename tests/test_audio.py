"""Samples of real recordings in the formats that people have, and their features beside Kaldi's."""

import io
import os
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest

from throughtime.errors import UserError
from throughtime.tasks.audio import (
    LOUDEST,
    Recording,
    at_speed,
    blocks,
    check_part,
    duration,
    raw,
    samples,
    tell_mixed,
)
from throughtime.tasks.logmel import FLOOR, LogMel, LogMelStream, features, frames_of

soundfile = pytest.importorskip("soundfile")
DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
SPOKEN = DATA / "an4" / "audio" / "fbbh" / "an86-fbbh-b.flac"

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def spoken():
    """Three seconds of speech, 16 bits at 16 kHz, as libsndfile reads them."""
    if not SPOKEN.exists():
        pytest.skip(f"no {SPOKEN}; THROUGHTIME_DATA names the data")
    return soundfile.read(SPOKEN, dtype="float32")[0]


def tone(hertz, rate, seconds=1.0, loud=0.5):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)).astype(np.float32)


def written(path, values, rate=16000, **how):
    soundfile.write(path, values, rate, **how)
    return path


def refused(given, **how):
    """The one line that is said of a recording."""
    with pytest.raises(UserError) as error:
        samples(given, **how)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- formats, rates, channels


@pytest.mark.parametrize(
    ("suffix", "how", "off"),
    [
        ("wav", {"subtype": "PCM_U8"}, 1 / 127),
        ("wav", {"subtype": "PCM_16"}, 0),
        ("wav", {"subtype": "PCM_24"}, 0),
        ("wav", {"subtype": "PCM_32"}, 0),
        ("wav", {"subtype": "FLOAT"}, 0),
        ("wav", {"subtype": "DOUBLE"}, 0),
        ("wav", {"subtype": "ULAW"}, 0.03),
        ("wav", {"format": "WAVEX", "subtype": "PCM_24"}, 0),
        ("flac", {}, 0),
        ("aiff", {}, 0),
        ("ogg", {}, 0.05),
        ("mp3", {}, 0.05),
    ],
)
def test_every_format_gives_the_samples(tmp_path, spoken, suffix, how, off):
    path = written(tmp_path / f"x.{suffix}", spoken, **how)
    found = samples(path)
    assert found.dtype == np.float32 and found.shape == spoken.shape
    assert np.abs(found - spoken).max() <= off
    assert np.corrcoef(found, spoken)[0, 1] > 0.99
    assert duration(path) == pytest.approx(len(spoken) / 16000)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 32000, 44100, 48000, 96000])
def test_any_rate_becomes_the_one_asked_for(tmp_path, rate):
    found = samples(written(tmp_path / "x.wav", tone(440, rate), rate, subtype="FLOAT"))
    assert abs(len(found) - 16000) <= 1
    assert np.abs(found - tone(440, 16000)[: len(found)])[400:-400].max() < 1e-3


def test_the_rate_may_be_another(tmp_path):
    found = samples(written(tmp_path / "x.wav", tone(440, 16000), subtype="FLOAT"), rate=8000)
    assert len(found) == 8000 and np.abs(found - tone(440, 8000))[400:-400].max() < 1e-3


def test_channels_are_mixed_and_said(tmp_path):
    both = np.stack([tone(440, 16000), tone(700, 16000)], axis=1)
    paths = [written(tmp_path / f"{n}.wav", both, subtype="FLOAT") for n in "abc"]
    with pytest.warns(UserWarning, match=r"a\.wav: 2 channels are mixed to one$"):
        assert np.allclose(samples(paths[0]), both.mean(axis=1), atol=1e-7)
    mixed = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            samples(path, mixed=mixed)
        samples(written(tmp_path / "d.wav", tone(440, 16000)), mixed=mixed)
        tell_mixed({})
    with pytest.warns(UserWarning, match=r"a\.wav: 2 channels are mixed to one, and so are those of 2 more$") as said:
        tell_mixed(mixed)
    assert len(said) == 1 and list(mixed) == paths


# -- parts, blocks, pipes


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_only_the_part_that_is_named_is_read(tmp_path, spoken, suffix):
    path = written(tmp_path / f"x.{suffix}", spoken)
    whole = samples(path)
    assert np.array_equal(samples(Recording(path, offset=0.5, seconds=0.75)), whole[8000:20000])
    assert np.array_equal(samples(Recording(path, offset=0.5)), whole[8000:])
    assert duration(Recording(path, offset=0.5, seconds=0.75)) == 0.75
    for rounded in (len(whole) / 16000 - 0.09, len(whole) / 16000 + 0.09):
        assert np.array_equal(samples(Recording(path, seconds=rounded)), whole), "a length that was rounded"


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"offset": 3.5}, "begins at 3.5 s, and the file ends at 3.3 s"),
        ({"offset": 3.0, "seconds": 1.0}, "ends at 4 s, and the file at 3.3 s"),
        ({"offset": -1.0}, "begins at -1 s; it takes 0 or more"),
        ({"seconds": 0.0}, "begins at 0 s and lasts 0 s; it takes 0 or more, and more than 0"),
        ({"seconds": float("nan")}, "lasts nan s"),
    ],
)
def test_a_part_that_is_not_in_the_file(tmp_path, spoken, part, said):
    given = Recording(written(tmp_path / "x.wav", spoken), place="list.jsonl:7", **part)
    line = refused(given)
    assert line.startswith(f"list.jsonl:7: {given.audio}: ") and said in line
    with pytest.raises(UserError, match=r"list\.jsonl:7"):
        check_part(given, 3.3)


@pytest.mark.parametrize(
    ("rate", "channels", "suffix"),
    [(16000, 1, "wav"), (16000, 2, "flac"), (44100, 1, "mp3"), (8000, 1, "ogg"), (48000, 2, "wav")],
)
@pytest.mark.parametrize("seconds", [0.001, 0.37, 100])
def test_blocks_are_the_samples_to_the_bit(tmp_path, spoken, rate, channels, suffix, seconds):
    values = spoken[:16000] if seconds < 0.01 else spoken
    path = written(tmp_path / f"x.{suffix}", np.stack([values] * channels, axis=1), rate)
    for part in (Recording(path), Recording(path, offset=0.1, seconds=0.2)):
        found = [*blocks(part, seconds=seconds, mixed={})]
        if suffix == "mp3":  # decoded in other pieces, its arithmetic is rounded in others too
            assert np.abs(np.concatenate(found) - samples(part, mixed={})).max() < 1e-6
        else:
            assert np.array_equal(np.concatenate(found), samples(part, mixed={}))
        assert all(map(len, found)) and (seconds > 0.01 or len(found) > 1)


def test_blocks_are_all_the_memory(tmp_path, spoken):
    path = written(tmp_path / "x.wav", np.tile(spoken, 50), 48000)

    def peak(given):
        tracemalloc.start()
        for _ in given():
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(lambda: blocks(path, seconds=0.5)) < 1 << 20 < peak(lambda: samples(path))


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("cut", [1, 999, 1 << 20])
def test_a_pipe_gives_what_the_file_does(tmp_path, spoken, rate, cut):
    path = written(tmp_path / "x.wav", spoken[:20000], rate, subtype="PCM_16")
    data = soundfile.read(path, dtype="int16")[0].astype("<i2").tobytes()
    out, into = os.pipe()

    def write():
        with open(into, "wb", buffering=0) as pipe:
            for i in range(0, len(data), cut):
                pipe.write(data[i : i + cut])

    writer = threading.Thread(target=write)
    writer.start()
    with open(out, "rb") as pipe:
        found = [*raw(pipe, rate)]
    writer.join()
    assert np.array_equal(np.concatenate(found), samples(path))
    assert all(map(len, found))


def test_what_is_wrong_in_a_pipe():
    with pytest.raises(UserError, match="<stdin>: 4,000 Hz; speech takes 8,000 Hz or more"):
        raw(io.BytesIO(bytes(100)), 4000)
    with pytest.raises(UserError, match="<stdin>: begins as a file of WAV does; it takes raw 16-bit samples"):
        [*raw(io.BytesIO(b"RIFF" + bytes(100)), 16000)]
    with pytest.warns(UserWarning, match="ends within a sample"):
        (found,) = raw(io.BytesIO(b"\x00\x40\x00\x80\x01"), 16000)
    assert found.tolist() == [0.5, -1.0]
    assert [*raw(io.BytesIO(b""), 16000)] == []


@pytest.mark.parametrize("factor", [0.9, 1.1, 2.0])
def test_speed_moves_length_and_pitch(factor):
    found = at_speed(tone(400, 16000), factor)
    assert found.dtype == np.float32 and abs(len(found) - 16000 / factor) <= 1
    assert np.abs(found - tone(400 * factor, 16000, 3.0)[: len(found)])[400:-400].max() < 1e-3


@pytest.mark.parametrize("factor", [0, 0.4, 2.1, float("nan")])
def test_speeds_out_of_range(factor):
    with pytest.raises(UserError, match="speed: got"):
        at_speed(tone(400, 16000), factor)


# -- files that are none


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read it: No such file"),
        (b"", "is empty; copy it again"),
        ("это не звук\n".encode() * 500, "is text, not audio; name the recording itself"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "is a pointer of Git LFS, not audio; fetch the file",
        ),
        (b"<!DOCTYPE html><html>", "is a web page, not audio; download the file itself"),
        (b"PK\x03\x04" + bytes(100), "is a zip archive, not audio"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "is WAV, but damaged or cut off: "),
        (
            b"\0\0\0\x20ftypM4A " + bytes(1000),
            "is no audio that can be read (WAV, FLAC, OGG, MP3); convert it (ffmpeg -i x.wav",
        ),
    ],
)
def test_a_file_that_is_no_audio(tmp_path, content, said):
    path = tmp_path / "x.wav"
    if content is not None:
        path.write_bytes(content)
    assert refused(path).startswith(f"{path}: {said}")
    assert refused(Recording(path, place="l.csv:3")).startswith(f"l.csv:3: {path}: {said}")
    with pytest.raises(UserError):
        duration(path)


def test_a_folder_called_as_audio_is(tmp_path):
    (tmp_path / "x.wav").mkdir()
    assert "cannot read it: Is a directory" in refused(tmp_path / "x.wav")


@pytest.mark.parametrize(
    "how", [{"subtype": "PCM_16"}, {"subtype": "FLOAT"}, {"format": "WAVEX"}, {"format": "AIFF"}, {"format": "AU"}]
)
def test_a_header_that_promises_more(tmp_path, spoken, how):
    path = written(tmp_path / "x.wav", spoken, **{"format": "WAV", **how})
    path.write_bytes(path.read_bytes()[:-20000])
    assert "is cut off: it says that it has " in refused(path)
    with pytest.raises(UserError, match="is cut off"):
        duration(path)


@pytest.mark.parametrize(
    ("suffix", "said"),
    [
        ("flac", "is damaged or cut off: flac decoder lost sync; copy it again"),
        ("mp3", "is cut off: it says that it lasts 3.3 s"),
    ],
)
def test_a_compressed_file_that_is_cut_off(tmp_path, spoken, suffix, said, capfd):
    path = written(tmp_path / f"x.{suffix}", spoken)
    path.write_bytes(path.read_bytes()[:-3000])
    assert said in refused(path)
    capfd.readouterr()  # the decoder of MP3 has its own words


def test_what_stands_before_the_damage_is_given_first(tmp_path, spoken):
    path = written(tmp_path / "x.flac", np.tile(spoken, 3))
    path.write_bytes(path.read_bytes()[:-30000])
    found = []
    with pytest.raises(UserError, match=r"is damaged or cut off after \d\.\d s: "):
        found.extend(blocks(path, seconds=0.5))
    assert len(np.concatenate(found)) > 16000


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x80000000])
def test_a_header_written_into_a_pipe_promises_nothing(tmp_path, spoken, size):
    path = written(tmp_path / "x.wav", spoken)
    data = bytearray(path.read_bytes())
    assert data[36:40] == b"data"
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    path.write_bytes(data)
    assert np.array_equal(samples(path), spoken)


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (-np.inf, "-inf"), (32767, "32767")])
def test_samples_that_are_none(tmp_path, value, said):
    values = tone(400, 16000)
    values[12345] = value
    line = refused(written(tmp_path / "x.wav", values, subtype="FLOAT"))
    assert f"the sample at 0.7716 s is {said}; they take -1 to 1" in line
    both = np.stack([tone(400, 16000), values], axis=1)
    assert f"0.7716 s is {said}" in refused(written(tmp_path / "x.wav", both, subtype="FLOAT"), mixed={})
    values[12345] = LOUDEST / 2
    assert samples(written(tmp_path / "x.wav", values, subtype="FLOAT"))[12345] == LOUDEST / 2


def test_too_low_a_rate_and_no_samples(tmp_path):
    path = written(tmp_path / "x.wav", tone(400, 4000), 4000)
    assert refused(path) == f"{path}: 4,000 Hz; speech takes 8,000 Hz or more: record it again at 16,000 Hz"
    with pytest.raises(UserError, match="4,000 Hz"):
        duration(path)
    assert "holds no samples" in refused(written(tmp_path / "x.wav", tone(400, 16000)[:0]))


@pytest.mark.parametrize("library", ["soundfile", "soxr"])
def test_a_library_that_is_not_installed(tmp_path, monkeypatch, library):
    path = written(tmp_path / "x.wav", tone(400, 8000), 8000)
    monkeypatch.setitem(sys.modules, library, None)
    assert refused(path) == f"audio needs {library}, which is not installed (pip install 'throughtime[speech]')"


# -- features


def kaldi(values, kind):
    knf = pytest.importorskip("kaldi_native_fbank")
    options = knf.FbankOptions()
    options.frame_opts.samp_freq, options.frame_opts.dither = kind.rate, 0
    options.frame_opts.frame_length_ms, options.frame_opts.frame_shift_ms = kind.window_ms, kind.hop_ms
    options.mel_opts.num_bins = kind.bins
    computer = knf.OnlineFbank(options)
    computer.accept_waveform(kind.rate, values)
    computer.input_finished()
    return np.array([computer.get_frame(i) for i in range(computer.num_frames_ready)])


@pytest.mark.parametrize(
    "kind",
    [
        LogMel(),
        LogMel(bins=40),
        LogMel(8000, 40),
        LogMel(11025, 40),
        LogMel(bins=23, window_ms=20),
        LogMel(window_ms=32, hop_ms=12.5),
        LogMel(48000),
    ],
)
def test_features_are_those_of_kaldi(spoken, kind):
    found, expected = features(spoken, kind), kaldi(spoken, kind)
    assert found.dtype == np.float32 and found.shape == expected.shape == (frames_of(len(spoken), kind), kind.bins)
    assert np.abs(found - expected).max() < 1e-3
    assert found.std() > 1, "not silence alone"


@pytest.mark.parametrize("count", [0, 1, 399, 400, 559, 560, 16000, 41360, 52800])
def test_how_many_frames_there_are(spoken, count):
    assert features(spoken[:count]).shape == (frames_of(count), 80)
    assert frames_of(count) == sum(start + 400 <= count for start in range(0, count, 160))


@pytest.mark.parametrize("kind", [LogMel(), LogMel(window_ms=32, hop_ms=32, bins=20)])
@pytest.mark.parametrize("seed", range(6))
def test_a_stream_gives_the_frames_of_the_whole(spoken, kind, seed):
    most, rng, stream, place = [1, 7, 160, 401, 5000, 60000][seed], np.random.default_rng(seed), LogMelStream(kind), 0
    values, found = spoken[: 3000 * most], []
    while place < len(values):
        size = rng.integers(0, most + 1)
        found.append(stream.push(values[place : place + size]))
        place = min(len(values), place + size)
        assert sum(map(len, found)) == frames_of(place, kind), "as soon as its samples are there"
    assert np.abs(np.concatenate(found) - features(values, kind)).max() <= 1e-6


def test_silence_lies_at_the_floor_and_a_frame_in_its_middle():
    assert (features(np.zeros(1000, np.float32)) == np.log(np.float32(FLOOR))).all()
    values = np.zeros(16000, np.float32)
    values[8000] = 1
    frame = int(features(values).sum(axis=1).argmax())
    assert LogMel().time(frame) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bins": 300}, "bins: got 300; of a window of 25 ms at 16,000 Hz .* would be empty"),
        ({"rate": 0}, "rate: got 0"),
        ({"bins": -1}, "bins: got -1"),
        ({"window_ms": float("nan")}, "window_ms: got nan"),
        ({"hop_ms": 30}, "window_ms, hop_ms: got 25 and 30 at 16,000 Hz"),
        ({"hop_ms": 0.01}, "window_ms, hop_ms: got 25 and 0.01 at 16,000 Hz"),
    ],
)
def test_features_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said):
        LogMel(**given)


@needs_data
def test_all_files_of_a_corpus_have_features():
    found = [features(samples(path)) for path in sorted((DATA / "fsdd" / "audio" / "george").glob("*.flac"))[:40]]
    assert len(found) == 40 and all(np.isfinite(one).all() and len(one) > 10 for one in found)
