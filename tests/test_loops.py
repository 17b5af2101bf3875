"""Only the reference steps through time in Python: what everything else runs does not grow with the number of steps."""

import gc
import itertools
import sys

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime.cells import NAMED
from throughtime.models.classifier import Classifier
from throughtime.models.encoder import Encoder, TokenBatch
from throughtime.models.language import LanguageModel
from throughtime.models.tagger import Tagger
from throughtime.models.transformer import TransformerTranslator
from throughtime.models.translator import Translator
from throughtime.scanning import reference
from throughtime.scanning.cpu import memory

pytestmark = pytest.mark.usefixtures("_one_thread", "_no_free_blocks")

STEPS, ROWS = (40, 200, 800), 3


@pytest.fixture
def _no_free_blocks(monkeypatch):
    """Of other tests', of which the engine asks how much they are."""
    monkeypatch.setattr(memory, "_free", {})


class Counting:
    """How many instructions of Python are run in this thread; those of the reference, and of what it calls, do not count."""

    def __init__(self):
        self.count, self.inside = 0, 0

    def __enter__(self):
        sys.settrace(self._called)
        return self

    def __exit__(self, *error):
        sys.settrace(None)

    def _called(self, frame, event, argument):
        self.inside += frame.f_code is reference.run.__code__
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._within

    def _within(self, frame, event, argument):
        self.count += event == "opcode" and not self.inside
        self.inside -= event == "return" and frame.f_code is reference.run.__code__
        return self._within


def instructions(work, steps):
    """Of what is warm, without what frees the garbage of other tests."""
    for _ in range(2):
        work(steps)
    gc.disable()
    try:
        with Counting() as counting:
            work(steps)
    finally:
        gc.enable()
    return counting.count


def grows(work):
    """Whether there is an iteration more for each step more, of three instructions at the least, wherever one looks: there
    are things that the engine does from a certain amount of work on."""
    counts = [(steps, instructions(work, steps)) for steps in STEPS]
    return all(b - a >= 3 * (long - short) for (short, a), (long, b) in itertools.pairwise(counts))


def lengths_of(steps):
    return torch.tensor([steps, steps // 2 + 1, 1])


def learned(network, make):
    """Forward and backward, as in training; and without gradients, as in scoring."""

    def work(steps):
        torch.manual_seed(0)
        network.train()
        total = network(make(steps), None)[0]
        total.backward()
        network.eval()
        with torch.no_grad():
            network(make(steps), None)

    return work


def read(steps):
    return torch.randint(2, 9, (steps, ROWS)), lengths_of(steps)


def spelt(steps):
    """As `Lexicon.batch` gives it: words of up to as many characters as there are words."""
    words, lengths = read(steps)
    index = torch.arange(steps * ROWS).view(steps, ROWS) % 4
    return words, lengths, index, torch.randint(2, 6, (steps, 4)), torch.tensor([steps, 2, 3, 1])


def layer_work(layer, inputs, **options):
    def work(steps):
        torch.manual_seed(0)
        x = torch.randn(steps, ROWS, inputs, requires_grad=True)
        many = {k: make(steps) for k, make in options.items()}
        layer(x, **many)[0].sum().backward()
        with torch.no_grad():
            layer(x, **many)

    return work


RESETS = {"resets": lambda steps: torch.arange(steps * ROWS).view(steps, ROWS) % 7 == 3}
LENGTHS = {"lengths": lengths_of}


@pytest.mark.parametrize("options", [{}, LENGTHS, RESETS], ids=["plain", "lengths", "resets"])
@pytest.mark.parametrize("made", [tt.RNN, tt.GRU, tt.LSTM])
def test_layers_do_not_step_in_python(made, options):
    assert not grows(
        layer_work(made(4, 6, num_layers=2, bidirectional=not options or options is LENGTHS), 4, **options)
    )


@pytest.mark.parametrize("name", sorted(NAMED))
def test_no_cell_of_ours_is_stepped_in_python(name):
    stack = tt.Recurrent(NAMED[name], 8, 8)
    assert not grows(layer_work(stack, 8, **LENGTHS))


def language(**options):
    network = LanguageModel(
        vocabulary=11, hidden_size=6, embedding_size=4, dropout=0.1, cell="lstm", layers=2, recurrent_dropout=0.0,
        weight_dropout=0.0, zoneout=0.0, tied=True, cutoffs=(), **options,
    )  # fmt: skip
    return network, lambda steps: (torch.randint(1, 9, (steps, ROWS)), torch.randint(1, 9, (steps, ROWS)))


def classifier(**options):
    reader = Encoder(11, "gru", 6, 4, 1, dropout=0.1, **options)
    network = Classifier(reader, 3, "attention", 0.1, None, None)
    return network, lambda steps: (TokenBatch(*read(steps)), torch.tensor([0, 1, 2]))


def tagger(**options):
    sizes = {"cell": "lstm", "hidden_size": 6, "embedding_size": 4, "character_size": 4, "layers": 1, "dropout": 0.1}
    network = Tagger(11, 7, 5, **{**sizes, "crf": False, **options})
    return network, lambda steps: (*spelt(steps), torch.randint(0, 5, (steps, ROWS)))


def pair(steps):
    return *read(steps), *read(steps)


def translator(**options):
    sizes = {"cell": "gru", "hidden_size": 6, "embedding_size": 4, "layers": 1, "attention": "additive", "dropout": 0.1}
    more = {"smoothing": 0.1, "tied": True, "joint": False, "input_feeding": False}
    return Translator(11, 9, **{**sizes, **more, **options}), pair


def transformer():
    return TransformerTranslator(11, 9, 16, 2, dropout=0.1, smoothing=0.1, tied=True, joint=False), pair


MODELS = {
    "text": language,
    "text, transformer": lambda: language(window=max(STEPS)),
    "classify": classifier,
    "classify, transformer": lambda: classifier(kind="transformer"),
    "tag": tagger,
    "tag, crf": lambda: tagger(crf=True),
    "translate": translator,
    "translate, input feeding": lambda: translator(input_feeding=True),
    "translate, transformer": transformer,
}


@pytest.mark.parametrize("name", MODELS)
def test_models_do_not_step_in_python(name):
    assert not grows(learned(*MODELS[name]()))


@pytest.mark.parametrize("crf", [False, True])
def test_a_tagger_does_not_go_back_in_python(crf):
    network, _ = tagger(crf=crf)
    network.eval()

    @torch.no_grad()
    def work(steps):
        torch.manual_seed(0)
        given = spelt(steps)
        network.best(network.scores(*given), given[1])

    assert not grows(work)


def test_a_loop_is_seen():
    """Of a layer, and of a step without a module."""

    class Looping(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = tt.cells.GRU(4, 6)

        def forward(self, x):
            h = x.new_zeros(ROWS, 6)
            for t in range(len(x)):
                h = self.cell(x[t], h)
            return (h,)

    assert grows(layer_work(Looping(), 4))
    assert grows(layer_work(lambda x: (torch.stack([row + row for row in x]),), 4))  # no call in it
    stack = tt.Recurrent(tt.cells.GRU, 4, 6)
    assert grows(layer_work(lambda x: [torch.cat([stack(x[t : t + 1])[0] for t in range(len(x))])], 4))
