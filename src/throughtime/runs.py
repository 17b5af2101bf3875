"""A run folder: what `train` writes and every other verb takes.

config.yaml          the settings, whole
model.safetensors    the best weights; their step and score in the header
vocabulary.json      (or what else the task needs to read its inputs)
metrics.jsonl        a line a step and a line an evaluation
learning_curve.png   a picture of the same
README.md            a model card with the measured scores
checkpoints/         what --resume goes on from, until the training has ended
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.config import Config, build_config, read_config
from throughtime.errors import UserError

if TYPE_CHECKING:
    from torch import nn

# what the tasks read their inputs by: of another task's training it must not stay
OF_TASKS = ("vocabulary.json", "labels.json", "tagset.json", "vocabularies.json")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` in one step once the block has ended well.

    A process that dies at any moment leaves either the old file or the new one, whole.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


class Run:
    """A run folder on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    config = property(lambda self: self.folder / "config.yaml")
    weights = property(lambda self: self.folder / "model.safetensors")
    metrics = property(lambda self: self.folder / "metrics.jsonl")
    card = property(lambda self: self.folder / "README.md")
    curve = property(lambda self: self.folder / "learning_curve.png")
    summary = property(lambda self: self.folder / "summary.json")
    checkpoints = property(lambda self: self.folder / "checkpoints")
    checkpoint = property(lambda self: self.checkpoints / "last.safetensors")
    schedule = property(lambda self: self.checkpoints / "schedule.json")
    corpus = property(lambda self: self.checkpoints / "data")

    @classmethod
    def check_free(cls, folder: Path, *, overwrite: bool) -> None:
        """Raises: UserError where a run cannot be made in `folder`: it holds one and `overwrite` is not asked for, or is
        something else.
        """
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file; name a folder for --out")
        if cls(folder).config.exists():
            if not overwrite:
                raise UserError(f"{folder}: holds a run; go on with it by --resume, or start over by --overwrite")
        elif folder.exists() and any(folder.iterdir()) and not cls(folder).corpus.is_dir():  # a start cut off is free
            raise UserError(f"{folder}: is not empty and not a run; name a new folder for --out")

    @classmethod
    def create(cls, folder: Path, *, overwrite: bool) -> Run:
        """An empty run folder. Raises: UserError as `check_free`, or where it cannot be made."""
        cls.check_free(folder, overwrite=overwrite)
        run = cls(folder)
        run._clear()
        try:
            run.corpus.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder}: cannot make the run folder: {error.strerror}") from error
        return run

    def _clear(self) -> None:
        """Remove what a training wrote, and nothing else that lies in the folder."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        for name in OF_TASKS:
            (self.folder / name).unlink(missing_ok=True)
        for path in (self.weights, self.metrics, self.card, self.curve, self.summary, self.config):
            path.unlink(missing_ok=True)

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
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path}: the run is damaged: the file is missing") from error
        except ValueError as error:
            raise UserError(f"{path}: the run is damaged: {error}") from error

    def scores(self) -> dict[str, Any]:
        """What the training wrote down of itself at its end, or so far; empty before the first evaluation."""
        return self.read_json(self.summary.name) if self.summary.exists() else {}

    def finish(self) -> None:
        """Remove what only a training needs, in one step first, so that a kill leaves no half of it."""
        done = self.folder / ".checkpoints-done"
        shutil.rmtree(done, ignore_errors=True)
        self.checkpoints.rename(done)
        shutil.rmtree(done)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl. A last line cut short by a kill is left out."""
        lines = []
        if self.metrics.exists():
            for number, line in enumerate(self.metrics.read_text(encoding="utf-8").splitlines(keepends=True), 1):
                if line.endswith("\n"):
                    try:
                        lines.append(json.loads(line))
                    except ValueError as error:
                        raise UserError(f"{self.metrics}:{number}: is damaged: {error}") from error
        return lines

    def save_weights(self, network: nn.Module, about: dict[str, Any]) -> None:
        """Write the weights in one step; `about` goes into the header as JSON."""
        from safetensors.torch import save_model

        with replacing(self.weights) as temporary:
            save_model(network, str(temporary), {"format": "pt", "throughtime": json.dumps(about)})

    def load_weights(self, network: nn.Module, path: Path | None = None) -> None:
        """Put the saved weights, or those of another file, into a network. Raises: UserError where they are missing, damaged or do
        not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        path = path or self.weights
        if not path.exists():
            raise UserError(f"{self.folder}: has no weights yet; go on with the training by --resume")
        try:
            load_model(network, str(path))
        except (SafetensorError, RuntimeError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())  # of a state dict the keys stand in the lines below
            raise UserError(f"{path}: the run is damaged, or of another version: {reason[:200]}") from error
