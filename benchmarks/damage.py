"""What a run folder promises, tried: damaged files and killed trainings.

    python benchmarks/damage.py OUT [--damages 250] [--kills 200] [--every 1] [--disks 6] [--seed 0] [--no-pictures]
                                    [--only text classify tag translate]

OUT is a new folder for small runs of each task and `damage.md`. Every file of a run folder, and of one whose training was cut
off, is damaged in all sorts of ways; then `predict`, `evaluate` and `info`, or `--resume`, are to give what they gave before, or
one line and exit code 2. A training is killed at random moments, a quarter of them after its last step, and before each change of
a file that it makes, and gone on with: it is to end with the same bytes as one that nobody disturbed. Standard streams are closed
or full, and disks. Each try is a process of its own, forked from this one, with a limit of memory and of time.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import shutil
import signal
import string
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch

if not any(Path(p).name == "src" for p in sys.path):
    sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime.cli import main as throughtime
from throughtime.training import loop, report

TASKS = ("text", "classify", "tag", "translate")
SECONDS = 60.0  # a try takes a part of one
MEMORY = 4 << 30  # bytes, beside what this process has already
STEPS = 16
SIZES = {"hidden_size": 12, "embedding_size": 8}
MODELS = {
    "text": {**SIZES, "tokens": "characters", "dropout": 0.1},
    "classify": SIZES,
    "tag": {**SIZES, "character_size": 8},
    "translate": SIZES,
}
FULL_AT = (1000, 3000, 200, 8000, 20_000, 60_000)  # bytes of a file
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
TIMES = ("summary.json", "metrics.jsonl")  # which hold what time it was


# -- a process of its own


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (None: it took too long; negative: a signal), what it wrote and what it said."""

    code: int | None
    out: str
    said: str


def start(arguments: list[str], folder: Path, before: Callable[[], object] = bool) -> int:
    """Fork a process that runs a command line. What it writes and says goes to files in `folder`. before: what it does first."""
    for name in ("out", "said"):
        (folder / name).touch()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the threads that a fork does not take along: none of them is needed
        process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "said")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
        warnings.resetwarnings()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        before()
        code = throughtime(arguments)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def end(process: int, folder: Path, seconds: float = SECONDS) -> Ended:
    """Wait for a process, at most so long."""
    deadline, code = time.monotonic() + seconds, None
    while (found := os.waitpid(process, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            break
        time.sleep(0.002)
    else:
        code = os.waitstatus_to_exitcode(found[1])
    return Ended(code, *((folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "said")))


def run(*arguments: object, before: Callable[[], object] = bool) -> Ended:
    """A command line in a process of its own. before: what it does first."""
    with tempfile.TemporaryDirectory() as folder:
        return end(start([str(a) for a in arguments], Path(folder), before), Path(folder))


# -- small runs


def write_data(task: str, folder: Path) -> list[Path]:
    """What a small run of a task learns from."""
    rng, folder = random.Random(task), folder / "data"
    folder.mkdir(parents=True, exist_ok=True)
    nouns, verbs = ["saw", "fish", "plant", "film", "boat"], ["saw", "fish", "plant", "like", "sink"]
    if task == "text":
        path = folder / "book.txt"
        path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:12_000], encoding="utf-8")
    elif task == "classify":
        rows = [(rng.choice(("good", "fine")), "pos") for _ in range(40)]
        rows += [(rng.choice(("bad", "dull")), "neg") for _ in range(40)]
        path = folder / "films.csv"
        path.write_text("text,label\n" + "".join(f"a {w} {rng.choice(nouns)},{label}\n" for w, label in rows))
    elif task == "tag":
        path = folder / "words.tsv"
        line = "I\tPRON\n{}\tVERB\na\tDET\n{}\tNOUN\n\n"
        path.write_text("".join(line.format(rng.choice(verbs), rng.choice(nouns)) for _ in range(60)))
    else:
        path = folder / "pairs.tsv"
        words = ["".join(rng.choices("abcd", k=rng.randint(1, 5))) for _ in range(80)]
        path.write_text("".join(f"{w}\t{w[::-1].upper()}\n" for w in words))
    return [path]


