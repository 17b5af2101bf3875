"""Training: what it must not lose, and what it must say."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import processes
import throughtime as tt
from throughtime.cli import main
from throughtime.config import Training
from throughtime.models.language import LanguageModel
from throughtime.runs import Run, replacing
from throughtime.tasks.text import TextTask
from throughtime.training.budget import Plan, plan_seconds, plan_steps
from throughtime.training.health import NotFinite, check_finite
from throughtime.training.loop import Trainer
from throughtime.training.progress import Pace, Reporter, Standing

SMALL = {"cell": "gru", "hidden_size": 24, "embedding_size": 12, "tokens": "characters"}
OPTIONS = [f"--model.{k.replace('_', '-')}={v}" for k, v in SMALL.items()] + [
    "--training.batch-size=4",
    "--training.chunk=20",
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:40_000], encoding="utf-8")
    return path


def run_cli(*arguments, **options):
    command = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    return processes.run(command, capture_output=True, text=True, timeout=300, **options)


def run_here(capsys, *arguments):
    """The command line in this process, where another would show no more: its exit code and what it said."""
    capsys.readouterr()
    return main([*map(str, arguments)]), capsys.readouterr().err


def losses(folder):
    return {line["step"]: line["loss"] for line in Run(Path(folder)).read_metrics() if "loss" in line}


def train(text, out, **settings):
    settings.setdefault("model", SMALL)
    settings.setdefault("training", {"batch_size": 4, "chunk": 20})
    return tt.train("text", [text], out=out, progress=False, **settings)


# -- resuming


def kill_after(arguments, folder, steps, number=signal.SIGKILL, saved=True):
    """Start a training and kill it once its metrics show `steps` steps; returns its exit code and what it said."""
    command = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    process = processes.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (
            metrics.exists()
            and metrics.read_bytes().count(b'"loss": ') >= steps
            and (not saved or (folder / "checkpoints/last.safetensors").exists())
        ):
            process.send_signal(number)
            break
        time.sleep(0.005)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def test_a_killed_run_goes_on_bit_for_bit(text, tmp_path, capsys):
    """Dropout, several epochs, three kills at different places: every loss is that of a run never killed."""
    common = [
        "train",
        "text",
        short_text(text, tmp_path),
        "--steps=260",
        *OPTIONS,
        "--model.dropout=0.2",
        "--model.layers=2",
        "--training.patience=99",
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, said = run_here(capsys, *common, "--out", whole, "--quiet")
    assert code == 0, said
    code, _ = kill_after([*common, "--out", killed, "--quiet"], killed, 115)
    assert code == -signal.SIGKILL
    seen = losses(killed)
    assert 100 <= len(seen) < 260
    for steps in (150, 200):
        code, _ = kill_after(["train", "text", "--out", killed, "--resume", "--quiet"], killed, steps)
        assert code == -signal.SIGKILL
        assert not (killed / "summary.json").exists()
    rest = run_cli("train", "text", "--out", killed, "--resume", "--quiet")
    assert rest.returncode == 0, rest.stderr
    a, b = losses(whole), losses(killed)
    assert sorted(a) == list(range(1, 261))
    assert Run(whole).scores()["epochs"] > 3
    assert a == b  # floats, compared as they are
    assert all(b[step] == loss for step, loss in seen.items())
    kept, again = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert Run(whole).scores()["scores"] == Run(killed).scores()["scores"]
    assert not (killed / "checkpoints").exists()


def test_a_run_killed_before_it_was_saved_begins_again(text, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = ["train", "text", text, "--steps=90", *OPTIONS, "--quiet"]
    code, _ = kill_after([*common, "--out", killed], killed, 5, saved=False)
    assert code == -signal.SIGKILL
    assert not (killed / "checkpoints/last.safetensors").exists()
    for arguments in (["train", "text", "--out", killed, "--resume", "--quiet"], [*common, "--out", whole]):
        code, said = run_here(capsys, *arguments)
        assert code == 0, said
    lines = [line["step"] for line in Run(killed).read_metrics() if "loss" in line]
    assert lines == list(range(1, 91))
    assert losses(whole) == losses(killed)


def test_a_killed_run_of_minutes_keeps_the_schedule_that_was_recorded(text, tmp_path):
    out = tmp_path / "run"
    code, _ = kill_after(["train", "text", text, "--minutes=0.2", *OPTIONS, "--out", out, "--quiet"], out, 60)
    assert code == -signal.SIGKILL
    before, schedule = losses(out), json.loads((out / "checkpoints/schedule.json").read_text())
    rates = {line["step"]: line["learning_rate"] for line in Run(out).read_metrics() if "loss" in line}
    rest = run_cli("train", "text", "--out", out, "--resume", "--quiet")
    assert rest.returncode == 0, rest.stderr
    after = losses(out)
    again = {line["step"]: line["learning_rate"] for line in Run(out).read_metrics() if "loss" in line}
    assert len(after) > len(before)
    assert all(after[step] == loss for step, loss in before.items())
    assert all(again[step] == rate for step, rate in rates.items())
    assert schedule["segments"][0][1] > 0


def test_interrupting_saves_and_says_how_to_go_on(text, tmp_path):
    out = tmp_path / "run"
    common = ["train", "text", text, "--steps=100000", *OPTIONS, "--out", out]
    code, said = kill_after(common, out, 30, signal.SIGINT)
    assert code == 130
    assert "--resume" in said
    step = max(losses(out))
    model = tt.load(out)  # it can already write
    assert len(model.generate("The ", 5)) > 4
    code, said = kill_after(["train", "text", "--out", out, "--resume"], out, step + 30, signal.SIGTERM)
    assert code == 130
    assert f"after step {step}" in said
    assert sorted(losses(out)) == list(range(1, max(losses(out)) + 1))


def test_resume_refuses_what_would_change_the_run(text, tmp_path, capsys):
    out = tmp_path / "run"
    code, _ = kill_after(["train", "text", text, "--steps=100000", *OPTIONS, "--out", out, "--quiet"], out, 20)
    assert code == -signal.SIGKILL
    for arguments, message in (
        (["--model.hidden-size=25"], "model.hidden_size: this run has 24, not 25"),
        (["--seed=3"], "seed: this run has 0, not 3"),
        (["--minutes=1"], "minutes"),
    ):
        code, said = run_here(capsys, "train", "text", "--out", out, "--resume", *arguments)
        assert code == 2
        assert message in said
    assert run_here(capsys, "train", "text", __file__, "--out", out, "--resume")[0] == 2
    damaged = out / "checkpoints/last.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    code, said = run_here(capsys, "train", "text", "--out", out, "--resume")
    assert code == 2
    assert "last.safetensors: is damaged" in said


def test_a_finished_run_has_nothing_to_resume(text, tmp_path):
    train(text, tmp_path / "run", steps=5)
    with pytest.raises(tt.UserError, match="has ended"):
        tt.train("text", out=tmp_path / "run", resume=True, progress=False)


def test_the_same_seed_gives_the_same_run_and_another_another(text, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(text, tmp_path / name, steps=12, seed=seed)
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")


# -- several processes


def launch_two_processes(*arguments):
    # what `accelerate launch` sets up, too, where its own settings say more than one; with --cpu alone it starts a single process
    launcher = "torch.distributed.run --nproc_per_node=2"
    return subprocess.run(
        [sys.executable, "-m", *launcher.split(), "-m", "throughtime", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def run_two_processes(*arguments):
    """As the launcher, which sets these variables. Returns: what the first of them said on standard error."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    running = []
    for rank in range(2):
        variables = {**shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1}
        environment = {**os.environ, **{name: str(value) for name, value in variables.items()}}
        running.append(processes.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=300)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    return said[0]


