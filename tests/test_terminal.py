"""What stands on a terminal of 80 columns: no line of progress wraps, and what it is for is there from the first to the last."""

import io
import re
import subprocess
import sys
import time

import pytest
from rich.console import Console

import throughtime as tt
from screen import Terminal
from throughtime.cli.loading import WORDS
from throughtime.training.progress import Bar, Reporter

TEXT = "The quick brown fox jumps over the lazy dog, and the dog did not mind it at all.\n" * 400
SMALL = (
    "--model.hidden-size=16",
    "--model.layers=2",
    "--model.tokens=characters",
    "--training.batch-size=2",
    "--training.chunk=30",
)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminal") / "book.txt"
    path.write_text(TEXT)
    return path


def bars(screen):
    return [row.rstrip() for row in screen.seen if re.search("[━╸╺]", row)]


@pytest.mark.parametrize("columns", [40, 80, 140])
def test_bar_share_and_time_are_there_for_the_whole_training(book, tmp_path, columns):
    out = tmp_path / "run"
    arguments = ("train", "text", book, "--out", out, "--steps=200", "--training.evaluations=4", *SMALL)
    code, screen = Terminal(*arguments, columns=columns).end()
    assert code == 0, screen.text()
    rows = [row for row in bars(screen) if not re.search("reading|preparing", row)]
    assert not [row for row in screen.wrapped if re.search("[━╸╺]", row)]
    assert len(rows) >= 3, "the training was shown"
    for row in rows:
        assert re.search(r"^[━╸╺]+ +\d+ %  \d:\d\d (left|so far)", row), row
        assert len(row) <= columns
    assert all("loss" in row for row in rows if "left" in row and columns > 40)
    assert any("held-out" in row for row in rows) == (columns > 40)
    assert any("gradient norm" in row and "memory" in row for row in rows) == (columns > 120)
    assert not re.search("[━╸╺]", screen.text()), "nothing of it stays"


def test_the_import_of_torch_is_shown_at_once_and_wiped_away(book, tmp_path):
    arguments = ("train", "text", book, "--steps=2", *SMALL, "--out")
    code, screen = Terminal(*arguments, tmp_path / "a", start=subprocess.Popen).end()
    assert code == 0 and screen.seen[0].strip() == WORDS and WORDS not in screen.text()
    code, screen = Terminal(*arguments, tmp_path / "b", "--quiet", start=subprocess.Popen).end()
    assert (code, screen.seen) == (0, [])
    code, screen = Terminal("info", tmp_path / "none", start=subprocess.Popen).end()
    assert code == 2 and not [row for row in screen.seen if WORDS in row], "what needs no PyTorch does not say so"


@pytest.fixture(scope="module")
def run(book):
    sizes = {"hidden_size": 8, "tokens": "words", "cell": "gru"}
    return tt.train("text", [book], out=book.parent / "run", steps=2, model=sizes, progress=False).run.folder


def test_travel_is_typed(run, tmp_path):
    """Tab completes a command and a file; Ctrl-C gives up the line, or what is being done, and not the session."""
    terminal = Terminal("travel", run, "The quick brown fox", cwd=tmp_path).until("\n> ")

    def interrupt():
        time.sleep(0.5)  # a signal while a line is being read to its end belongs to the line, wherever it is
        return terminal.type("\x03")

    terminal.type("set 3 dog").until("> set 3 dog")
    interrupt().until("> set 3 dog\n> ", again="\x03")
    terminal.type("sho\t\n").until("> show \n0 The  1 quick  2 brown  3 fox  ▸\nnext").until("\n> ")
    terminal.type("se\t1 dog\n").until("0 The  1 dog  2 brown").until("\n> ")
    terminal.type("futures 9999999\n").until("> futures 9999999\n")
    interrupt().until("futures: interrupted", again="\x03")
    terminal.type("diff\n").until("here against the original: The quick brown fox").until("\n> ")
    (tmp_path / "kept").mkdir()
    terminal.type("save ke\t").until("save kept/").type("it\n").until("saved: kept/it")
    code, screen = terminal.type("qu\t\n").end()
    assert code == 0 and not screen.wrapped
    assert (tmp_path / "kept/it").exists()


def test_output_that_goes_elsewhere_is_data_alone(run, book, tmp_path):
    with (tmp_path / "out").open("wb") as output:
        code, screen = Terminal("evaluate", run, book, output=output).end()
    assert code == 0
    assert "nats" in (tmp_path / "out").read_text() and "\x1b" not in (tmp_path / "out").read_text()
    (last,) = {row.split()[0] for row in bars(screen)}
    assert last == "evaluating" and not screen.text()


