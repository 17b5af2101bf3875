"""The training loop: one for every task, one process or many."""

from __future__ import annotations

import copy
import json
import math
import os
import signal
import statistics
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, TextIO

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn

from throughtime.config import BUDGETS, RunConfig
from throughtime.errors import UserError
from throughtime.files import cannot_write, read_json, write_json
from throughtime.inspect.gradients import Curve, gradients_of, summarise
from throughtime.inspect.stacks import has_states
from throughtime.runs import Run, write_text
from throughtime.tasks import Task, Trained
from throughtime.training import checkpoint
from throughtime.training.budget import Plan, plan_seconds, plan_steps
from throughtime.training.health import check_finite, gradient_norms
from throughtime.training.notes import notes_in
from throughtime.training.precision import computing_in, precision_of
from throughtime.training.progress import Pace, Reporter, Standing
from throughtime.training.threads import MUCH_SLOWER, Threads

REHEARSED = 6  # steps that are timed before a budget of minutes is turned into steps
LEAST_STEPS = 50  # of a training in whose beginning it pays to time numbers of threads
SAVE_EVERY_S = 15.0


class Interrupted(KeyboardInterrupt):
    """The training was asked to stop and has saved; `step` is where."""

    def __init__(self, step: int, task: str, run: Run) -> None:
        super().__init__(
            f"interrupted after step {step} and saved; go on: throughtime train {task} --out {run.folder} --resume"
        )
        self.step = step


