"""Music: a model of pieces, that scores them and writes new ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.config import Strict
from throughtime.errors import UserError
from throughtime.tasks.base import Advance, Task, ignore
from throughtime.tasks.music_settings import ComposeOptions, MusicConfig, PieceOptions
from throughtime.tasks.settings import check_cell
from throughtime.tasks.source import Source

if TYPE_CHECKING:
    from torch import nn

    from throughtime.runs import Run
    from throughtime.tasks.music_data import Stretches
    from throughtime.tasks.music_model import MusicModel
    from throughtime.tasks.pieces import Piece


class MusicTask(Task[MusicConfig, "Piece"]):
    """Music, as notes."""

    name: ClassVar[str] = "music"
    config_type = MusicConfig
    predict_options: ClassVar[type[Strict]] = PieceOptions
    evaluate_options: ClassVar[type[Strict]] = PieceOptions
    inspect_options: ClassVar[type[Strict]] = PieceOptions
    generate_options: ClassVar[type[Strict] | None] = ComposeOptions
    unit: ClassVar[str] = "notes"
    bfloat16: ClassVar[bool] = True

    def check(self, config: MusicConfig, files: Sequence[Path] = ()) -> None:
        check_cell(config.model.cell, memoryless=True)
        if config.model.kind == "transformer" and config.model.cell == "none":
            raise UserError("model.cell: none remembers nothing, and a transformer does; leave one of them out")

    # -- what is read

    def read(self, config: MusicConfig, files: Sequence[Path], options: Any = None) -> list[Piece]:
        return self.read_along(config, files, options, ignore)

    def read_along(self, config: MusicConfig, files: Sequence[Path], options: Any, advance: Advance) -> list[Piece]:
        share = 1 / len(files)
        found = [
            piece for file in files for piece in self._pieces(config, file, options, lambda part: advance(part * share))
        ]
        if options is not None and options.part is None and any(piece.part == "test" for piece in found):
            return [piece for piece in found if piece.part in ("", "test")]
        return found

    def _pieces(self, config: MusicConfig, given: Any, options: Any, advance: Advance = ignore) -> list[Piece]:
        from throughtime.tasks.scores import read_pieces

        return read_pieces(
            given,
            encoding=(config.data if options is None else options).encoding,
            option="--data." if options is None else "--",
            repeats=config.data.repeats,
            part=getattr(options, "part", None),
            advance=advance,
        )

    def items(self, config: MusicConfig, source: Source, options: Any) -> Iterator[Piece]:
        yield from self._pieces(config, source, options)

    def item(self, given: Any) -> Piece:
        from throughtime.tasks.pieces import Piece

        return given if isinstance(given, Piece) else super().item(given)

    def split(self, config: MusicConfig, items: list[Piece], files: Sequence[Path]) -> tuple[list[Piece], list[Piece]]:
        from throughtime.tasks import music_data

        return music_data.split(items, config.data.held_out, config.seed, files[0])

    # -- what is trained

    def prepare(
        self, config: MusicConfig, train: list[Piece], held: list[Piece], run: Run, advance: Advance
    ) -> MusicConfig:
        from throughtime.tasks import music_data

        return music_data.prepare(config, train, held, run, advance)

    def describe(self, config: MusicConfig) -> str:
        m, d = config.model, config.data
        return f"{super().describe(config)}, chain {m.chain_size}; {d.writing}, {d.grid} steps a quarter note"

    def network(self, config: MusicConfig, run: Run) -> nn.Module:
        from throughtime.tasks import music_data

        return music_data.network(config, run)

    def examples(self, config: MusicConfig, run: Run, part: str) -> Stretches:
        from throughtime.tasks import music_data

        return music_data.examples(config, run, part)

    def score(self, model: MusicModel, examples: Stretches, *, quick: bool) -> dict[str, Any]:
        found = model.scored(examples)
        notes = found["notes"]
        chain = {} if quick else {"chain_nats_per_note": sum(map(model.chains.nats, examples.pieces)) / max(notes, 1)}
        return {**{name: value for name, value in found.items() if name.startswith("nats_per")}, **chain}

    def samples(self, config: MusicConfig, run: Run) -> list[Piece]:
        from throughtime.tasks.base import SAMPLES
        from throughtime.tasks.music_data import writing_of

        pieces, writing = self.examples(config, run, "valid").pieces, writing_of(run)
        return [writing.piece(pieces[i].moments) for i in range(min(SAMPLES, len(pieces)))]

    def trained(self, run: Run, config: MusicConfig, network: nn.Module) -> MusicModel:
        from throughtime.tasks.music_model import MusicModel

        return MusicModel(self, run, config, network)
