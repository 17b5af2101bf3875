"""What a recogniser is trained on: recordings as features and units, what is held out, the settings that fit them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from throughtime.decode.alignment import frames_needed
from throughtime.errors import UserError
from throughtime.tasks import defaults
from throughtime.tasks.audio import RATE, Recording, Samples, at_speed, extent, samples, tell_mixed
from throughtime.tasks.base import Advance
from throughtime.tasks.decoding import COUNTED
from throughtime.tasks.logmel import DEFAULT, bins_below, features, frames_of
from throughtime.tasks.normalisation import Normal
from throughtime.tasks.pauses import spoken
from throughtime.tasks.settings import chosen, settled
from throughtime.tasks.units import Units

if TYPE_CHECKING:
    from throughtime.models.recogniser import Recogniser, Recognisers
    from throughtime.runs import Run
    from throughtime.tasks.speech import Statistics, Utterances
    from throughtime.tasks.transcribe_settings import TranscribeConfig

TEXTS, PRIOR = "texts.json", "prior.json"
LONGEST = 60.0  # seconds of a recording that is learned from; beyond it alignments are hardly found
LOOK_AHEAD = 270  # milliseconds: with the rest of the frame, which lasts 25, under 300
BEFORE = 4  # frames before its place that a step sees, and after it where there is no more of them
SLOWEST = 0.7  # of the steps of an utterance that its units and the blanks between them may take
FITS = 0.99  # of all utterances, of which that has to be so
OFTEN = 20  # times that a word is said of which no letters need be learned
MOST = 0.9  # of all recordings, which have a band of frequencies that is heard
LARGEST = 1 / 3  # of the recordings that a speaker may have who is held out


def split(items: list[Recording], share: float, seed: int) -> tuple[list[Recording], list[Recording]] | None:
    """Some speakers of their own, drawn, with about so large a share of all recordings; None where speakers are not known, or too
    few to be told apart."""
    counts = Counter(item.speaker for item in items)
    small = sorted(str(speaker) for speaker, n in counts.items() if n <= LARGEST * len(items))
    if None in counts or len(counts) < 3 or not small:
        if len(counts) > 1:
            warnings.warn("too few speakers are known to hold some out: utterances of all are held out", stacklevel=2)
        return None
    held, count = set[str](), 0
    for i in np.random.default_rng((seed, 1)).permutation(len(small)).tolist():
        grown = count + counts[small[i]]
        if held and abs(grown - share * len(items)) > abs(count - share * len(items)):
            continue
        held.add(small[i])
        count = grown
    return [x for x in items if x.speaker not in held], [x for x in items if x.speaker in held]


def prepare(
    config: TranscribeConfig, train: list[Recording], held: list[Recording], run: Run, advance: Advance
) -> TranscribeConfig:
    """Decode all recordings once, and choose what was left open. advance: as of `Task.prepare`.

    Raises: UserError for what cannot be trained on.
    """
    from throughtime.decode.ngram import NGram

    model, data = config.model, config.data
    lengths, rates = zip(*map(extent, (*train, *held)), strict=True)
    for recording, length in zip((*train, *held), lengths, strict=True):
        if length > LONGEST:
            raise UserError(
                f"{recording.where}: lasts {length:,.0f} s; training takes {LONGEST:g} s at most: name its utterances, each with "
                f"its offset and seconds"
            )
    texts, changes = Normal(data.case, data.signs, data.tags).all(str(r.text) for r in (*train, *held))
    if changes.changed:
        warnings.warn(str(changes), stacklevel=2)
    learned = texts[: len(train)]
    kind = _units(learned) if model.units == "auto" else model.units
    units = Units.of(kind, learned, size=model.vocabulary or 100)
    units.save(run)
    speeds = (1.0,) if not data.speed else (1.0, 1 - data.speed, 1 + data.speed)
    mixed: dict[Any, int] = {}
    total = sum(lengths)
    learnable = [
        Spoken(*one, *_spelled(units, one[1]), one[2] / total)
        for one in zip((*train, *held), texts, lengths, strict=True)
    ]
    parts = {"train": learnable[: len(train)], "valid": learnable[len(train) :]}
    stride = model.subsampling or _stride(parts["train"], max(speeds))
    for part, some in parts.items():
        _write(run, part, some, speeds if part == "train" else (1.0,), stride, mixed, advance)
    tell_mixed(mixed)
    prior = _statistics(run)
    run.write_json(PRIOR, [prior.mean.tolist(), prior.deviation.tolist()])
    run.write_json(COUNTED, NGram.of([text for text in learned if text] or learned).values())
    single = kind == "words" and not any(" " in text for text in learned)
    fitted, trained = defaults.transcribe(config, len(train), sum(lengths[: len(train)]), single)
    hidden = {
        name: fitted.pop(name) if getattr(data, name) is None else getattr(data, name) for name in ("masks", "noise")
    }
    if model.streaming and model.look_ahead is None:
        fitted["look_ahead"] = LOOK_AHEAD
    return settled(
        config,
        model=fitted | {"units": kind, "subsampling": stride, "bandwidth": model.bandwidth or bandwidth_of(rates)},
        data=hidden,
        training=trained,
    )


def bandwidth_of(rates: Sequence[int]) -> int:
    """Up to which frequency, in Hz, there is something in most recordings, by their rates."""
    return min(int(np.quantile(rates, 1 - MOST, method="lower")), RATE) // 2


def bins_heard(bandwidth: int | None) -> int:
    """How many features a network reads. bandwidth: None: of a run from before there was one."""
    return DEFAULT.bins if bandwidth is None else bins_below(bandwidth)


def _units(texts: Sequence[str]) -> str:
    """What suits transcripts: words, where each is a single one that is said often; else characters."""
    counts = Counter(texts)
    single = all(len(text.split()) == 1 for text in counts)
    return "words" if single and min(counts.values()) >= OFTEN else "marked"


class Spoken(NamedTuple):
    """A recording, what is learned of its text, how long it is in seconds, the units of the text, how many of its words have none,
    and the recording's share of all work."""

    recording: Recording
    text: str
    seconds: float
    units: list[int]
    unknown: int
    share: float

    def frames(self, speed: float) -> int:
        """How many frames it has at a speed."""
        return frames_of(int(self.seconds * RATE / speed))


