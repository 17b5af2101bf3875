"""Cells side by side on one problem: as far back as each can learn, as values that JSON can hold.

What the picture, the table and the JSON show is read from these values, and from nowhere else.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch

from throughtime.errors import UserError, unknown
from throughtime.laboratory.asked import Asked
from throughtime.laboratory.network import Made, Network, find_cell, size_of, stretch_
from throughtime.laboratory.pixels import Pixels, Shuffled
from throughtime.laboratory.problems import Adding, Copy, Exploding, Problem, Recall
from throughtime.laboratory.trial import Budget, Lesson, Recipe, Telling, Trial, optimizer_of, run_trial

PROBLEMS: dict[str, type[Problem]] = {p.name: p for p in (Adding, Copy, Recall, Pixels, Shuffled, Exploding)}
RADIUS = 1.5

Values = dict[str, Any]
Counting = Callable[[str], AbstractContextManager[Telling]]  # a bar for a trial


class Experiment:
    """An experiment that is ready to run. Raises: UserError for what cannot be measured, before anything is trained."""

    def __init__(self, asked: Asked) -> None:
        if asked.problem not in PROBLEMS:
            raise UserError("--problem: " + unknown("problem", asked.problem, PROBLEMS))
        self.asked, self.kind = asked, PROBLEMS[asked.problem]
        pixels, explodes = issubclass(self.kind, Pixels), self.kind is Exploding
        asked.check_problem(self.kind.least, pixels, explodes)
        self.problem: Callable[[int], Problem] = self.kind
        self.lags = asked.lags or self.kind.lags
        if issubclass(self.kind, Pixels):
            assert asked.mnist is not None
            images = self.kind(asked.mnist)
            self.problem, self.lags = lambda lag: images, (images.lag,)  # read once
        self.names = asked.cells or self.kind.cells
        self.radius = (asked.spectral_radius or RADIUS) if explodes else None
        steps = asked.steps or (None if asked.minutes else self.kind.budget)
        self.chrono = max(*self.lags, 3) if asked.chrono else None
        self.budget = Budget(steps, asked.minutes * 60 if asked.minutes else None)
        self.recipe = Recipe(
            asked.learning_rate or self.kind.learning_rate, asked.clip or self.kind.clip, "sgd" if explodes else "adam"
        )
        self.cells: dict[str, Made | None] = {name: find_cell(name) for name in self.names}
        parameters = asked.parameters or self.kind.parameters
        self.sizes = {
            name: size_of(name, cell, self.kind.inputs, self.kind.outputs, parameters, asked.hidden)
            for name, cell in self.cells.items()
        }
        if self.radius is not None:
            for name in self.names:
                self._network(name)

    def run(
        self,
        counting: Counting,
        say: Callable[[str], None] = lambda words: None,
        keep: Callable[[Values], None] = lambda values: None,
    ) -> Values:
        """Train each cell at each lag, from the shortest up, until it fails at one. A network goes on to the next lag as it is.

        Args: counting: a bar, told of shares of a trial. say: a line of words after each trial. keep: the values so far,
            after each trial and each score.
        Returns: the values, with `finished` true.
        """
        values = self._head()
        for name in self.names:
            size, parameters = self.sizes[name]
            found: Values = {
                "cell": name,
                "hidden_size": size,
                "parameters": parameters,
                "longest_lag": None,
                "trials": [],
            }
            values["cells"].append(found)
            for recipe in self._recipes():
                network = self._network(name)
                optimizer = optimizer_of(network, recipe)
                for lag in self.lags:
                    lesson = Lesson(self.problem(lag), self.budget, recipe, self.asked.seed)
                    told: Values = _told(lesson, Trial())
                    found["trials"].append(told)

                    def so_far(trial: Trial, lesson: Lesson = lesson, told: Values = told) -> None:
                        told.update(_told(lesson, trial))
                        keep(values)

                    with counting(f"{name} at lag {lag}") as advance:
                        trial = run_trial(network, optimizer, lesson, advance, so_far)
                    told.update(_told(lesson, trial))
                    if trial.learned_at is not None:
                        found["longest_lag"] = max(lag, found["longest_lag"] or 0)
                    say(_in_words(name, values["score"], told))
                    keep(values)
                    if trial.learned_at is None:
                        break
        values["finished"] = True
        keep(values)
        return values

    def _recipes(self) -> list[Recipe]:
        if self.kind is not Exploding:
            return [self.recipe]
        return [replace(self.recipe, clip=None), self.recipe]

    def _network(self, name: str) -> Network:
        torch.manual_seed(self.asked.seed)
        network = Network(self.cells[name], self.kind.inputs, self.sizes[name][0], self.kind.outputs, self.chrono)
        if self.radius is not None:
            stretch_(name, network, self.radius)
        return network

    def _head(self) -> Values:
        kind, budget = self.kind, self.budget
        return {
            "problem": kind.name,
            "score": kind.score,
            "rising": kind.rising,
            "lags": list(self.lags),
            "seed": self.asked.seed,
            "budget": {"steps": budget.steps, "seconds": budget.seconds},
            "method": self.recipe.method,
            "learning_rate": self.recipe.learning_rate,
            "clip": self.recipe.clip,
            "batch_size": kind.batch_size,
            "chrono": self.chrono,
            "spectral_radius": self.radius,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "machine": platform.machine(),
            "finished": False,
            "cells": [],
        }


def _told(lesson: Lesson, trial: Trial) -> Values:
    """A trial, as far as it has come, and what was to be learned."""
    problem = lesson.problem
    about = {"lag": problem.lag, "clip": lesson.recipe.clip, "chance": problem.chance, "goal": problem.goal}
    return about | trial.as_json()


def _in_words(cell: str, score: str, trial: Values) -> str:
    """A trial in a line."""
    clip = "" if trial["clip"] is not None else ", without clipping"
    found = "no score" if trial["score"] is None else f"{score} {trial['score']:.4g}"
    if trial["broke"]:
        end = f"broke at step {trial['broke']['step']}"
    elif trial["learned_at"] is None:
        end = f"not learned in {trial['steps']:,} steps"
    else:
        end = f"learned at step {trial['learned_at']:,}"
    return f"{cell}, lag {trial['lag']}{clip}: {found}, {end}, {trial['seconds']:.0f} s"
