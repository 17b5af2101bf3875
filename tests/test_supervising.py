"""A process that serves, and another that takes its place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import processes
import serve_kills
import throughtime as tt
from serving import Serving, eventually
from throughtime.serve import supervising

pytestmark = pytest.mark.skipif(not supervising.can_fork(), reason="serves from one process on this system")

PROGRAM = """
import os, signal, sys, time
from throughtime.errors import UserError
from throughtime.serve.supervising import keep_serving

def serve():
    try:
        print("child", os.getpid(), flush=True)
        {body}
    finally:
        print("end", os.getpid(), flush=True)

def stop(number, frame):
    raise SystemExit(0)

signal.signal(signal.SIGTERM, stop)
try:
    sys.exit(keep_serving(serve))
except UserError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


class Parent:
    """A process that lets children do something."""

    def __init__(self, body):
        code = PROGRAM.format(body=body)
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def child(self):
        word, number = self.process.stdout.readline().split()
        assert word == "child"
        return int(number)

    def end(self):
        out, err = self.process.stdout.read(), self.process.stderr.read()
        return self.process.wait(20), out.split(), err

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_a_child_that_dies_is_followed_by_another_until_it_is_told_to_stop():
    with Parent("time.sleep(60)") as parent:
        first = parent.child()
        for number in (signal.SIGKILL, signal.SIGSEGV):
            os.kill(first, number)
            second = parent.child()
            assert second != first
            first = second
        parent.process.terminate()
        code, out, err = parent.end()
    assert (code, out) == (0, ["end", str(second)])
    assert [line.split(", ", 1)[1] for line in err.splitlines()] == [
        "which served, was ended by SIGKILL; another goes on",
        "which served, was ended by SIGSEGV; another goes on",
    ]


def test_a_child_that_is_stopped_while_it_makes_ready_is_no_fault():
    with Parent("signal.signal(signal.SIGTERM, signal.SIG_DFL); print('ready', flush=True); time.sleep(60)") as parent:
        parent.child()
        assert parent.process.stdout.readline() == "ready\n"
        parent.process.terminate()
        assert parent.end() == (0, [], "")


EARLY = """
import os, signal, socket, sys
from pathlib import Path
import uvicorn
from throughtime.serve import running
from throughtime.serve.settings import Settings

served = uvicorn.Server.serve

async def serve(self, sockets=None):
    os.kill(os.getpid(), signal.SIGTERM)  # before uvicorn has handlers
    await served(self, sockets)

uvicorn.Server.serve = serve
running.run({}, Settings(Path(sys.argv[1])), running.listen("127.0.0.1", 0), lambda: print("ready", flush=True))
print("end")
"""


def test_a_stop_that_comes_before_the_server_listens_to_it_is_not_lost(tmp_path):
    found = subprocess.run([sys.executable, "-c", EARLY, tmp_path], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (0, "ready\nend\n"), found.stderr


def test_a_stop_that_comes_between_two_children_is_not_lost(monkeypatch):
    told = []
    monkeypatch.setattr(supervising.signal, "signal", lambda *_: None)
    monkeypatch.setattr(supervising.os, "fork", lambda: 77)
    monkeypatch.setattr(supervising.os, "kill", lambda *what: told.append(what))
    parent = supervising._Parent()
    assert parent.fork() and told == []
    parent.stopped = True
    assert parent.fork() and told == [(77, signal.SIGTERM)]


def test_a_child_that_is_killed_while_it_stops_is_a_fault():
    told = "signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True))"
    with Parent(f"{told}; print('ready', flush=True); [time.sleep(0.1) for _ in range(600)]") as parent:
        child = parent.child()
        assert parent.process.stdout.readline() == "ready\n"
        parent.process.terminate()
        assert parent.process.stdout.readline() == "told\n"
        os.kill(child, signal.SIGKILL)
        code, _, err = parent.end()
    assert code == 1 and err.endswith("was ended by SIGKILL; that is the end\n")


def test_a_mistake_ends_it_and_a_fault_does_not():
    with Parent("sys.exit(2)") as parent:
        child = parent.child()
        assert parent.end() == (2, ["end", str(child)], "")
    with Parent("time.sleep(1.1); sys.exit(1)") as parent:
        child = parent.child()
        assert parent.process.stdout.readline() == f"end {child}\n"
        assert parent.child() != child


def test_children_that_die_at_once_end_it():
    with Parent("os.abort()") as parent:
        code, out, err = parent.end()
    assert code == 2
    assert len(out) == 2 * supervising.MOST
    assert err.splitlines()[-1] == (
        "the process that serves was ended by SIGABRT, as did 5 in a row within a second of their start"
    )


def test_a_child_stops_when_its_parent_is_killed():
    with Parent("time.sleep(60)") as parent:
        child = parent.child()
        parent.process.kill()
        assert parent.process.stdout.readline() == f"end {child}\n"


def test_ctrl_c_is_for_all_and_stops_both():
    with Parent(
        "signal.signal(signal.SIGINT, lambda *_: None); time.sleep(0.2); print('ready', flush=True); time.sleep(60)"
    ) as parent:
        child = parent.child()
        assert parent.process.stdout.readline() == "ready\n"
        for process in (child, parent.process.pid):
            os.kill(process, signal.SIGINT)
        assert parent.end()[:2] == (0, ["end", str(child)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kills")
    (folder / "text.txt").write_text(
        "".join(f"{i % 7} sheep and {i % 3} goats went over hill {i % 5};\n" for i in range(300))
    )
    model = {"tokens": "characters", "cell": "gru", "hidden_size": 20, "layers": 2}
    tt.train("text", [folder / "text.txt"], out=folder / "lm", steps=30, model=model, progress=False)
    return folder / "lm"


def test_killed_again_and_again_it_answers_as_one_that_is_not(run, tmp_path):
    words = serve_kills.beside_one_that_is_not_killed(run, tmp_path, kills=5, seed=3, users=5)
    assert "5 kills" in words
    assert " 0 of them sent once more" not in words


def test_what_serves_is_one_process_and_what_listens_another(run, tmp_path):
    # that imports all by itself, and makes no thread of it
    with Serving(run, "--port", 0, "--store", tmp_path, start=subprocess.Popen) as serving:
        before, parent = serving.child, serving.process.pid
        assert before != parent
        assert len(list(Path(f"/proc/{parent}/task").iterdir())) == 1  # what a thread holds stays held in a child
        assert httpx.post(f"{serving.url}/v1/sessions", json={"id": "a"}).status_code == 201
        serving.kill_child()
        assert serving.child != before
        assert httpx.get(f"{serving.url}/v1/sessions/a").json()["time"] == 0
        # all the store is another's: it is said once, and that is the end
        other = [sys.executable, "-m", "throughtime", "serve", str(run), "--port", "0", "--store", str(tmp_path)]
        done = processes.run(other, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert "another process serves" in done.stderr
        child = serving.child
        serving.process.kill()
        eventually(
            lambda: not Path(f"/proc/{child}").exists() or "\nState:\tZ" in Path(f"/proc/{child}/status").read_text()
        )
