"""Degenerate training data: each is trained on and every verb then works, with finite numbers, or it is refused in one line that
says what is wanted, and leaves no folder behind."""

import io
import json
import math
import sys
import warnings
from importlib.metadata import EntryPoint

import pytest

import throughtime.cli
from throughtime.cli import main
from throughtime.tasks import registry
from throughtime.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("_one_thread")

SMALL = {
    "text": ("--model.hidden-size", 4),
    "classify": ("--model.hidden-size", 4, "--model.embedding-size", 4),
    "tag": ("--model.hidden-size", 4, "--model.embedding-size", 4, "--model.character-size", 3),
    "translate": ("--model.hidden-size", 4, "--model.embedding-size", 4),
    "next": ("--model.hidden-size", 4),
}
NAMES = {"text": "data.txt", "classify": "data.csv", "tag": "data.tsv", "translate": "data.tsv", "next": "data.txt"}


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    """A command line within this process: (exit code, stdout, stderr). What it warns of is our own words."""
    monkeypatch.setattr(registry, "_others", lambda: {"next": EntryPoint("next", "foreign:NextTask", registry.GROUP)})
    monkeypatch.chdir(tmp_path)

    def shown(message, category, filename, lineno, *more):
        where = f"{filename}:{lineno}: {category.__name__}: {message}"
        assert category is UserWarning and "site-packages" not in filename, where
        print(f"throughtime: {message}", file=sys.stderr)

    monkeypatch.setattr(throughtime.cli, "_show_warning", shown)

    def run_it(*arguments, stdin="", code=0):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8")), encoding="utf-8"))
        capsys.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            found = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert found == code or code is None, err
        return found, out, err

    yield run_it
    registry.find_task.cache_clear()


