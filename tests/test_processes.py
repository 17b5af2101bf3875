"""Forks in the place of starts: what a command is given, does and leaves is the same."""

import os
import signal
import subprocess
import sys
import time

import pytest

import processes

pytestmark = pytest.mark.skipif(not processes.FORKS, reason="commands are started on this system")

GIVEN = """
import os, signal, sys, threading
print(__name__, sys.argv, sys.path, sys.orig_argv, os.getcwd(), sorted(os.environ.items()), sys.warnoptions, sys.flags)
for stream in (sys.stdin, sys.stdout, sys.stderr):
    print(stream, stream.errors, stream.line_buffering, stream.write_through, stream.isatty(), stream.newlines, stream.buffer)
print([signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE)], threading.active_count())
print(signal.pthread_sigmask(signal.SIG_BLOCK, ()), sorted(os.listdir("/proc/self/fd")))
print(os.getsid(0) == os.getpid(), os.getppid() > 1, repr(sys.stdin.read()))
"""
ENDS = {
    "nothing": "",
    "a code": "import sys; sys.exit(7)",
    "words": "import sys; sys.exit('words')",
    "an exception": "raise ValueError('of this')",
    "interrupted": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "aborted": "import os; os.abort()",
    "at its exit": "import atexit, sys; atexit.register(print, 'end'); print('begin', end=' ')",
    "both": "import sys; print('one'); sys.stdout.flush(); print('two', file=sys.stderr)",
    "not written out": "import os; print('lost', end=''); os._exit(3)",
    "not utf-8": "print('\\udcff')",
}


@pytest.fixture(autouse=True)
def _interrupts():
    """What runs in a shell's background ignores Ctrl-C, and what it starts does too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def both(command, **options):
    """What a start leaves, and a fork: exit code, standard output and error."""
    return [
        (done.returncode, done.stdout, done.stderr)
        for run in (subprocess.run, processes.run)
        for done in [run([sys.executable, *command], capture_output=True, **options)]
    ]


@pytest.mark.parametrize(
    ("how", "variables"),
    [
        ([], {}),
        (
            ["-W", "error", "-X", "faulthandler"],
            {"PYTHONIOENCODING": "latin-1", "PYTHONUNBUFFERED": "", "PYTHONHASHSEED": "3"},
        ),
    ],
    ids=["plain", "with options"],
)
def test_a_command_is_given_the_same(how, variables, tmp_path):
    (tmp_path / "given.py").write_text(GIVEN)
    environment = {**os.environ, **variables, "A_NAME": "a value"}
    for program in (["-c", GIVEN, "a", "ö"], ["-m", "given", "--b"], [str(tmp_path / "given.py"), "c"]):
        for session in (True, False):
            started, forked = both(
                [*how, *program],
                cwd=tmp_path,
                env=environment,
                input=b"what comes\r\nin",
                start_new_session=session,
            )
            assert started == forked and started[0] == 0


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_is_ignored_where_it_is_here(ignored):
    signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.default_int_handler)
    started, forked = both(["-c", "import signal; print(signal.getsignal(signal.SIGINT))"])
    assert started == forked


@pytest.mark.parametrize("end", ENDS)
def test_a_command_ends_the_same(end):
    started, forked = both(["-c", ENDS[end]])
    assert started[:2] == forked[:2]
    assert started[2].splitlines()[-1:] == forked[2].splitlines()[-1:]  # of a traceback the last line


def test_what_is_imported_is_there():
    assert processes.run(
        [sys.executable, "-c", "import sys; print('torch' in sys.modules)"], capture_output=True, text=True, check=True
    ).stdout == "True\n"  # fmt: skip


def test_who_waits_kills_and_loses_patience():
    command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        with processes.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        ) as running:
            assert running.stdout.readline() == b"ready\n"
            assert running.poll() is None and os.getpgid(running.pid) == running.pid
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.01)
            os.killpg(running.pid, number)
            assert running.wait(20) == -number == running.poll()
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(command, capture_output=True, timeout=0.2)
    assert time.monotonic() - began < 50, "it was killed"
    with pytest.raises(subprocess.CalledProcessError, match="exit status 7"):
        processes.run([sys.executable, "-c", ENDS["a code"]], check=True)


def test_commands_run_beside_each_other_and_write_where_they_are_told(tmp_path):
    with (tmp_path / "out").open("wb") as out:
        running = [
            processes.Popen(
                [sys.executable, "-c", "import sys; sys.stdin.read(); print(1); print(2, file=sys.stderr)"],
                stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT,
            )
            for _ in range(5)
        ]  # fmt: skip
        for process in running:
            process.communicate()
    assert [process.returncode for process in running] == [0] * 5
    assert sorted((tmp_path / "out").read_text().split()) == ["1"] * 5 + ["2"] * 5


def test_what_its_own_libraries_read_at_their_import():
    code = "from huggingface_hub.constants import ENDPOINT; print(ENDPOINT)"
    for address in ("http://127.0.0.1:9", "http://127.0.0.1:7"):
        environment = {**os.environ, "HF_ENDPOINT": address}
        done = processes.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == address


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(RuntimeError, match="no process"):
        processes.run([sys.executable, "-c", ""], cwd=tmp_path / "none", capture_output=True)
