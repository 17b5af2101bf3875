"""What a model of music is trained on: pieces as moments, what is held out, the settings that fit them.

Shapes: T moments, B stretches, L symbols of a moment, V symbols, K keys that are looked back at.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.errors import UserError
from throughtime.tasks import defaults
from throughtime.tasks.base import Advance
from throughtime.tasks.batches import Sequences
from throughtime.tasks.chains import Chains
from throughtime.tasks.event_values import Values, grid_of
from throughtime.tasks.event_writing import EventWriting
from throughtime.tasks.frame_writing import FrameWriting
from throughtime.tasks.likeness import Grams, histograms
from throughtime.tasks.moments import KEYS, Array, Moment, Writing
from throughtime.tasks.pieces import Piece, groups
from throughtime.tasks.settings import chosen, settled
from throughtime.tasks.source import name_of

if TYPE_CHECKING:
    from throughtime.models.composer import Composer, Moments
    from throughtime.runs import Run
    from throughtime.tasks.music_settings import MusicConfig

WRITING, CHAINS, GRAMS = "writing.json", "chains.safetensors", "grams.npy"
LIKENESS = "likeness.json"
CHUNK = 256  # moments of a piece that are learned from at once, at most
ALL = 1 << 40  # moments: a piece whole
LOOKED = 6  # keys that are looked back at
BEFORE = LOOKED + 1  # these, and where the scale begins that the piece says it is in
PHRASE = 8  # bars that are told apart


@dataclass(frozen=True, eq=False)
class Written:
    """A piece as it is written. symbols: of all moments, without their ends; starts: where each moment begins in them, [T + 1];
    places: of each, in its bar; bars: of each, in its phrase."""

    symbols: Array
    starts: Array
    places: Array
    bars: Array

    @classmethod
    def of(cls, piece: Piece, writing: Writing) -> Written:
        """A piece. Raises: UserError where it cannot be written so."""
        return cls.of_moments(*writing.moments(piece), writing)

    @classmethod
    def of_moments(cls, moments: Sequence[Moment], places: Sequence[int], writing: Writing) -> Written:
        """Moments, and the place of each in its bar."""
        symbols = np.array([symbol for moment in moments for symbol in moment], dtype=np.int64)
        starts = np.cumsum([0, *map(len, moments)])
        return cls(symbols, starts, np.array(places, dtype=np.int64), np.array(writing.bars(moments)) % PHRASE)

    @property
    def moments(self) -> list[Moment]:
        """Each without its end."""
        symbols = self.symbols.tolist()
        return [tuple(symbols[a:b]) for a, b in itertools.pairwise(self.starts.tolist())]

    def __len__(self) -> int:
        return len(self.places)

    def part(self, numbers: Array, moved: Array) -> Written:
        """Some moments, their symbols as a table says, [V + 1]."""
        sizes = np.diff(self.starts)[numbers]
        ends = sizes.cumsum()
        at = np.repeat(self.starts[numbers] - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)
        return Written(moved[self.symbols[at]], np.append(0, ends), self.places[numbers], self.bars[numbers])


def save(pieces: Sequence[Written], path: Path) -> None:
    """Pieces as files: their symbols, where moments begin, and the places of these."""
    Sequences.of([piece.symbols for piece in pieces]).save(path.with_name(path.name + "-symbols.bin"))
    Sequences.of([np.diff(piece.starts) for piece in pieces]).save(path.with_name(path.name + "-counts.bin"))
    Sequences.of([piece.places * PHRASE + piece.bars for piece in pieces]).save(
        path.with_name(path.name + "-places.bin")
    )


class Saved(Sequence[Written]):
    """What `save` wrote, mapped into memory."""

    def __init__(self, path: Path) -> None:
        self.symbols, self.counts, self.places = (
            Sequences.open(path.with_name(f"{path.name}-{what}.bin")) for what in ("symbols", "counts", "places")
        )

    def __len__(self) -> int:
        return len(self.symbols)

    def __getitem__(self, number: Any) -> Any:
        places = np.asarray(self.places[number], dtype=np.int64)
        starts = np.append(0, np.cumsum(self.counts[number], dtype=np.int64))
        return Written(np.asarray(self.symbols[number], dtype=np.int64), starts, places // PHRASE, places % PHRASE)


class Stretches:
    """Stretches of pieces as `Examples`.

    Args: pieces: as they are written. longest: moments of a stretch, at most; longer pieces are cut, and each stretch begins with
        the first moment of its piece, which is only read there. transpose: by up to so many semitones, drawn for each; 0: as they
        are. opening: whether the first moment of a piece is written too.
    """

    def __init__(
        self, writing: Writing, pieces: Sequence[Written], longest: int, transpose: int = 0, opening: bool = False
    ):
        self.writing, self.pieces, self.transpose, self.opening = writing, pieces, transpose, opening
        self.places = [
            (number, low, min(low + longest, len(piece)))
            for number, piece in enumerate(pieces)
            for low in range(0, len(piece), longest)
            if len(piece) - low > 1 or not low
        ]
        self.lengths = np.array([high - low + (low > 0) for _, low, high in self.places])
        self._moved = {by: writing.moved(by) for by in range(-transpose, max(transpose, 1))}

    def item(self, number: int) -> Written:
        """The piece that a stretch is of."""
        return self.pieces[self.places[number][0]]

    def batch(self, numbers: Iterable[int]) -> Moments:
        """Some of them, side by side."""
        return side_by_side([self._stretch(*self.places[int(n)]) for n in numbers], self.writing)

    def _stretch(self, number: int, low: int, high: int) -> tuple[Written, bool]:
        """A stretch, and whether its first moment is written too."""
        import torch

        numbers = np.arange(low, high) if not low else np.append(0, np.arange(low, high))
        piece = self.pieces[number].part(numbers, self._moved[0])
        keys = piece.symbols[(piece.symbols >= 1) & (piece.symbols <= KEYS)]
        if self.transpose and len(keys):
            least, most = max(-self.transpose, 1 - keys.min()), min(self.transpose - 1, KEYS - keys.max())
            by = int(torch.randint(int(least), int(most) + 1, ())) if least <= most else 0
            piece = replace(piece, symbols=self._moved[by][piece.symbols])
        return piece, self.opening and not low


def side_by_side(stretches: Sequence[tuple[Written, bool]], writing: Writing) -> Moments:
    """Stretches as a network takes them, and of each whether its first moment is written, and not only read."""
    import torch

    from throughtime.models.composer import Moments

    symbols, homes = len(writing.names), writing.homes()
    lengths = [len(piece) for piece, _ in stretches]
    shape = max(lengths), len(stretches)
    counts, places, bars = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    written = np.zeros(shape, dtype=bool)
    longest = max(int(np.diff(piece.starts).max(initial=1)) for piece, _ in stretches)
    block = np.full((*shape, longest), symbols, dtype=np.int64)
    before = np.zeros((*shape, BEFORE), dtype=np.int64)
    for b, (piece, opening) in enumerate(stretches):
        length = len(piece)
        counts[:length, b] = np.diff(piece.starts)
        block[:length, b][np.arange(longest) < counts[:length, b, None]] = piece.symbols
        places[:length, b], bars[:length, b], written[:length, b] = piece.places, piece.bars, True
        written[0, b] = opening
        before[:length, b, :LOOKED] = keys_before(block[:length, b])
        before[1:length, b, LOOKED] = homes[block[0, b]].max()
    first = np.zeros(shape, dtype=bool)
    first[0] = True
    tensors = [torch.from_numpy(x) for x in (block, counts, places, bars, before, first, written)]
    return Moments._make([*tensors, torch.tensor(lengths)])


def keys_before(moments: Array) -> Array:
    """The keys struck last before each of moments [T, L], the last first and of a moment the highest first, 0 where there is none,
    [T, LOOKED]."""
    is_key = (moments >= 1) & (moments <= KEYS)
    keys = np.concatenate([np.zeros(LOOKED, dtype=np.int64), moments[is_key]])
    ends = np.concatenate([[0], is_key.sum(1).cumsum()[:-1]]) + LOOKED
    return keys[ends[:, None] - 1 - np.arange(LOOKED)]


# -- what a training is given


def split(items: list[Piece], share: float, seed: int, file: Path) -> tuple[list[Piece], list[Piece]]:
    """The parts of a file that is divided; where none is to be held out, some pieces drawn, with about so large a share of all
    notes, and a piece with all transposed copies of it in one of the two. Raises: UserError where there is one piece alone."""
    if valid := [piece for piece in items if piece.part == "valid"]:
        return items, valid
    items = [piece for piece in items if piece.part != "test"]
    listed: dict[int, list[int]] = {}
    for i, group in enumerate(groups(items)):
        listed.setdefault(group, []).append(i)
    if len(listed) < 2:
        what = {0: "no piece to train on", 1: "one piece"}.get(len(items), f"{len(items)} copies of one piece")
        raise UserError(
            f"{name_of(file)}: holds {what}; at least two are needed, one of them held out: add some, or give --valid"
        )
    if len(listed) < len(items):
        copies = len(items) - len(listed)
        warnings.warn(
            f"{copies:,} pieces are copies of others, some transposed: held out together with them", stacklevel=2
        )
    held, notes, total = set[int](), 0, sum(map(len, items))
    for number in np.random.default_rng((seed, 1)).permutation(len(listed)).tolist():
        grown = notes + sum(len(items[i]) for i in listed[number])
        if held and abs(grown - share * total) > abs(notes - share * total):
            continue
        held.update(listed[number])
        notes = grown
    drawn = [replace(items[i], part="valid") for i in sorted(held)]
    return [piece for i, piece in enumerate(items) if i not in held], drawn


def prepare(config: MusicConfig, train: list[Piece], held: list[Piece], run: Run, advance: Advance) -> MusicConfig:
    """Write all pieces as moments, and choose what was left open. advance: as of `Task.prepare`.

    Raises: UserError for what cannot be trained on.
    """
    parts = {
        "train": [piece for piece in train if piece.part in ("", "train")],
        "valid": [piece for piece in held if piece.part in ("", "valid")],
    }
    for part, given in (("train", train), ("valid", held)):
        if not parts[part]:
            raise UserError(f"{given[0].place}: no piece is of the part {part!r}; add one, or name another file")
    writing = _writing(config, parts["train"])
    run.write_json(WRITING, {"kind": writing.kind, **writing.settings()})
    total = sum(map(len, parts.values()))
    written: dict[str, list[Written]] = {}
    for part, pieces in parts.items():
        written[part] = []
        for piece in pieces:
            made = Written.of(piece, writing)
            if len(made) > 1:
                written[part].append(made)
            advance(1 / total)
        if not written[part]:
            what = "to train on" if part == "train" else "held out"
            raise UserError(f"{pieces[0].place}: no piece {what} has two moments; add longer ones")
        save(written[part], run.corpus / part)
    Chains.of(written["train"], len(writing.names)).save(run.folder / CHAINS)
    Grams.of(parts["train"]).save(run.folder / GRAMS)
    run.write_json(LIKENESS, histograms(parts["train"]))
    chunk = config.training.chunk or CHUNK
    stretches = sum(-(-len(piece) // chunk) for piece in written["train"])
    fitted, trained = defaults.music(config, stretches, sum(len(piece.symbols) for piece in written["train"]))
    return settled(config, model=fitted, data={"writing": writing.kind, "grid": writing.grid}, training=trained)


def _writing(config: MusicConfig, pieces: Sequence[Piece]) -> Writing:
    """How pieces are to be written."""
    kind, sets = config.data.writing, all(piece.sets for piece in pieces)
    if kind == "auto":
        kind = "frames" if sets else "events"
    if kind == "frames":
        return FrameWriting(config.data.grid or (max(p.resolution for p in pieces) if sets else grid_of(pieces)))
    values = Values.of(pieces)
    return EventWriting(config.data.grid or grid_of(pieces), values.in_all_keys() if config.data.transpose else values)


def writing_of(run: Run) -> Writing:
    """How the pieces of a run are written. Raises: UserError where the run is damaged."""
    about = run.read_json(WRITING)
    try:
        if about["kind"] == "frames":
            return FrameWriting(int(about["grid"]), int(about["quarters"]))
        return EventWriting(int(about["grid"]), Values.opened(about["values"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.folder / WRITING}: the run is damaged: {error!r}") from error


def examples(config: MusicConfig, run: Run, part: str) -> Stretches:
    """What `prepare` left of a part."""
    training = part == "train"
    longest = config.training.chunk or CHUNK
    transpose = config.data.transpose if training else 0
    return Stretches(
        writing_of(run), Saved(run.corpus / part), longest if training else ALL, transpose, opening=training
    )


def network(config: MusicConfig, run: Run) -> Composer:
    """A fresh network."""
    from throughtime.models.composer import Composer, Grammar

    m, writing = config.model, writing_of(run)
    return Composer(
        Grammar(writing.follow(), writing.restarts(), writing.notes()),
        writing.places,
        PHRASE,
        **chosen(m, ("hidden_size", "chain_size", "embedding_size", "dropout"), run),
        cell=m.cell,
        layers=m.layers,
        window=(config.training.chunk or CHUNK) if m.kind == "transformer" else None,
    )