def test_two_processes_land_where_one_lands(text, tmp_path, capsys):
    """The same global batch shared by two: the same losses, step by step, to the order of summation, which in bfloat16 decides
    how numbers are rounded."""
    one, two = tmp_path / "one", tmp_path / "two"
    common = [
        "train",
        "text",
        text,
        "--steps=60",
        *OPTIONS,
        "--model.dropout=0",
        "--training.precision=float32",
        "--quiet",
    ]
    code, said = run_here(capsys, *common, "--out", one)
    assert code == 0, said
    done = launch_two_processes(*common, "--out", two)
    assert done.returncode == 0, done.stderr
    a, b = losses(one), losses(two)
    assert sorted(b) == list(range(1, 61))
    torch.testing.assert_close(torch.tensor(list(b.values())), torch.tensor(list(a.values())), rtol=2e-4, atol=1e-5)
    ours, theirs = (Run(folder).scores() for folder in (one, two))
    assert ours["tokens_seen"] == theirs["tokens_seen"]
    assert ours["scores"]["nats_per_token"] == pytest.approx(theirs["scores"]["nats_per_token"], rel=2e-3)


def test_two_processes_keep_a_budget_of_minutes_and_save_together(text, tmp_path):
    """Only the first times its steps; they must agree on the plan, the checkpoints and the end."""
    out = tmp_path / "run"
    run_two_processes("train", "text", text, "--minutes=0.1", *OPTIONS, "--out", out, "--quiet")
    steps = losses(tmp_path / "run")
    assert sorted(steps) == list(range(1, len(steps) + 1))
    assert Run(tmp_path / "run").scores()["steps"] == len(steps) > 3


