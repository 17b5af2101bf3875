"""Settings: strict, written once, read from a file and from options alike. No torch here: `--help` reads this."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from throughtime.errors import UserError, nearest, reason, unknown

STDIN = "<stdin>"  # how standard input is named where a file would be
FRAME = "<frame>"  # and how a data frame is
FORMAT = 1  # of a run folder; a folder with a higher one is from a newer version
DEFAULT_MINUTES = 5.0
BUDGETS = ("minutes", "epochs", "steps")
# a value that is wrong may be as long, and as deep, as whoever wrote it liked
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother, _BRIEF.maxlist = 3, 200, 200, 10

Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    """Settings that refuse what they do not know. None stands for: chosen to fit the data and the budget."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """What a field's docstring breaks into lines is one line in --help, which has breaks of its own."""
        for field in cls.model_fields.values():
            if field.description:
                field.description = " ".join(field.description.split())


class Training(Strict):
    """How a network is trained, whatever the task."""

    batch_size: Positive | None = None
    """Sequences side by side, over all processes. [default: to fit the data]"""
    chunk: Positive | None = None
    """Steps of time between updates: how far gradients travel back. [default: to fit the task]"""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """The highest learning rate of AdamW. [default: to fit the network]"""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Decoupled weight decay, on matrices only."""
    warmup: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises; at most a tenth of the training."""
    final_rate: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The learning rate at the end, as a share of the highest. It falls along half a cosine, over the second half of the budget, or
    from where the held-out score stops getting better."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest global norm of the gradient; `null` in a file: no clipping."""
    passes: Annotated[float, Field(gt=0)] | None = None
    """Passes through the data at most, where the budget is in minutes. [default: no limit]"""
    evaluations: Positive = 30
    """How often the held-out data are scored over the whole budget, at most; oftener at its beginning."""
    patience: Positive | None = 6
    """After so many evaluations without a better score go back to the best weights, let the learning rate fall from there in a
    short cool-down, and stop; `null` in a file: train to the end of the budget."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What computes. auto: a graphics card where PyTorch finds one, else the processor."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What a step's products are computed in. bfloat16: their operands are rounded to it; sums and all else, weights, the optimiser
    and every score are in float32. auto: bfloat16 where the processor gains by it and the task is known to learn as well, else
    float32."""
    threads: Positive | None = None
    """Threads that compute, in each process. [default: as many as are quickest beside what else runs, measured as it trains]"""


class RunConfig(Strict):
    """All that a training needs to be repeated."""

    format: int = FORMAT
    task: str
    files: list[str] = []
    """The files trained on."""
    valid: str | list[str] | None = None
    """The held-out file, or files that belong together; without one, a part of the training data is held out."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    minutes: Annotated[float, Field(gt=0)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    steps: Positive | None = None
    training: Training = Training()

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in BUDGETS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are two budgets; give one")
        return self

    def with_budget(self) -> Self:
        """These settings, with the default budget where none is given."""
        if self.minutes or self.epochs or self.steps:
            return self
        return self.model_copy(update={"minutes": DEFAULT_MINUTES})


Config = TypeVar("Config", bound=RunConfig)


def read_config(path: Path) -> dict[str, Any]:
    """A YAML file of settings as nested dicts. Raises: UserError where it is missing or not YAML."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot read the config: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: cannot read the config: byte {error.start} is not UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{place}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: cannot read the config: nested too deep") from error
    except (ValueError, TypeError, OverflowError) as error:  # a date that is none, a number of thousands of digits
        raise UserError(f"{path}: cannot read the config: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: a config is keys and values, got {type(values).__name__}")
    version = values.get("format", FORMAT)
    if isinstance(version, int) and version > FORMAT:
        raise UserError(
            f"{path}: format {version} is from a newer throughtime; this one reads up to {FORMAT}: upgrade it"
        )
    return values


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, level by level."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested settings by their whole names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def build_config(kind: type[Config], values: Mapping[str, Any], source: Path | None = None) -> Config:
    """Check nested values against a config class.

    Raises: UserError for the first that is wrong: its key, its value, what is allowed, or the nearest key there is; with
        the file and line where it came from `source`.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        keys = path or tuple(name for name in BUDGETS if name in values)[-1:]  # what is wrong as a whole is two budgets
        raise UserError(place_in(source, keys) + _explain(kind, path, first)) from error


Options = TypeVar("Options", bound=Strict)


def build_options(kind: type[Options], values: Mapping[str, Any]) -> Options:
    """Check the options of a verb. Raises: UserError for the first that is unknown, naming the nearest, or out of range."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(str(part) for part in first["loc"])
        raise UserError(_explain(kind, path, first, "option")) from error


def _explain(kind: type[BaseModel], path: tuple[str, ...], error: Any, what: str = "setting") -> str:
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        owner: Any = kind
        for part in path[:-1]:
            owner = owner.model_fields[part].annotation
        message = unknown(what, path[-1], owner.model_fields)
        near = nearest(path[-1], owner.model_fields)
        return message.replace(repr(path[-1]), repr(key), 1).replace(
            repr(near), repr(".".join([*path[:-1], near])) if near else "", 1
        )
    message = error["msg"].removeprefix("Value error, ")
    if not path:
        return str(message)
    given = _BRIEF.repr(error["input"])
    return f"{key}: got {given}; {message[0].lower() + message[1:]}"


def place_in(source: Path | None, path: tuple[str, ...]) -> str:
    """`file:line: ` of the key `path` in a config file, or nothing where it does not stand there."""
    line = _line(source, path) if source else None
    return f"{source}:{line}: " if line else ""


def _line(source: Path, path: tuple[str, ...]) -> int | None:
    """The line of `source` on which the key `path` stands."""
    try:
        node: Any = yaml.compose(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return None
    line = None
    for part in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in pairs if key.value == part), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def to_yaml(config: RunConfig) -> str:
    """The settings as YAML, in the order of the class."""
    text: str = yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)
    return text