class Trainer:
    """Trains the network of a run, from its beginning or from its checkpoint.

    Every process walks its share of each batch; the loss is a mean over the tokens of all of them, so that the number of
    processes does not change what is learned.
    """

    def __init__(
        self, task: Task[Any, Any], config: RunConfig, run: Run, accelerator: Accelerator, report: Reporter
    ) -> None:
        self.task, self.config, self.run, self.accelerator, self.report = task, config, run, accelerator, report
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.precision, changed = precision_of(config.training.precision, accelerator.device.type)
        if changed is not None:
            report.say(changed)
        batch = config.training.batch_size
        assert batch is not None
        share = batch // self.world
        self.loader = task.loader(config, run, slice(self.rank * share, (self.rank + 1) * share))
        torch.manual_seed(config.seed)
        self.origin = run.origin(config)
        self.held, self.criterion = task.examples(config, run, "valid"), task.criterion(config)
        network = task.network(config, run)
        task.fill(network, config, run)
        if self.rank:  # the same weights everywhere, other noise
            torch.manual_seed(config.seed + 1_000_003 * self.rank)
        self.began = time.monotonic()
        self.step = self.tokens = 0
        self.carry: Any = None
        self.best: dict[str, Any] | None = None
        self.stale = 0
        self.told = False  # of gradients that vanish or explode
        self.memory = ""  # how far back gradients reach, in words
        self.norms: deque[float] = deque(maxlen=20)
        self.step_s = self.evaluation_s = 0.0
        self.threads = self._make_threads()
        optimizer = self._optimizer(network)
        resuming = run.checkpoint.exists()
        if resuming:
            rng = self._restore(network, optimizer)
        else:
            self.plan = self._make_plan(network)
            if self.rank == 0:
                run.metrics.unlink(missing_ok=True)  # of a start that was killed before it was saved
        self.pace = Pace(self.step_s)
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        if resuming:  # building everything has drawn from it
            self._set_rng(rng)

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW (Loshchilov, Hutter 2019), the decay on matrices only."""
        t = self.config.training
        parameters = list(network.parameters())
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": t.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=t.learning_rate or 0.0, betas=(0.9, 0.99), fused=True)

    # -- the budget

    def _make_plan(self, network: nn.Module) -> Plan:
        """The length of the training; for minutes, from the speed of a rehearsal. The first process decides for all."""
        training = self.config.training
        recorded = self._recorded_plan()
        if recorded is not None:
            return recorded
        if self.config.minutes is None:
            steps = self.config.steps or max(round((self.config.epochs or 0) * self.loader.per_epoch), 1)
            scored = self.task.steps(self.held)
            plan = plan_steps(steps, self.loader.batch_tokens, scored, training)
            if not self.threads.fixed and steps >= LEAST_STEPS:
                self._rehearse(copy.deepcopy(network), score=False)
        else:
            if self.rank == 0:
                self._rehearse(copy.deepcopy(network).to(self.accelerator.device))
            seconds = self.config.minutes * 60
            most = None if training.passes is None else math.ceil(training.passes * self.loader.per_epoch)
            spent = time.monotonic() - self.began
            plan = plan_seconds(seconds, spent, max(self.step_s, 1e-6), self.evaluation_s, training, most)
            if plan.total == most:
                self.report.say(f"ends after {training.passes:g} passes, before the minutes are over (training.passes)")
        plan = Plan.from_json(self._from_first(plan.as_json()), training)
        self._record(plan)
        return plan

    def _make_threads(self) -> Threads:
        """The threads to compute with: as many as PyTorch may take here, and fewer where that is found to be quicker."""
        asked = self.config.training.threads
        if asked is not None:
            count = min(asked, os.cpu_count() or 1)
            if count < asked:  # this training began on another machine
                self.report.say(f"threads: {count}, as many as there are cores here, in place of {asked}")
            torch.set_num_threads(count)
        # processes that share a training wait for each other, and a graphics card for nobody's threads
        measured = asked is None and self.world == 1 and self.accelerator.device.type == "cpu"
        return Threads(torch.get_num_threads(), fixed=not measured)

    def _rehearse(self, network: nn.Module, score: bool = True) -> None:
        """Time a step, with each number of threads that comes into question, and an evaluation, on a copy; leaves the place in
        the data and the random state as they were."""
        place, rng = self.loader.state(), self._rng()
        optimizer, carry = self._optimizer(network), None
        most = self.threads.most
        counts = [most] if self.threads.fixed else [1, most]
        times: dict[int, list[float]] = {count: [] for count in counts}
        rates: dict[int, list[float]] = {count: [] for count in counts}
        for step in range(REHEARSED):
            batch, _ = self.loader.next(self.accelerator.device)
            for threads in counts:
                torch.set_num_threads(threads)
                start = time.monotonic()
                total, tokens, after = self._forward(network, batch, carry)
                (total / tokens.clamp(min=1)).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                took = time.monotonic() - start
                if step >= 2:  # the first ones compile, and bring memory
                    times[threads].append(took)
                    rates[threads].append(took / max(float(tokens), 1.0))
            carry = _detached(after)
            if step > 2 and min(rates[most]) > MUCH_SLOWER * max(rates[counts[0]]):
                break  # it is plain already, and such steps take long
        if not self.threads.fixed:
            self.report.say(self.threads.choose({count: statistics.median(found) for count, found in rates.items()}))
        self.step_s = statistics.median(times[self.threads.count])
        if score:
            start = time.monotonic()
            self.task.score(self.task.trained(self.run, self.config, network), self.held, quick=True)
            self.evaluation_s = time.monotonic() - start
        self.loader.restore(place)
        self._set_rng(rng)

    def _recorded_plan(self) -> Plan | None:
        """The plan of a training that was cut off: it goes on as it was, whatever the speed of the machine now."""
        values = None
        if self.rank == 0 and self.run.schedule.exists():
            values = read_json(self.run.schedule)
        values = self._from_first(values)
        try:
            if values is not None and "threads" in values:
                self.threads.go_on(values["threads"])
            return None if values is None else Plan.from_json(values, self.config.training)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.run.schedule}: is damaged: {error!r}") from error

    def _record(self, plan: Plan) -> None:
        if self.rank == 0:
            write_json(self.run.schedule, plan.as_json() | {"threads": self.threads.as_json()})

    # -- the loop

    def train(self) -> None:
        """Train to the end of the budget, or until nothing gets better. Raises: NotFinite; Interrupted, after saving."""
        self.network.train()
        self._metrics: TextIO | None = self._open_metrics() if self.rank == 0 else None
        saved_at, save_every = self.step, self._save_every()
        try:
            with _stop_signals() as stop, self.report:
                while self.step < self.plan.total:
                    line = self._one_step(stop)
                    stopped, switched = line.pop("stopped"), line.pop("switched")
                    self._note(line)
                    scored = self.plan.evaluates_at(self.step)
                    if scored:
                        scores = self._evaluate()
                        if self.rank == 0:
                            self._note({"step": self.step, "valid": scores, "through_time": self._look_back()})
                    cooling = scored and self.step < self.plan.total and self._stale() and self._cool_down()
                    if scored or self.plan.looks_at_the_clock(self.step):
                        self._hold_to_budget()
                    # counted in steps: every process must decide alike
                    if (
                        stopped
                        or switched
                        or cooling
                        or self.step - saved_at >= (save_every // 4 if scored else save_every)
                    ):
                        self._save()
                        saved_at = self.step
                    if stopped and self.step < self.plan.total:
                        if self.best is None and self.rank == 0:
                            self._save_weights({"step": self.step})
                        raise Interrupted(self.step, self.task.name, self.run)
                self.report.say(self.ended_by())
        finally:
            if self._metrics:
                with suppress(OSError):  # what could not be written has been said
                    self._metrics.close()

    def _open_metrics(self) -> TextIO:
        try:
            file: TextIO = self.run.metrics.open("a", encoding="utf-8")
            return file
        except OSError as error:
            raise cannot_write(self.run.metrics, error) from error

    def _note(self, values: dict[str, Any]) -> None:
        """A line of metrics.jsonl, by the first process."""
        if self._metrics is None:
            return
        try:
            self._metrics.write(json.dumps(values) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise cannot_write(self.run.metrics, error) from error

    def _one_step(self, stop: threading.Event) -> dict[str, Any]:
        start = time.monotonic()
        batch, fresh = self.loader.next(self.accelerator.device)
        rate = self.plan.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        total, count, carry = self._forward(self.network, batch, None if fresh else self.carry)
        self.carry = _detached(carry)
        sums = torch.stack([total.detach().double(), count.double(), torch.tensor(float(stop.is_set())).to(total)])
        if self.world > 1:
            sums = self.accelerator.reduce(sums, "sum")
        loss_sum, counted, stopped = sums.tolist()
        # the mean over the tokens of all processes: gradients are averaged over processes, hence the factor
        self.accelerator.backward(total * (self.world / max(counted, 1.0)))
        clip = self.config.training.clip
        parameters = list(self.network.parameters())
        by_layer = gradient_norms(self._bare())
        norm = math.hypot(*by_layer.values())
        loss = loss_sum / max(counted, 1.0)
        self.step += 1
        check_finite(self.step, loss, norm, self._bare(), self.norms, rate, clip)
        if clip is not None:  # after the check: a clipped NaN is in every gradient, and no longer says where it began
            nn.utils.clip_grads_with_norm_(parameters, clip, torch.tensor(norm))
        self.norms.append(norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tokens += int(counted)
        took = time.monotonic() - start
        self.pace.add(took, counted)
        self.step_s = self.pace.step_s
        left = (self.plan.total - self.step) * self.step_s
        left += self.plan.evaluations_left(self.step) * self.evaluation_s
        changed = self.threads.after_step(took, counted)
        if changed is not None:
            self.report.say(changed)
        decides = self.criterion.score
        self.report.step(
            Standing(
                share=self.plan.progress(self.step),
                loss=loss,
                measure=self.task.measure,
                unit=self.task.unit,
                rate=self.pace.tokens_s,
                left_s=left,
                held_out=("loss" if decides == self.task.loss else decides, self.best["scores"][decides])
                if self.best
                else None,
                gradients=by_layer,
                memory=self.memory,
            )
        )
        return {
            "step": self.step,
            "loss": loss,
            "gradient_norm": norm,
            "gradient_norms": {name: float(f"{value:.4g}") for name, value in by_layer.items()},
            "learning_rate": rate,
            "tokens": self.tokens,
            "seconds": round(self._elapsed(), 3),
            "stopped": stopped > 0,
            "switched": changed is not None,
        }

    def _forward(self, network: nn.Module, batch: Any, carry: Any) -> Any:
        """A step forwards, in the training's precision. Scores are not taken here: those are in float32."""
        with computing_in(self.precision, self.accelerator.device.type):
            return network(batch, carry)

    def _evaluate(self) -> dict[str, float]:
        start = time.monotonic()
        rng = self._rng()
        scores: dict[str, float] = {}
        if self.rank == 0:
            scores = self.task.score(self._model(), self.held, quick=True)
        scores = self._from_first(scores)
        self._set_rng(rng)
        for name, value in scores.items():
            if value is not None and not math.isfinite(value):
                raise UserError(f"step {self.step}: the held-out {name} is {value}; the weights have gone astray")
        if self.best is None or self.criterion.better(scores, self.best["scores"]):
            self.best, self.stale = {"step": self.step, "scores": scores}, 0
            if self.rank == 0:
                self._save_weights(self.best)
        else:
            self.stale += 1
        self.evaluation_s = time.monotonic() - start
        return scores

    def _look_back(self) -> dict[str, dict[str, Any]]:
        """How far gradients reach through time, for each layer, on a few held-out inputs; past the middle of the training a
        word, once, where they vanish or explode."""
        network = self._bare()
        if not has_states(self.config):
            return {}
        start, rng = time.monotonic(), self._rng()
        model = self._model()
        network.eval()
        curves: dict[str, list[Curve]] = {}
        with warnings.catch_warnings(action="ignore"):  # what is cut of them was said of the data
            for item in self.task.samples(self.config, self.run):
                for name, curve in gradients_of(model, model.look(item)).items():
                    curves.setdefault(name, []).append(curve)
        network.train()
        self._set_rng(rng)
        found = {name: summarise(many) for name, many in curves.items()}
        for name, seen in found.items():
            gated = any(curve.gated for curve in curves[name])
            telling = seen.verdict in ("exploding", "broken") or (seen.verdict == "vanishing" and not gated)
            if telling and not self.told and self.plan.progress(self.step) >= 0.5:
                self.told = True
                self.report.say(f"gradients through time are {seen.verdict} in {name}: {seen.advice}")
        self.memory = " ".join(seen.reach() for seen in found.values())
        self.evaluation_s += time.monotonic() - start
        return {name: seen.brief() for name, seen in found.items()}

    def _model(self) -> Trained[Any]:
        """The network as it is now, as a model."""
        return self.task.trained(self.run, self.config, self._bare())

    def _stale(self) -> bool:
        """Whether the held-out score has stopped getting better: over so many evaluations, and over all the data, with the learning
        rate risen, since evaluations are a few steps apart at first."""
        patience = self.config.training.patience
        if patience is None or self.best is None or self.stale < patience:
            return False
        return bool(self.step - self.best["step"] >= max(self.loader.per_epoch, self.plan.rise))

    def _cool_down(self) -> bool:
        """Once in a training, where the held-out score has stopped getting better: go back to the best weights, from where the
        learning rate falls to its end. Returns: whether it is now."""
        assert self.best is not None
        if self.plan.cooling is None:
            self.plan.cool_down(self.step, self.best["step"])
            self._record(self.plan)  # before anything is lost: a training that is killed here comes by again
        if not self.plan.cools_down_at(self.step):
            return False
        network = self._bare()
        if self.rank == 0:
            self.run.load_weights(network)
        if self.world > 1:
            broadcast(list(network.state_dict().values()))
        self.report.say(
            f"step {self.step}: the held-out score has not got better since step {self.best['step']}; goes on from there with a "
            f"falling learning rate for {self.plan.total - self.step} steps"
        )
        self.stale = 0
        return True

    def ended_by(self) -> str:
        """What ended the training, in words."""
        budget = next(name for name in BUDGETS if getattr(self.config, name) is not None)
        if self.plan.cooling is not None:
            return f"ended before its {budget} were over: the held-out score stopped getting better"
        if self.step == self.plan.most:
            return f"ended after {self.config.training.passes:g} passes, before its minutes were over"
        return f"ended with its budget of {getattr(self.config, budget):g} {budget}"

    def _hold_to_budget(self) -> None:
        """Fit what is left to what is left of the minutes, and record it where it changed."""
        if self.plan.seconds is None:
            return
        changed = self.rank == 0 and self.plan.replan(self.step, self._elapsed(), self.step_s, self.evaluation_s)
        if self.world > 1:
            self.plan = Plan.from_json(self._from_first(self.plan.as_json()), self.config.training)
        if changed:
            self._record(self.plan)

    def finish(self) -> dict[str, Any] | None:
        """Score the best weights on all held-out data. Returns: what the run's summary holds; None but in the first process."""
        if self.rank:
            return None
        self.report.say("scoring the held-out data …")
        network = self.task.network(self.config, self.run).to(self.accelerator.device)
        self.run.load_weights(network)
        assert self.best is not None
        model = self.task.trained(self.run, self.config, network.eval())
        self.task.settle(model, self.held, self.run)
        return {
            "minutes": self._elapsed() / 60,
            "steps": self.step,
            "epochs": self.step / self.loader.per_epoch,
            "tokens_seen": self.tokens,
            "best_step": self.best["step"],
            "ended_by": self.ended_by(),
            "threads": self.threads.count,
            "precision": self.precision,
            "ended": time.strftime("%Y-%m-%d %H:%M"),
            "scores": self.task.score(model, self.held, quick=False),
            "notes": notes_in(self.run.corpus),
        }

    # -- saving and going on

    def _save_every(self) -> int:
        """Steps between checkpoints: the same for all processes, so never by each one's own clock."""
        return int(self._from_first(max(1, int(SAVE_EVERY_S / self.step_s)) if self.step_s else 100))

    def _save(self) -> None:
        carry, rng = self.carry, [self._rng()]
        if self.world > 1:
            carry = _mapped(carry, self.accelerator.gather)
            rng = gather_object(rng)
        if self.rank == 0:
            about = {
                "step": self.step,
                "tokens": self.tokens,
                "place": self.loader.state(),
                "best": self.best,
                "stale": self.stale,
                "norms": list(self.norms),
                "elapsed": self._elapsed(),
                "timing": [self.step_s, self.evaluation_s],
                "computing": self.threads.as_json(),
                **self.origin,
            }
            checkpoint.save(self.run.checkpoint, self._bare(), self.optimizer, carry, rng, about)
        self.accelerator.wait_for_everyone()

    def _save_weights(self, about: dict[str, Any]) -> None:
        self.run.save_weights(self._bare(), {**about, **self.origin})

    def _restore(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> Tensor:
        carry, rng, about = checkpoint.restore(self.run.checkpoint, network, optimizer)
        self.run.check_origin(about, self.config, self.run.checkpoint, going_on=True)
        if about.get("files") and not self.origin["files"]:
            raise UserError(f"{self.run.sums}: is missing; without it the training cannot go on")
        if about["best"] is not None:
            self.run.check_weights(self.config)  # what is damaged is said now, not at the end
        self.step, self.tokens, self.best, self.stale = about["step"], about["tokens"], about["best"], about["stale"]
        self.norms.extend(about["norms"])
        self.began -= about["elapsed"]
        self.step_s, self.evaluation_s = about["timing"]
        self.loader.restore(about["place"])
        self.carry = _mapped(carry, self._share)
        plan = self._recorded_plan()
        if plan is None:
            raise UserError(f"{self.run.schedule}: is missing; without it the training cannot go on")
        self.plan = plan
        if "computing" in about:
            self.threads.go_on(about["computing"])
        if len(rng) != self.world or about["threads"] != torch.get_num_threads():
            self.report.say(
                f"saved by {len(rng)} processes of {about['threads']} threads, going on with {self.world} of "
                f"{torch.get_num_threads()}: the losses will differ in their last digits"
            )
        if self.rank == 0:
            kept = [line for line in self.run.read_metrics() if line["step"] <= self.step]
            write_text(self.run.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        self.report.say(f"goes on after step {self.step} of {self.plan.total}")
        mine: Tensor = rng[self.rank % len(rng)]
        return mine

    def _share(self, tensor: Tensor) -> Tensor:
        share = tensor.shape[0] // self.world
        return tensor[self.rank * share : (self.rank + 1) * share].clone().to(self.accelerator.device)

    def _rng(self) -> Tensor:
        state = torch.get_rng_state()
        return torch.cat([state, torch.cuda.get_rng_state()]) if self.accelerator.device.type == "cuda" else state

    def _set_rng(self, state: Tensor) -> None:
        n = len(torch.get_rng_state())
        torch.set_rng_state(state[:n])
        if len(state) > n and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(state[n:])

    # -- small things

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.numel() for p in self._bare().parameters())

    def _bare(self) -> nn.Module:
        network: nn.Module = self.accelerator.unwrap_model(self.network)
        return network

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _from_first(self, value: Any) -> Any:
        """What the first process says, in all of them."""
        return broadcast_object_list([value])[0] if self.world > 1 else value


def _detached(carry: Any) -> Any:
    """A state to go on from: without what it came from, and in float32 whatever the step was computed in."""
    return _mapped(carry, lambda part: part.detach().float() if part.dtype is torch.bfloat16 else part.detach())


def _mapped(carry: Any, function: Any) -> Any:
    if carry is None:
        return None
    return function(carry) if isinstance(carry, Tensor) else tuple(_mapped(part, function) for part in carry)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C or a polite kill sets, so that the step at hand ends and is saved. A second one stops at once."""
    stop, old = threading.Event(), {}

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