def finite(value):
    if isinstance(value, dict | list):
        return all(map(finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def read(out):
    """JSON Lines, all of whose numbers are finite."""
    found = [json.loads(line) for line in out.split("\n")[:-1]]
    assert finite(found), out
    return found


def tried(call, monkeypatch, folder, task, content, held=None, *options):
    """What training is refused by; None where it trains, is cut off after a step and goes on, and every verb works."""
    data, valid = NAMES[task], f"held-{NAMES[task]}"
    (folder / data).write_text(content, encoding="utf-8", newline="")
    if held is not None:
        (folder / valid).write_text(held, encoding="utf-8", newline="")
        options += ("--valid", valid)
    before = {path.name for path in folder.iterdir()}
    original = Trainer._one_step

    def stopping(self, stop):
        if self.step == 1:
            stop.set()
        return original(self, stop)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopping)
        code, out, err = call(
            "train", task, data, "--out", "run", "--steps", 3, *SMALL[task], *options, code=None
        )  # fmt: skip
    assert out == ""
    if code == 2:
        assert {path.name for path in folder.iterdir()} == before, "nothing is left behind"
        return err.rstrip("\n").split("\n")[-1].removeprefix("throughtime: ")
    assert code == 130, err
    call("train", task, "--out", "run", "--resume")
    assert finite(json.loads((folder / "run" / "summary.json").read_text())["scores"])
    (scores,) = read(call("evaluate", "run", data if held is None else valid, "--json")[1])
    assert scores["task"] == task
    assert read(call("predict", "run", data, "--json")[1])
    lines = "\n7\n \n" if task == "next" else "\nword\n?!\n \n👍 e\u0301\n"
    assert len(read(call("predict", "run", "--json", stdin=lines)[1])) == lines.count("\n")
    first = [line for line in content.split("\n") if line.strip()][task == "classify"]  # past the names of columns
    assert read(call("inspect", "run", "--json", stdin=f"{first}\n")[1])
    if task in ("text", "next"):
        assert call("generate", "run", "--length", 20)[1]
    call("info", "run")
    return None


# -- lines that say little, as each task has them

LINES = {
    "one character": ["a"],
    "one character repeated": ["a" * 400],
    "one character a line": ["a"] * 16,
    "two characters repeated": ["ab" * 200],
    "nothing": [],
    "white space": ["  ", "\t ", ""] * 100,
    "one line": ["the only line there is, and no other one beside it"],
    "two lines": ["the first of two lines", "the second one"],
    "one line many times": ["the same line again"] * 16,
    "signs": ["?!... ,;-", "--- !!!"] * 8,
    "one long line": ["so it goes on " * 100],
    "two long lines": ["so it goes on " * 20, "never to end " * 20],
    "empty lines but for one": ["", *[""] * 150, "the one line that says something", *[""] * 150],
    "numbers": ["1 2 3", "12 4 5.5 -7"] * 8,
    "emoji": ["👩‍👩‍👧 👍🏽 🇪🇺", "👍 😀😀"] * 8,
    "combining marks": ["e\u0301 a\u0308\u0323 \u0301", "x\u0301\u0301\u0301"] * 8,
    "right to left": ["שלום עולם", "مرحبا \u202eabc\u202c"] * 8,
    "separators and markup": ["a\u2028b\u0085c\x0b </script> d", "x\x0c\x1c y & <!--"] * 8,
}
FEW = "1 example is too few: at least 2 are needed, one of them held out; add some, or give --valid"
UNLABELLED = "no label has two examples, one of them to hold out; give --valid"
ALONE = {"classify": FEW, "tag": FEW, "translate": FEW}
SAME = "the text to train on is nothing but 'a' again and again; there must be two characters or more"
REFUSED = {
    "one character": {"text": "too short: 1 bytes of text to train on; at least 200 are needed", **ALONE},
    "one character repeated": {"text": SAME, **ALONE},
    "one character a line": {"tag": "all words have the tag 'x'; there must be two tags or more"},
    "two characters repeated": ALONE,
    "nothing": {
        "text": "is empty", "classify": "no labelled text in it", "tag": "no sentence in it", "translate": "no pair in it"
    },
    "white space": {
        "text": "there is nothing but white space to train on", "classify": "no labelled text in it",
        "tag": "no sentence in it", "translate": "no pair in it",
    },
    "one line": {"text": "too short: 45 bytes", **ALONE},
    "two lines": {"text": "too short: 34 bytes", "classify": UNLABELLED},
    "one long line": ALONE,
    "two long lines": {"classify": UNLABELLED},
    "empty lines but for one": {"text": "there is nothing but white space held out", **ALONE},
}  # fmt: skip


def as_data(task, lines):
    """Lines as a task has them: with two labels or tags in turn, or with what stands there backwards."""
    if task == "text":
        return "".join(f"{line}\n" for line in lines * (8 if len(lines) == 16 else 1))
    if task == "classify":
        quoted = (line.replace('"', '""') for line in lines)
        return "text,label\n" + "".join(f'"{line}",{"xy"[i % 2]}\n' for i, line in enumerate(quoted))
    if task == "translate":
        return "".join(f"{line}\t{line[::-1]}\n" for line in lines)
    words = (enumerate(line.split()) for line in lines)
    return "".join("".join(f"{word}\t{'xy'[i % 2]}\n" for i, word in line) + "\n" for line in words)


@pytest.mark.parametrize("what", LINES)
@pytest.mark.parametrize("task", ["text", "classify", "tag", "translate"])
def test_lines_that_say_little(call, monkeypatch, tmp_path, task, what):
    found, words = tried(call, monkeypatch, tmp_path, task, as_data(task, LINES[what])), REFUSED.get(what, {}).get(task)
    assert found == words if words is None else words in found and found.startswith(NAMES[task])


# -- few examples, and what is held out


def table(*rows):
    return "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)


def tagged(*sentences):
    return "".join("".join(f"{word}\t{tag}\n" for word, tag in s) + "\n" for s in sentences)


def pairs(*both):
    return "".join(f"{a}\t{b}\n" for a, b in both)


GOOD = {
    "text": "It was the best of times, it was the worst of times.\n" * 8,
    "classify": table(*[("good film", "x"), ("bad film", "y"), ("so good", "x"), ("so bad", "y")] * 3),
    "tag": tagged(*[[("I", "P"), ("saw", "V")], [("you", "P"), ("see", "V"), ("it", "P")]] * 4),
    "translate": pairs(*[("a b c", "c b a"), ("b c", "c b"), ("a", "a")] * 4),
    "next": "1 2 3\n2 3 4\n3 4 5\n" * 4,
}
NOTHING = "too little is in it: nothing held out; name a file with more"
CASES = {  # (training data, held-out data, what it is refused by)
    "held out what is trained on": {task: (good, good, None) for task, good in GOOD.items()},
    "one example, and the same held out": {
        "text": (GOOD["text"].replace("\n", " "), GOOD["text"].replace("\n", " "), None),
        "classify": (
            table(("good", "x")),
            table(("good", "x")),
            "all texts have the label 'x'; there must be two labels",
        ),
        "tag": (tagged([("I", "P"), ("saw", "V")]), tagged([("I", "P"), ("saw", "V")]), None),
        "translate": (pairs(("a b c", "c b a")), pairs(("a b c", "c b a")), None),
        "next": ("1 2 3\n", "1 2 3\n", None),
    },
    "examples of one step": {
        "classify": (table(("a", "x"), ("b", "y")), table(("a", "x")), None),
        "tag": (tagged([("I", "P")], [("saw", "V")]), tagged([("I", "P")]), None),
        "translate": (pairs(("a", "b")), pairs(("a", "b")), None),
        "next": ("1\n", "2\n", None),
    },
    "one step held out": {
        "text": (GOOD["text"], "I", "held-data.txt: too short: 1 tokens held out; at least 2 are needed"),
        "classify": (GOOD["classify"], table(("good", "x")), None),
        "tag": (GOOD["tag"], tagged([("saw", "V")]), None),
        "translate": (GOOD["translate"], pairs(("a", "a")), None),
        "next": (GOOD["next"], "7\n", None),
    },
    "nothing known held out": {
        "text": (GOOD["text"], "ЧЖЩ" * 30, None),
        "classify": (GOOD["classify"], table(("qqq ЖЖЖ", "x"), ("ЩЩ", "y")), None),
        "tag": (GOOD["tag"], tagged([("ЖЖ", "V"), ("ЩЩ", "P")]), None),
        "translate": (GOOD["translate"], pairs(("ЖЖ ЩЩ", "ЧЧ")), None),
        "next": (GOOD["next"], "-900000 900000\n", None),
    },
    "unknown labels held out": {
        "classify": (
            GOOD["classify"],
            table(("good film", "z")),
            "held-data.csv:2: training never had it: unknown label 'z'",
        ),
        "tag": (
            GOOD["tag"],
            tagged([("I", "Q"), ("saw", "R")]),
            "held-data.tsv:1: training never had it: unknown tag 'Q'",
        ),
    },
    "white space held out": {
        "text": (GOOD["text"], " \n \n\n" * 30, "held-data.txt: there is nothing but white space held out"),
        "classify": (GOOD["classify"], table((" ", "x")), "held-data.csv: no labelled text in it"),
        "tag": (GOOD["tag"], "\n \n\n", "held-data.tsv: no sentence in it"),
        "translate": (GOOD["translate"], " \t \n\n", "held-data.tsv: no pair in it"),
        "next": (GOOD["next"], "\n\n", f"held-data.txt: {NOTHING}"),
    },
    "one label": {
        "classify": (table(*[("good film", "x"), ("so good", "x")] * 5), None, "there must be two labels or more"),
        "tag": (tagged(*[[("I", "P"), ("saw", "P")]] * 5), None, "there must be two tags or more"),
    },
    "a label of its own for each": {
        "classify": (table(*[(f"text {i}", f"label {i}") for i in range(9)]), None, "no label has two examples"),
        "tag": (tagged(*[[(f"word{i}", f"tag{i}")] for i in range(9)]), None, "no label has two examples"),
    },
    "no tag given": {"tag": ("1\tw\t_\t_\t_\t_\t_\t_\t_\t_\n" * 2 + "\n", None, "the column upos is nowhere given")},
    "two examples, and empty ones": {
        "classify": (table(("good film", "x"), ("", "y"), ("bad film", "x"), ("so bad", "y")), None, None),
        "translate": ("a\t\n\tb\na\tb\n\t\nb\ta\n", None, None),
        "next": ("1 2 3\n\n\n2 3 4\n\n", None, None),
    },
    "empty examples alone": {"next": ("\n\n\n", None, "0 examples are too few: at least 2 are needed")},
    "one number": {"next": ("1\n" * 12, None, None)},
    "numbers that are none": {"next": ("nan 1\ninf 2\n", None, "a series is numbers under a billion")},
}


@pytest.mark.parametrize(("what", "task"), [(what, task) for what, of in CASES.items() for task in of])
def test_few_examples_and_what_is_held_out(call, monkeypatch, tmp_path, what, task):
    train, held, words = CASES[what][task]
    found = tried(call, monkeypatch, tmp_path, task, train, held)
    assert found is None if words is None else words in found


def test_a_text_of_one_character_in_pieces(call, monkeypatch, tmp_path):
    assert SAME in tried(call, monkeypatch, tmp_path, "text", "a" * 5000, None, "--model.tokens", "bpe")


def test_a_page_of_markup(call, tmp_path):
    (tmp_path / "data.txt").write_text(as_data("text", LINES["separators and markup"]))
    call("train", "text", "data.txt", "--out", "run", "--steps", 1, *SMALL["text"])
    call("inspect", "run", "data.txt", "--out", "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("</script>") == page.count("<script")


# -- what is refused late


def test_a_training_that_diverges_before_it_was_saved_leaves_its_folder_free(call, tmp_path):
    (tmp_path / "data.txt").write_text(GOOD["text"])
    train = ("train", "text", "data.txt", "--out", "run", "--steps", 50, *SMALL["text"])
    _, _, err = call(*train, "--training.learning-rate", 1e38, "--training.warmup", 0, code=2)
    assert "step 1" in err or "step 2" in err
    assert [path.name for path in tmp_path.iterdir()] == ["data.txt"]
    call(*train, "--quiet")
    assert (tmp_path / "run" / "summary.json").exists()


def test_what_is_refused_late_leaves_what_is_not_its_own(call, tmp_path):
    (tmp_path / "data.txt").write_text(GOOD["text"])
    (tmp_path / "run").mkdir()
    diverging = ("--training.learning-rate", 1e38, "--training.warmup", 0)
    train = ("train", "text", "data.txt", "--out", "run", "--steps", 50, *SMALL["text"])
    call(*train, *diverging, code=2)
    assert not any((tmp_path / "run").iterdir()), "a folder that was there stays, empty"
    call(*train, "--quiet")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "empty.txt").write_text("\n\n")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    call("train", "text", "empty.txt", "--out", "run", "--overwrite", code=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before, "an old run stays whole"


def test_a_task_of_another_package_that_lets_pass_what_cannot_be_trained_on(call, monkeypatch, tmp_path):
    """It is refused before anything is replaced, whatever the task."""
    (tmp_path / "data.txt").write_text(GOOD["next"])
    train = ("train", "next", "data.txt", "--out", "run", "--steps", 3, *SMALL["next"], "--quiet")
    call(*train)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    task = type(registry.find_task("next"))
    prepare = task.prepare

    def out_of_range(self, config, *given):
        config = prepare(self, config, *given)
        return config.model_copy(update={"model": config.model.model_copy(update={"hidden_size": 0})})

    for name, fault, words in (
        ("read", lambda *_: [], "data.txt: too little is in it: nothing to train on"),
        ("read", lambda *_: [[], []], "data.txt: all that is there to learn from is empty: 0 values"),
        ("prepare", out_of_range, "model.hidden_size: got 0"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(task, name, fault)
            _, _, err = call(*train, "--valid", "data.txt", "--overwrite", code=2)
        assert words in err
        assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before, "the old run stays"
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "empty.txt: there is nothing to score in it" in call("evaluate", "run", "empty.txt", code=2)[2]