def test_two_processes_go_back_to_the_best_weights_together(text, tmp_path):
    """One that stayed with what it knows by heart would have a far lower loss."""
    out = tmp_path / "run"
    settings = {**{f"training.{k}": v for k, v in {**STALE, "patience": 15, "precision": "float32"}.items()}}
    settings |= {f"model.{k}": v for k, v in {**LARGE, "dropout": 0.0}.items()}
    options = [f"--{k.replace('_', '-')}={v}" for k, v in settings.items()]
    said = run_two_processes("train", "text", short_text(text, tmp_path), "--steps=1600", *options, "--out", out)
    step, best = map(int, re.search(r"step (\d+): the held-out score .* since step (\d+)", said).groups())
    found = losses(out)
    by_heart, then = found[step], sum(found[best + k] for k in range(1, 6)) / 5
    assert by_heart < then / 2, "there was something to go back from"
    assert sum(found[step + k] for k in range(1, 4)) / 3 > 0.8 * then


# -- what must be said


def test_a_gradient_that_is_not_a_number_is_traced_to_its_parameter(text, tmp_path, monkeypatch):
    """Clipping by a norm that is NaN makes every gradient NaN: the one that was first must be found before."""
    build = TextTask.network

    def poisoned(self, config, run):
        network = build(self, config, run)
        network.stack.cells[0].bias_ih.register_hook(lambda gradient: gradient * math.nan)
        return network

    monkeypatch.setattr(TextTask, "network", poisoned)
    with pytest.raises(
        NotFinite, match=r"step 1: the gradient norm is nan.*first in the gradient of stack\.cells\.0\.bias_ih;"
    ):
        train(text, tmp_path / "run", steps=5)


def test_a_gradient_that_explodes_is_said_with_where_and_what_to_try(text, tmp_path):
    with pytest.raises(NotFinite) as caught:
        train(
            text,
            tmp_path / "run",
            steps=200,
            model={**SMALL, "cell": "elman"},
            training={"batch_size": 4, "chunk": 20, "learning_rate": 1e30, "clip": None, "warmup": 0, "patience": None},
        )
    message = str(caught.value)
    assert f"step {caught.value.step}:" in message
    assert caught.value.parameter in message
    assert "gradient norms before" in message
    assert "--training.learning-rate" in message and "--training.clip" in message
    assert not losses(tmp_path / "run")  # nothing was saved yet: the folder is free for the next try


def test_the_first_parameter_that_is_not_finite_is_named():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    network[1].weight.grad[0, 0] = math.nan
    network[1].bias.grad[0] = math.inf
    with pytest.raises(NotFinite, match=r"step 7: the gradient norm is nan.*gradient of 1\.weight.*before: 1, 2.5;"):
        check_finite(7, 1.5, math.nan, network, [1.0, 2.5], 0.1, 1.0)
    with pytest.raises(NotFinite, match="the loss is inf"):
        check_finite(7, math.inf, 1.0, network, [], 0.1, None)
    with torch.no_grad():
        network[0].bias[1] = math.inf
    with pytest.raises(NotFinite, match=r"weights of 0\.bias"):
        check_finite(7, 1.5, math.inf, network, [], 0.1, 1.0)
    check_finite(7, 1.5, 3.0, network, [], 0.1, 1.0)  # a finite norm: nothing to say


