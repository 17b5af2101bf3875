"""Transcribe: what is said in recordings, from recordings and their words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.config import Strict
from throughtime.errors import UserError
from throughtime.tasks.base import Advance, Criterion, Task
from throughtime.tasks.settings import check_cell, check_no_chunk
from throughtime.tasks.source import Source
from throughtime.tasks.transcribe_settings import (
    EvaluateOptions,
    HearOptions,
    PredictOptions,
    TranscribeConfig,
)

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.audio import Recording
    from throughtime.tasks.speech import Utterances
    from throughtime.tasks.transcribe_model import TranscribeModel

HOPELESS = 80.0  # percent of characters that are wrong: what a network writes then is chance


class TranscribeTask(Task[TranscribeConfig, "Recording"]):
    """Speech recognition."""

    name: ClassVar[str] = "transcribe"
    config_type = TranscribeConfig
    predict_options: ClassVar[type[Strict]] = PredictOptions
    evaluate_options: ClassVar[type[Strict]] = EvaluateOptions
    inspect_options: ClassVar[type[Strict]] = HearOptions
    pipeline: ClassVar[str | None] = "automatic-speech-recognition"
    unit: ClassVar[str] = "units"

    def check(self, config: TranscribeConfig, files: Sequence[Path] = ()) -> None:
        model = config.model
        check_cell(model.cell, memoryless=True)
        check_no_chunk(config)
        if model.vocabulary is not None and model.units != "bpe":
            raise UserError("model.vocabulary: only pieces of words (model.units bpe) are so many; leave it out")
        if model.streaming and (model.kind == "transformer" or model.cell == "none"):
            raise UserError("model.streaming: only a recurrent network goes on with a stream; leave it out")
        if model.streaming and (model.members or 1) > 1:
            raise UserError(
                "model.members: of several networks none is read step by step; leave out it or model.streaming"
            )
        if not model.streaming and model.look_ahead is not None:
            raise UserError("model.look_ahead: a network that reads from both ends has none; leave it out")

    # -- what is read

    def read(self, config: TranscribeConfig, files: Sequence[Path], options: Any = None) -> list[Recording]:
        option = "--data." if options is None else "--"
        encoding = (config.data if options is None else options).encoding
        found = [recording for file in files for recording in _recordings(file, config, options, encoding, option)]
        for recording in found:
            if recording.text is None:
                what = "what is said in it stands nowhere"
                how = f"add a text, or name its column ({option}text-column), or take it out"
                raise UserError(f"{recording.where}: {what}; {how}")
        return found

    def items(self, config: TranscribeConfig, source: Source, options: Any) -> Iterator[Recording]:
        from throughtime.config import STDIN
        from throughtime.tasks.audio import Recording

        if source.name == STDIN and getattr(options, "rate", None) is not None:
            yield Recording(Path(STDIN), place=STDIN)
            return
        if source.name == STDIN:
            raise UserError(f"{STDIN}: raw samples do not say how many they are a second; give --rate")
        if source.in_memory:
            yield from map(self.item, source)
            return
        yield from _recordings(source.folder or source.name, config, options, source.encoding, source.option)

    def item(self, given: Any) -> Recording:
        from throughtime.tasks.audio import Recording
        from throughtime.tasks.recordings import recording_of

        return given if isinstance(given, Recording) else recording_of(given)

    def split(
        self, config: TranscribeConfig, items: list[Recording], files: Sequence[Path]
    ) -> tuple[list[Recording], list[Recording]]:
        from throughtime.tasks.speech_data import split

        found = split(items, config.data.held_out, config.seed)
        return found or super().split(config, items, files)

    # -- what is trained

    def prepare(
        self, config: TranscribeConfig, train: list[Recording], held: list[Recording], run: Run, advance: Advance
    ) -> TranscribeConfig:
        from throughtime.tasks import speech_data

        return speech_data.prepare(config, train, held, run, advance)

    def describe(self, config: TranscribeConfig) -> str:
        m = config.model
        assert m.subsampling is not None
        how = f"streaming, {m.look_ahead} ms ahead" if m.streaming else "from both ends"
        times = f"{m.members} × " if m.members not in (None, 1) else ""
        return f"{times}{super().describe(config)}, a step each {10 * m.subsampling} ms, {how}; {m.units} units"

    def criterion(self, config: TranscribeConfig) -> Criterion:
        return Criterion("cer", tie=self.loss, hopeless=HOPELESS)

    def network(self, config: TranscribeConfig, run: Run) -> nn.Module:
        from throughtime.tasks import speech_data

        return speech_data.network(config, run)

    def examples(self, config: TranscribeConfig, run: Run, part: str) -> Utterances:
        from throughtime.tasks import speech_data

        return speech_data.examples(config, run, part)

    def score(self, model: TranscribeModel, examples: Utterances, *, quick: bool) -> dict[str, Any]:
        from throughtime.tasks.worderrors import errors

        found = errors(list(zip(examples.texts, model.heard(examples, greedy=quick), strict=True)))
        return {**super().score(model, examples, quick=quick), "cer": found["cer"], "wer": found["wer"]}

    def settle(self, model: TranscribeModel, examples: Utterances, run: Run) -> None:
        model.settle(examples, run)

    def trained(self, run: Run, config: TranscribeConfig, network: nn.Module) -> TranscribeModel:
        from throughtime.tasks.transcribe_model import TranscribeModel

        return TranscribeModel(self, run, config, network)


def _recordings(
    path: Path | str, config: TranscribeConfig, options: Any, encoding: str | None, option: str
) -> list[Recording]:
    """Those under a path: by the columns that are asked for, else by those of training, else by the usual ones."""
    from throughtime.tasks.recordings import read_recordings

    training, asked = (
        {what: getattr(settings, f"{what}_column", None) for what in ("audio", "text", "speaker")}
        for settings in (config.data, config.data if options is None else options)
    )
    return read_recordings(path, **asked, encoding=encoding, option=option, before=training, wanted="text")
