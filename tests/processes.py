"""Commands of Python in real processes that need not import PyTorch first: each is a fork of one that has (tests/forked.py).

`Popen` and `run` are subprocess's, for `[sys.executable, *options, "-m", module, …]`, `-c` or a script. A fork differs from a start
in that modules are there already: what an import does, and whether it is made, is tested with subprocess itself. What Python and
its libraries read when they start, options and the variables of START, is true of the fork too: for each choice of them one process
is kept to fork from.
"""

import array
import atexit
import inspect
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from subprocess import PIPE, CompletedProcess

from forked import BEGUN

MOST = 3  # processes to fork from; each holds some hundred megabytes
FORKS = sys.platform == "linux"  # macOS has no fork of a process that has loaded PyTorch, Windows has none
START = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "TORCH", "XDG_", "LANG", "LC_", "LD_", "MALLOC_")
WITH_VALUE = ("-W", "-X")


class _Source:
    """A process to fork from, with these options and environment."""

    def __init__(self, options, environment):
        self.socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.said = tempfile.TemporaryFile()  # noqa: SIM115
        script = Path(__file__).with_name("forked.py")
        with there:
            self.process = subprocess.Popen(
                [sys.executable, *options, str(script), str(there.fileno())], env=environment, stdin=subprocess.DEVNULL,
                stdout=self.said, stderr=self.said, pass_fds=[there.fileno()],
            )  # fmt: skip

    def fork(self, request, streams):
        """A fork that does what is asked, with these three descriptors. Returns: its number, and where its status will be read."""
        here, there = os.pipe()
        try:
            rights = array.array("i", [*streams, there])
            self.socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except BrokenPipeError:
            pass  # it is said below
        finally:
            os.close(there)
        found = struct.unpack("2i", os.read(here, 8) or struct.pack("2i", 0, 0))
        if found[1] != BEGUN:
            os.close(here)
            self.said.seek(0)
            raise RuntimeError(f"no process came of it: {self.said.read().decode(errors='replace')}")
        return found[0], here

    def close(self):
        self.socket.close()
        self.process.wait()
        self.said.close()


class _Sources:
    """The last few."""

    def __init__(self):
        self.lock, self.made = threading.Lock(), {}
        atexit.register(self.close)

    def fork(self, options, environment, request, streams):
        key = (*options, *sorted(item for item in environment.items() if item[0].startswith(START)))
        with self.lock:
            source = self.made.pop(key, None) or _Source(options, environment)
            self.made[key] = source
            if len(self.made) > MOST:
                self.made.pop(next(iter(self.made))).close()
            return source.fork(request, streams)

    def close(self):
        while self.made:
            self.made.popitem()[1].close()


SOURCES = _Sources()


def options_of(command):
    """A command's options of Python, and the rest: -m, -c or a script, and what follows."""
    at = 1
    while command[at].startswith("-") and command[at] not in ("-m", "-c"):
        at += 2 if command[at] in WITH_VALUE else 1
    return command[1:at], command[at:]


class _Forked(subprocess.Popen):
    """A fork, which is not this process's child: who waits for it, its own parent, sends its status through a pipe."""

    def _execute_child(self, args, *rest):
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, args, *rest).arguments
        command = [os.fspath(word) for word in args]
        assert command[0] == sys.executable and not given["shell"] and not given["pass_fds"]
        options, program = options_of(command)
        environment = dict(os.environ if given["env"] is None else given["env"])
        request = {
            "program": program,
            "command": command,
            "environment": environment,
            "folder": os.fspath(given["cwd"] or os.getcwd()),
            "session": given["start_new_session"],
            "interrupts": signal.getsignal(signal.SIGINT) != signal.SIG_IGN,
            "prepare": given["preexec_fn"],
        }
        pipes = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        streams = [number if own == -1 else own for number, own in enumerate((pipes[0], pipes[3], pipes[5]))]
        try:
            self.pid, self._status = SOURCES.fork(options, environment, pickle.dumps(request), streams)
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        found = struct.unpack("2i", os.read(self._status, 8))
        os.close(self._status)
        return found

    def _internal_poll(self, _deadstate=None, **_):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


Popen = _Forked if FORKS else subprocess.Popen


def run(command, *, input=None, capture_output=False, timeout=None, check=False, **options):
    """As `subprocess.run`."""
    if input is not None:
        options["stdin"] = PIPE
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    with Popen(command, **options) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = CompletedProcess(command, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done
