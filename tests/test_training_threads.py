"""How many threads a training takes: the quickest, measured, said, recorded, and put back."""

import json
import os
from pydoc_data.topics import topics

import pytest
import torch

import throughtime as tt
from throughtime.errors import UserError
from throughtime.runs import Run
from throughtime.training import threads
from throughtime.training.loop import Trainer
from throughtime.training.threads import AGAIN_S, FEW, LATEST_S, WINDOW, Threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Machine:
    """A clock, and a training whose tokens take as long as the machine lets them with so many threads."""

    def __init__(self, most=2, fixed=False, **seconds):
        self.now = 0.0
        self.seconds = {int(k[1:]): v for k, v in seconds.items()}
        self.threads = Threads(most, fixed, lambda: self.now)

    def train(self, steps):
        said = []
        for _ in range(steps):
            took = self.seconds[self.threads.count] * 100
            self.now += took
            words = self.threads.after_step(took, 100)
            assert torch.get_num_threads() == self.threads.count
            said += [words] if words else []
        return said


def test_the_quickest_number_is_chosen_and_fewer_where_more_hardly_help():
    for alone, both, count in ((0.002, 0.001, 2), (0.002, 0.0019, 1), (0.001, 0.1, 1)):
        chosen = Threads(2)
        said = chosen.choose({1: alone, 2: both})
        assert chosen.count == torch.get_num_threads() == count
        assert said.startswith(f"threads: {count} (") and f"{1 / alone:,.0f} tokens/s with 1" in said


def test_a_collapse_is_met_with_fewer_threads_said_and_after_a_while_tried_again():
    machine = Machine(t1=0.002, t2=0.001)
    machine.threads.choose(dict(machine.seconds))
    assert machine.train(100) == [] and machine.threads.count == 2
    machine.seconds[2] = 0.05  # something else begins to run
    (said,) = machine.train(WINDOW + FEW + WINDOW)
    assert machine.threads.count == 1
    assert said == "threads: 1 from now on, 500 tokens/s; with 2 it was 20"
    tried = []
    for _ in range(3000):
        machine.train(1)
        tried.append(machine.threads.count)
    assert tried[-1] == 1 and 0 < tried.count(2) <= 5 * FEW, (
        "it is tried for a few steps, at longer and longer intervals"
    )
    machine.seconds[2] = 0.001  # and ends
    (said,) = machine.train(int(2 * LATEST_S / 0.2))
    assert machine.threads.count == 2 and said.startswith("threads: 2 from now on")


def test_steps_that_are_slow_for_another_reason_take_no_thread_away():
    machine = Machine(t1=0.002, t2=0.001)
    machine.threads.choose(dict(machine.seconds))
    machine.seconds = {1: 0.008, 2: 0.004}  # longer sentences
    assert machine.train(100) == []
    assert machine.threads.count == 2
    assert machine.now < AGAIN_S, "it was tried once"


def test_many_threads_go_one_by_one():
    machine = Machine(4, t1=0.002, t2=0.0012, t3=0.004, t4=0.05)
    machine.threads.choose({1: 0.002, 4: 0.0008})
    said = machine.train(10 * WINDOW)
    assert machine.threads.count == 2 and len(said) == 2


def test_what_is_fixed_stays():
    for machine in (Machine(2, True, t2=9.0), Machine(2, t2=9.0)):  # asked for; never measured
        assert machine.train(50) == []
        assert machine.threads.count == 2


def test_what_is_recorded_is_taken_up_and_a_trial_is_not():
    machine = Machine(t1=0.002, t2=0.001)
    machine.threads.choose({1: 0.002, 2: 0.1})
    machine.now += AGAIN_S
    while machine.threads.count == 1:
        machine.train(1)
    values = json.loads(json.dumps(machine.threads.as_json()))
    assert values == {"count": 1, "most": 2, "alone": 0.002}
    again = Threads(2)
    again.go_on(values)
    assert again.count == torch.get_num_threads() == 1 and again.as_json() == values
    fewer = Threads(2)
    fewer.go_on(values | {"count": 16, "most": 16})  # saved on a larger machine
    assert fewer.count == fewer.most == 2


# Real trainings

SMALL = {"cell": "gru", "hidden_size": 16, "embedding_size": 8, "tokens": "characters"}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "topics.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:20_000], encoding="utf-8")
    return path


def train(text, out, **options):
    training = {"batch_size": 4, "chunk": 20, **options.pop("training", {})}
    return tt.train("text", [text], out=out, progress=False, model=SMALL, training=training, **options)


def recording(monkeypatch, name):
    """What a method of Trainer sees of PyTorch's threads."""
    seen, method = [], getattr(Trainer, name)

    def recorded(self, *args, **kwargs):
        seen.append(torch.get_num_threads())
        return method(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, name, recorded)
    return seen


def test_a_number_that_is_asked_for_is_kept_and_put_back_afterwards(text, tmp_path, monkeypatch):
    seen = recording(monkeypatch, "_one_step")
    monkeypatch.setattr(Trainer, "_rehearse", None)  # nothing is measured
    train(text, tmp_path / "run", steps=60, training={"threads": 1})
    assert set(seen) == {1} and torch.get_num_threads() == 2
    assert Run(tmp_path / "run").scores()["threads"] == 1


def test_more_threads_than_cores_are_refused_before_anything_is_made(text, tmp_path):
    count = (os.cpu_count() or 1) + 1
    with pytest.raises(UserError, match=rf"training.threads: got {count}; from 1 to {count - 1}, as many as"):
        train(text, tmp_path / "run", steps=3, training={"threads": count})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("quickest", [1, 2])
def test_the_rehearsal_decides_and_leaves_no_trace_in_what_is_learned(text, tmp_path, monkeypatch, quickest):
    """The rehearsal is a real one; only what it measured is replaced, as a loaded machine would."""
    choose, told = Threads.choose, []

    def decided(self, times):
        told.append(sorted(times))
        return choose(self, {count: (1.0 if count == quickest else 2.0) for count in times})

    monkeypatch.setattr(Threads, "choose", decided)
    monkeypatch.setattr(Threads, "after_step", lambda self, seconds, tokens: None)
    seen = recording(monkeypatch, "_one_step")
    train(text, tmp_path / "measured", steps=60)
    assert told == [[1, 2]] and set(seen) == {quickest}
    train(text, tmp_path / "fixed", steps=60, training={"threads": quickest})
    a, b = (
        [line["loss"] for line in Run(tmp_path / n).read_metrics() if "loss" in line] for n in ("measured", "fixed")
    )
    assert a == b


def test_a_training_that_took_a_thread_fewer_is_saved_then_and_goes_on_so(text, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def switched(self, seconds, tokens):
        switched.steps += 1
        if switched.steps == 12:
            raise Killed
        if switched.steps == 7:
            self.set(1)
            return "threads: 1 from now on"
        return None

    switched.steps = 0
    seen = recording(monkeypatch, "_one_step")
    monkeypatch.setattr(Threads, "after_step", switched)
    with pytest.raises(Killed):
        train(text, tmp_path / "run", steps=30)
    assert seen == [2] * 7 + [1] * 5 and torch.get_num_threads() == 2
    seen.clear()
    tt.train("text", out=tmp_path / "run", resume=True, progress=False)
    assert seen == [1] * 23, "it goes on after step 7, with one thread"
    assert torch.get_num_threads() == 2


def test_one_thread_is_not_rehearsed(text, tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(Trainer, "_rehearse", None)
    train(text, tmp_path / "run", steps=60)
    assert threads.check_threads(None) is None
