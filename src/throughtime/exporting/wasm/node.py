"""An exported network at work in Node."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.stack import Stack
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves

OLDEST = 18  # the major version of Node that is needed
_SCRIPTS = Path(__file__).parent


def find_node() -> str | None:
    """Where Node is, or None where there is none, or an older one than is needed."""
    path = shutil.which("node")
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return path if major.isdecimal() and int(major) >= OLDEST else None


class Pipe:
    """What a script in Node is sent, and what it answers. name: of what it runs, in messages."""

    def __init__(self, into: IO[bytes], out: IO[bytes], errors: IO[bytes], name: str) -> None:
        self._into, self._out, self._errors, self._name = into, out, errors, name

    def send(self, *parts: Tensor) -> None:
        """Send numbers. Raises: UserError with what the script says where it has ended."""
        try:
            self._into.write(b"".join(part.contiguous().numpy().tobytes() for part in parts))
            self._into.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def read(self, *shape: int) -> Tensor:
        """Numbers of float32. Raises: as `send`."""
        size = 4 * prod(shape)
        data = bytearray(self._out.read(size))
        if len(data) < size:
            raise self._failed()
        return torch.frombuffer(data, dtype=torch.float32).view(shape) if data else torch.zeros(shape)

    def _failed(self) -> UserError:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        why = next((line for line in said if "Error" in line), said[-1] if said else "it ended")
        return UserError(f"{self._name} in Node: {why}: nothing was written")


@contextmanager
def running(node: str, script: str, module: Path, name: str) -> Iterator[Pipe]:
    """One of the scripts beside this file at work on an ES module, until the block ends."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [node, str(_SCRIPTS / script), str(module)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield Pipe(process.stdin, process.stdout, errors, name)
        finally:
            process.kill()
            process.communicate()


def beside(tensors: Sequence[Tensor], *shape: int) -> Tensor:
    """Tensors [*shape, ...] as one, [*shape, N], in the order of their numbers."""
    return torch.cat([torch.zeros(*shape, 0), *(t.reshape(*shape, -1) for t in tensors)], -1)


class InNode:
    """A network that `check.mjs` runs: `run` is what `agreement.check` takes, `steps` what `check_reading` does.

    shape: of its output, behind [T, B].
    """

    def __init__(self, pipe: Pipe, stack: Stack, shape: Sequence[int]) -> None:
        self._pipe, self._shape = pipe, (*shape,)
        self._first = pipe.read(sum(s.numel() for s in stack.states))

    def first(self) -> Tensor:
        """The state of a new stream, [S]."""
        return self._first

    def run(self, inputs: Inputs, states: Sequence[Tensor], _: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """A whole sequence: inputs [T, B, ...], states each [B, ...]."""
        steps, batch = leaves(inputs)[0].shape[:2]
        rows = beside(states, batch)
        self._pipe.send(torch.tensor([steps, batch], dtype=torch.int32), beside(leaves(inputs), steps, batch), rows)
        output = self._pipe.read(steps, batch, *self._shape)
        parts = torch.split(self._pipe.read(*rows.shape), [s[0].numel() for s in states], -1)
        return output, [part.reshape(s.shape) for part, s in zip(parts, states, strict=True)]

    def steps(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [T], int32, that one stream reads from a state [S] on. Returns: log p [T, V]; the state after them."""
        self._pipe.send(torch.tensor([len(x), 0], dtype=torch.int32), x, state)
        return self._pipe.read(len(x), *self._shape), self._pipe.read(len(state))
