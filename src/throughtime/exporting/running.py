"""What was written, run stream by stream as it will be run: in this process, or as a program of its own, here or in an emulator."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import Run, check
from throughtime.exporting.reading import Reading
from throughtime.exporting.stack import Stack
from throughtime.scanning import Inputs
from throughtime.scanning.call import leaves
from throughtime.scanning.cpu.target import Library

SECONDS = 300  # that a program may take
STEPS = 40  # tokens of each text that is read to check
WITHIN = 1e-3  # of log p, where tokens are read: the states of 40 steps


Stream = tuple[Tensor, Tensor]  # the state [S] that it begins with; what its steps are given, [T, I]
Ended = tuple[Tensor, Tensor]  # what its steps give, [T, N]; the state after them


class Running(Protocol):
    """What has the functions of an export."""

    def first(self) -> Tensor:
        """The state that `init` writes."""

    def steps(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of one stream. state [S]; x [T, I], or tokens [T] where it reads those. Returns: [T, N]; the state after them."""


class RunningBlocks(Running, Protocol):
    """What has steps at once besides."""

    def both(self, streams: Sequence[Stream]) -> list[tuple[Ended, Ended]]:
        """Streams one after the other, each by its steps and then as one block. Returns: of each what `steps` gives, twice."""


class InProcess:
    """An object, loaded into this process. state, outputs: numbers. own: how many of the state are the step's own, at its end;
    they are not shown. read: take tokens in the place of what a step is given."""

    def __init__(self, code: bytes, name: str, state: int, outputs: int, *, own: int = 0, read: bool = False) -> None:
        self._library = Library(code)
        self._sizes, self._own = (state, outputs), torch.zeros(own)
        kinds = [ctypes.c_void_p, ctypes.c_int if read else ctypes.c_void_p, ctypes.c_void_p]
        self._init = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._library.address(f"{name}_init"))
        function = f"{name}_read" if read else f"{name}_step"
        self._step = ctypes.CFUNCTYPE(None, *kinds)(self._library.address(function))
        kinds = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
        self._block = ctypes.CFUNCTYPE(None, *kinds)(self._library.address(f"{name}_block"))
        self._reads = read

    def first(self) -> Tensor:
        """The state that `init` writes."""
        state = torch.full((self._sizes[0],), torch.nan)
        self._init(state.data_ptr())
        return self._shown(state)

    def _shown(self, state: Tensor) -> Tensor:
        self._own = state[len(state) - len(self._own) :].clone()
        return state[: len(state) - len(self._own)]

    def steps(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of one stream."""
        state, y = torch.cat([state, self._own]), torch.full((len(x), self._sizes[1]), torch.nan)
        for given, out in zip(x, y, strict=True):
            self._step(state.data_ptr(), int(given) if self._reads else given.data_ptr(), out.data_ptr())
        return y, self._shown(state)

    def both(self, streams: Sequence[Stream]) -> list[tuple[Ended, Ended]]:
        """Each stream by its steps, and as a block."""
        return [(self.steps(state, x), self.block(state, x)) for state, x in streams]

    def block(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of one stream at once."""
        state, y = torch.cat([state, self._own]), torch.full((len(x), self._sizes[1]), torch.nan)
        self._block(state.data_ptr(), x.data_ptr(), y.data_ptr(), len(x))
        return y, self._shown(state)


class AsProgram:
    """A program made of `PROGRAM` and an export. command: what runs it."""

    def __init__(self, command: Sequence[str], state: int, outputs: int) -> None:
        self._command, self._state, self._outputs = list(command), state, outputs

    def first(self) -> Tensor:
        """The state that `init` writes."""
        return self._run(b"")[: self._state]

    def steps(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of one stream."""
        return self._streams([(len(x), state, x)])[0]

    def block(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Steps of one stream at once."""
        return self._streams([(-len(x), state, x)])[0]

    def both(self, streams: Sequence[Stream]) -> list[tuple[Ended, Ended]]:
        """Each stream by its steps, and as a block: all by one process, since an emulator takes longer to start than to run."""
        found = self._streams([(count, state, x) for state, x in streams for count in (len(x), -len(x))])
        return list(zip(found[::2], found[1::2], strict=True))

    def _streams(self, asked: Sequence[tuple[int, Tensor, Tensor]]) -> list[Ended]:
        """Streams that one process reads. asked: of each the number of steps, below zero as a block, the state, what is given."""
        found = self._run(b"".join(struct.pack("<i", count) + _bytes(state) + _bytes(x) for count, state, x in asked))
        sizes = [size for _, _, x in asked for size in (len(x) * self._outputs, self._state)]
        _, *parts = torch.split(found, [self._state, *sizes])
        ended = zip(asked, parts[::2], parts[1::2], strict=True)
        return [(y.view(len(x), self._outputs), after) for (_, _, x), y, after in ended]

    def _run(self, given: bytes) -> Tensor:
        try:
            done = subprocess.run(self._command, input=given, capture_output=True, timeout=SECONDS, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"{Path(self._command[-1]).name}: what was written does not run: {error}") from error
        return torch.from_numpy(np.frombuffer(done.stdout, "<f4").astype(np.float32))


# Writes the state of the beginning; then for each stream that it reads, (int32 steps, the state, what each step is given): what
# each step gives, and the state. A negative number of steps is that of a block, of MOST steps at most.
# NAME: the export's; INPUT, TOKENS: what a step is given. Without a C library unless HOSTED.
PROGRAM = r"""
#include HEADER
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
enum { MOST = 64 };
static float state[STATE + 1], y[MOST * OUTPUTS];
#ifdef TOKENS
enum { GIVEN = 4 };
static int x[1];
#define STEP() PASTE(NAME, _read)(state, x[0], y)
#define BLOCK(steps)
#else
enum { GIVEN = 4 * INPUTS };
static float x[MOST * INPUTS];
#define STEP() PASTE(NAME, _step)(state, x, y)
#define BLOCK(steps) PASTE(NAME, _block)(state, x, y, steps)
#endif
#ifdef HOSTED
#include <stdio.h>
#include <stdlib.h>
static int get(void *to, long size) { return fread(to, 1, (size_t)size, stdin) == (size_t)size; }
static void put(const void *from, long size) { fwrite(from, 1, (size_t)size, stdout); }
static void leave(void) { fflush(stdout); exit(0); }
#else
static long call(long number, long a, long b, long c)
{
#if defined __aarch64__
    register long n __asm__("x8") = number, r0 __asm__("x0") = a, r1 __asm__("x1") = b, r2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(n) : "memory");
#elif defined __arm__
    register long n __asm__("r7") = number, r0 __asm__("r0") = a, r1 __asm__("r1") = b, r2 __asm__("r2") = c;
    __asm__ volatile("svc 0" : "+r"(r0) : "r"(r1), "r"(r2), "r"(n) : "memory");
#else
    register long n __asm__("a7") = number, r0 __asm__("a0") = a, r1 __asm__("a1") = b, r2 __asm__("a2") = c;
    __asm__ volatile("ecall" : "+r"(r0) : "r"(r1), "r"(r2), "r"(n) : "memory");
#endif
    return r0;
}
#ifdef __arm__
enum { READ = 3, WRITE = 4, EXIT = 1 };
#else
enum { READ = 63, WRITE = 64, EXIT = 93 };
#endif
static int get(void *to, long size)
{
    for (long n; size > 0; to = (char *)to + n, size -= n)
        if ((n = call(READ, 0, (long)to, size)) <= 0) return 0;
    return 1;
}
static void put(const void *from, long size)
{
    for (long n; size > 0; from = (const char *)from + n, size -= n)
        if ((n = call(WRITE, 1, (long)from, size)) <= 0) call(EXIT, 1, 0, 0);
}
static void leave(void) { call(EXIT, 0, 0, 0); }
#define main _start
#endif
int main(void)
{
    int steps;
    PASTE(NAME, _init)(state);
    put(state, STATE * 4);
    while (get(&steps, 4) && get(state, STATE * 4)) {
        for (int t = 0; t < steps; t++) {
            get(x, GIVEN);
            STEP();
            put(y, 4 * OUTPUTS);
        }
        if (steps < 0 && steps >= -MOST) {
            get(x, -steps * GIVEN);
            BLOCK(-steps);
            put(y, -steps * 4 * OUTPUTS);
        }
        put(state, STATE * 4);
    }
    leave();
    return 0;
}
"""


class OtherBits(UserError):
    """A block gives what its steps give, but not to the bit."""


def run_of(running: RunningBlocks, stack: Stack, differing: list[int] | None = None) -> Run:
    """Streams one after the other, each as a block, as `agreement.check` runs what was written. differing: is given the length of
    each block that does not give to the bit what its steps do; None: then OtherBits is raised."""

    def checked(x: Tensor, steps: Ended, whole: Ended) -> Ended:
        if not all(map(_same_bits, steps, whole)):
            if differing is None:
                raise OtherBits(f"a block of {len(x)} steps gives other bits than its steps")
            differing.append(len(x))
        return whole

    def run(inputs: Inputs, states: Sequence[Tensor], lengths: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        assert lengths is None
        given = torch.cat([t.reshape(*t.shape[:2], -1) for t in leaves(inputs)], -1).transpose(0, 1)  # [B, T, I]
        rows = torch.cat([given.new_zeros(len(given), 0), *(s.reshape(len(s), -1) for s in states)], 1)
        both = running.both([(s, x.contiguous()) for s, x in zip(rows, given, strict=True)])
        outputs, ends = zip(*(checked(x, *found) for x, found in zip(given, both, strict=True)), strict=True)
        parts = torch.split(torch.stack(ends), [s[0].numel() for s in states], 1)
        finals = [part.reshape(s.shape) for part, s in zip(parts, states, strict=True)]
        y, _ = stack.run(inputs, states)  # for its shape
        return torch.stack(outputs, 1).reshape(y.shape), finals

    return run


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return bool(((a.view(torch.int32) == b.view(torch.int32)) | (a.isnan() & b.isnan())).all())


def check_running(running: RunningBlocks, stack: Stack, what: str) -> float:
    """Set its blocks beside a stack, and its steps beside its blocks. Returns: the largest difference. Raises: UserError where it
    differs by more than rounding; OtherBits where it does not, and a block is not to the bit what its steps are."""
    right = torch.cat([torch.zeros(0), *(s.reshape(-1) for s in stack.states)])
    if not torch.equal(running.first(), right):
        raise UserError(f"{what}: the state it starts from is not that of {stack.name}: nothing was written")
    differing = list[int]()
    worst = check(stack, run_of(running, stack, differing), what)
    if differing:
        raise OtherBits(f"{what}: a block of {differing[0]} steps gives other bits than its steps: nothing was written")
    return worst


def check_reading(
    running: Running, stack: Stack, reading: Reading, what: str, *, int8: bool, log_p: Callable[[Tensor], Tensor]
) -> float:
    """Set what reads tokens beside a model. stack: what steps. log_p: of tokens [T, 1] of one document, [T, 1, V], of the trained
    model itself, to which float32 weights are to come. Returns: the largest difference. Raises: as `check_running`."""
    draw = torch.Generator().manual_seed(2)
    rows, worst = reading.rows(int8=int8), 0.0
    for _ in range(3):
        tokens = torch.randint(2, len(reading.texts), (STEPS,), generator=draw)
        tokens[0] = tokens[STEPS // 2] = reading.start
        got, _ = running.steps(
            torch.randn(sum(s.numel() for s in stack.states), generator=draw), tokens.to(torch.int32)
        )
        right = []
        for part in torch.split(tokens, STEPS // 2):
            right.append(stack.run(rows[part].unsqueeze(1), stack.states)[0] if int8 else log_p(part.unsqueeze(1)))
        wanted = torch.cat(right)[:, 0]
        away = (got - wanted).abs()
        if not bool(((got == wanted) | (away <= WITHIN * wanted.abs().clamp(min=1))).all()):
            raise UserError(
                f"{what}: log p differs from the reference by {float(away.nan_to_num(torch.inf).max()):.3g}: nothing was written"
            )
        worst = max(worst, float(away.nan_to_num(0).max()))
    return worst


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()