def training(task: str, files: list[Path], out: Path, *more: object) -> list[str]:
    """The command of a small run."""
    options = [f"--model.{name.replace('_', '-')}={value}" for name, value in MODELS[task].items()]
    options += ["--training.batch-size=4", *(["--training.chunk=16"] if task == "text" else [])]
    given = [
        "train",
        task,
        *files,
        "--out",
        out,
        f"--steps={STEPS}",
        "--training.evaluations=2",
        "--quiet",
        *options,
        *more,
    ]
    return [str(a) for a in given]


def done(ended: Ended) -> Ended:
    """Raises: RuntimeError where a process that was not disturbed did not end well."""
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return ended


def kill(arguments: list[str], after: float) -> None:
    """Start a command line and kill it, so many seconds later."""
    with tempfile.TemporaryDirectory() as folder:
        process = start(arguments, Path(folder))
        end(process, Path(folder), after)


def cut_off(task: str, files: list[Path], out: Path) -> Path:
    """A run whose training was killed, its last checkpoint written after about half its steps."""
    save = loop.Trainer._save

    def last(trainer: loop.Trainer) -> None:
        save(trainer)
        if trainer.step >= STEPS // 2:
            os.kill(os.getpid(), signal.SIGKILL)

    loop.Trainer._save = last  # type: ignore[method-assign]
    try:
        run(*training(task, files, out))
    finally:
        loop.Trainer._save = save  # type: ignore[method-assign]
    if not (out / "checkpoints/last.safetensors").exists():
        raise RuntimeError(f"{out}: has no checkpoint to go on from")
    return out


# -- damage


def _changed(path: Path, change: Callable[[bytearray], object]) -> None:
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)


def flipped(count: int) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, rng: random.Random) -> None:
        def change(data: bytearray) -> None:
            for _ in range(count if data else 0):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)

        _changed(path, change)

    return damage


def swapped_digit(path: Path, rng: random.Random) -> None:
    """Another digit: what still can be read, and is another number."""

    def change(data: bytearray) -> None:
        places = [i for i, byte in enumerate(data) if chr(byte) in string.digits]
        if places:
            i = rng.choice(places)
            data[i] = ord(rng.choice([d for d in string.digits if d != chr(data[i])]))

    _changed(path, change)


def swapped_letter(path: Path, rng: random.Random) -> None:
    def change(data: bytearray) -> None:
        places = [i for i, byte in enumerate(data) if chr(byte) in string.ascii_lowercase]
        if places:
            data[rng.choice(places)] = ord(rng.choice(string.ascii_lowercase))

    _changed(path, change)


def huge_number(path: Path, rng: random.Random) -> None:
    """A number of the file becomes a very large one."""
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    parts = [(i, j) for i, j in _numbers(text) if i > 0 and text[i - 1] in " :[,"]
    if parts:
        low, high = rng.choice(parts)
        text = (
            text[:low]
            + rng.choice(("200000", "10000000", "1" + "0" * 12, str(2**63), "9" * 40, "9" * 5000))
            + text[high:]
        )
        path.write_bytes(text.encode("utf-8", "surrogateescape"))


def _numbers(text: str) -> Iterator[tuple[int, int]]:
    low = 0
    while low < len(text):
        high = low
        while high < len(text) and text[high] in string.digits:
            high += 1
        if high > low:
            yield low, high
        low = high + 1


def cut_short(path: Path, rng: random.Random) -> None:
    _changed(path, lambda data: data.__delitem__(slice(rng.randrange(len(data) + 1), None)))


def longer(path: Path, rng: random.Random) -> None:
    _changed(path, lambda data: data.extend(rng.randbytes(rng.choice((1, 100, 5000)))))


def zeros(path: Path, rng: random.Random) -> None:
    def change(data: bytearray) -> None:
        low = rng.randrange(len(data) + 1)
        some = len(data[low : low + 64])
        data[low : low + some] = bytes(some)

    _changed(path, change)


