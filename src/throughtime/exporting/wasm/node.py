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
from throughtime.exporting.agreement import Run
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
def running(node: str, script: Path, stack: Stack, shape: Sequence[int]) -> Iterator[Run]:
    """An ES module of a stack at work until the block ends, as what `agreement.check` runs. shape: of its output, behind [T, B]."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [node, str(_SCRIPT), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            yield _Conversation(process.stdin, process.stdout, errors, stack, (*shape,)).run
        finally:
            process.kill()
            process.communicate()


class _Conversation:
    """What is sent to `check.mjs`, and what comes back."""

    def __init__(
        self, into: IO[bytes], out: IO[bytes], errors: IO[bytes], stack: Stack, shape: tuple[int, ...]
    ) -> None:
        self.into, self.out, self.errors, self.stack, self.shape = into, out, errors, stack, shape

    def run(self, inputs: Inputs, states: Sequence[Tensor], _: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """A whole sequence: inputs [T, B, ...], states each [B, ...]."""
        steps, batch = leaves(inputs)[0].shape[:2]
        x = torch.cat([t.reshape(steps, batch, -1) for t in leaves(inputs)], -1)
        rows = torch.cat([s.reshape(batch, -1) for s in states], -1)
        try:
            self.into.write(b"".join(_bytes(t) for t in (torch.tensor([steps, batch], dtype=torch.int32), x, rows)))
            self.into.flush()
        except BrokenPipeError:
            raise self._failed() from None
        output = self._read(steps, batch, *self.shape)
        parts = torch.split(self._read(*rows.shape), [s[0].numel() for s in states], -1)
        return output, [part.reshape(s.shape) for part, s in zip(parts, states, strict=True)]

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


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
