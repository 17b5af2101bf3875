"""An exported network at work in Node."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.stack import Stack
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves

OLDEST = 18  # the major version of Node that is needed
_SCRIPT = Path(__file__).with_name("check.mjs")


def find_node() -> str | None:
    """Where Node is, or None where there is none, or an older one than is needed."""
    path = shutil.which("node")
    if path is None:
        return None
    said = subprocess.run([path, "--version"], capture_output=True, text=True).stdout
    major = said.strip().removeprefix("v").partition(".")[0]
    return path if major.isdecimal() and int(major) >= OLDEST else None


@contextmanager
def running(node: str, script: Path, stack: Stack, shape: Sequence[int]) -> Iterator[InNode]:
    """An ES module of a stack at work until the block ends. shape: of its output, behind [T, B]."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [node, str(_SCRIPT), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield InNode(process.stdin, process.stdout, errors, stack, (*shape,))
        finally:
            process.kill()
            process.communicate()


class InNode:
    """A network that `check.mjs` runs: `run` is what `agreement.check` takes, `steps` what `check_reading` does."""

    def __init__(
        self, into: IO[bytes], out: IO[bytes], errors: IO[bytes], stack: Stack, shape: tuple[int, ...]
    ) -> None:
        self.into, self.out, self.errors, self.stack, self.shape = into, out, errors, stack, shape
        self._first = self._read(sum(s.numel() for s in stack.states))

    def run(self, inputs: Inputs, states: Sequence[Tensor], _: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """A whole sequence: inputs [T, B, ...], states each [B, ...]."""
        steps, batch = leaves(inputs)[0].shape[:2]
        x = torch.cat([t.reshape(steps, batch, -1) for t in leaves(inputs)], -1)
        rows = torch.cat([torch.zeros(batch, 0), *(s.reshape(batch, -1) for s in states)], -1)
        self._send(torch.tensor([steps, batch], dtype=torch.int32), x, rows)
        output = self._read(steps, batch, *self.shape)
        parts = torch.split(self._read(*rows.shape), [s[0].numel() for s in states], -1)
        return output, [part.reshape(s.shape) for part, s in zip(parts, states, strict=True)]

    def steps(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [T], int32, that one stream reads from a state [S] on. Returns: log p [T, V]; the state after them."""
        self._send(torch.tensor([len(x), 0], dtype=torch.int32), x, state)
        return self._read(len(x), *self.shape), self._read(len(state))

    def first(self) -> Tensor:
        """The state of a new stream, [S]."""
        return self._first

    def _send(self, *parts: Tensor) -> None:
        try:
            self.into.write(b"".join(part.contiguous().numpy().tobytes() for part in parts))
            self.into.flush()
        except BrokenPipeError:
            raise self._failed() from None

    def _read(self, *shape: int) -> Tensor:
        data = bytearray(self.out.read(4 * int(np.prod(shape))))
        if len(data) < 4 * int(np.prod(shape)):
            raise self._failed()
        return torch.frombuffer(data, dtype=torch.float32).view(shape)

    def _failed(self) -> UserError:
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines()
        why = next((line for line in said if "Error" in line), said[-1] if said else "it ended")
        return UserError(f"{self.stack.name} in Node: {why}: nothing was written")
