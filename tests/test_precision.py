"""Trainings in bfloat16: which step is, that all else is in float32, and that what cannot be had is said."""

import json
import math

import pytest
import torch
import yaml

import throughtime as tt
from sounds import write_table
from throughtime.models import language
from throughtime.runs import Run
from throughtime.scanning.cpu import autocast, target
from throughtime.tasks import find_task
from throughtime.training import loop, precision
from throughtime.training.loop import Trainer

SMALL = {"cell": "gru", "hidden_size": 24, "embedding_size": 12, "tokens": "characters", "dropout": 0.1}
TRAINING = {"batch_size": 4, "chunk": 20}
NONE = "this processor has none"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{n} and {n + 1} are {2 * n + 1}.\n" for n in range(600)), encoding="utf-8")
    return path


@pytest.fixture
def gains(monkeypatch):
    """The processor gains by bfloat16, or not, for the reason given."""

    def set_to(why):
        monkeypatch.setattr(target, "why_not_bfloat16", lambda: why)
        monkeypatch.setattr(autocast, "why_not_bfloat16", lambda: why if target.has_bfloat16(target.host()) else NONE)

    return set_to


def train(text, out, asked="auto", **settings):
    settings = {"steps": 12, "model": SMALL} | settings
    return tt.train("text", text, out=out, training=TRAINING | {"precision": asked}, **settings)


def losses(folder):
    return {line["step"]: line["loss"] for line in Run(folder).read_metrics() if "loss" in line}


def recorded(folder):
    settings = yaml.safe_load((folder / "config.yaml").read_text())
    return settings["training"]["precision"], json.loads((folder / "summary.json").read_text())["precision"]


@pytest.mark.parametrize(
    ("asked", "why", "found", "said"),
    [
        ("auto", None, "bfloat16", "in bfloat16"),
        ("auto", NONE, "float32", f"in float32, not bfloat16: {NONE}"),
        ("float32", None, "float32", "in float32"),
        ("bfloat16", None, "bfloat16", "in bfloat16"),
    ],
)
def test_what_is_chosen_is_said_and_recorded(text, tmp_path, gains, capsys, asked, why, found, said):
    gains(why)
    train(text, tmp_path / "run", asked)
    assert f"{said}\n" in capsys.readouterr().err
    assert recorded(tmp_path / "run") == (found, found)


@pytest.mark.parametrize(
    ("task", "found"),
    [
        ("text", "bfloat16"), ("music", "bfloat16"), ("tag", "bfloat16"), ("translate", "bfloat16"),
        ("classify", "float32"), ("classify-audio", "float32"), ("forecast", "float32"), ("transcribe", "float32"),
    ],
)  # fmt: skip
def test_which_tasks_take_it_unasked(task, found, gains):
    """Those that gained by it, by docs/defaults.md."""
    gains(None)
    why = "" if found == "bfloat16" else f", not bfloat16: {task} was not found to gain by it"
    assert precision.choose_precision("auto", find_task(task), "cpu") == (found, found + why)
    gains(NONE)
    assert precision.choose_precision("auto", find_task(task), "cpu")[0] == "float32"


def test_what_cannot_be_had_is_refused_before_anything_is_made(text, tmp_path, gains):
    gains(NONE)
    with pytest.raises(
        tt.UserError, match=f"^training.precision: bfloat16 cannot be had: {NONE}; use float32, or auto$"
    ):
        train(text, tmp_path / "run", "bfloat16")
    assert not (tmp_path / "run").exists()


def test_a_graphics_card_without_it_and_a_task_that_does_not_gain(gains, monkeypatch):
    gains(None)
    task = find_task("text")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    with pytest.raises(tt.UserError, match="this graphics card computes nothing in it"):
        precision.choose_precision("bfloat16", task, "cuda")
    assert precision.choose_precision("auto", task, "cuda")[0] == "float32"
    monkeypatch.setattr(type(task), "bfloat16", False)
    assert precision.choose_precision("auto", task, "cpu") == (
        "float32",
        "float32, not bfloat16: text was not found to gain by it",
    )
    assert precision.choose_precision("bfloat16", task, "cpu")[0] == "bfloat16"


def test_steps_are_in_bfloat16_and_scores_weights_and_the_optimiser_in_float32(text, tmp_path, gains, monkeypatch):
    gains(None)
    seen = {True: set(), False: set()}
    score, step = language.F.cross_entropy, Trainer._one_step

    def looked_at(logits, *more, **options):
        found = score(logits, *more, **options)
        seen[torch.is_grad_enabled()].add((logits.dtype, found.dtype))
        return found

    def stepped(self, stop):
        line = step(self, stop)
        kept = [*self.network.parameters(), *(v for s in self.optimizer.state.values() for v in s.values())]
        loop._mapped(self.carry, kept.append)
        assert {t.dtype for t in kept} == {torch.float32}
        return line

    monkeypatch.setattr(language.F, "cross_entropy", looked_at)
    monkeypatch.setattr(loop.Trainer, "_one_step", stepped)
    train(text, tmp_path / "run", "bfloat16", model=SMALL | {"cell": "lstm"})
    assert seen[True] == {(torch.bfloat16, torch.float32)}, "a step"
    assert seen[False] == {(torch.float32, torch.float32)}, "a score"


