"""Training: from files to a run folder that is the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from throughtime.config import (
    BUDGETS,
    FRAME,
    STDIN,
    RunConfig,
    build_config,
    flat,
    merge,
    place_in,
    read_config,
    to_yaml,
)
from throughtime.errors import UserError, reason
from throughtime.files import alone_in, standard_input
from throughtime.runs import Run
from throughtime.tasks import Task, Trained, find_task, load
from throughtime.tasks.source import FrameFile, is_frame, name_of
from throughtime.training.notes import noting
from throughtime.training.precision import choose_precision
from throughtime.training.progress import Reporter
from throughtime.training.threads import check_threads, threads_restored

__all__ = ["Reporter", "prepare_config", "train"]

HELD = "held"  # where a held-out frame is written


def train(  # noqa: PLR0913
    task: str,
    files: Any = (),
    *,
    out: str | Path,
    valid: Any = None,
    config: str | Path | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    model: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    training: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Trained[Any]:
    """Train a network on files and leave it in a run folder.

    Args:
        task: "text", "classify" (of texts, or of recordings), "tag", "translate", "forecast", or one of another package.
        files: what to train on: paths, "-" is standard input; or a frame of pandas, polars or pyarrow with the columns of a table
            that the task reads (needs narwhals).
        out: the run folder to make.
        valid: a held-out file, or two that belong together, or a frame; None holds out a part of the files.
        config: a YAML file of settings; the arguments below go before it.
        minutes, epochs, steps: the budget, one of them; none: 5 minutes. seed: of everything that is drawn.
        model, data, training: settings by name, as under `--model.…`, `--data.…`, `--training.…` on the command line.
        resume: go on with a training that was cut off, exactly where its last checkpoint stands.
        overwrite: replace a run that `out` holds. progress: say on standard error how it goes.
    Returns: the trained model, as `load` gives it: the weights that scored best on the held-out data.
    Raises: UserError for input or settings that cannot work; NotFinite (a UserError) where a loss or gradient is not a number;
        KeyboardInterrupt where it was interrupted, after saving.
    """
    paths, folder = _named(files), Path(out)
    chosen = find_task(task).reading(_recorded(folder) if resume and not paths else paths, data or {})
    over = {"minutes": minutes, "epochs": epochs, "steps": steps, "seed": seed, "model": model, "data": data}
    over = {name: value for name, value in {**over, "training": training}.items() if value is not None}
    report = Reporter(progress)
    held = _named(() if valid is None else valid)
    if resume and (config or held):
        raise UserError("--resume keeps a run's settings: leave out --config and --valid")
    if resume and overwrite:
        raise UserError("--resume goes on with a run and --overwrite replaces it: give one")
    if resume:
        return _resume(chosen, paths, folder, over, report)
    settings = prepare_config(chosen, over, Path(config) if config else None)
    return _start(chosen, settings, paths, held, folder, overwrite, report)


def _recorded(folder: Path) -> list[Path]:
    """The files that the run in a folder was trained on, where there is one; what is wrong with it is said by whoever goes on."""
    config = Run(folder).config
    return [Path(str(f)) for f in read_config(config).get("files") or []] if config.exists() else []


def _named(files: Any) -> list[Path | FrameFile]:
    """Files, one or several, or a frame in place of one."""
    several = [files] if isinstance(files, str | Path) or is_frame(files) else list(files)
    return [FrameFile(f) if is_frame(f) else Path(f) for f in several]


def prepare_config(task: Task[Any, Any], over: Mapping[str, Any], config: Path | None) -> RunConfig:
    """Settings from a file with `over` laid on top, checked. Raises: UserError for what is unknown or out of range."""
    values = read_config(config) if config else {}
    if values.get("task", task.name) != task.name:
        raise UserError(f"{config}: is for the task {values['task']!r}, not {task.name!r}")
    if config:
        build_config(task.config_type, values, config)  # what is wrong in the file is said with its line
    if any(name in over for name in BUDGETS):
        values = {k: v for k, v in values.items() if k not in BUDGETS}
    built: RunConfig = build_config(task.config_type, merge(values, over)).with_budget()
    try:
        check_threads(built.training.threads)
        task.check(built)
    except UserError as error:
        key = str(error).partition(":")[0]
        said_here = any(name == key for name, _ in flat(over))
        raise UserError(("" if said_here else place_in(config, tuple(key.split(".")))) + str(error)) from error
    return built


def _start(
    task: Task[Any, Any],
    config: RunConfig,
    files: list[Path | FrameFile],
    valid: list[Path | FrameFile],
    folder: Path,
    overwrite: bool,
    report: Reporter,
) -> Trained[Any]:
    files = files or [Path(f) for f in config.files]
    recorded = [config.valid] if isinstance(config.valid, str) else config.valid or []
    valid = valid or [Path(v) for v in recorded]
    if not files:
        raise UserError("no file to train on: name one or more, or - for standard input")
    accelerator, run = _accelerator(config.training.device), Run(folder)
    precision, said = choose_precision(config.training.precision, task, accelerator.device.type)
    config = config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})

    def prepare() -> None:
        Run.check_free(folder, overwrite=overwrite)  # again, now that nobody else can make one
        run.tidy()
        with run.preparing() as made:  # an old run stays whole until all is ready
            real = [_on_disk(f, made.corpus) for f in files]
            held = [_on_disk(f, made.corpus / HELD) for f in valid]
            with noting(made.corpus):
                task.check(config, [*real, *held])
                with report.counting("reading", 2.0 if held else 1.0, "") as advance:
                    items = task.read_along(config, real, None, advance)
                    others = task.read_along(config, held, None, advance) if held else None
                parts = task.split(config, items, real) if others is None else (items, others)
                _check_there(parts, real, held)
                with report.counting("preparing", 1.0, "") as advance:
                    full = task.prepare(config, *parts, made, advance)
                _check_steps(task, full, made, real, held)
            names = [str(v) for v in valid]
            named = full.model_copy(
                update={
                    "files": [str(f) for f in files],
                    "valid": names if len(names) > 1 else names[0] if names else None,
                }
            )
            named = _shareable(named, config, accelerator.num_processes)
            build_config(task.config_type, named.model_dump())  # what was chosen can be read again
            for copied in (STDIN, FRAME, f"{HELD}/{FRAME}"):
                (made.corpus / copied).unlink(missing_ok=True)
            if (made.corpus / HELD).is_dir():
                (made.corpus / HELD).rmdir()
            run.begin(made, to_yaml(named))

    Run.check_free(folder, overwrite=overwrite)
    with _alone(accelerator, folder):
        try:
            _on_first(accelerator, prepare)
        except OSError as error:
            raise UserError(f"{error.filename or folder}: cannot write the run: {reason(error)}") from error
        try:
            return _train(task, Run.open(folder), accelerator, report, said)
        except Exception:
            if accelerator.process_index == 0:
                run.drop_unlearned()
            raise


def _check_there(parts: Sequence[Sequence[Any]], files: list[Path], valid: list[Path]) -> None:
    """Raises: UserError where no item is there to train on, or none is held out."""
    for items, where, what in zip(parts, (files, valid or files), ("to train on", "held out"), strict=True):
        if not items:
            raise UserError(f"{name_of(where[0])}: too little is in it: nothing {what}; name a file with more")


def _check_steps(task: Task[Any, Any], config: Any, made: Run, files: list[Path], valid: list[Path]) -> None:
    """Raises: UserError where items are there, and all are without a step to learn from or to score."""
    for part, where, what in (("train", files, "to learn from"), ("valid", valid or files, "held out to score")):
        if not task.steps(task.examples(config, made, part)):
            raise UserError(
                f"{name_of(where[0])}: all that is there {what} is empty: 0 {task.unit}; give longer examples"
                + ("" if valid or part == "train" else ", or --valid")
            )


def _resume(
    task: Task[Any, Any], files: list[Path | FrameFile], folder: Path, over: Mapping[str, Any], report: Reporter
) -> Trained[Any]:
    run = Run.open(folder)
    if run.task_name() != task.name:
        raise UserError(f"{folder}: is a run of the task {run.task_name()!r}, not {task.name!r}")
    config = run.read_config(task.config_type)
    if files and [str(f) for f in files] != config.files:
        raise UserError(
            f"{folder}: was trained on {', '.join(config.files)}; --resume goes on with those: leave out the files"
        )
    for key, value in flat(over):
        recorded: Any = config
        for part in key.split("."):
            recorded = getattr(recorded, part, None)
        if recorded != value:
            raise UserError(
                f"{key}: this run has {recorded}, not {value}; --resume keeps a run's settings: leave it out"
            )
    accelerator = _accelerator(config.training.device)
    with _alone(accelerator, folder):

        def has_ended() -> bool:
            run.tidy()
            if not run.checkpoints.exists():
                raise UserError(f"{folder}: this training has ended; there is nothing to resume")
            if run.scores():  # killed at the very end
                run.finish()
                return True
            run.check_prepared()
            return False

        if _on_first(accelerator, has_ended):
            report.say(f"this training had ended; what only it needed is removed from {folder}")
            return load(folder)
        return _train(task, run, accelerator, report)


@threads_restored()
def _train(
    task: Task[Any, Any], run: Run, accelerator: Any, report: Reporter, precision: str | None = None
) -> Trained[Any]:
    """precision: what it computes in, in words; None: as it is recorded."""
    from throughtime.training.loop import Trainer
    from throughtime.training.report import draw_curve, write_card

    if accelerator.process_index:
        report = Reporter(False)
    config = run.read_config(task.config_type)
    trainer = Trainer(task, config, run, accelerator, report)
    if trainer.step == 0:
        said = precision or trainer.precision
        report.say(f"{task.describe(config)}, {trainer.parameters:,} parameters, on {accelerator.device}, in {said}")
    trainer.train()
    summary = trainer.finish()
    if summary is not None:
        decides = task.criterion(config).score
        if why := draw_curve(run, decides, kept=summary["best_step"], measure=task.measure, loss=task.loss):
            report.say(why)
        write_card(run, config, trainer.parameters, summary, task.pipeline)
        run.write_summary(summary)  # the last: with it the training has ended
        run.finish()
        words = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in summary["scores"].items())
        report.say(f"held out: {words}; best at step {summary['best_step']} of {summary['steps']}; in {run.folder}")
    accelerator.wait_for_everyone()
    return load(run.folder)


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _accelerator(device: str) -> Any:
    """The device that was asked for; what is computed in bfloat16 is for `Trainer`. Raises: UserError where it cannot be had."""
    from datetime import timedelta

    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
    from accelerate.state import AcceleratorState, is_initialized

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError("training.device: cuda cannot be had: PyTorch finds no GPU here; use cpu, or auto (--device)")
    handlers = [
        # the first process may read a large file, or score one, while the others wait
        InitProcessGroupKwargs(timeout=timedelta(days=7)),
        # a process's share of a batch may hold none of the entries that a part of the network is for
        DistributedDataParallelKwargs(find_unused_parameters=True),
    ]
    cpu = device == "cpu" or not there
    if is_initialized() and (AcceleratorState().device.type == "cpu") is not cpu:
        # it is one for the whole process, and keeps to the device of the training before
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)


def _shareable(config: RunConfig, asked: RunConfig, processes: int) -> RunConfig:
    """The settings with a batch that the processes can share. Raises: UserError where one was asked for that they cannot."""
    batch = config.training.batch_size
    assert batch is not None
    if batch % processes == 0:
        return config
    if asked.training.batch_size is not None:
        raise UserError(f"training.batch_size: {batch} cannot be shared by {processes} processes; use a multiple")
    fitting = max(batch // processes, 1) * processes
    return config.model_copy(update={"training": config.training.model_copy(update={"batch_size": fitting})})


def _on_first(accelerator: Any, work: Callable[[], Any]) -> Any:
    """What work gives in the first process, which alone does it, in all of them; where it fails, all fail with the same words."""
    from accelerate.utils import broadcast_object_list

    found: list[Any] = [None, None]
    if accelerator.process_index == 0:
        try:
            found[0] = work()
        except UserError as error:
            if accelerator.num_processes == 1:
                raise
            found[1] = str(error)
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
        if found[1] is not None:
            raise UserError(found[1])
    return found[0]


@contextmanager
def _alone(accelerator: Any, folder: Path) -> Iterator[None]:
    """Hold the run folder, for all processes that share the training. Raises: UserError where another one does."""
    with ExitStack() as held:
        _on_first(accelerator, lambda: held.enter_context(alone_in(folder)))
        yield


def _on_disk(given: Path | FrameFile, folder: Path) -> Path:
    """A file, or what else was given in its place, written into a folder."""
    if isinstance(given, FrameFile):
        return given.write(folder)
    if str(given) != "-":
        return given
    from throughtime.tasks.corpus import spool

    return spool(standard_input(), folder)
