"""A terminal to look at: a program in a pseudo-terminal, and what stands on its screen after each write."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
from pathlib import Path

import processes

ROOT = Path(__file__).parents[1]
AGAIN_S = 3  # a key may come when nobody reads it
PATIENCE_S = 120
SIGNS = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|([\r\n\b\t])|([^\x00-\x1f\x7f])")
BEGUN = re.compile(r"(?:\x1b(?:\[[0-9;?]*)?)?\Z")  # the beginning of one that is cut


class Screen:
    """Rows of text as a terminal would show them. `seen`: each row that was ever shown. `wrapped`: those that were too long."""

    def __init__(self, columns):
        self.columns, self.rows, self.row, self.column = columns, [""], 0, 0
        self.seen, self.wrapped = [], []
        self.begun = ""  # of a sequence that the next text goes on with

    def write(self, text):
        text = self.begun + text
        self.begun = BEGUN.search(text)[0]
        text = text.removesuffix(self.begun)
        for match in SIGNS.finditer(text):
            number, command, control, sign = match.groups()
            count = int(number) if number and number.isdigit() else None
            if control == "\t":
                self.column = min(self.column // 8 * 8 + 8, self.columns - 1)
            elif control == "\r":
                self.column = 0
            elif control == "\n" or command == "B":
                self._down(1)
            elif control == "\b" or command == "D":
                self.column = max(self.column - (count or 1), 0)
            elif command == "A":
                self.row = max(self.row - (count or 1), 0)
            elif command == "K":
                self.rows[self.row] = "" if count == 2 else self.rows[self.row][: self.column]
            elif sign:
                if self.column == self.columns:
                    self.wrapped.append(self.rows[self.row])
                    self._down(1)
                    self.column = 0
                row = self.rows[self.row].ljust(self.column)
                self.rows[self.row] = row[: self.column] + sign + row[self.column + 1 :]
                self.column += 1
        self.seen += [row for row in self.rows if row.strip() and row not in self.seen[-50:]]

    def _down(self, count):
        self.row += count
        self.rows += [""] * (self.row + 1 - len(self.rows))

    def text(self):
        return "\n".join(row.rstrip() for row in self.rows).rstrip()


def _as_from_a_shell():
    """The terminal is the command's, and Ctrl-C reaches it, also where the tests run in the background of a shell, which ignores
    it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command in a terminal. program: how Python is to run it. start: subprocess.Popen for one that imports all by itself."""

    def __init__(
        self,
        *arguments,
        columns=80,
        lines=24,
        output=None,
        cwd=None,
        program=("-m", "throughtime"),
        start=processes.Popen,
    ):
        self.screen = Screen(columns)
        self._here, there = pty.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {
            **{k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")},
            "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "TERM": "xterm",
        }  # fmt: skip
        self.process = start(
            [sys.executable, *program, *map(str, arguments)], stdin=there, stdout=output or there, stderr=there,
            env=environment, cwd=cwd, start_new_session=True,
            preexec_fn=_as_from_a_shell,
        )  # fmt: skip
        os.close(there)

    def until(self, sign, again=None):
        """Read until the screen shows `sign`; where nothing comes for some seconds, type these keys once more, ten times at
        most."""
        left = 10
        while sign not in "\n".join(self.screen.rows):
            if again is not None and left and not select.select([self._here], [], [], AGAIN_S)[0]:
                self.type(again)
                left -= 1
                continue
            assert self._read(), f"ended without {sign!r}:\n{self.screen.text()}"
        return self

    def type(self, keys):
        os.write(self._here, keys.encode())
        return self

    def end(self):
        """Read to the end. Returns: (exit code, screen)."""
        while self._read():
            pass
        os.close(self._here)
        return self.process.wait(), self.screen

    def _read(self):
        if not select.select([self._here], [], [], PATIENCE_S)[0]:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"nothing came for {PATIENCE_S} seconds:\n{self.screen.text()}")
        try:
            some = os.read(self._here, 1 << 16)
        except OSError:  # the other side is closed
            return False
        self._bytes = getattr(self, "_bytes", b"") + some
        try:
            text, self._bytes = self._bytes.decode(), b""
        except UnicodeDecodeError:  # a sign is not whole yet
            return True
        self.screen.write(text)
        return bool(some)
