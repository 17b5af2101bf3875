"""Samples from recordings: decoded, mixed to one channel, resampled; whole, in blocks, or raw from a pipe.

Needs the extra `speech`: soundfile decodes (libsndfile: WAV of 8 to 32 bits and float, FLAC, OGG, MP3 and others), soxr resamples.
"""

from __future__ import annotations

import codecs
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np

from throughtime.config import STDIN
from throughtime.errors import UserError, reason
from throughtime.tasks.downloads import HEAD, markup, not_plain

Samples: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

RATE = 16000  # Hz that features are computed at
LOWEST = 8000  # Hz, that of a telephone: below it consonants are not to be told apart
LOUDEST = 8.0  # what decoders and resamplers may go beyond 1 is less than that
ROUNDED = 0.1  # seconds by which a manifest may round how long a recording is
RECENT = 0.5  # seconds from which a resampler can go on: more than its filter reaches
BLOCK = 30.0  # seconds that are decoded together
UNKNOWN = 0x7FFF0000  # bytes: a header written into a pipe says that many or more, or it would have to be written again
AUDIO = {b"RIFF": "WAV", b"fLaC": "FLAC", b"OggS": "OGG", b"ID3": "MP3", b"FORM": "AIFF"}  # how the files begin


class Recording(NamedTuple):
    """A recording, or a part of one, and what is known of it."""

    audio: Path
    """The file, absolute."""
    text: str | None = None
    """What is said in it; None where that is not known, "" where nothing is said."""
    speaker: str | None = None
    label: str | None = None
    offset: float = 0.0
    """Where it begins, in seconds."""
    seconds: float | None = None
    """How long it is; None: to the end of the file."""
    place: str = ""
    """Where it is named, `file:line`, for errors; the path of the audio, or nothing, where it is named nowhere."""

    @property
    def where(self) -> str:
        """How errors begin: where it is named, and the file."""
        return str(self.audio) if self.place in ("", str(self.audio)) else f"{self.place}: {self.audio}"


def samples(recording: Recording | Path | str, rate: int = RATE, mixed: dict[Path, int] | None = None) -> Samples:
    """The samples of a recording, from -1 to 1, in one channel.

    Args: recording: only what lies between its offset and its end is decoded; of a path, all. A length that ends within 0.1 s of
        the end of the file, before or after, has been rounded, and the recording is read to its end. rate: Hz, of what is given; a
        file of another rate is resampled. mixed: a file whose channels were several and are mixed to one is put there, with
        their count, so that `tell_mixed` can say it once of all; None: a warning says it of this file.
    Returns: [N] float32. Resampled samples of a recording at its loudest may lie a little beyond 1.
    Raises: UserError, in one line with place and file, where the file is missing, empty, damaged, cut off, not audio, or below
        8,000 Hz; where it has samples that are not finite or far beyond 1; where the part is not in it; where soundfile or soxr
        is not installed. An Ogg file does not say how long it is to be: that one is cut off cannot be seen.
    """
    return np.concatenate([np.empty(0, np.float32), *blocks(recording, rate, BLOCK, mixed)])


def blocks(
    recording: Recording | Path | str, rate: int = RATE, seconds: float = BLOCK, mixed: dict[Path, int] | None = None
) -> Iterator[Samples]:
    """The samples that `samples` gives, block by block: in the memory of a block, however long the recording is. They are the
    same to the bit, but for MP3, whose decoder rounds by pieces: there within 1e-6.

    Args: recording, rate, mixed: as in `samples`. seconds: that are decoded together.
    Yields: [n] float32, about `seconds` each, none empty.
    Raises: as `samples`; of what is wrong within the file, once all blocks before it have been given.
    """
    given = _recording(recording)
    with _open(given) as file:
        start, count = _part(given, file.frames, file.samplerate)
        if file.channels > 1 and mixed is None:
            tell_mixed({given.audio: file.channels})
        elif file.channels > 1 and mixed is not None:
            mixed[given.audio] = file.channels
        decoded = _decoded(given, file, start, count, max(1, round(seconds * file.samplerate)))
        yield from _resampled(decoded, file.samplerate, rate)


def raw(stream: BinaryIO, given: int, rate: int = RATE, seconds: float = 0.1) -> Iterator[Samples]:
    """Samples from a pipe of signed 16-bit samples, little-endian, of one channel, as they come.

    Args: stream: is read until it ends. given: Hz, of its samples. rate: Hz, of what is given back. seconds: that are read
        together at most; where the stream has `read1`, what there is of it is taken without waiting for more. What has to be
        resampled comes later, by up to 0.12 s from 8,000 Hz and 0.04 s from 48,000 Hz.
    Yields: [n] float32, from -1 to 1, none empty: the same, to the bit and however the pipe cuts them, as `samples` of a
        file.
    Raises: UserError where the rate is below 8,000 Hz, soxr is not installed, or it begins as an audio file does.
    """
    _check_rate(STDIN, given)
    return _resampled(_unpacked(stream, max(1, round(seconds * given))), given, rate)