def _stride(spoken: Sequence[Spoken], speed: float) -> int:
    """The most frames to a step that leave units enough steps."""
    slack = [frames_needed(one.units) / max(one.frames(speed), 1) for one in spoken if one.units]
    return next((s for s in (4, 3, 2) if np.quantile(slack or [0.0], FITS) * s <= SLOWEST), 1)


def _write(
    run: Run,
    part: str,
    spoken: Sequence[Spoken],
    speeds: Sequence[float],
    stride: int,
    mixed: dict[Any, int],
    advance: Advance,
) -> None:
    """Write recordings with what is said in them, as a corpus."""
    from throughtime.tasks.batches import Sequences
    from throughtime.tasks.speech import Writer

    if unknown := sum(one.unknown for one in spoken):
        warnings.warn(f"{unknown:,} words that are held out have signs that training never had", stacklevel=3)
    writer, kept, short = Writer(run.corpus / f"{part}.f16"), [], []
    for one in spoken:
        frames = one.frames(max(speeds))
        if frames_needed(one.units) > frames // stride or not frames:
            short.append(one.recording)
            continue
        x = without_quiet(samples(one.recording, RATE, mixed), frames_needed(one.units) * stride * max(speeds))
        writer.add([features(x if speed == 1 else at_speed(x, speed)) for speed in speeds], one.recording.speaker)
        kept.append(one)
        advance(one.share)
    if short:
        how = f"; {len(short):,} such are left out" if len(short) > 1 else "; it is left out"
        warnings.warn(f"{short[0].where}: is too short for what is said in it{how}", stacklevel=3)
    if not kept:
        raise UserError(f"{short[0].where}: no recording is long enough for what is said in it; check the texts")
    writer.close()
    Sequences.of([one.units for one in kept]).save(run.corpus / f"{part}-units.bin")
    run.write_data(f"{part}-{TEXTS}", [one.text for one in kept])


def without_quiet(x: Samples, least: float = 0.0) -> Samples:
    """Samples from where somebody begins to speak to where they end, as a recogniser hears them; all, where that is less than
    some frames."""
    places = spoken(features(x))
    if not places or places[-1][1] - places[0][0] <= least:
        return x
    return x[places[0][0] * DEFAULT.hop : (places[-1][1] - 1) * DEFAULT.hop + DEFAULT.window]


def _spelled(units: Units, text: str) -> tuple[list[int], int]:
    """The units of a text, without the words that it lacks units for, and how many these are."""
    words = text.split()
    known = [word for word in words if units.spelled(word) is not None]
    return units.encode(" ".join(known)) or [], len(words) - len(known)


def _statistics(run: Run) -> Statistics:
    from throughtime.tasks.speech import Corpus

    return Corpus.open(run.corpus / "train.f16").statistics[-1]


def prior_of(run: Run) -> Statistics:
    """The statistics of all features of training."""
    from throughtime.tasks.speech import Statistics

    values = run.read_json(PRIOR)
    return Statistics(*(np.array(part, dtype=np.float32) for part in values))


def examples(config: TranscribeConfig, run: Run, part: str) -> Utterances:
    """What `prepare` left of a part."""
    from throughtime.tasks.batches import Sequences
    from throughtime.tasks.speech import Corpus, Utterances

    return Utterances(
        Corpus.open(run.corpus / f"{part}.f16"),
        Sequences.open(run.corpus / f"{part}-units.bin"),
        run.read_data(f"{part}-{TEXTS}"),
        part == "train",
        prior_of(run) if config.model.streaming else None,
    )


def network(config: TranscribeConfig, run: Run) -> Recogniser | Recognisers:
    """A fresh network, or several, where the run has more than one."""
    from throughtime.models.recogniser import Noise, Recogniser, Recognisers, Sizes

    m = config.model
    sizes = chosen(m, ("hidden_size", "dropout", "subsampling", "attention"), run)
    stride = sizes.pop("subsampling")
    # what is heard of the future: the frames of a step, and as many steps as the rest of the look-ahead holds
    frames = BEFORE if m.look_ahead is None else round(m.look_ahead / DEFAULT.hop_ms)
    ahead = max(frames - BEFORE, 0) // stride if m.streaming else 0
    units, heard = len(Units.open(run)), bins_heard(m.bandwidth)

    def make() -> Recogniser:
        return Recogniser(
            Sizes(DEFAULT.bins, units, stride, BEFORE, frames - ahead * stride, ahead, heard),
            **sizes,
            cell=m.cell,
            layers=m.layers,
            bidirectional=not m.streaming,
            kind=m.kind,
            noise=Noise(config.data.masks or 0.0, config.data.noise or 0.0),
        )

    members = m.members or 1  # none of a run from before there were several
    return make() if members == 1 else Recognisers(make, members)