# -- the budget


def test_progress_and_the_rate_that_rises_holds_falls_and_ends_at_zero():
    plan = plan_steps(200, 100, 100_000, Training(learning_rate=0.1, warmup=10))
    progress = [plan.progress(step) for step in range(201)]
    assert progress[0] == 0 and progress[-1] == 1
    assert progress == sorted(progress)
    rates = [plan.rate(step) for step in range(200)]
    assert rates[0] == pytest.approx(0.01)
    assert rates.index(max(rates)) in (9, 10)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10:101] == [pytest.approx(0.1)] * 91
    assert rates[150] == pytest.approx(0.05)
    assert rates[-1] < 1e-4
    assert plan_steps(200, 1, 1, Training(learning_rate=0.1, warmup=0, final_rate=0.25)).rate(199) == pytest.approx(
        0.025, rel=1e-3
    )


@pytest.mark.parametrize("steps", [1, 2, 7, 200])
@pytest.mark.parametrize("evaluations", [1, 3, 20])
def test_evaluations_are_as_many_as_planned_and_one_at_the_end(steps, evaluations):
    plan = Plan([(0, steps)], evaluations, training=Training(learning_rate=1.0))
    at = [step for step in range(1, steps + 1) if plan.evaluates_at(step)]
    assert at[-1] == steps
    assert len(at) == min(evaluations, steps)


def test_evaluations_lie_closer_at_the_beginning():
    plan = Plan([(0, 900)], 30, training=Training(learning_rate=1.0))
    at = [step for step in range(1, 901) if plan.evaluates_at(step)]
    assert at == [pytest.approx(k * k, abs=1) for k in range(1, 31)]


