"""A Redis of the tests' own."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def redis_at(folder: Path) -> Iterator[str]:
    """A server in a folder, on a free port. Gives: its address. Skips where there is none to be had."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on the PATH")
    redis = pytest.importorskip("redis")
    folder.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as asked:
            end = time.monotonic() + 10
            while True:
                try:
                    asked.ping()
                    break
                except redis.ConnectionError:
                    assert time.monotonic() < end, "it does not start"
                    time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