class Resampler:
    """Samples at another rate, piece by piece: the same, to the bit and however they are cut, as in one go.

    Args: given, rate: Hz, of the samples that come, and of those that are given back.
    Raises: UserError where a rate is below 8,000 Hz, or soxr is not installed.
    """

    def __init__(self, given: int, rate: int = RATE) -> None:
        _check_rate(STDIN, given)
        self._rates = given, rate
        self._stream = _soxr().ResampleStream(given, rate, 1)
        self._read = self._written = self._skipped = 0  # samples; those that are still to be left out
        self._recent, self._early = np.empty(0, np.float32), np.empty(0, np.float32)

    def push(self, samples: Samples, last: bool = False) -> Samples:
        """The samples that are known once these have come, [n] float32. last: whether none come after them."""
        given, rate = self._rates
        found: Samples = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        left = min(self._skipped, len(found))
        found, self._skipped = np.concatenate([self._early, found[left:]]), self._skipped - left
        self._early = found[:0]
        self._read, self._written = self._read + len(samples), self._written + len(found)
        step = given // math.gcd(given, rate)
        begin = max(int(self._read - RECENT * given), 0) // step * step
        self._recent = np.concatenate([self._recent, samples])[begin - self._read :]
        return found

    @property
    def state(self) -> tuple[int, int, Samples]:
        """Where it is: how many samples have come and have been given, and the last that came."""
        return self._read, self._written, self._recent

    def resume(self, read: int, written: int, recent: Samples) -> None:
        """Go on, anew, from where another of these rates was. What is given then is what that would have given, within 1e-6."""
        given, rate = self._rates
        self.__init__(given, rate)  # type: ignore[misc]
        self._read, first = read - len(recent), (read - len(recent)) * rate // given
        self._skipped = written - first
        self._early, self._written = self.push(recent), written


def at_speed(samples: Samples, factor: float) -> Samples:
    """Samples played faster, and higher by as much: [N / factor] float32. Source: Ko et al. (2015), Audio augmentation.

    Args: samples: [N] float32. factor: from 0.5 to 2; 1.1 is a tenth faster.
    Raises: UserError where the factor is out of range, or soxr is not installed.
    """
    if not 0.5 <= factor <= 2:
        raise UserError(f"speed: got {factor:g}; it takes 0.5 to 2")
    resampled: Samples = _soxr().resample(samples, factor, 1.0)
    return resampled


def duration(recording: Recording | Path | str) -> float:
    """How many seconds a recording has, without decoding it. Raises: UserError as `samples`, but for what only decoding shows."""
    return extent(recording)[0]


def extent(recording: Recording | Path | str) -> tuple[float, int]:
    """How many seconds a recording has, and samples a second in its file. Raises: as `duration`."""
    given = _recording(recording)
    with _open(given) as file:
        return float(_part(given, file.frames, file.samplerate)[1] / file.samplerate), int(file.samplerate)


def check_part(recording: Recording, total: float) -> None:
    """Refuse a recording that is no part of its file. total: seconds that the file has.

    Raises: UserError where it begins before the file or after its end, ends more than 0.1 s after that, or has no length.
    """
    offset, seconds, where = recording.offset, recording.seconds, recording.where
    if not 0 <= offset < math.inf or (seconds is not None and not 0 < seconds < math.inf):
        length = "" if seconds is None else f" and lasts {seconds:g} s"
        raise UserError(f"{where}: begins at {offset:g} s{length}; it takes 0 or more, and more than 0")
    if offset >= total:
        raise UserError(f"{where}: begins at {offset:g} s, and the file ends at {total:g} s; mend the offset")
    if seconds is not None and offset + seconds > total + ROUNDED:
        what = f"ends at {offset + seconds:g} s, and the file at {total:g} s"
        raise UserError(f"{where}: {what}; mend where it begins or how long it is")


def tell_mixed(mixed: Mapping[Path, int]) -> None:
    """Warn, once, that recordings had several channels: of the first, with its count, and how many more there are."""
    if mixed:
        path, channels = next(iter(mixed.items()))
        others = "" if len(mixed) == 1 else f", and so are those of {len(mixed) - 1:,} more"
        warnings.warn(f"{path}: {channels} channels are mixed to one{others}", stacklevel=2)


def _recording(given: Recording | Path | str) -> Recording:
    return given if isinstance(given, Recording) else Recording(Path(given))


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: there is no libsndfile
        raise _missing("soundfile") from error
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise _missing("soxr") from error
    return soxr


def _missing(library: str) -> UserError:
    return UserError(f"audio needs {library}, which is not installed (pip install 'throughtime[speech]')")


def _open(given: Recording) -> Any:
    """A file, ready to be decoded. Raises: UserError where its header shows that it cannot be used."""
    soundfile = _soundfile()
    try:
        file = soundfile.SoundFile(given.audio)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: of raw samples, whose rate it cannot know
        raise _unreadable(given, _why(error)) from error
    _check_header(given, file)
    return file