@pytest.mark.parametrize(("found", "best"), [(300, 200), (900, 700), (990, 980)])
def test_a_cool_down_is_short_falls_from_where_the_best_weights_were_and_ends_at_zero(found, best):
    plan = Plan([(0, 1000)], 30, training=Training(learning_rate=0.1, warmup=10))
    before, height = [plan.rate(step) for step in range(found)], plan.rate(best)
    plan.cool_down(found, best)
    assert plan.total == min(found + best // 2, 1000)
    assert len([step for step in range(found + 1, plan.total + 1) if plan.evaluates_at(step)]) == 10
    rates = [plan.rate(step) for step in range(plan.total)]
    assert rates[:found] == before, "what lies behind stays as it was: a training that comes by again finds the same"
    assert rates[found] == pytest.approx(height)
    assert rates[found:] == sorted(rates[found:], reverse=True)
    assert plan.rate(plan.total) == pytest.approx(0, abs=1e-12)
    again = Plan.from_json(json.loads(json.dumps(plan.as_json())), plan.training)
    assert [again.rate(step) for step in range(plan.total)] == rates


def test_a_cool_down_is_not_stretched_over_what_is_left_of_the_minutes():
    plan = plan_seconds(100.0, 0.0, 0.1, 0.001, Training(learning_rate=1.0))
    plan.cool_down(300, 200)
    assert not plan.replan(310, 31.0, 0.1, 0.001)
    assert plan.total == 400
    assert plan.replan(320, 94.0, 0.1, 0.001)  # where they are nearly over it is cut short
    assert plan.total < 390


def test_a_plan_of_seconds_spends_them():
    plan = plan_seconds(100.0, 4.0, 0.5, 1.0, Training(evaluations=20))
    cost = 4.0 + plan.total * 0.5 + plan.evaluations * 1.0
    assert 98 <= cost <= 100
    assert plan.evaluations == 8  # a twelfth of the budget


def test_a_slower_machine_shortens_the_plan_without_a_jump():
    plan = plan_seconds(100.0, 0.0, 0.1, 0.001, Training(learning_rate=1.0, warmup=0))
    before, rate = plan.progress(300), plan.rate(300)
    assert not plan.replan(300, 30.5, 0.1, 0.001)  # within a twentieth: left alone
    assert plan.replan(300, 60.0, 0.2, 0.001)  # each step took twice as long
    assert plan.total == pytest.approx(300 + 200, abs=2)
    late = Plan.from_json(plan.as_json(), plan.training)
    assert late.replan(400, 99.9, 0.2, 0.001)  # out of time: it lands within a twentieth, and does not fall
    assert late.total == 420
    assert late.rate(419) < 0.02 * late.rate(400)
    assert plan.progress(300) == before
    assert plan.rate(300) == rate
    assert plan.progress(plan.total) == pytest.approx(1)
    steps = [plan.progress(step) for step in range(plan.total + 1)]
    assert steps == sorted(steps)
    again = Plan.from_json(json.loads(json.dumps(plan.as_json())), plan.training)
    assert [again.rate(s) for s in range(plan.total)] == [plan.rate(s) for s in range(plan.total)]


def test_minutes_are_kept_roughly_and_the_schedule_ends_with_them(text, tmp_path):
    train(text, tmp_path / "run", minutes=0.1)
    lines = [line for line in Run(tmp_path / "run").read_metrics() if "loss" in line]
    rates = [line["learning_rate"] for line in lines]
    assert rates[-1] == min(rates[rates.index(max(rates)) :]) < 0.4 * max(rates)  # however busy the machine is
    assert Run(tmp_path / "run").scores()["steps"] == lines[-1]["step"] > 3


def test_a_short_training_is_not_cut_off_before_it_has_seen_the_data(text, tmp_path):
    """Evaluations are a step apart at first: so many of them without a better score say nothing yet."""
    settings = {"batch_size": 4, "chunk": 20, "learning_rate": 1e-12, "patience": 3, "evaluations": 40}
    made = train(text, tmp_path / "run", steps=40, training=settings)
    assert made.run.scores()["steps"] == 40
    assert made.run.scores()["ended_by"] == "ended with its budget of 40 steps"


LARGE = {"cell": "gru", "hidden_size": 96, "embedding_size": 32, "tokens": "characters", "dropout": 0.2}
STALE = {"batch_size": 4, "chunk": 20, "learning_rate": 0.01, "warmup": 0, "patience": 3, "evaluations": 60}


def scored(folder):
    return {
        line["step"]: line["valid"]["nats_per_token"] for line in Run(Path(folder)).read_metrics() if "valid" in line
    }


def rates_of(folder):
    return {line["step"]: line["learning_rate"] for line in Run(Path(folder)).read_metrics() if "loss" in line}


def short_text(text, tmp_path):
    """So little text that it is soon learned by heart."""
    path = tmp_path / "short.txt"
    path.write_text(text.read_text(encoding="utf-8")[:4000], encoding="utf-8")
    return path


def test_where_nothing_gets_better_training_goes_back_to_its_best_and_cools_down(text, tmp_path, capsys):
    tt.train("text", [short_text(text, tmp_path)], out=tmp_path / "run", steps=4000, model=LARGE, training=STALE)
    told, rates, scores = capsys.readouterr().err, rates_of(tmp_path / "run"), scored(tmp_path / "run")
    found = re.search(r"step (\d+): the held-out score has not got better since step (\d+);.* for (\d+) steps", told)
    assert found, told
    step, best, cooling = map(int, found.groups())
    until = {at: score for at, score in scores.items() if at <= step}
    assert best == min(until, key=until.get)
    assert len([at for at in until if at > best]) == 3
    assert cooling == math.ceil(best / 2)
    assert set(list(rates.values())[:step]) == {0.01}
    assert rates[step + 1] == 0.01 and max(rates) <= step + cooling
    assert list(rates.values())[step:] == sorted(list(rates.values())[step:], reverse=True)
    # from the best weights: the first score after them is near theirs, and not near those that had learned by heart
    after = next(score for at, score in scores.items() if at > step)
    assert abs(after - until[best]) < abs(after - until[step])
    summary = Run(tmp_path / "run").scores()
    assert summary["best_step"] == min(scores, key=scores.get)
    assert "before its steps were over: the held-out score stopped getting better" in told
    assert summary["ended_by"] == "ended before its steps were over: the held-out score stopped getting better"


def test_where_it_still_gets_better_training_goes_on_to_the_end_of_its_budget(text, tmp_path, capsys):
    training = {"batch_size": 4, "chunk": 20, "patience": 3, "evaluations": 20}
    tt.train("text", [text], out=tmp_path / "run", steps=300, model=SMALL, training=training)
    assert "ended with its budget of 300 steps" in capsys.readouterr().err
    assert max(rates_of(tmp_path / "run")) == 300
    assert Run(tmp_path / "run").scores()["ended_by"] == "ended with its budget of 300 steps"


def test_without_patience_training_goes_on_however_much_is_learned_by_heart(text, tmp_path):
    training = {**STALE, "patience": None, "evaluations": 20}
    train(short_text(text, tmp_path), tmp_path / "run", steps=600, model={**LARGE, "dropout": 0.0}, training=training)
    assert max(rates_of(tmp_path / "run")) == 600
    scores = scored(tmp_path / "run")
    assert scores[600] > 1.2 * min(scores.values()), "there was something to stop for"


def test_a_run_killed_before_and_in_its_cool_down_goes_on_bit_for_bit(text, tmp_path, capsys):
    common = ["train", "text", short_text(text, tmp_path), "--steps=4000", "--quiet"]
    common += [f"--model.{k.replace('_', '-')}={v}" for k, v in LARGE.items()]
    common += [f"--training.{k.replace('_', '-')}={v}" for k, v in STALE.items()]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, said = run_here(capsys, *common, "--out", whole)
    assert code == 0, said
    a = rates_of(whole)
    cooling = next(step for step in sorted(a) if a[step] < 0.01) - 1  # steps before the rate falls
    last = max(a)
    places = [cooling // 2, cooling + (last - cooling) // 3]
    code, _ = kill_after([*common, "--out", killed], killed, places[0])
    assert code == -signal.SIGKILL
    code, _ = kill_after(["train", "text", "--out", killed, "--resume", "--quiet"], killed, places[1])
    assert code == -signal.SIGKILL and max(losses(killed)) < last
    rest = run_cli("train", "text", "--out", killed, "--resume", "--quiet")
    assert rest.returncode == 0, rest.stderr
    assert losses(whole) == losses(killed) and rates_of(killed) == a and scored(whole) == scored(killed)
    kept, again = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_the_model_kept_is_the_best_on_held_out_text(text, tmp_path):
    """Trained far too hot, a network gets worse now and then: the one kept is that of the best evaluation, not the last."""
    hot = {"batch_size": 4, "chunk": 20, "learning_rate": 0.1, "patience": None, "evaluations": 40, "final_rate": 1.0}
    for seed in range(4):  # a seed whose last evaluation is its best shows nothing
        train(text, tmp_path / str(seed), steps=500, seed=seed, training=hot)
        scored = [line for line in Run(tmp_path / str(seed)).read_metrics() if "valid" in line]
        best = min(scored, key=lambda line: line["valid"]["nats_per_token"])
        summary, last = Run(tmp_path / str(seed)).scores(), scored[-1]["valid"]["nats_per_token"]
        assert summary["best_step"] == best["step"]
        if best["valid"]["nats_per_token"] < last - 0.03:
            # the whole text walked once, where the evaluations took it in lanes: a little off, nearer the best than the last
            found = summary["scores"]["nats_per_token"]
            assert abs(found - best["valid"]["nats_per_token"]) < abs(found - last)
            return
    raise AssertionError("no training got worse again")


def test_gradients_by_layer_and_through_time_stand_in_the_metrics(text, tmp_path, capsys):
    model = {"cell": "elman", "layers": 2, "hidden_size": 24, "embedding_size": 16, "tokens": "characters"}
    tt.train(
        "text",
        [text],
        out=tmp_path / "run",
        steps=12,
        model=model,
        training={"evaluations": 3, "batch_size": 4, "chunk": 30},
    )
    lines = Run(tmp_path / "run").read_metrics()
    for line in (line for line in lines if "loss" in line):
        norms = line["gradient_norms"]
        assert set(norms) == {"embedding", "stack.cells.0", "stack.cells.1", "output", "project"}
        assert math.hypot(*norms.values()) == pytest.approx(line["gradient_norm"], rel=1e-3)
    seen = [line["through_time"] for line in lines if "valid" in line]
    assert len(seen) >= 2
    for layers in seen:
        assert set(layers) == {"stack.cells.0", "stack.cells.1"}
        for values in layers.values():
            assert set(values) == {"scale", "rate", "horizon_e", "horizon_1", "verdict"}
    assert seen[-1]["stack.cells.1"]["verdict"] == "vanishing"
    told = capsys.readouterr().err
    assert told.count("gradients through time are vanishing") == 1 and "--model.cell lstm" in told
    assert re.search(r"gradient norm [\d.e-]+ to [\d.e-]+", told)


def test_a_network_without_a_state_is_not_looked_back_into(text, tmp_path):
    tt.train(
        "text", [text], out=tmp_path / "run", steps=2, model={"kind": "transformer", "hidden_size": 16}, progress=False
    )
    assert [line["through_time"] for line in Run(tmp_path / "run").read_metrics() if "valid" in line][-1] == {}


def test_clipping_bounds_the_update_and_the_norm_written_is_the_one_before(text, tmp_path):
    for name, clip in (("held", 1e-6), ("free", None)):
        train(
            text, tmp_path / name, steps=3, training={"batch_size": 4, "chunk": 20, "clip": clip, "weight_decay": 0.0}
        )
    norms = [
        [line["gradient_norm"] for line in Run(tmp_path / n).read_metrics() if "loss" in line] for n in ("held", "free")
    ]
    assert norms[0][0] == norms[1][0] > 0.01
    assert losses(tmp_path / "held")[1] == losses(tmp_path / "free")[1]


# -- files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_out_is_never_overwritten_unasked(text, tmp_path):
    out = tmp_path / "run"
    train(text, out, steps=3)
    weights = (out / "model.safetensors").read_bytes()
    with pytest.raises(tt.UserError, match="holds a run"):
        train(text, out, steps=3, seed=9)
    with pytest.raises(tt.UserError, match="cannot read"):
        train(tmp_path / "missing.txt", out, steps=3, seed=9, overwrite=True)
    assert (out / "model.safetensors").read_bytes() == weights
    (out / "mine.txt").write_text("kept")
    train(text, out, steps=3, seed=9, overwrite=True)
    assert (out / "model.safetensors").read_bytes() != weights
    assert (out / "mine.txt").read_text() == "kept"
    (tmp_path / "other").mkdir()
    shutil.copy(text, tmp_path / "other")
    with pytest.raises(tt.UserError, match="not a run"):
        train(text, tmp_path / "other", steps=3)


def test_metrics_hold_every_step_and_the_curve_is_a_picture(text, tmp_path):
    train(text, tmp_path / "run", steps=30)
    lines = Run(tmp_path / "run").read_metrics()
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert steps[-1]["tokens"] == 30 * 4 * 20
    assert all(line["gradient_norm"] > 0 for line in steps)
    pytest.importorskip("matplotlib")
    assert (tmp_path / "run/learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_weights_decay_and_biases_do_not():
    """By AdamW: a matrix without a gradient shrinks by learning rate × decay a step, a vector stays as it is."""
    network = LanguageModel(
        vocabulary=11, hidden_size=6, embedding_size=4, dropout=0.0, cell="layernorm-lstm", layers=2,
        recurrent_dropout=0.0, weight_dropout=0.0, zoneout=0.0, tied=False, cutoffs=(),
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    settings = SimpleNamespace(config=SimpleNamespace(training=Training(learning_rate=0.1, weight_decay=0.3)))
    optimizer = Trainer._optimizer(settings, network)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    kinds = set()
    for name, p in network.named_parameters():
        kinds.add(p.dim())
        torch.testing.assert_close(
            p.detach(), before[name] * (1 - 0.1 * 0.3 if p.dim() > 1 else 1), rtol=1e-6, atol=1e-7
        )
    assert kinds == {1, 2}
    assert sorted(map(id, network.parameters())) == sorted(id(p) for g in optimizer.param_groups for p in g["params"])


# -- how fast it is


def test_a_pace_is_that_of_recent_steps_whatever_one_took():
    pace = Pace()
    assert pace.step_s == 0 and pace.tokens_s is None
    pace.add(5.0, 100)  # compiles
    assert pace.tokens_s is None
    for _ in range(2):
        pace.add(0.01, 100)
    assert pace.tokens_s == pytest.approx(10_000) and pace.step_s == pytest.approx(0.01)
    for seconds in [0.02, 0.01] * 20:
        pace.add(seconds, 100 if seconds == 0.01 else 200)  # longer lines: the mean counts for what is left
    assert pace.tokens_s == pytest.approx(10_000) and pace.step_s == pytest.approx(0.015, rel=0.05)
    for _ in range(26):
        pace.add(0.1, 100)  # the machine has become slow
    assert pace.tokens_s == pytest.approx(1_000)
    for _ in range(50):
        pace.add(0.1, 100)
    assert pace.step_s == pytest.approx(0.1)
    known = Pace(0.01)  # gone on with: the first step compiles again
    known.add(5.0, 100)
    assert known.step_s == pytest.approx(0.01) and known.tokens_s is None


def test_what_is_shown_leaves_out_the_compilation(text, tmp_path, monkeypatch):
    """By a clock that goes on 60 seconds in the first step and 0.1 in every later one."""
    now, seen, forward = [0.0], [], LanguageModel.forward

    def slow_at_first(self, *arguments):
        now[0] += 0.1 if now[0] else 60.0
        return forward(self, *arguments)

    monkeypatch.setattr(LanguageModel, "forward", slow_at_first)
    monkeypatch.setattr(
        "throughtime.training.loop.time", SimpleNamespace(monotonic=lambda: now[0], strftime=lambda _: "")
    )
    monkeypatch.setattr(Reporter, "step", lambda self, now: seen.append((now.rate, now.left_s)))
    tt.train(
        "text", [text], out=tmp_path / "run", steps=12, progress=True, model=SMALL,
        training={"batch_size": 4, "chunk": 20, "evaluations": 1},
    )  # fmt: skip
    assert [rate for rate, _ in seen[:2]] == [None, None]
    for step, (rate, left) in enumerate(seen[2:], 3):
        assert rate == pytest.approx(4 * 20 / 0.1)
        assert left == pytest.approx((12 - step) * 0.1)


STANDING = Standing(
    share=0.25, loss=1.5, measure="nats", unit="tokens", rate=1234.0, left_s=61.0, held_out=("nats_per_token", 1.25),
    gradients={"embedding": 3.0, "stack.cells.0": 0.5, "stack.cells.1": 0.25}, memory="13 >99",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "loss 1.500 nats  held out 1.250  1,234 tokens/s  gradient norm 0.25 to 0.5  memory 13 >99 steps"),
        ({"held_out": ("macro_f1", 0.5)}, "nats  held-out macro f1 0.500  1,234"),  # another measure: by its own name
        ({"held_out": None, "rate": 52_400.0, "unit": "samples"}, "loss 1.500 nats  52k samples/s"),
        ({"gradients": {"a": 3.0, "b": 4.0}, "memory": ""}, "gradient norm 5"),  # no cells: the norm of all
        ({"gradients": {f"stack.cells.{i}": 1.0 for i in range(7)}}, "gradient norm 1  memory"),
    ],
)
def test_every_figure_of_the_progress_line_is_named(capsys, changes, words):
    Reporter().step(dataclasses.replace(STANDING, **changes))
    line = capsys.readouterr().err
    assert line.startswith(" 25 %  ") and words in line
    assert ("1:01 left" in line) == (changes.get("rate", 1) is not None)


def test_while_no_pace_can_be_told_no_time_is(capsys):
    Reporter().step(dataclasses.replace(STANDING, rate=None))
    line = capsys.readouterr().err
    assert "tokens/s" not in line and "left" not in line
