"""Classify recordings: a label for each, from labelled recordings. `train classify` hands recordings over to it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from throughtime.config import Positive, Rate, RunConfig, Strict
from throughtime.errors import UserError
from throughtime.tasks.base import Advance, Criterion, Task
from throughtime.tasks.settings import DataSettings, ReadOptions, check_cell, check_no_chunk
from throughtime.tasks.source import Source

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.audio import Recording
    from throughtime.tasks.classify_audio_data import LabelledRecordings
    from throughtime.tasks.classify_audio_model import AudioModel

# how Speech Commands names a recording: who speaks, and which of theirs it is (Warden 2018)
SPOKEN_BY = re.compile(r"([0-9a-f]+)_nohash_\d+")


class AudioNetwork(Strict):
    """The network."""

    kind: Literal["recurrent", "transformer"] = "recurrent"
    """transformer: one of as many parameters as the recurrent network of these settings would have, with a dropout of 0.3
    at most."""
    cell: str = "gru"
    """The recurrent cell: elman, gru, lstm or another of `throughtime.cells.NAMED`; none: a network without a memory."""
    hidden_size: Positive | None = None
    """Units in a layer, in each direction. [default: to fit the data]"""
    layers: Positive = 2
    """Layers above each other."""
    dropout: Rate | None = None
    """Dropout between layers and before the output. [default: to fit the data]"""
    bidirectional: bool = True
    """Read from both ends."""
    pooling: Literal["last", "mean", "max", "attention"] = "mean"
    """How one vector is made of all steps."""
    subsampling: Annotated[int, Field(ge=1, le=8)] = 3
    """Frames of 10 ms to a step of the network."""
    bandwidth: Annotated[int, Field(ge=1000, le=8000)] | None = None
    """Hz, up to which it hears: beyond half the rate of a recording there is nothing but what rounding left.
    [default: half the rate that nine in ten recordings have or more, 8000 at most]"""


class AudioData(DataSettings):
    """The labelled recordings."""

    audio_column: str | None = None
    """The column of the path, in a table. [default: audio, audio_filepath, path or another usual name]"""
    label_column: str | None = None
    """The column of the label; of recordings in folders these are the labels. [default: label, class, category or keyword]"""
    speaker_column: str | None = None
    """The column of who speaks: some speakers are held out. [default: speaker, client_id or another usual name]"""
    balance: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much rare labels count for more in training: 0 not at all, 1 as much as the frequent ones. [default: 0.5 where one
    label is over three times as frequent as another]"""
    speed: Annotated[float, Field(ge=0, le=0.3)] = 0.1
    """Train on recordings as they are, and so much slower and faster too (Ko et al. 2015)."""
    masks: Annotated[float, Field(ge=0, le=2)] = 0.5
    """How large the stretches of time and of pitch are that are hidden in training; 1: up to 16 of 80 bins, 0.25 s."""
    noise: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Noise on the features in training, in deviations, at most."""


class AudioConfig(RunConfig):
    """All settings of a classifier of recordings."""

    task: str = "classify-audio"
    model: AudioNetwork = AudioNetwork()
    data: AudioData = AudioData()


class HearOptions(ReadOptions):
    """Of `predict`, `evaluate` and `inspect`."""

    audio_column: str | None = None
    """The column of the path, in a table. [default: as in training, else by its name]"""
    label_column: str | None = None
    """The column of the label. [default: as in training, else by its name]"""


class AudioTask(Task[AudioConfig, "Recording"]):
    """Classification of recordings."""

    name: ClassVar[str] = "classify-audio"
    config_type = AudioConfig
    predict_options: ClassVar[type[Strict]] = HearOptions
    evaluate_options: ClassVar[type[Strict]] = HearOptions
    inspect_options: ClassVar[type[Strict]] = HearOptions
    pipeline: ClassVar[str | None] = "audio-classification"
    unit: ClassVar[str] = "recordings"

    def check(self, config: AudioConfig, files: Sequence[Path] = ()) -> None:
        check_cell(config.model.cell, memoryless=True)
        check_no_chunk(config)

    # -- what is read

    def read(self, config: AudioConfig, files: Sequence[Path], options: Any = None) -> list[Recording]:
        option = "--data." if options is None else "--"
        found = [
            _placed(recording, file)
            for file in files
            for recording in self._recordings(config, file, options, option)
            if not _aside(recording, file)
        ]
        for recording in found:
            if recording.label is None:
                raise UserError(
                    f"{recording.where}: has no label; name its column ({option}label-column), or give a folder for each label"
                )
        return found

    def items(self, config: AudioConfig, source: Source, options: Any) -> Iterator[Recording]:
        if source.in_memory:
            yield from (self.item(line.rstrip("\n")) for line in source)
        else:
            yield from self._recordings(config, source.folder or Path(source.name), options, source.option)

    def _recordings(self, config: AudioConfig, path: Path, options: Any, option: str) -> list[Recording]:
        from throughtime.tasks.recordings import read_recordings

        training, asked = (
            {what: getattr(settings, f"{what}_column", None) for what in ("audio", "label", "speaker")}
            for settings in (config.data, config.data if options is None else options)
        )
        encoding = (config.data if options is None else options).encoding
        return read_recordings(path, **asked, encoding=encoding, option=option, before=training, wanted="label")

    def item(self, given: Any) -> Recording:
        from throughtime.tasks.audio import Recording
        from throughtime.tasks.recordings import recording_of

        return given if isinstance(given, Recording) else recording_of(given)

    def labels(self, item: Recording) -> list[str]:
        return [str(item.label)]

    def split(
        self, config: AudioConfig, items: list[Recording], files: Sequence[Path]
    ) -> tuple[list[Recording], list[Recording]]:
        from throughtime.tasks.speech_data import split

        found = None
        if any(item.speaker is not None for item in items):
            found = split(items, config.data.held_out, config.seed)
        if found is not None:
            if {item.label for item in items} == {item.label for item in found[0]}:
                return found
            warnings.warn("some labels are of few speakers: recordings of all speakers are held out", stacklevel=2)
        return super().split(config, items, files)

    # -- what is trained

    def prepare(
        self, config: AudioConfig, train: list[Recording], held: list[Recording], run: Run, advance: Advance
    ) -> AudioConfig:
        from throughtime.tasks import classify_audio_data

        return classify_audio_data.prepare(config, train, held, run, advance)

    def describe(self, config: AudioConfig) -> str:
        return f"{super().describe(config)}, a step each {10 * config.model.subsampling} ms"

    def criterion(self, config: AudioConfig) -> Criterion:
        return Criterion("macro_f1" if config.data.balance else "accuracy", higher=True, tie=self.loss)

    def network(self, config: AudioConfig, run: Run) -> nn.Module:
        from throughtime.tasks import classify_audio_data

        return classify_audio_data.network(config, run)

    def fill(self, network: Any, config: AudioConfig, run: Run) -> None:
        network.class_weights = run.read_data("weights.json")

    def examples(self, config: AudioConfig, run: Run, part: str) -> LabelledRecordings:
        from throughtime.tasks import classify_audio_data

        return classify_audio_data.examples(run, part)

    def steps(self, examples: LabelledRecordings) -> int:
        return len(examples.lengths)

    def score(self, model: AudioModel, examples: LabelledRecordings, *, quick: bool) -> dict[str, Any]:
        from throughtime.tasks.metrics import class_scores

        parts = [examples.normalised(i) for i in range(len(examples.lengths))]
        return class_scores(model.log_probabilities(parts), examples.numbers.tolist(), "recording")

    def trained(self, run: Run, config: AudioConfig, network: nn.Module) -> AudioModel:
        from throughtime.tasks.classify_audio_model import AudioModel

        return AudioModel(self, run, config, network)


def _aside(recording: Recording, root: Path) -> bool:
    """Whether it stands in a folder that is no label's: one whose name begins with _, as Speech Commands keeps noise."""
    return recording.label is None and _folder(recording, root).startswith("_")


def _placed(recording: Recording, root: Path) -> Recording:
    """With the folder as its label, and who speaks, where names say so."""
    if recording.label is not None:
        return recording
    spoken = SPOKEN_BY.fullmatch(recording.audio.stem)
    speaker = recording.speaker or (spoken[1] if spoken else None)
    return recording._replace(label=_folder(recording, root) or None, speaker=speaker)


def _folder(recording: Recording, root: Path) -> str:
    """The name of the folder that a recording is in, below the root; nothing where it is in none."""
    folder = recording.audio.parent
    return folder.name if root.is_dir() and folder != Path(root).absolute() else ""
