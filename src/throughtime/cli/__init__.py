"""The command line: a file a verb. stdout is data; words and progress go to stderr."""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter, UnknownOptionError, UnusedCliTokensError
from cyclopts import ValidationError as CycloptsValidationError
from cyclopts.completion.detect import ShellDetectionError
from pydantic import ValidationError

import throughtime
from throughtime.cli.loading import announce_torch
from throughtime.config import STDIN
from throughtime.errors import UserError, nearest, reason
from throughtime.tasks.registry import task_names

VERBS = {
    "evaluate": "Score a model on files.",
    "generate": "Let a model write.",
    "predict": "What a model makes of each line.",
    "compare": "Runs of one task on the same data, side by side.",
    "inspect": "What a network remembers: gradients through time, states, gates, what mattered.",
    "travel": "Back and forth in time, command by command: change a word, and see both futures.",
    "quantize": "A run of the same weights in eight bits, which answers quicker.",
    "export": "A trained model out of Python: as ONNX, as C, as WebAssembly.",
    "serve": "Models over HTTP, with streams that go on after the server was killed.",
    "play": "A page in the browser: type, watch a network remember, and change its past.",
    "memory": "How far back a cell can learn to remember, side by side with others.",
    "info": "What a run is, trained on what, for how long, with what scores.",
    "demo": "Train a small model on the text every Python carries, and let it write.",
    "bench": "Speed, side by side with torch.nn.",
}


def build_app() -> App:
    """All verbs; the module of each is imported when it is called."""
    app = App(
        name="throughtime",
        help="Recurrent neural networks, from a file to a trained network that answers. "
        "Every command takes --debug, which shows where an error arose.",
        version=throughtime.__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    train = App(name="train", help="Train a network on files, into a run folder.")
    for task, words in task_names().items():
        train.command(f"throughtime.cli.train:{task}", name=task, help=words)
    app.command(train)
    for verb, words in VERBS.items():
        app.command(f"throughtime.cli.{verb}:{verb}", name=verb, help=words)

    def install_completion(
        *,
        shell: Annotated[
            Literal["bash", "zsh", "fish", "powershell"] | None, Parameter(help="[default: the one that is in use]")
        ] = None,
    ) -> None:
        """Let a shell complete commands and options with Tab: writes its completion file, and a line that reads it into the file
        that it starts with."""
        try:
            print(f"throughtime: written: {app.install_completion(shell=shell)}; a new shell reads it", file=sys.stderr)
        except ShellDetectionError:
            raise UserError("--install-completion: which shell is in use cannot be told; name it by --shell") from None

    app.command(install_completion, name="--install-completion")
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line. Returns the exit code: 0 done, 2 a mistake of the user's or a refusal of the system's, 130
    interrupted."""
    _hold_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [
        STDIN if a == "-" else a  # which would be taken for an option
        for a in arguments
        if a != "--debug"
    ]
    warnings.showwarning = _show_warning
    if "--quiet" not in arguments:
        announce_torch()
    app = build_app()
    try:
        result = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 130
    except BrokenPipeError:  # whoever read our output has gone
        _drop_output()
        return 0
    except Exception as error:
        words = _in_words(error)
        if words is not None:
            return _fail(words, debug)
        if debug:
            raise
        return _fail(f"{type(error).__name__}: {error} (this is a fault of throughtime; --debug shows where)", debug, 1)


def _in_words(error: Exception) -> str | None:
    """A mistake of the user's, or a refusal of the system's, in a line; None for a fault of ours."""
    if isinstance(error, UnknownOptionError):
        return _unknown_option(error)
    if isinstance(error, UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])}: nothing takes it; --help says what the command takes"
    if isinstance(error, CycloptsValidationError):
        return _validation(error)
    if isinstance(error, UserError | CycloptsError):
        return str(error)
    if isinstance(error, OSError):  # a full disk, a file that is no longer there
        return _refused(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return f"out of memory: {error}"
    return None


def _hold_streams() -> None:
    """Where standard input, output or error was closed, something stands in its place, so that no file is opened there and written
    into by whoever writes to standard error."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdout is None:
        sys.stdout = _Closed()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (until the process ends)


class _Closed(io.TextIOBase):
    """Standard output that was closed."""

    def write(self, text: str) -> int:
        raise UserError("standard output is closed: there is nowhere to write to")


def _refused(error: OSError) -> str:
    """What the system refused, in a line."""
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {reason(error)}"
    try:
        sys.stdout.flush()  # what could not be written is still to be
    except OSError as again:
        _drop_output()
        return f"standard output: cannot write to it: {reason(again)}"
    return reason(error)


def _drop_output() -> None:
    """Nothing more goes to standard output, neither now nor when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, debug: bool, code: int = 2) -> int:
    if debug:
        traceback.print_exc()
    _say(" ".join(message.split()))
    return code


def _say(text: str) -> None:
    """A line of words; on a terminal broken between words, where it is longer than one of its lines."""
    text = f"throughtime: {text}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)


def _unknown_option(error: UnknownOptionError) -> str:
    name = error.token.keyword or error.token.value
    if name == "--device":
        return "--device: an option of train alone; all else computes on the CPU"
    names = [n for argument in error.argument_collection or () for n in argument.names if n.startswith("--")]
    near = nearest(name, names)
    return f"unknown option {name!r}; " + (
        f"did you mean {near!r}? (--help lists them)" if near else "--help lists them"
    )


def _validation(error: CycloptsValidationError) -> str:
    """One line for a value out of range: the option, the value, what is allowed."""
    cause = error.__cause__
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__
    if cause is None:
        return str(error)
    first = cause.errors()[0]
    owner = error.argument.name if error.argument is not None else ""
    key = ".".join([owner.rstrip("."), *(str(part) for part in first["loc"])]).strip(".").replace("_", "-")
    message = re.sub(r"^Value error, ", "", first["msg"])
    return f"{key}: got {first['input']!r}; {message[:1].lower() + message[1:]}"


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    _say(str(message))
