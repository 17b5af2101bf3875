"""A run in another place: a copy of its folder, and a repository of the Hugging Face hub."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import throughtime
from throughtime.errors import UserError
from throughtime.files import SUM, alone_in, cannot_write, read_json, write_json, write_text
from throughtime.runs import Run
from throughtime.weights import HELD, INT8, SCALES, read_tensors, state_of, write_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from throughtime.config import RunConfig

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)  # of a repository; a path may look so too
LIBRARY = "throughtime"
IN_CARD = (
    "\n\nIts weights were rounded to eight bits after the training, and what stands above was scored before; "
    "`throughtime evaluate` scores it as it is.\n"
)


def files_of(run: Run) -> list[Path]:
    """The files that a run is made of, its settings the last; what else lies in its folder is not of it.

    Raises: UserError where its weights are damaged or do not say which files they belong to.
    """
    _, about = read_tensors(run.weights)
    named = (about or {}).get("files")
    if not isinstance(named, dict):
        raise UserError(
            f"{run.folder}: its weights do not say which files they belong to, as those of an earlier version; copy the "
            "folder itself"
        )
    if wrong := next((name for name in named if Path(name).name != name), None):
        raise UserError(f"{run.weights}: the run is damaged: it belongs to {wrong!r}, which is no file of a run")
    written = [path for path in (run.summary, run.settled, run.metrics, run.card, run.curve) if path.exists()]
    return [*(run.folder / name for name in named), run.weights, *written, run.config]


class Rounded(NamedTuple):
    """A network whose weights were rounded since it was loaded. of: what was made of a tensor of the run. small: matrices as eight
    bits and their scales, of the tensors of the network."""

    of: Callable[[Tensor], Tensor]
    small: Callable[[Mapping[str, Tensor]], Mapping[str, tuple[Tensor, Tensor]]]

    def write(self, run: Run, network: nn.Module) -> None:
        """Put the weights of the network into a copy of its run, in the place of those it has."""
        tensors, (_, about) = state_of(network), read_tensors(run.weights)
        small = self.small(tensors)
        parts = {name: small[name][0] if name in small else tensor for name, tensor in tensors.items()}
        scales = {name + SCALES: scale for name, (_, scale) in small.items()}
        said = {name: value for name, value in (about or {}).items() if name != SUM}
        total = write_tensors(run.weights, {**parts, **scales}, {**said, HELD: INT8})
        write_json(run.summary, {**read_json(run.summary, summed="weights"), "weights": total})
        if run.card.exists():
            write_text(run.card, run.card.read_text(encoding="utf-8").rstrip("\n") + IN_CARD)


def copy_run(
    run: Run,
    config: RunConfig,
    network: nn.Module,
    folder: Path,
    *,
    overwrite: bool = False,
    rounded: Rounded | None = None,
) -> None:
    """Write a trained network and all that belongs to it into another folder, whole or not at all.

    Args: config, network: as they were loaded from `run`. overwrite: whether a run that `folder` holds is replaced; what else
        lies in it stays. rounded: where the network is one that was rounded since.
    Raises: UserError where the folder is taken, the training has not ended, the run is damaged, or the network was changed since
        it was loaded.
    """
    other = Run(folder)
    if folder.resolve() == run.folder.resolve():
        raise UserError(f"{folder}: is the folder of the run itself; name another")
    if other.config.exists() and not overwrite:
        raise UserError(f"{folder}: holds a run; name another folder, or replace it by overwrite=True (--overwrite)")
    Run.check_free(folder, overwrite=True)
    if not run.summary.exists():
        raise UserError(f"{run.folder}: its training has not ended; go on with it by --resume")
    run.check_weights(config)
    _check_same(run, network, rounded)
    *parts, settings = files_of(run)
    try:
        with alone_in(folder):
            other.tidy()
            with other.preparing() as made:
                for path in parts:
                    shutil.copyfile(path, made.folder / path.name)
                if rounded is not None:
                    rounded.write(made, network)
                other.begin(made, settings.read_text(encoding="utf-8"))
            other.finish()
    except OSError as error:
        raise cannot_write(folder, error) from error


def _check_same(run: Run, network: nn.Module, rounded: Rounded | None = None) -> None:
    """Raises: UserError where the weights of the run are not those of the network, nor what they were rounded to."""
    import torch

    saved, _ = read_tensors(run.weights)
    state = {name: tensor.detach().cpu() for name, tensor in state_of(network).items()}

    def same(name: str) -> bool:
        found, right = state[name], saved[name]
        return torch.equal(found, right) or (rounded is not None and torch.equal(found, rounded.of(right)))

    if state.keys() != saved.keys() or not all(map(same, saved)):
        raise UserError(
            f"{run.folder}: these are not the weights of the run: they were changed since it was loaded, and its scores "
            "are not theirs; load it again"
        )


# -- the Hugging Face hub


def find_run(name: str | Path, *, download: bool = False) -> Path:
    """The folder of a run: a folder here, or, where it is asked for, a repository of the hub called user/name.

    What is downloaded is kept in the hub's cache; where the hub cannot be reached, a copy there is taken.

    Raises: UserError where there is neither, or the repository is no run.
    """
    folder = Path(name)
    if folder.exists():
        if download:
            warnings.warn(f"{folder}: is a folder here, which is taken; nothing is downloaded", stacklevel=2)
    elif NAME.fullmatch(folder.as_posix()):
        if not download:
            raise UserError(
                f"{folder}: no such run folder; a repository of that name on the Hugging Face hub is read with --download, in "
                "Python with load(…, download=True)"
            )
        folder = _downloaded(folder.as_posix())
    elif download:
        raise UserError(
            f"{folder}: no such run folder, nor the name of a repository of the Hugging Face hub, user/name"
        )
    return folder


def _downloaded(name: str) -> Path:
    """Of a repository the files of a run and no others, all of one commit; the settings first, to know whether it is one."""
    from huggingface_hub import snapshot_download

    commit: str | None = None

    def get(*files: str, shown: bool = False) -> Run:
        with _reaching(name, shown):
            folder = snapshot_download(
                name,
                revision=commit,
                allow_patterns=[re.sub(r"([*?[])", r"[\1]", file) for file in files],
                library_name=LIBRARY,
                library_version=throughtime.__version__,
            )
        return Run(Path(folder))

    run = get("config.yaml")
    commit = run.folder.name
    try:
        if not run.config.exists():
            raise UserError("it has no config.yaml")
        Run.open(run.folder)
        known = (run.weights, run.summary, run.settled, run.metrics, run.card, run.curve)
        get(*(path.name for path in known), shown=True)
        get(*(path.name for path in files_of(run)))
    except UserError as error:
        raise UserError(f"{name}: the repository is no run of throughtime: {error}") from error
    return run.folder


def upload(
    run: Run,
    config: RunConfig,
    network: nn.Module,
    name: str,
    *,
    private: bool | None = None,
    rounded: Rounded | None = None,
) -> str:
    """Put a trained network into a repository of the hub, made where it is missing.

    Args: name: user/name. private: whether only its owner sees it; None: as the account has it, or the repository is.
        rounded: as of `copy_run`.
    Returns: the address of the commit.
    Raises: UserError as `copy_run`, and where the hub cannot be reached or does not let it in.
    """
    from huggingface_hub import HfApi

    if not NAME.fullmatch(name):
        raise UserError(f"{name!r}: is no name of a repository of the Hugging Face hub: user/name")
    with tempfile.TemporaryDirectory(prefix="throughtime-") as place:
        folder = Path(place, "run")
        copy_run(run, config, network, folder, rounded=rounded)
        _check_card(run)
        api = HfApi(library_name=LIBRARY, library_version=throughtime.__version__)
        with _reaching(name, shown=True):
            api.create_repo(name, private=private, exist_ok=True)
            if private and not api.model_info(name).private:
                raise UserError(f"{name}: is there already and everybody sees it; make it private on the hub first")
            commit = api.upload_folder(
                repo_id=name, folder_path=folder, commit_message=f"A run of throughtime {throughtime.__version__}"
            )
    return str(commit.commit_url)


def _check_card(run: Run) -> None:
    """Says where the model card names no licence. Raises: UserError where the hub could not read what stands at its top."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        licence = ModelCard.load(run.card).data.license if run.card.exists() else None
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{run.card}: the hub cannot read its first lines: {' '.join(str(error).split())}") from error
    if licence is None:
        warnings.warn(
            f"{run.card}: names no licence, so that nobody knows what they may do with the model; write one into its first "
            "lines, as `license: apache-2.0`",
            stacklevel=4,
        )


@contextmanager
def _reaching(name: str, shown: bool) -> Iterator[None]:
    """Raises: UserError in the place of what the hub, or the way there, answers. shown: whether a terminal shows how far it is."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HFValidationError, HTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    watched = shown and sys.stderr is not None and sys.stderr.isatty()
    try:
        with nullcontext() if watched else disable_progress_bars():
            yield
    except HFValidationError as error:
        raise UserError(f"{name}: is no name of a repository: {error}") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{name}: the Hugging Face hub has no such repository, or not for you: see to the name, or log in by "
            "`hf auth login`"
        ) from error
    except (HTTPError, OSError) as error:
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error
        why = " ".join(str(cause).split())[:200].rstrip(".")
        raise UserError(
            f"{name}: the Hugging Face hub at {ENDPOINT} could not be reached, or refused: {why}; see to the connection and the "
            "login (`hf auth login`), or name a run folder that is here"
        ) from error
