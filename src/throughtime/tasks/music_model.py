"""A trained model of music: it scores pieces, says what of them surprises it, and writes new ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from json import dumps
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from throughtime.config import STDIN, build_options
from throughtime.errors import UserError
from throughtime.tasks.base import Advance, Task, Trained, ignore
from throughtime.tasks.chains import Chains
from throughtime.tasks.look import Look
from throughtime.tasks.moments import Moment
from throughtime.tasks.music_data import ALL, CHAINS, GRAMS, LIKENESS, LOOKED, PHRASE, Stretches, Written, writing_of
from throughtime.tasks.music_settings import ComposeOptions, MusicConfig
from throughtime.tasks.networks import Network
from throughtime.tasks.pieces import Piece, Tempo

if TYPE_CHECKING:
    from torch import nn

    from throughtime.models.composer import Composer
    from throughtime.runs import Run
    from throughtime.tasks.composing import Composed, Composing, Extent
    from throughtime.tasks.music_engine import MusicEngine
    from throughtime.tasks.music_session import MusicSession

DEFAULT_BARS = 16  # of frames, which do not say where a piece ends
PLACED = ("out", "primer", "overwrite", "soundfont")  # options that are not of what is written
SURPRISES = 3  # notes of a piece that are told in words


class MusicModel(Trained[Piece]):
    """A trained model of pieces."""

    travels: ClassVar[str] = "music"

    network: Composer

    def __init__(self, task: Task[Any, Piece], run: Run, config: MusicConfig, network: nn.Module) -> None:
        super().__init__(task, run, config, network)
        self.notation = writing_of(run)

    @property
    def frames(self) -> bool:
        """Whether its moments are frames of a grid, so that nats are told of a frame too."""
        return self.notation.kind == "frames"

    @property
    def chains(self) -> Chains:
        """Counts of its training pieces, to compare with."""
        return Chains.open(self.run.folder / CHAINS)

    # -- scores

    def scored(self, examples: Stretches, advance: Advance = ignore) -> dict[str, Any]:
        """Nats of pieces without their first moment: of a note, and of a frame where pieces are frames."""
        from throughtime.tasks.batches import over

        nats, notes, moments = 0.0, 0, 0

        def take(_: Any, batch: Any) -> None:
            nonlocal nats, notes, moments
            nats += float(self.network.nats(batch).double().sum())
            notes += int(self.network.notes_in(batch).sum())
            moments += int(batch.written.sum())

        over(self.network, examples, take, advance)
        frames = {"nats_per_frame": nats / max(moments, 1)} if self.frames else {}
        return {**frames, "nats_per_note": nats / max(notes, 1), "notes": notes, "moments": moments, "nats": nats}

    def scores(self, items: list[Piece], options: Any, advance: Advance = ignore) -> dict[str, Any]:
        """Walk pieces from beginning to end.

        Returns: pieces, frames (of frames), notes, nats_per_frame, nats_per_note; and the same two of chains of counts: `chain`,
            each symbol told from the one before it in its moment; of frames also `markov`, each key by itself told from the frame
            before. The first moment of a piece is not counted.
        """
        pieces = [self._written(piece) for piece in items]
        found = self.scored(Stretches(self.notation, pieces, ALL), advance)
        chains = self.chains
        moments, notes, _ = (found.pop(name) for name in ("moments", "notes", "nats"))

        def of(nats: Callable[[Written], float]) -> dict[str, float]:
            total = sum(map(nats, pieces))
            frames = {"nats_per_frame": total / max(moments, 1)} if self.frames else {}
            return {**frames, "nats_per_note": total / max(notes, 1)}

        counts = {"pieces": len(pieces), **({"frames": moments} if self.frames else {}), "notes": notes}
        markov = {"markov": of(chains.key_nats)} if self.frames else {}
        return {**counts, **found, "chain": of(chains.nats), **markov}

    def _written(self, piece: Piece) -> Written:
        """A piece as it is read. Raises: UserError where there is nothing in it."""
        made = Written.of(piece, self.notation)
        if not len(piece) or len(made) < 2:
            raise UserError(f"{piece.place}: the piece has less than two moments; give a longer one")
        return made

    # -- answers

    def answers(self, items: list[Piece], options: Any) -> Iterator[dict[str, Any]]:
        """What each piece costs, and which notes surprise.

        Yields: piece, place, notes, nats, nats_per_note, and `surprising`: a row a note, the most surprising first: bar (from 1),
            place (in it, from 0, in steps of the grid), key, nats.
        """
        from throughtime.tasks.batches import scoring

        for piece in items:
            made = self._written(piece)
            batch = Stretches(self.notation, [made], ALL).batch([0])
            with scoring(self.network) as device:
                nats = (
                    self.network.symbol_nats(type(batch)(*(x.to(device) for x in batch)))[:, 0].cpu().double().numpy()
                )
            rows = sorted(self._notes(made, nats), key=lambda row: -row["nats"])
            yield {
                "piece": piece.name,
                "place": piece.place,
                "notes": len(rows),
                "nats": float(nats.sum()),
                "nats_per_note": float(nats.sum()) / max(len(rows), 1),
                "surprising": rows,
            }

    def _notes(self, piece: Written, nats: Any) -> Iterator[dict[str, Any]]:
        """The keys and drums of all moments but the first, and what each costs."""
        notes = self.notation.notes()
        bars = np.array(self.notation.bars(piece.moments))
        for t, moment in enumerate(piece.moments[1:], 1):
            for i, symbol in enumerate(moment):
                if notes[symbol]:
                    yield {
                        "bar": int(bars[t]) + 1,
                        "place": int(piece.places[t]),
                        "key": self.notation.names[symbol],
                        "nats": float(nats[t, i]),
                    }

    def written(self, values: dict[str, Any]) -> str:
        rows = values["surprising"][:SURPRISES]
        told = ", ".join(f"{r['key']} in bar {r['bar']} ({r['nats']:.1f})" for r in rows)
        return f"{values['nats_per_note']:.4f}\t{values['piece'] or values['place']}\t{told}"

    # -- looking inside

    def look(self, item: Piece) -> Look:
        from throughtime.tasks.music_look import look

        return look(self, self._written(item))

    def empty(self, item: Piece) -> bool:
        return not len(item)

    # -- writing

    def compose(self, samples: int = 1, primer: Piece | None = None, **options: Any) -> list[Composed]:
        """Write pieces.

        Args: samples: how many. primer: what they begin with. options: as of `generate`, but `out`, `overwrite` and `primer`.
        Returns: the pieces, those first that the model takes for the likeliest, a note.
        Raises: UserError for a value out of range, a key that the model does not know, a primer that is longer than what is asked.
        """
        from throughtime.tasks.composing import finished, moments_of

        chosen, made = build_options(ComposeOptions, options), []
        for composing, opening, extent in self._composings(samples, primer, chosen):
            for _ in moments_of(composing, opening, extent):
                pass
            made.append(self._played(finished(composing, len(opening), extent), chosen))
        return sorted(made, key=lambda one: one.nats)

    def _composings(
        self, samples: int, primer: Piece | None, options: Any
    ) -> Iterator[tuple[Composing, list[Moment], Extent]]:
        """Pieces to be written: each not begun, the moments that it begins with, and how long it is to be."""
        import torch

        from throughtime.tasks.composing import Composing, Extent, Taste

        if options.bars is not None and options.seconds is not None:
            raise UserError("--seconds: --bars says how long it is to be; leave one of them out")
        generator = torch.Generator().manual_seed(options.seed) if options.seed is not None else None
        taste = Taste(options.temperature, options.top_k, options.top_p, generator)
        bars = DEFAULT_BARS if self.frames and options.bars is None and options.seconds is None else options.bars
        extent = Extent(bars, options.seconds, options.tempo)
        opening = [] if primer is None else self.notation.opening(primer)
        asked = [] if options.key is None else [self.notation.in_key(options.key)]
        if asked and opening:
            raise UserError("--key: the primer says in which key; leave one of them out")
        for _ in range(samples):
            yield Composing(self.network, self.notation, taste, asked), opening, extent

    def _played(self, composed: Composed, options: Any) -> Composed:
        """With the tempo and the instrument that are asked for."""
        piece = composed.piece
        if options.tempo is not None:
            piece = replace(piece, tempos=(Tempo(0, options.tempo),))
        if options.program is not None:
            tracks = tuple(track if track.drums else track._replace(program=options.program) for track in piece.tracks)
            piece = replace(piece, tracks=tracks)
        return composed._replace(piece=piece)

    def writing(
        self, samples: int, options: Mapping[str, Any], *, json: bool, tell: Callable[[str], None]
    ) -> Iterator[str]:
        from throughtime.tasks import music_files
        from throughtime.tasks.likeness import Grams

        chosen = build_options(ComposeOptions, dict(options))
        out = [name for name in chosen.out if name != STDIN]
        places = music_files.places_for(out, samples, overwrite=chosen.overwrite, sets=self.frames)
        if chosen.soundfont is not None and not any(name.lower().endswith(".wav") for name in out):
            raise UserError("--soundfont: only a .wav is played with it; name one with --out, or leave it out")
        primer = None if chosen.primer is None else self.piece_of(chosen.primer, "--primer")
        grams, training = Grams.open(self.run.folder / GRAMS), self.run.read_json(LIKENESS)
        heard = not json and (not out or STDIN in chosen.out)
        made: list[Composed] = []
        if heard and samples == 1:
            yield from self._streamed(primer, chosen, made)
        else:
            made += self.compose(samples, primer, **{k: v for k, v in options.items() if k not in PLACED})
        for number, (composed, paths) in enumerate(zip(made, places, strict=True), 1):
            for path in paths:
                music_files.write(composed.piece, path, chosen.soundfont)
            about = music_files.about(composed, paths, grams.copied(composed.piece), training)
            if json:
                yield dumps(about) + "\n"
                continue
            tell(music_files.told(about, f"sample {number}"))
            if heard and samples > 1:
                yield from self._played_lines(composed.moments, chosen, composed.end)

    def _streamed(self, primer: Piece | None, options: ComposeOptions, made: list[Composed]) -> Iterator[str]:
        """A piece as lines for a player, each as soon as it is known; then it is put to what is made."""
        from throughtime.tasks.composing import finished, moments_of

        for composing, opening, extent in self._composings(1, primer, options):
            moments = moments_of(composing, opening, extent)
            yield from self._played_lines(moments, options, partial(extent.end, composing))
            made.append(self._played(finished(composing, len(opening), extent), options))

    def _played_lines(
        self, moments: Iterable[Moment], options: ComposeOptions, end: Callable[[], int | None]
    ) -> Iterator[str]:
        """Lines for a player."""
        from throughtime.tasks.music_files import Playing, events

        playing = Playing(self.notation, options.tempo, options.program)
        yield from (dumps(event) + "\n" for event in events(playing, moments, end))

    def piece_of(self, notes: str, verb: str) -> Piece:
        """What a user names: a file of one piece, or notes. verb: what it is given to. Raises: UserError where it is neither."""
        from throughtime.tasks.music_files import typed
        from throughtime.tasks.scores import read_pieces

        if not notes.strip():
            raise UserError(f"{verb}: is empty; notes are given as C4 E4 G4, those at once as C4+E4")
        if not os.path.exists(notes):  # that of a Path fails where there are many notes
            return typed(notes, verb, "file and no note")
        pieces = read_pieces(notes, option="--", repeats=self.config.data.repeats)
        if len(pieces) > 1:
            raise UserError(f"{verb}: {notes} holds {len(pieces):,} pieces; name a file of one")
        return pieces[0]

    # -- elsewhere

    def networks(self) -> list[Network]:
        from throughtime.tasks.music_networks import networks_of

        return networks_of(self.network, LOOKED)

    def beside(self) -> dict[str, str]:
        about = {
            "kind": self.notation.kind,
            "names": self.notation.names,
            "grid": self.notation.grid,
            "places": self.notation.places,
            "phrase": PHRASE,
            "looked": LOOKED,
            "heard": self.network.stack.output_size,
        }
        return {"music.json": dumps(about, ensure_ascii=False)}

    # -- back and forth

    def engine(self, backend: str = "auto") -> MusicEngine:
        from throughtime.tasks.music_engine import MusicEngine

        return MusicEngine(self.network, self.notation, backend)

    def session(self, *, snapshots: int = 256, keep: int = 1_000_000, backend: str = "auto") -> MusicSession:
        """A piece that is read and written moment by moment, and can be gone back in, changed, and compared.

        Args: keep: how many moments it may have; all are kept. The others: as of `Session`.
        Raises: UserError for a Transformer, or a network of cell none, which has no state to go back to.
        """
        from throughtime.tasks.music_session import MusicSession

        return MusicSession(self.engine(backend), snapshots=snapshots, keep=keep)
