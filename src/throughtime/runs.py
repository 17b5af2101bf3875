"""A run folder: what `train` writes and every other verb takes.

config.yaml          the settings, whole
model.safetensors    the best weights; in the header their step and score, the settings they were trained with, the sums of the
                     files they belong to, and their own
vocabulary.json      (or what else the task needs to read its inputs)
metrics.jsonl        a line a step and a line an evaluation
learning_curve.png   a picture of the same
README.md            a model card with the measured scores
settled.json         what was chosen once the network was trained, of tasks that choose so (`Task.settle`)
summary.json         the scores and the cost; it is written last: where it is, the training has ended
checkpoints/         what --resume goes on from, until the training has ended
.lock                which process trains in it, while one does
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.config import Config, RunConfig, build_config, flat, place_in, read_config
from throughtime.errors import UserError, reason
from throughtime.files import LOCK, SUM, is_as, is_temporary, read_json, replacing, size_and_sum, write_json, write_text
from throughtime.weights import HELD, INT8, check_fits, put, read_about, read_tensors, state_of, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

__all__ = ["Run", "replacing", "write_text"]

PREPARED = ".prepared-"  # how a folder begins in which a training makes ready what it needs
SUMS = "checksums.json"  # of what is made ready
SETTLED = "settled.json"
# settings by which a trained network is built, reads and answers; of the others it keeps what they were
DECIDING = ("task", "model.", "data.", "training.chunk")
RECORD = ("model.init_from",)  # where something came from


class Run:
    """A run folder on disk. corpus: what training alone needs; None: where it lies in a run."""

    def __init__(self, folder: Path, corpus: Path | None = None) -> None:
        self.folder = folder
        self.corpus = folder / "checkpoints" / "data" if corpus is None else corpus

    config = property(lambda self: self.folder / "config.yaml")
    weights = property(lambda self: self.folder / "model.safetensors")
    metrics = property(lambda self: self.folder / "metrics.jsonl")
    card = property(lambda self: self.folder / "README.md")
    curve = property(lambda self: self.folder / "learning_curve.png")
    summary = property(lambda self: self.folder / "summary.json")
    settled = property(lambda self: self.folder / SETTLED)
    checkpoints = property(lambda self: self.folder / "checkpoints")
    checkpoint = property(lambda self: self.checkpoints / "last.safetensors")
    schedule = property(lambda self: self.checkpoints / "schedule.json")

    @classmethod
    def check_free(cls, folder: Path, *, overwrite: bool) -> None:
        """Raises: UserError where a run cannot be made in `folder`: it holds one and `overwrite` is not asked for, or is
        something else.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder for --out")
        run = cls(folder)
        if run.config.exists():
            if not overwrite:
                raise UserError(f"{folder}: holds a run; go on with it by --resume, or start over by --overwrite")
        elif folder.exists() and not run.corpus.is_dir() and not (folder / LOCK).exists() and any(folder.iterdir()):
            # where these are, a start was cut off
            raise UserError(f"{folder}: is not empty and not a run; name a new folder for --out")

    @contextmanager
    def preparing(self) -> Iterator[Run]:
        """A run for what a training makes ready, until `begin` puts it in its place."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=PREPARED, ignore_cleanup_errors=True) as name:
            made = Run(Path(name, "run"), Path(name, "data"))
            made.folder.mkdir()
            made.corpus.mkdir()
            yield made

    def begin(self, prepared: Run, config: str) -> None:
        """Put what was made ready in its place, and that of another run away.

        The settings come last: without them it is no run.
        """
        own = sorted(prepared.folder.iterdir())
        parts = {"files": own, "corpus": sorted(prepared.corpus.iterdir())}
        sums = {part: {p.name: size_and_sum(p) for p in paths} for part, paths in parts.items()}
        write_json(prepared.corpus / SUMS, sums)
        write_text(prepared.corpus / self.config.name, config)
        self._clear()  # all is written: from here on no disk can be too full
        self.checkpoints.mkdir()
        for path in own:
            path.replace(self.folder / path.name)
        prepared.corpus.rename(self.corpus)
        (self.corpus / self.config.name).replace(self.config)

    def _clear(self) -> None:
        """Remove what a training wrote, and nothing else that lies in the folder."""
        try:
            own = self.files or list((read_tensors(self.weights)[1] or {}).get("files") or {})
        except UserError:  # it is damaged: what cannot be known is left
            own = []
        self.config.unlink(missing_ok=True)
        _remove(self.checkpoints)
        for path in (self.weights, self.metrics, self.card, self.curve, self.settled, self.summary):
            path.unlink(missing_ok=True)
        for name in own:
            (self.folder / Path(name).name).unlink(missing_ok=True)

    def drop_unlearned(self) -> None:
        """Remove a run whose training was refused before anything of it was saved, so that its folder is free for the next."""
        if not self.checkpoint.exists() and not self.weights.exists():
            self._clear()

    @property
    def sums(self) -> Path:
        """What was made ready, by its sums."""
        return self.corpus / SUMS

    @property
    def files(self) -> list[str]:
        """The names of what the trained model needs to read its inputs, while it is trained."""
        return list(self._sums()["files"])

    def _sums(self) -> dict[str, dict[str, Any]]:
        """Of what was made ready, by name, what it was; of an older run perhaps nothing is known."""
        path = self.sums
        known = read_json(path) if path.exists() else {}
        if not isinstance(known, dict) or not all(isinstance(value, dict | list) for value in known.values()):
            raise UserError(f"{path}: the run is damaged: it does not hold sums")
        if any(isinstance(value, list) for value in known.values()):  # of a version that did not tell the two apart
            there = {name for name in known if (self.corpus / name).exists()}
            parts = {"files": set(known) - there, "corpus": there}
            return {part: {name: known[name] for name in sorted(names)} for part, names in parts.items()}
        return {"files": known.get("files", {}), "corpus": known.get("corpus", {})}

    def check_prepared(self) -> None:
        """Raises: UserError where what a training needs is not what was made ready for it."""
        if not self.corpus.is_dir():
            raise UserError(f"{self.corpus}: is missing; without it the training cannot go on")
        for part, folder in (("files", self.folder), ("corpus", self.corpus)):
            for name, as_it_was in self._sums()[part].items():
                if not is_as(folder / name, as_it_was):
                    raise UserError(f"{folder / name}: the run is damaged: it is not what the training made ready")

    def tidy(self) -> None:
        """Remove what processes that were killed left half done."""
        own = (self.config, self.weights, self.metrics, self.card, self.curve, self.settled, self.summary)
        names = (*(path.name for path in own), self.checkpoint.name, self.schedule.name)
        for folder in (self.folder, self.checkpoints):
            for path in list(folder.iterdir()) if folder.is_dir() else []:
                if is_temporary(path, names):
                    path.unlink(missing_ok=True)
                elif folder is self.folder and path.name.startswith((PREPARED, ".checkpoints-done")):
                    shutil.rmtree(path, ignore_errors=True)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """An existing run. Raises: UserError where the folder is missing, no run, damaged or from a newer version."""
        run = cls(folder)
        if not folder.is_dir():
            raise UserError(f"{folder}: no such run folder")
        if not run.config.is_file():
            raise UserError(f"{folder}: is not a run folder: it has no {run.config.name}")
        values = read_config(run.config)
        version = values.get("format")
        if not isinstance(version, int):
            raise UserError(f"{run.config}: is damaged: it does not say its format")
        return run

    def task_name(self) -> str:
        """The task this run was trained for."""
        return str(read_config(self.config).get("task"))

    def read_config(self, kind: type[Config]) -> Config:
        """The settings. Raises: UserError where they are damaged, with file and line."""
        return build_config(kind, read_config(self.config), self.config)

    def read_json(self, name: str) -> Any:
        """A JSON file of the run. Raises: UserError where it is missing or damaged."""
        return read_json(self.folder / name)

    def write_json(self, name: str, values: Any) -> None:
        """Write a JSON file that the trained model needs."""
        write_text(self.folder / name, json.dumps(values, ensure_ascii=False))

    def write_data(self, name: str, values: Any) -> None:
        """Write a JSON file that training alone needs."""
        write_text(self.corpus / name, json.dumps(values, ensure_ascii=False))

    def read_data(self, name: str) -> Any:
        """What `write_data` wrote."""
        return json.loads((self.corpus / name).read_text(encoding="utf-8"))

    def write_summary(self, values: dict[str, Any]) -> None:
        """The scores and the cost of a training, and the sum of its weights. With it the training has ended."""
        _, about = read_tensors(self.weights)
        write_json(self.summary, {**values, "weights": (about or {}).get(SUM)})

    def scores(self) -> dict[str, Any]:
        """What the training wrote down of itself at its end; empty before. Raises: UserError where it is damaged or missing."""
        if not self.summary.exists() and not self.checkpoints.exists():
            raise UserError(f"{self.summary}: is missing: what this run was and scored is not known")
        values = self._summary()
        values.pop("weights", None)
        return values

    def _summary(self) -> dict[str, Any]:
        if not self.summary.exists():
            return {}
        values = read_json(self.summary, summed="weights")
        scores = values.get("scores") if isinstance(values, dict) else None
        if not isinstance(scores, dict) or not isinstance(values.get("minutes", 0.0), float | int):
            raise UserError(f"{self.summary}: the run is damaged: it does not hold the scores")
        return dict(values)

    def finish(self) -> None:
        """Remove what only a training needs. Where a kill leaves a part of it, the next call takes that away."""
        _remove(self.checkpoints)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. A last line cut short by a kill is left out. Raises: UserError where one is damaged."""
        if not self.metrics.exists():
            return []
        if not self.metrics.is_file():
            raise UserError(f"{self.metrics}: is no file")
        try:
            *whole, _ = self.metrics.read_bytes().split(b"\n")
        except OSError as error:
            raise UserError(f"{self.metrics}: cannot read it: {reason(error)}") from error
        lines = []
        for number, line in enumerate(whole, 1):
            try:
                values = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{self.metrics}:{number}: is damaged: {error}") from error
            if not _is_metric(values):
                raise UserError(f"{self.metrics}:{number}: is damaged: no step with its loss or held-out scores")
            lines.append(values)
        return lines

    # -- the weights

    def origin(self, config: RunConfig) -> dict[str, Any]:
        """What weights and checkpoints belong to: the settings, and the sums of the files that the trained model needs."""
        return {"config": config.model_dump(), "files": {name: size_and_sum(self.folder / name) for name in self.files}}

    def check_origin(self, about: dict[str, Any], config: RunConfig, path: Path, *, going_on: bool = False) -> None:
        """Hold what is said in the header of `path` against the settings and files as they are now. Warns of a setting that was
        changed and has no effect on what is trained.

        Args: going_on: a training is to go on, for which every setting counts.
        Raises: UserError for the first that would give other answers.
        """
        for name, as_it_was in (about.get("files") or {}).items():
            if not is_as(self.folder / name, as_it_was):
                raise UserError(
                    f"{self.folder / name}: the run is damaged: it is not the file that {path.name} was trained with"
                )
        if about.get("config") is None:
            return
        then = dict(flat(build_config(type(config), about["config"], None).model_dump()))
        changed = [(key, value) for key, value in flat(config.model_dump()) if value != then[key]]
        said = [
            f"{place_in(self.config, tuple(key.split('.')))}{key}: {value!r}, but {path} was trained with {then[key]!r}"
            for key, value in changed
        ]
        for (key, _), what in zip(changed, said, strict=True):
            if going_on or (key.startswith(DECIDING) and key not in RECORD):
                raise UserError(f"{what}; put it back")
        for what in said:
            warnings.warn(f"{what}; this changes no answer", stacklevel=3)

    def save_weights(self, network: nn.Module, about: dict[str, Any]) -> None:
        """Write the weights in one step; `about` goes into the header as JSON."""
        write_tensors(self.weights, state_of(network), about)

    def open_weights(self, config: RunConfig, make: Callable[[], nn.Module]) -> nn.Module:
        """The network that `make` makes, with the weights in it; it is made once it is known that they fit.

        Raises: UserError where anything is missing, damaged, or of another run.
        """
        tensors, of_these_settings = self._weights_of(config)
        if not of_these_settings:  # an older one does not say which it was trained with
            check_fits(make, tensors, self.weights)
        network = make()
        put(network, tensors, self.weights)
        return network

    def in_int8(self) -> bool:
        """Whether its weights were rounded to eight bits."""
        return (read_about(self.weights) or {}).get(HELD) == INT8

    def check_weights(self, config: RunConfig) -> None:
        """Raises: UserError where the weights are missing, damaged, or do not belong to the settings and files."""
        self._weights_of(config)

    def _weights_of(self, config: RunConfig) -> tuple[dict[str, Tensor], bool]:
        """The weights, and whether it is known that they were trained with these settings."""
        if not self.weights.exists():
            raise UserError(f"{self.folder}: has no weights yet; go on with the training by --resume")
        tensors, about = read_tensors(self.weights)
        ended_with = self._summary().get("weights")
        if ended_with is not None and ended_with != (about or {}).get(SUM):
            raise UserError(
                f"{self.weights}: the run is damaged: these are not the weights that its training ended with"
            )
        known = about is not None and SUM in about
        if about is not None and known:
            self.check_origin(about, config, self.weights)
        return tensors, known

    def load_weights(self, network: nn.Module, path: Path | None = None) -> None:
        """Put the saved weights, or those of another file, into a network. Raises: UserError where they are missing, damaged or do
        not fit."""
        path = path or self.weights
        put(network, read_tensors(path)[0], path)


def _remove(folder: Path) -> None:
    """Remove a folder, whatever is there in its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def _is_metric(values: Any) -> bool:
    if not isinstance(values, dict) or type(values.get("step")) is not int:
        return False
    scores = values["valid"] if "valid" in values else {"loss": values.get("loss")}
    numbers = [v for v in scores.values() if v is not None] if isinstance(scores, dict) else []
    return bool(numbers) and all(isinstance(v, float | int) and math.isfinite(v) for v in numbers)
