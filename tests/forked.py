"""The process that tests/processes.py forks commands from: it has imported what they import, and has one thread.

    python [OPTIONS] tests/forked.py DESCRIPTOR   # of the socket on which it is asked

Of each request it forks a keeper, which forks the command and waits for it. The command writes its number into a pipe once it has
put on what was asked, the keeper in the end its status.
"""

import atexit
import builtins
import gc
import importlib.util
import io
import os
import pickle
import pkgutil
import runpy
import signal
import socket
import struct
import sys
import threading
import types

LOADED = (
    "torch",
    "torch._dynamo",
    "accelerate",
    "tokenizers",
    "safetensors.torch",
    "llvmlite.binding",
    "matplotlib.pyplot",
)
ROOMS = (
    "cli",
    "training",
    "tasks",
    "travel",
    "scanning",
    "layers",
    "models",
    "runs",
    "inspect",
    "decode",
    "serve",
    "play",
)
ANEW = ("HF_", "huggingface_hub")  # which reads these variables when it is imported
BEGUN = -1  # in the place of a status
NOT_LOADED = ("throughtime.serve.ray",)  # Ray warns where it is imported


def load():
    """Import what commands import."""
    for name in LOADED:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            importlib.import_module(name)
    for room in ROOMS:
        module = importlib.import_module(f"throughtime.{room}")
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{module.__name__}."):
            if found.name not in NOT_LOADED:
                importlib.import_module(found.name)
    assert len(os.listdir("/proc/self/task")) == 1, "what a thread holds stays held in a fork"
    gc.collect()
    gc.freeze()  # a collection writes to all that it looks through


def requests(asking):
    """Wait for requests. Returns in the fork that is to do one: it, and the descriptors of its streams and the pipe; None at the
    end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for keepers
    while True:
        data, descriptors, _, _ = socket.recv_fds(asking, 1 << 20, 4)
        if not data:
            return None
        if os.fork():
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        asking.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if not child:
            return pickle.loads(data), *descriptors
        for descriptor in descriptors[:3]:
            os.close(descriptor)
        os.write(descriptors[3], struct.pack("2i", *os.waitpid(child, 0)))
        os._exit(0)


def become(request, *streams):
    """Put on what a process of its own would have: streams, folder, session, environment."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["folder"])
    if request["session"]:
        os.setsid()
    if request["prepare"] is not None:
        request["prepare"]()
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python does when it starts
    if differs(request["environment"], ANEW[0]):
        for name in [name for name in sys.modules if name.partition(".")[0] == ANEW[1]]:
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(request["environment"])
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = opened(number, name, getattr(sys, name))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.orig_argv = request["command"]


def differs(environment, prefix):
    """Whether variables of a prefix have other values than here."""
    one, other = ({k: v for k, v in env.items() if k.startswith(prefix)} for env in (environment, os.environ))
    return one != other


def opened(number, name, before):
    """A standard stream, as Python opens it at its start."""
    through = before.write_through  # as PYTHONUNBUFFERED asks
    raw = open(number, "wb" if number else "rb", 0 if through and number else -1, closefd=False)  # noqa: SIM115
    getattr(raw, "raw", raw).name = f"<{name}>"
    lines = not through and (raw.isatty() or number == 2)
    text = io.TextIOWrapper(raw, before.encoding, before.errors, "\n", line_buffering=lines, write_through=through)
    text.mode = "w" if number else "r"
    return text


def run(program):
    """Run a module, code or a script as `python` would."""
    kind, *rest = program
    if kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        module.__builtins__ = builtins
        exec(compile(rest[0], "<string>", "exec"), module.__dict__)
    else:
        sys.argv, sys.path[0] = program, os.path.dirname(os.path.realpath(kind))
        runpy.run_path(kind, run_name="__main__")


def ended(program):
    """Run it. Returns: the exit code, or the number of a signal as a negative one."""
    try:
        run(program)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


def end(code):
    """End as Python does, but for taking apart every module that was imported, which takes half a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    load()
    found = requests(socket.socket(fileno=int(sys.argv[1])))
    if found is not None:
        request, *streams, ready = found
        signal.signal(signal.SIGINT, signal.SIG_DFL if request["interrupts"] else signal.SIG_IGN)
        become(request, *streams)
        os.write(ready, struct.pack("2i", os.getpid(), BEGUN))
        os.close(ready)
        end(ended(request["program"]))


if __name__ == "__main__":
    main()