def test_float32_is_what_it_was_and_bfloat16_is_near_it(text, tmp_path, gains):
    gains(None)
    for asked in ("float32", "bfloat16"):
        train(text, tmp_path / asked, asked, steps=60)
    gains(NONE)
    train(text, tmp_path / "auto", steps=60)
    plain, half = losses(tmp_path / "float32"), losses(tmp_path / "bfloat16")
    assert losses(tmp_path / "auto") == plain
    assert half != plain
    # a product of operands with 8 bits is off by less than 2^-8 of its size, and a loss of some nats by not much more
    assert half[1] == pytest.approx(plain[1], rel=2**-8)
    assert half[60] == pytest.approx(plain[60], rel=0.05)
    assert half[60] < 0.8 * half[1]


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_a_training_goes_on_in_its_own_precision(text, tmp_path, gains, capsys, asked):
    gains(None)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    train(text, whole, asked, steps=20)
    _part(text, parted, asked)
    capsys.readouterr()
    tt.train("text", out=parted, resume=True)
    assert "precision" not in capsys.readouterr().err
    assert losses(parted) == losses(whole)
    assert recorded(parted) == (asked, asked)


def test_a_training_in_bfloat16_goes_on_where_there_is_none_and_says_so(text, tmp_path, gains, capsys):
    gains(None)
    _part(text, tmp_path / "run", "bfloat16")
    gains(NONE)
    tt.train("text", out=tmp_path / "run", resume=True)
    assert f"precision: float32 from now on, in place of bfloat16: {NONE}\n" in capsys.readouterr().err
    assert sorted(losses(tmp_path / "run")) == list(range(1, 21))


def test_a_training_from_before_there_was_a_choice_goes_on_in_float32(gains):
    gains(None)
    assert precision.precision_of("auto", "cpu") == ("float32", None)


def test_a_large_vocabulary_has_its_softmax_in_float32(gains):
    gains(None)
    torch.manual_seed(0)
    model = language.LanguageModel(400, "gru", 16, 8, cutoffs=(20, 100))
    batch = torch.randint(2, 400, (2, 9, 3))
    with precision.computing_in("bfloat16", "cpu"):
        total, _, _ = model((batch[0], batch[1]), None)
    total.backward()
    plain, _, _ = model((batch[0], batch[1]), None)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, plain, rtol=2**-8, atol=0)


TABLES = {
    "films.csv": "text,label\n" + "".join(f"a {w} film {i},{w}\n" for i in range(20) for w in ("good", "bad")),
    "words.tsv": "".join(f"I\tPRON\nsaw\tVERB\na\tDET\nsaw{i}\tNOUN\n\n" for i in range(20)),
    "pairs.tsv": "".join(f"{'ab' * n}\t{'xy' * n}\n{'ba' * n}\t{'yx' * n}\n" for n in range(1, 15)),
    "series.csv": "ds,y\n" + "".join(f"{2000 + i // 12}-{i % 12 + 1:02},{100 + i + 9 * (i % 12)}\n" for i in range(72)),
    "tunes.abc": "\n".join(
        f"X:{n}\nT:{n}\nM:4/4\nL:1/8\nK:C\n" + "".join(f"{'CDEFGAB'[(i * n) % 7]}{'' if i % 4 else '2'}" for i in range(90))
        for n in range(1, 7)
    ),
    "pieces.json": json.dumps({
        part: [[[60 + (t + n) % 7, 72 + t % 5] for t in range(24)] for n in range(6)] for part in ("train", "valid", "test")
    }),
}  # fmt: skip


@pytest.mark.parametrize(
    ("task", "file", "model"),
    [
        ("classify", "films.csv", {}),
        ("classify", "films.csv", {"kind": "transformer"}),
        ("tag", "words.tsv", {}),
        ("tag", "words.tsv", {"crf": True}),
        ("translate", "pairs.tsv", {}),
        ("translate", "pairs.tsv", {"kind": "transformer"}),
        ("forecast", "series.csv", {}),
        ("forecast", "series.csv", {"kind": "steps"}),
        ("forecast", "series.csv", {"kind": "transformer"}),
        ("music", "tunes.abc", {}),
        ("music", "pieces.json", {}),
        ("music", "pieces.json", {"kind": "transformer"}),
        ("transcribe", "recordings", {}),
        ("transcribe", "recordings", {"streaming": True}),
        ("classify-audio", "recordings", {}),
    ],
)
def test_every_task_learns_in_bfloat16(task, file, model, tmp_path, gains):
    """Where `auto` does not take it too: it can be asked for."""
    gains(None)
    if file in TABLES:
        given = tmp_path / file
        given.write_text(TABLES[file])
    else:
        given = write_table(tmp_path, "train", 12, labelled=task != "transcribe")
    settings = {"model": {"hidden_size": 16} | model, "training": {"precision": "bfloat16"}}
    made = tt.train(task, given, out=tmp_path / "run", steps=2, **settings)
    assert recorded(tmp_path / "run") == ("bfloat16", "bfloat16")
    assert all(math.isfinite(loss) for loss in losses(tmp_path / "run").values())
    assert all(p.dtype is torch.float32 for p in made.network.parameters())


def _part(text, out, asked):
    """A training of 20 steps that was asked to stop after 8."""
    step = Trainer._one_step

    def stopped(self, stop):
        line = step(self, stop)
        return line | {"stopped": self.step == 8}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_one_step", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(text, out, asked, steps=20)