LABELS = [
    f"{group}.{about}"
    for group in ("comp.sys", "rec.sport", "talk.politics")
    for about in ("a", "bb", "hardware", "motorcycles", "misc")
]


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """A classifier of more labels than a table has columns, hardly trained, and its data."""
    folder = tmp_path_factory.mktemp("groups")
    rows = [f"word{i % 7} thing{i % 11},{LABELS[i % len(LABELS)]}\n" for i in range(150)]
    (folder / "data.csv").write_text("text,label\n" + "".join(rows))
    sizes = {"hidden_size": 4, "embedding_size": 4}
    tt.train("classify", [folder / "data.csv"], out=folder / "run", steps=2, model=sizes, progress=False)
    return folder


SMALL_BENCH = "from throughtime.cli import bench, main; bench.SHAPES = ((4, 2, 3, 5),); main(['bench', '--runs', '1'])"


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("evaluate run data.csv", ["labels ", "confusion ", "taken for", "other pairs; --json has them all"]),
        ("info run", ["settings.model.cell", "scores.accuracy"]),
        ("compare run run run run run run data.csv --no-memory", ["ms_a_line"]),
        ("memory --cells rnn,layernorm-lstm --lags 2,4 --steps 2", ["longest lag", "counts as learned"]),
        ("memory --problem exploding --steps 2", ["clip", "rnn-relu"]),
        ("predict none data.csv", ["throughtime: none: no such run folder"]),
        ("bench", ["own cell", "GRU step", "over the shapes", "ours int8", "arithmetic limit"]),
    ],
)
def test_what_a_verb_shows_fits_the_terminal(groups, arguments, shown):
    first, *rest = arguments.split()
    program = ("-c", SMALL_BENCH) if first == "bench" else ("-m", "throughtime", first)
    code, screen = Terminal(*rest, cwd=groups, program=program).end()
    text = screen.text()
    assert code == (2 if "none" in rest else 0), text
    assert not screen.wrapped
    assert not [words for words in shown if words not in text], text
    if first == "evaluate":
        assert (
            text.count(" f1 ") == 1 and len(re.findall(r"^(?:comp|rec|talk)\.\S+ +(?:comp|rec|talk)", text, re.M)) == 10
        )
    if first == "compare":
        assert [len(line.split()) - 1 for line in text.splitlines() if line.startswith("accuracy")] == [3, 3]


def test_words_are_broken_between_words(tmp_path):
    path = tmp_path / ("a-folder-of-a-long-name-that-alone-takes-most-of-the-line" + "-and-more" * 3)
    code, screen = Terminal("info", path, columns=60).end()
    lines = screen.text().splitlines()
    assert code == 2 and lines[0] == "throughtime:" and lines[-1].endswith("no such run folder")
    code, screen = Terminal("train", "text", path, "--out", tmp_path / "o", "--steps=0", columns=40).end()
    assert code == 2 and not screen.wrapped and len(screen.text().splitlines()) > 1


class Tty(io.StringIO):
    def isatty(self):
        return True


def drawn(bar, columns):
    file = io.StringIO()
    Console(file=file, force_terminal=True, width=columns, color_system=None).print(bar)
    return file.getvalue().removesuffix("\n")


@pytest.mark.parametrize("head", ["", "gru at lag 10", "読む" * 30])
def test_what_does_not_fit_goes_from_the_end(head):
    whole = 0
    for columns in range(24, 200):
        bar = Bar(head)
        bar.update(0.5, 3723.0, ["loss 1.500 nats", "held out 1.250", "x" * 300, "never after it"])
        (line,) = drawn(bar, columns).split("\n")
        assert re.search(r"[━╸]{2,} +50 %  1:02:0\d left(  loss 1.500 nats(  held out 1.250)?)?$", line), line
        whole += "held out" in line
    assert whole > (50 if len(head) < 20 else 0)
    bar.update(0.5, 3723.0, ["loss"])
    assert "1:02:0" in drawn(bar, 20), "the time before the head"


def test_work_that_is_counted_tells_amount_and_time(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Tty())
    shown = [""]
    monkeypatch.setattr(
        "throughtime.training.progress.Live.refresh", lambda live: shown.append(drawn(live.renderable, 80))
    )

    def wait_for(pattern):
        end = time.monotonic() + 60
        while not re.search(pattern, shown[-1]):
            assert time.monotonic() < end, shown[-1]
            time.sleep(0.02)

    with Reporter().counting("evaluating", 4_000_000, "bytes") as advance:
        wait_for(r"^evaluating  \S+   0 %  0:0\d so far$")
        advance(1_000_000)
        wait_for(r" 25 %  0:0\d left  1.0 MB of 4.0 MB$")
        advance(9_000_000, "accuracy 0.9")
        wait_for(r"100 %  0:00 left  10.0 MB of 4.0 MB  accuracy 0.9$")
    with Reporter().counting("looking", 50, "inputs") as advance:
        advance(2)
        wait_for(r"  2 of 50 inputs$")