def _check_header(given: Recording, file: Any) -> None:
    _check_rate(given.where, file.samplerate)
    # libsndfile gives what is there, and writes into its log what the header says
    told = re.search(r"(?:data|SSND|Data Size) *: (\d+) \(should be (\d+)\)", file.extra_info)
    if told and int(told[2]) < int(told[1]) < UNKNOWN:
        promised = f"it says that it has {int(told[1]):,} bytes of samples, and has {int(told[2]):,}"
        raise UserError(f"{given.where}: is cut off: {promised}; copy it again")
    if not file.frames:
        raise UserError(f"{given.where}: holds no samples; record it again, or take it out")


def _check_rate(where: str, rate: int) -> None:
    if rate < LOWEST:
        raise UserError(f"{where}: {rate:,} Hz; speech takes {LOWEST:,} Hz or more: record it again at {RATE:,} Hz")


def _why(error: Exception) -> str:
    """The reason that libsndfile gives."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")


def _unreadable(given: Recording, why: str) -> UserError:
    """What to raise for a file that libsndfile does not open."""
    try:
        with given.audio.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        return UserError(f"{given.where}: cannot read it: {reason(error)}")
    if not head:
        return UserError(f"{given.where}: is empty; copy it again, or take it out")
    if begun := next((kind for start, kind in AUDIO.items() if head.startswith(start)), None):
        return UserError(f"{given.where}: is {begun}, but damaged or cut off: {why}; copy it again")
    if told := not_plain(head):
        return UserError(f"{given.where}: is {told[0]}, not audio; name the recording itself")
    try:
        text = "" if b"\0" in head else codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        text = ""
    if text:
        what, how = markup(text) or ("text", "name the recording itself")
        return UserError(f"{given.where}: is {what}, not audio; {how}")
    make = f"ffmpeg -i {given.audio.name} {given.audio.stem}.wav"
    return UserError(f"{given.where}: is no audio that can be read (WAV, FLAC, OGG, MP3); convert it ({make})")


def _part(given: Recording, frames: int, rate: int) -> tuple[int, int]:
    """The first of the frames of a file that are of the recording, and how many are."""
    check_part(given, frames / rate)
    start = min(round(given.offset * rate), frames - 1)
    rest = frames - start
    if given.seconds is None or abs(rest / rate - given.seconds) <= ROUNDED:
        return start, rest
    return start, max(1, round(given.seconds * rate))


def _decoded(given: Recording, file: Any, start: int, count: int, block: int) -> Iterator[Samples]:
    """The frames of a file from `start` on, mixed to one channel. Raises: UserError where they cannot be had."""
    soundfile, rate, done = _soundfile(), file.samplerate, 0
    while done < count:
        try:
            if not done:
                file.seek(start)
            piece = file.read(min(block, count - done), dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            after = f" after {(start + done) / rate:.1f} s" if done else ""
            raise UserError(f"{given.where}: is damaged or cut off{after}: {_why(error)}; copy it again") from error
        if not len(piece):
            break
        if not np.abs(piece).max() <= LOUDEST:
            at, channel = np.argwhere(~(np.abs(piece) <= LOUDEST))[0]
            raise UserError(
                f"{given.where}: the sample at {(start + done + at) / rate:.4f} s is {piece[at, channel]:g}; they take -1 to 1: "
                "write the file again"
            )
        done += len(piece)
        yield piece[:, 0] if piece.shape[1] == 1 else piece.mean(axis=1)
    if count - done > ROUNDED * rate:
        promised = f"it says that it lasts {(start + count) / rate:.1f} s, and ends at {(start + done) / rate:.1f} s"
        raise UserError(f"{given.where}: is cut off: {promised}; copy it again")


def _resampled(pieces: Iterator[Samples], given: int, rate: int) -> Iterator[Samples]:
    """Pieces of samples at another rate, none empty."""
    if given == rate:
        yield from pieces
        return
    resampler = Resampler(given, rate)
    for piece in pieces:
        if len(some := resampler.push(piece)):
            yield some
    if len(some := resampler.push(np.empty(0, np.float32), last=True)):
        yield some


def _unpacked(stream: BinaryIO, block: int) -> Iterator[Samples]:
    """The samples of a pipe. Raises: UserError where it begins as an audio file does."""
    read, rest = getattr(stream, "read1", stream.read), b""
    while len(rest) < 4 and (some := read(2 * block)):
        rest += some
    if kind := next((kind for start, kind in AUDIO.items() if rest.startswith(start)), None):
        how = "it takes raw 16-bit samples (arecord -t raw, ffmpeg -f s16le)"
        raise UserError(f"{STDIN}: begins as a file of {kind} does; {how}")
    while rest:
        whole = len(rest) // 2 * 2
        if whole:
            yield np.frombuffer(rest[:whole], "<i2").astype(np.float32) / np.float32(32768)
        if not (some := read(2 * block)):
            break
        rest = rest[whole:] + some
    if len(rest) % 2:
        warnings.warn(f"{STDIN}: ends within a sample; its last byte is left out", stacklevel=2)