def line_gone(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    if lines:
        del lines[rng.randrange(len(lines))]
    path.write_bytes(b"".join(lines))


def line_twice(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    if lines:
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    path.write_bytes(b"".join(lines))


def content(*contents: bytes) -> Callable[[Path, random.Random], None]:
    return lambda path, rng: path.write_bytes(rng.choice(contents)) and None  # type: ignore[return-value]


def folder_there(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def pipe_there(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def device_there(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge_file(path: Path, rng: random.Random) -> None:
    os.truncate(path, 1 << 40)  # of no space on the disk


def header_size(path: Path, rng: random.Random) -> None:
    """What a safetensors file begins with."""

    def change(data: bytearray) -> None:
        data[:8] = rng.choice((0, 1, 1 << 20, 1 << 40, (1 << 64) - 1)).to_bytes(8, "little")

    _changed(path, change)


DEEP = (b"[" * 1000, b'{"a":' * 1000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 900 + b"1" + b"}" * 900, b"- " * 3000)
TYPES = (
    b"[]",
    b"{}",
    b"null",
    b"3",
    b'"x"',
    b"[[1, 2], [3]]",
    b'{"scores": []}',
    b'{"entries": 1}',
    b"NaN",
    b"\n\n",
    b"a: &a [*a]",
)
DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "a bit flipped": flipped(1),
    "twenty bits flipped": flipped(20),
    "another digit": swapped_digit,
    "another letter": swapped_letter,
    "a huge number": huge_number,
    "cut short": cut_short,
    "more at the end": longer,
    "zeros": zeros,
    "a line gone": line_gone,
    "a line twice": line_twice,
    "empty": content(b""),
    "another type": content(*TYPES),
    "nested deep": content(*DEEP),
    "noise": lambda path, rng: path.write_bytes(rng.randbytes(500)) and None,  # type: ignore[return-value]
    "not there": lambda path, rng: path.unlink(),
    "a folder in its place": folder_there,
    "a pipe in its place": pipe_there,
    "a device in its place": device_there,
    "a link to itself": link_to_itself,
    "a terabyte of zeros": huge_file,
    "another header": header_size,
}


def swapped_files(run: Path, path: Path, others: list[Path], rng: random.Random) -> None:
    """Another file of the run, or the file of that name of another run, takes its place."""
    there = [p for p in files_of(run) if p != path]
    there += [p for other in others if (p := other / path.relative_to(run)).is_file()]
    shutil.copy(rng.choice(there), path)


def files_of(run: Path) -> list[Path]:
    return sorted(p for p in run.rglob("*") if p.is_file())


# -- what comes of it


@dataclass(frozen=True)
class Try:
    """A damage and what came of it: refused, same, said (another setting, that decides nothing, in a line), wrong or dead."""

    file: str
    how: str
    outcome: str
    words: str = ""


def outcome_of(found: Ended, before: Ended, file: str, verb: str) -> str:
    """How what came compares with what came before the damage."""
    if found.code is None or found.code < 0:
        return "dead"
    one_line = (
        found.said.startswith("throughtime: ") and found.said.count("\n") == 1 and "this is a fault" not in found.said
    )
    if found.code == 2 and one_line and not found.out:
        return "refused"
    if found.code == 0 and found.out == before.out:
        return "same" if found.said == before.said else "said"
    if found.code == 0 and verb == "info" and file == "config.yaml" and "this changes no answer" in found.said:
        return "said"  # it shows the settings as they stand
    return "wrong"


def damaged(run: Path, others: list[Path], scratch: Path, rng: random.Random, number: int) -> tuple[Path, str, str]:
    """A copy of a run with one of its files damaged: the copy, the file and how."""
    copy = scratch / "copy"
    if copy.exists():
        shutil.rmtree(copy)
    shutil.copytree(run, copy)
    files = files_of(copy)
    path = files[number % len(files)]
    how = rng.choice([*DAMAGES, "swapped"])
    if how == "swapped":
        swapped_files(copy, path, others, rng)
    else:
        DAMAGES[how](path, rng)
    return copy, str(path.relative_to(copy)), how


def try_damages(
    run_folder: Path, others: list[Path], verbs: dict[str, list[object]], scratch: Path, count: int, rng: random.Random
) -> Iterator[Try]:
    """Damage a run in `count` ways, and try each verb on each. verbs: a name and the command line, in which RUN is the folder."""

    def tried(verb: list[object], folder: Path) -> Ended:
        ended = run(*[folder if a == "RUN" else a for a in verb])
        return Ended(ended.code, ended.out.replace(str(folder), "RUN"), ended.said.replace(str(folder), "RUN"))

    before = {name: done(tried(verb, run_folder)) for name, verb in verbs.items()}
    for number in range(count):
        copy, file, how = damaged(run_folder, others, scratch, rng, number)
        for name, verb in verbs.items():
            found = tried(verb, copy)
            yield Try(
                file, f"{name}: {how}", outcome_of(found, before[name], file, name), f"{found.code} {found.said[-400:]}"
            )


def try_damages_of_a_training(
    run_folder: Path, whole: Path, others: list[Path], task: str, scratch: Path, count: int, rng: random.Random
) -> Iterator[Try]:
    """Damage a run whose training was cut off, and go on with it: refused, or the weights of one that nobody disturbed."""
    right = (whole / "model.safetensors").read_bytes()
    for number in range(count):
        copy, file, how = damaged(run_folder, others, scratch, rng, number)
        found = run("train", task, "--out", copy, "--resume", "--quiet")
        outcome = outcome_of(found, Ended(0, "", ""), file, "resume")
        if outcome in ("same", "said") and (copy / "model.safetensors").read_bytes() != right:
            outcome = "wrong"
        yield Try(file, f"resume: {how}", outcome, f"{found.code} {found.said[-400:]}")


# -- kills


def same_files(a: Path, b: Path) -> str:
    """How two run folders differ, in words; nothing where they have the same files with the same bytes, but for the time."""
    names = [sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) for folder in (a, b)]
    if names[0] != names[1]:
        return f"other files: {sorted(set(names[0]) ^ set(names[1]))}"
    return ", ".join(n for n in names[0] if n not in TIMES and (a / n).read_bytes() != (b / n).read_bytes())


def try_kills(task: str, files: list[Path], scratch: Path, count: int, rng: random.Random) -> Iterator[Try]:
    """Kill trainings at random moments, a quarter after the last step, and go on with each until it has ended."""
    whole, folder = scratch / "whole", scratch / "killed" / "whole"
    started = time.monotonic()
    done(run(*training(task, files, scratch / "again")))
    took = time.monotonic() - started
    stepped = last_step(task, files, scratch / "stepped")
    for number in range(count):
        late = number % 4 == 0
        shutil.rmtree(folder, ignore_errors=True)
        kill(training(task, files, folder), rng.uniform(stepped, took * 1.02) if late else rng.uniform(0, stepped))
        words = ""
        for again in range(4):
            command = gone_on_with(task, files, folder)
            if again < 3 and rng.random() < 0.25:
                kill(command, rng.uniform(0, took))
                continue
            found = run(*command)
            ended = found.code == 2 and "has ended; there is nothing to resume" in found.said
            words = "" if found.code == 0 or ended else f"{found.code} {found.said}"
            break
        words = words or same_files(whole, folder)
        yield Try(
            "a kill after the last step" if late else "a kill before it", "kill", "wrong" if words else "same", words
        )


def killed_at(change: int) -> Callable[[], object]:
    """Before its so manieth change of a file (one made, written, renamed, removed) the process kills itself; 0: never."""

    def begin() -> None:
        left = change

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            flags = arguments[2] if event == "open" else 0
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (
                isinstance(flags, int) and flags & WRITES
            ):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        if change:
            sys.addaudithook(count)

    return begin


def try_every_change(task: str, files: list[Path], scratch: Path, every: int = 1) -> Iterator[Try]:
    """Kill a training before each of its changes of a file (or each so manieth), and go on with it: nothing is left to chance."""
    whole, folder = scratch / "whole", scratch / "killed" / "whole"
    for change in range(1, 10_000, every):
        shutil.rmtree(folder, ignore_errors=True)
        ended = run(*training(task, files, folder), before=killed_at(change))
        if ended.code == 0:
            break
        found = run(*gone_on_with(task, files, folder))
        whole_already = found.code == 2 and "has ended; there is nothing to resume" in found.said
        words = same_files(whole, folder) if found.code == 0 or whole_already else f"{found.code} {found.said}"
        yield Try(f"before change {change}", "kill", "wrong" if words else "same", words)


def gone_on_with(task: str, files: list[Path], folder: Path) -> list[str]:
    """The command for a training that was killed: where it has not begun, that of its beginning."""
    if (folder / "config.yaml").exists():
        return ["train", task, "--out", str(folder), "--resume", "--quiet"]
    return training(task, files, folder)


def last_step(task: str, files: list[Path], out: Path) -> float:
    """After how many seconds a training has made its last step."""
    train = loop.Trainer.train

    def cut(trainer: loop.Trainer) -> None:
        train(trainer)
        os._exit(0)

    loop.Trainer.train = cut  # type: ignore[method-assign]
    started = time.monotonic()
    try:
        run(*training(task, files, out))
    finally:
        loop.Trainer.train = train  # type: ignore[method-assign]
    return time.monotonic() - started


# -- what the system refuses


def closed(number: int, name: str) -> Callable[[], object]:
    """Close standard input, output or error, as `<&-` does: Python then has none."""

    def begin() -> None:
        os.close(number)
        setattr(sys, name, None)

    return begin


def full(number: int, name: str) -> Callable[[], object]:
    """Standard output or error goes to a disk that is full."""

    def begin() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115

    return begin


def no_more_than(size: int) -> Callable[[], object]:
    """No file can have more than so many bytes: the disk is full there."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def try_the_system(
    task: str, files: list[Path], whole: Path, verbs: dict[str, list[object]], scratch: Path, sizes: Sequence[int]
) -> Iterator[Try]:
    """Streams that are closed or full, and a disk that is."""

    def judged(name: str, found: Ended, right: bool) -> Try:
        one_line = found.said.count("\n") == 1 and "this is a fault" not in found.said
        dead = found.code is None or found.code < 0
        outcome = "dead" if dead else "refused" if found.code == 2 and one_line else "same" if right else "wrong"
        return Try("", name, outcome, f"{found.code} {found.said[-400:]}")

    there = {name: [whole if a == "RUN" else a for a in verb] for name, verb in verbs.items()}
    for name, verb in there.items():
        for how, before in (("closed output", closed(1, "stdout")), ("full output", full(1, "stdout"))):
            yield judged(f"{name}: {how}", run(*verb, before=before), False)
    yield judged("predict: closed input", run("predict", whole, before=closed(0, "stdin")), False)
    folder = scratch / "full" / "whole"
    for name, before in (
        ("no output", closed(1, "stdout")),
        ("no words", closed(2, "stderr")),
        ("lost", full(2, "stderr")),
    ):
        shutil.rmtree(folder, ignore_errors=True)
        arguments = [a for a in training(task, files, folder) if a != "--quiet"]
        found = run(*arguments, before=before)
        yield judged(f"train: {name}", found, found.code == 0 and not same_files(whole, folder))
    for size in sizes:
        shutil.rmtree(folder, ignore_errors=True)
        found = run(*training(task, files, folder), before=no_more_than(size))
        yield judged(f"train: {size} bytes a file", found, found.code == 0)
        found = run(*gone_on_with(task, files, folder)) if found.code else found
        words = same_files(whole, folder) if found.code == 0 else found.said
        yield Try("", f"train: after {size} bytes a file", "wrong" if words else "same", words)


# -- all of it


VERBS: dict[str, list[object]] = {
    "predict": ["predict", "RUN"],
    "evaluate": ["evaluate", "RUN"],
    "info": ["info", "RUN"],
}
LINES = {
    "text": "The word\nis a name\n",
    "classify": "a good film\na bad boat\n",
    "tag": "I saw a saw\n",
    "translate": "abc\nda\n",
}


def prepare(task: str, scratch: Path) -> tuple[list[Path], Path, Path, Path]:
    """The data of a task, a run of it, one of another seed, and one whose training was cut off."""
    files = write_data(task, scratch / task)
    whole, other = scratch / task / "whole", scratch / task / "other"
    done(run(*training(task, files, whole)))
    done(run(*training(task, files, other, "--seed=1")))
    return files, whole, other, cut_off(task, files, scratch / task / "cut")


def verbs_of(task: str, files: list[Path], scratch: Path) -> dict[str, list[object]]:
    lines = scratch / task / "lines.txt"
    lines.write_text(LINES[task])
    more: dict[str, list[Path]] = {"predict": [lines], "evaluate": files, "info": []}
    return {name: [*verb, *more[name]] for name, verb in VERBS.items()}


def warm_up(scratch: Path, tasks: Sequence[str] = TASKS) -> None:
    """Once through everything, so that what is imported and compiled is there when this process forks."""
    torch.set_num_threads(1)
    loop.Trainer._save_every = lambda trainer: 4  # type: ignore[method-assign]  # small runs are to have checkpoints too
    for task in tasks:
        files = write_data(task, scratch / "warm" / task)
        out = scratch / "warm" / task / "run"
        budget = {"steps": 2, "model": MODELS[task], "training": {"batch_size": 4}, "progress": False}
        model = tt.train(task, files, out=out, **budget)
        list(model.predict(LINES[task].splitlines()))
        model.evaluate(files)
    gc.collect()
    gc.freeze()


def table(tries: dict[str, list[Try]]) -> str:
    names = ("refused", "same", "said", "wrong", "dead")
    lines = [
        "| | tries | refused in one line | the same answer | the same, and said | wrong | dead |",
        "|---|---|---|---|---|---|---|",
    ]
    for what, found in tries.items():
        counts = Counter(t.outcome for t in found)
        lines.append(f"| {what} | {len(found)} | " + " | ".join(str(counts[name]) for name in names) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--damages", type=int, default=250, help="of a run of each task; half as many of one cut off")
    parser.add_argument("--kills", type=int, default=200, help="of all tasks together")
    parser.add_argument(
        "--every", type=int, default=1, help="also killed before each so manieth change of a file; 0: not"
    )
    parser.add_argument(
        "--disks", type=int, default=len(FULL_AT), help="how many are full, each after so many bytes of a file"
    )
    parser.add_argument(
        "--no-pictures", action="store_true", help="draw no learning curves, which take half of the time"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=TASKS, default=TASKS)
    given = parser.parse_args()
    given.out.mkdir(parents=True)
    if given.no_pictures:
        report.draw_curve = lambda *_, **__: None
    scratch = given.out.resolve()
    warm_up(scratch, given.only)
    tries: dict[str, list[Try]] = {}

    def collect(what: str, found: Iterator[Try]) -> None:
        tries[what] = []
        for one in found:
            tries[what].append(one)
            if one.outcome in ("wrong", "dead"):
                print(f"{what}: {one.file}: {one.how}: {one.outcome}: {one.words.strip()}", file=sys.stderr, flush=True)
        print(f"{what}: {Counter(t.outcome for t in tries[what])}", file=sys.stderr, flush=True)

    for task in given.only:
        rng = random.Random(f"{given.seed} {task}")
        files, whole, other, cut = prepare(task, scratch)
        others = [other, *(scratch / t / "whole" for t in TASKS if t != task)]
        verbs = verbs_of(task, files, scratch)
        work = scratch / task
        collect(f"{task}, a run", try_damages(whole, others, verbs, work, given.damages, rng))
        found = try_damages_of_a_training(cut, whole, [other], task, work, given.damages // 2, rng)
        collect(f"{task}, a training cut off", found)
        if given.kills:
            count = given.kills // len(given.only)
            collect(f"{task}, killed", try_kills(task, files, work, count, rng))
        if given.every:
            collect(f"{task}, killed before a change of a file", try_every_change(task, files, work, given.every))
        collect(f"{task}, streams and disks", try_the_system(task, files, whole, verbs, work, FULL_AT[: given.disks]))
    text = table(tries)
    (given.out / "damage.md").write_text(text, encoding="utf-8")
    print(text)
    if any(t.outcome in ("wrong", "dead") for found in tries.values() for t in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
