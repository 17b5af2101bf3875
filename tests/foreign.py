"""A task of another package, over numbers: what comes next in a series, a line of a file with spaces between its values."""

import re

import torch
from torch import nn
from torch.distributions import Normal

from throughtime.config import Positive, Strict
from throughtime.errors import UserError
from throughtime.models.stacks import recurrent
from throughtime.tasks import Task, Trained
from throughtime.tasks.batches import Items, padded
from throughtime.tasks.look import Look, Stack, Steps
from throughtime.tasks.settings import TaskConfig, filled


class Config(TaskConfig):
    task: str = "next"


class Writing(Strict):
    start: str = "0"
    length: Positive = 5


class Network(nn.Module):
    def __init__(self, m):
        super().__init__()
        self.stack, self.output = recurrent(m.cell, 1, m.hidden_size, m.layers), nn.Linear(m.hidden_size, 1)

    def means(self, values, lengths):  # of each value and of one more, each from those before: [T + 1, B]
        before = torch.cat([torch.zeros_like(values[:1]), values]).unsqueeze(-1)
        return self.output(self.stack(before, lengths=lengths + 1)[0]).squeeze(-1)

    def log_p(self, values, lengths):
        return Normal(self.means(values, lengths)[:-1], 1.0).log_prob(values)

    def forward(self, batch, state):
        real = torch.arange(len(batch[0])).unsqueeze(1) < batch[1]
        return -self.log_p(*batch)[real].sum(), batch[1].sum(), None


def batch(items):
    block, lengths = padded([[round(1000 * value) for value in item] for item in items])
    return block / 1000, lengths


class NextTask(Task):
    name, unit, config_type, generate_options = "next", "values", Config, Writing

    def item(self, given):
        if not re.fullmatch(r"\s*(-?\d{1,9}(\.\d+)?\s+)*", f"{given}\n"):
            raise UserError(f"a series is numbers under a billion with spaces between them, got {given[:40].strip()!r}")
        return [float(value) for value in given.split()]

    def items(self, config, source, options):
        return map(self.item, source)

    def prepare(self, config, train, held, run, advance):
        run.write_data("train", train), run.write_data("valid", held)
        model, training = filled(config.model, hidden_size=8, dropout=0.0), filled(config.training, learning_rate=0.01)
        return config.model_copy(update={"model": model, "training": filled(training, batch_size=4)})

    def network(self, config, run):
        return Network(config.model)

    def examples(self, config, run, part):
        return Items(items := run.read_data(part), [len(item) for item in items], batch)

    def trained(self, run, config, network):
        return NextModel(self, run, config, network)


class NextModel(Trained):
    def scores(self, items, options, advance=None):
        return {"series": len(items), **self.task.score(self, Items(items, [*map(len, items)], batch), quick=False)}

    def answers(self, items, options):
        values, lengths = batch(items)
        means = self.network.means(values, lengths).detach()[lengths, range(len(items))]
        return [{"values": item, "next": mean} for item, mean in zip(items, means.tolist(), strict=True)]

    def written(self, values):
        return f"{values['next']:.3f}"

    def stream(self, start="0", length=5):
        for _ in range(length):
            yield (found := f" {self.answer(start)['next']:.3f}")
            start += found

    def look(self, item):
        (values, lengths), names = batch([item]), [str(value) for value in item]
        inputs = Steps(["begin", *names], torch.tensor([0.0, *item]).unsqueeze(1))
        return Look(
            inputs=inputs, outputs=Steps(names), batch=values, verb="expect", stacks={"stack": Stack(name="", steps=inputs)},
            score=lambda given: Normal(self.network.means(given, lengths)[:-1], 1.0).log_prob(values)[:, 0],
            without=lambda i: values.index_copy(0, torch.tensor([i - 1]), values[max(i - 2, 0)][None]) if i else None,
        )  # fmt: skip
