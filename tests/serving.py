"""A real server in a process of its own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import processes


class Serving:
    """`throughtime serve` with some options, or another verb; ready when it says so. url: where. said: what it wrote to standard
    error."""

    def __init__(
        self,
        *options: object,
        env: dict[str, str] | None = None,
        code: str | None = None,
        verb: str = "serve",
        start: Callable[..., subprocess.Popen[str]] = processes.Popen,
    ) -> None:
        """code: a program in place of the command. start: subprocess.Popen for a process that imports all by itself."""
        self.said: list[str] = []
        program = ["-m", "throughtime", verb] if code is None else ["-c", code]
        command = [sys.executable, "-W", "error", *program, *map(str, options)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        self.process = start(command, stderr=subprocess.PIPE, text=True, env=env, start_new_session=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if "serving" in line:
                break
        else:
            self.process.wait()
            raise AssertionError("".join(self.said))
        self._reading = threading.Thread(target=self._read, daemon=True)  # or a full pipe would hold it up
        self._reading.start()
        self.url = next(word for word in line.split() if word.startswith("http://")).rstrip(",")

    @property
    def child(self) -> int:
        """The process that serves."""
        return int(next(line for line in reversed(self.said) if "serving" in line).rpartition("process ")[2])

    def kill_child(self) -> None:
        """SIGKILL to the process that serves; ready when another does."""
        os.kill(before := self.child, signal.SIGKILL)
        eventually(lambda: self.child != before or self.process.poll() is not None)

    def kill(self) -> None:
        """SIGKILL to all of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reading.join()

    def stop(self) -> int:
        """SIGTERM. Returns: its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self._reading.join()
        return code

    def _read(self) -> None:
        with self.process.stderr as stream:
            self.said += stream

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


class Playing(Serving):
    """`throughtime play`, without a browser."""

    def __init__(self, *options: object) -> None:
        super().__init__(*options, "--no-browser", verb="play")


def eventually(found, seconds=10.0):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it never came to be so"
        time.sleep(0.01)
