"""The language model, the n-grams it is compared with, and drawing from a distribution, each beside an independent computation."""

import itertools
import math
import os
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from throughtime.cells import GRU, LSTM, NAMED, Cell, Elman
from throughtime.decode.sampling import draw, sample
from throughtime.models.language import START, LanguageModel, _adaptive_nats
from throughtime.tasks.ngram import ngram_nats

V, N, E = 23, 7, 5
KINDS = {
    "gru": {"cell": "gru"},
    "lstm, two layers": {"cell": "lstm", "layers": 2},
    "elman, as wide as its embedding": {"cell": "elman", "embedding_size": N},
    "not tied": {"cell": "gru", "tied": False},
    "adaptive": {"cell": "gru", "cutoffs": (4, 11), "hidden_size": 17},
    "zoneout": {"cell": "lstm", "zoneout": 0.2},
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def build(kind="gru", seed=0, **more):
    """A model whose every parameter is random, in float64."""
    torch.manual_seed(seed)
    options = {"hidden_size": N, "embedding_size": E, **KINDS.get(kind, {"cell": kind}), **more}
    model = LanguageModel(V, **options).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return model.eval()


def tokens(steps, batch, seed=1, starts=()):
    drawn = torch.randint(2, V, (steps + 1, batch), generator=torch.Generator().manual_seed(seed))
    for t, b in starts:
        drawn[t, b] = START
    return drawn


def log_p_by_hand(model, column):
    """log p of what follows each token of one stream, [T, V]: the cells are called one step at a time, from the layers up."""
    cells = list(model.stack.cells)
    states = [None] * len(cells)
    rows = []
    for token in column.tolist():
        if token == START:
            states = [None] * len(cells)
        x = model.embedding.weight[token][None] * math.sqrt(model.embedding_size)
        for i, cell in enumerate(cells):
            zeros = torch.zeros(1, model.stack.hidden_size, dtype=torch.float64)
            old = states[i] if states[i] is not None else (zeros, zeros) if isinstance(cell, LSTM) else zeros
            new = BY_HAND[type(cell)](cell, x, old)
            if model.stack.zoneout:
                z = model.stack.zoneout
                new = tuple(z * a + (1 - z) * b for a, b in zip(old, new, strict=True))
            states[i] = new
            output = new[0] if isinstance(new, tuple) else new
            x = output + x if len(cells) > 1 and output.shape == x.shape else output
        if isinstance(model.project, nn.Linear):
            x = x @ model.project.weight.T
        if isinstance(model.output, nn.AdaptiveLogSoftmaxWithLoss):
            rows.append(adaptive_by_hand(model.output, x[0]))
        else:
            logits = model.output.weight @ x[0] + model.output.bias
            rows.append(logits - logits.exp().sum().log())
    return torch.stack(rows)


def elman_by_hand(cell, x, h):
    return torch.tanh(F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh))


def gru_by_hand(cell, x, h):
    ri, zi, ni = F.linear(x, cell.weight_ih, cell.bias_ih).chunk(3, 1)
    rh, zh, nh = F.linear(h, cell.weight_hh, cell.bias_hh).chunk(3, 1)
    r, z = torch.sigmoid(ri + rh), torch.sigmoid(zi + zh)
    return (1 - z) * torch.tanh(ni + r * nh) + z * h


def lstm_by_hand(cell, x, state):
    h, c = state
    gates = F.linear(x, cell.weight_ih, cell.bias_ih) + F.linear(h, cell.weight_hh, cell.bias_hh)
    i, f, g, o = gates.chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


BY_HAND = {Elman: elman_by_hand, GRU: gru_by_hand, LSTM: lstm_by_hand}


def adaptive_by_hand(output, x):
    """Grave et al. (2017): the head holds the frequent entries and a place for each part; a part's entries share its p."""
    head = (output.head.weight @ x).log_softmax(0)
    cutoffs = output.cutoffs
    parts = [head[: cutoffs[0]]]
    for i, (down, out) in enumerate(output.tail):
        parts.append(head[cutoffs[0] + i] + (out.weight @ (down.weight @ x)).log_softmax(0))
    return torch.cat(parts)


# -- the model


@every_kind
def test_it_computes_what_its_equations_say(kind):
    model, block = build(kind), tokens(9, 3, starts=[(0, 0), (0, 1), (4, 1), (9, 2)])
    inputs, targets = block[:-1], block[1:]
    with torch.no_grad():
        nats, _ = model.nats(inputs, targets, None)
    for b in range(3):
        log_p = log_p_by_hand(model, inputs[:, b])
        expected = -log_p[range(9), targets[:, b]]
        expected[targets[:, b] == START] = 0
        torch.testing.assert_close(nats[:, b], expected, rtol=0, atol=1e-10)
    assert (nats[targets != START] > 0).all()


@every_kind
def test_probabilities_sum_to_one(kind):
    model, block = build(kind), tokens(6, 4)
    with torch.no_grad():
        log_p, _ = model.read(block, None)
    assert log_p.shape == (4, V)
    torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(4, dtype=torch.float64))
    assert log_p.exp().std() > 1e-3, "a flat distribution would sum to one as well"


@every_kind
def test_reading_and_scoring_agree(kind):
    model, block = build(kind), tokens(6, 4)
    with torch.no_grad():
        for t in range(1, 7):
            log_p, _ = model.read(block[:t], None)
            nats, _ = model.nats(block[:t], block[1 : t + 1], None)
            torch.testing.assert_close(nats[-1], -log_p.gather(1, block[t][:, None])[:, 0], rtol=0, atol=1e-12)


@every_kind
def test_forward_sums_over_the_targets_that_count(kind):
    model, block = build(kind), tokens(8, 3, starts=[(2, 0), (5, 2), (8, 2), (0, 1)])
    total, count, _ = model((block[:-1], block[1:]), None)
    nats, _ = model.nats(block[:-1], block[1:], None)
    assert int(count) == 24 - 3  # a start that is an input alone is no target
    torch.testing.assert_close(total, nats.sum())
    assert (nats[block[1:] == START] == 0).all()


@every_kind
def test_a_carried_state_is_one_pass(kind):
    model, block = build(kind), tokens(12, 3, starts=[(0, 0), (5, 1), (7, 2)])
    with torch.no_grad():
        whole, end = model.nats(block[:-1], block[1:], None)
        parts, state = [], None
        for a, b in itertools.pairwise([0, 1, 5, 7, 12]):
            nats, state = model.nats(block[a:b], block[a + 1 : b + 1], state)
            parts.append(nats)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-12)
    for ours, theirs in zip(leaves(state), leaves(end), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    forgetful = torch.cat([model.nats(block[a : a + 6], block[a + 1 : a + 7], None)[0] for a in (0, 6)])
    assert (forgetful - whole)[6].abs().max() > 1e-6, "the state matters"


def leaves(state):
    return [state] if isinstance(state, torch.Tensor) else [leaf for part in state for leaf in leaves(part)]


@every_kind
def test_nothing_before_a_start_has_an_effect_on_what_follows(kind):
    model = build(kind)
    one, two = tokens(10, 2, seed=1), tokens(10, 2, seed=2)
    two[4:] = one[4:]
    carried = model.read(tokens(3, 2, seed=3), None)[1]
    with torch.no_grad():
        without = [model.nats(t[:-1], t[1:], s)[0] for t, s in ((one, None), (two, carried))]
        assert (without[0][4:] - without[1][4:]).abs().max() > 1e-6, "without a start it has"
        one[4], two[4] = START, START
        with_start = [model.nats(t[:-1], t[1:], s)[0] for t, s in ((one, None), (two, carried))]
        alone = model.nats(one[4:-1], one[5:], None)[0]
    torch.testing.assert_close(with_start[0][4:], with_start[1][4:], rtol=0, atol=1e-12)  # products of other sizes
    torch.testing.assert_close(with_start[0][4:], alone, rtol=0, atol=1e-12)


def test_a_start_stops_the_gradient_too():
    model, block = build(), tokens(8, 1)
    block[4] = START
    model.zero_grad()
    nats, _ = model.nats(block[:-1], block[1:], None)
    nats[4:].sum().backward()
    read_after = set(block[4:-1, 0].tolist())
    only_before = sorted(set(block[:4, 0].tolist()) - read_after)
    assert only_before
    # tied: the embedding of a token read before gets a gradient through the output alone, as with those tokens never read
    with_before = model.embedding.weight.grad.clone()
    model.zero_grad()
    nats, _ = model.nats(block[4:-1], block[5:], None)
    nats.sum().backward()
    torch.testing.assert_close(with_before, model.embedding.weight.grad, rtol=0, atol=1e-12)


def test_tied_weights_are_one_tensor():
    model = build("gru")
    assert model.output.weight is model.embedding.weight
    assert isinstance(model.project, nn.Linear), "the state is wider than the embedding"
    assert sum(p.numel() for p in model.parameters()) == V * E + V + N * E + 3 * N * (E + N + 2)
    same = build("elman, as wide as its embedding")
    assert same.output.weight is same.embedding.weight
    assert isinstance(same.project, nn.Identity)
    loose = build("not tied")
    assert loose.output.weight is not loose.embedding.weight
    assert loose.output.weight.shape == (V, N)


@every_kind
def test_gradients_reach_every_parameter(kind):
    model, block = build(kind).train(), tokens(20, 6)
    model((block[:-1], block[1:]), None)[0].backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert (p.grad.abs() > 0).any(), name


@pytest.mark.parametrize("kind", ["gru", "adaptive", "not tied"])
def test_gradients_are_those_of_the_score(kind):
    """The whole model against finite differences, in float64: embedding, cell and output."""
    model, block = build(kind), tokens(5, 2, starts=[(2, 1)])
    names = [name for name, _ in model.named_parameters()]

    def score(*values):
        return torch.func.functional_call(
            model, dict(zip(names, values, strict=True)), ((block[:-1], block[1:]), None)
        )[0]

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    gradients = torch.autograd.grad(score(*values), values)
    with torch.no_grad():
        for v, g in zip(values, gradients, strict=True):
            direction = torch.randn_like(v)
            up, down = (score(*(w + s * 1e-5 * direction if w is v else w for w in values)) for s in (1, -1))
            assert float((up - down) / 2e-5) == pytest.approx(float((g * direction).sum()), rel=1e-5, abs=1e-6)


def test_the_names_of_cells():
    assert {"elman": Elman, "gru": GRU, "lstm": LSTM}.items() <= NAMED.items()
    assert all(issubclass(made, Cell) for made in NAMED.values())
    assert len(set(NAMED.values())) == len(NAMED)
    for name, made in NAMED.items():
        assert all(type(cell) is made for cell in build(name, layers=2).stack.cells)


@pytest.mark.parametrize("most", [3, 9, 23])  # entries that come: those of the first part alone, of two, of all
def test_an_adaptive_loss_is_that_of_pytorch(most):
    model = build("adaptive")
    targets, hidden = torch.randint(0, most, (50,)), torch.randn(50, model.output.in_features, dtype=torch.float64)
    model.output.requires_grad_(False)
    hidden.requires_grad_()
    found, expected = _adaptive_nats(model.output, hidden, targets), -model.output(hidden, targets).output
    torch.testing.assert_close(found, expected)
    gradients = (torch.autograd.grad(nats.square().sum(), hidden) for nats in (found, expected))
    torch.testing.assert_close(*gradients)


def test_an_adaptive_output_of_a_small_network_tells_rare_entries_apart():
    log_p, _ = build("adaptive", hidden_size=N).read(tokens(6, 4), None)
    assert log_p[:, 11:].std(-1).min() > 1e-3


def test_forget_gates_begin_open():
    torch.manual_seed(0)
    model = LanguageModel(V, "lstm", N, E)
    (cell,) = model.stack.cells
    forget = (cell.bias_ih + cell.bias_hh)[N : 2 * N]
    torch.testing.assert_close(forget, torch.ones(N))


def test_dropout_acts_while_training_alone():
    model, block = build("gru", dropout=0.5), tokens(6, 4)
    twice = [model.nats(block[:-1], block[1:], None)[0] for _ in range(2)]
    assert torch.equal(*twice)
    torch.testing.assert_close(twice[0], build("gru").nats(block[:-1], block[1:], None)[0])
    model.train()
    twice = [model.nats(block[:-1], block[1:], None)[0] for _ in range(2)]
    assert not torch.equal(*twice)


def test_a_fresh_model_knows_nothing():
    """At its beginning it is nearly as good as guessing, and not worse: log V."""
    torch.manual_seed(0)
    model, block = LanguageModel(V, "gru", 64, 32), tokens(50, 8)
    total, count, _ = model((block[:-1], block[1:]), None)
    assert float(total.detach() / count) == pytest.approx(math.log(V), abs=0.6)


# -- n-grams


def witten_bell(train, held, vocabulary, order):
    """Interpolated Witten-Bell with dictionaries, straight from its recursion."""
    follows = defaultdict(Counter)
    for i, w in enumerate(train):
        for k in range(min(order, i + 1)):
            follows[tuple(train[i - k : i])][w] += 1

    def p(w, context):
        lower = p(w, context[1:]) if context else 1 / vocabulary
        counts = follows.get(context)
        if counts is None:
            return lower
        n, types = sum(counts.values()), len(counts)
        return (counts[w] + types * lower) / (n + types)

    return -sum(math.log(p(w, tuple(held[max(0, i - order + 1) : i]))) for i, w in enumerate(held))


@settings(max_examples=150, deadline=None)
@given(
    vocabulary=st.integers(2, 6),
    data=st.data(),
    order=st.integers(1, 4),
)
def test_ngrams_are_witten_bell(vocabulary, data, order):
    sequence = st.lists(st.integers(0, vocabulary - 1), min_size=1, max_size=40)
    train, held = data.draw(sequence), data.draw(sequence)
    ours = ngram_nats(np.array(train), np.array(held), vocabulary, order)
    assert ours == pytest.approx(witten_bell(train, held, vocabulary, order), rel=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_an_ngram_is_a_distribution(order):
    """Over all that could stand at the end of a text the probabilities are 1."""
    generator = np.random.default_rng(0)
    train, context = generator.integers(0, 5, 60), generator.integers(0, 5, 4)
    before = ngram_nats(train, context, 5, order)
    p = [math.exp(before - ngram_nats(train, np.append(context, w), 5, order)) for w in range(5)]
    assert sum(p) == pytest.approx(1)
    assert max(p) > 1.2 * min(p)


def test_a_longer_context_helps_where_there_is_one():
    train = np.array([0, 1, 2, 3, 1, 4] * 50)
    nats = [ngram_nats(train, np.array([0, 1, 2, 3, 1, 4] * 5), 5, order) / 30 for order in (1, 2, 3)]
    assert nats[0] > 1.3 > nats[1] > 0.3 > nats[2]


def test_six_grams_on_tiny_shakespeare():
    """The floor that is written beside the published results: 1.698 nats a character."""
    data = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = data / "text" / "tinyshakespeare"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing; set THROUGHTIME_DATA to the folder of the data")
    train, held = (np.array([ord(c) for c in (folder / n).read_text()]) for n in ("train.txt", "valid.txt"))
    kinds, numbered = np.unique(np.concatenate([train, held]), return_inverse=True)
    n = len(train)
    nats = ngram_nats(numbered[:n], numbered[n:], len(kinds), 6) / len(held)
    assert nats == pytest.approx(1.698, abs=5e-4)


# -- drawing


def drawn_set(log_p, n=4000, **options):
    generator = torch.Generator().manual_seed(5)
    return set(draw(log_p.expand(n, -1), generator=generator, **options).tolist())


def kept_by_hand(p, top_k=None, top_p=None):
    """The entries that may be drawn: the k likeliest, and of these the fewest that make up p."""
    order = sorted(range(len(p)), key=lambda i: -p[i])
    order = order[:top_k] if top_k else order
    if top_p is None:
        return set(order)
    whole, kept, sum_ = sum(p[i] for i in order), set(), 0.0
    for i in order:
        kept.add(i)
        sum_ += p[i] / whole
        if sum_ >= top_p:
            break
    return kept


P = torch.tensor([0.06, 0.3, 0.02, 0.25, 0.13, 0.1, 0.08, 0.06 - 0.003, 0.003])


def test_temperature_zero_is_greedy():
    log_p = torch.randn(50, 17, generator=torch.Generator().manual_seed(0))
    expected = [max(range(17), key=lambda i: row[i].item()) for row in log_p]
    assert draw(log_p, temperature=0).tolist() == expected
    assert draw(log_p, temperature=1e-6).tolist() == expected
    assert draw(log_p, top_k=1).tolist() == expected
    assert draw(log_p, top_p=1e-6).tolist() == expected
    assert draw(log_p, temperature=50.0).tolist() != expected


@pytest.mark.parametrize("k", [1, 2, 3, 8, 9, 100])
def test_top_k_draws_from_the_k_likeliest(k):
    assert drawn_set(P.log(), top_k=k) == kept_by_hand(P.tolist(), top_k=k)


@pytest.mark.parametrize("p", [0.05, 0.29, 0.31, 0.54, 0.56, 0.7, 0.9, 0.995, 1.0])
def test_top_p_draws_from_the_smallest_set(p):
    assert drawn_set(P.log(), top_p=p) == kept_by_hand(P.tolist(), top_p=p if p < 1 else None)


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.integers(1, 400), min_size=2, max_size=9, unique=True),
    k=st.none() | st.integers(1, 9),
    p=st.none() | st.floats(0.05, 0.95),
)
def test_top_k_and_top_p_together(weights, k, p):
    probabilities = [w / sum(weights) for w in weights]
    kept = kept_by_hand(probabilities, k, p)
    if p is not None:  # where the border falls on p itself, rounding decides
        order = sorted(probabilities, reverse=True)[: k or 9]
        sums = list(itertools.accumulate(order))
        if any(abs(s / sums[-1] - p) < 1e-4 for s in sums):
            return
    got = drawn_set(torch.tensor(weights).float().log(), n=3000, top_k=k, top_p=p)
    assert got <= kept
    # what is likely enough must come within 3000 draws
    whole = sum(probabilities[i] for i in kept)
    assert {i for i in kept if probabilities[i] / whole > 0.01} <= got


@pytest.mark.parametrize("options", [{}, {"temperature": 0.5}, {"temperature": 2.0}, {"top_k": 4}, {"top_p": 0.7}])
def test_draws_are_as_frequent_as_they_are_likely(options):
    p = P ** (1 / options.get("temperature", 1.0))
    kept = kept_by_hand(P.tolist(), options.get("top_k"), options.get("top_p"))
    p = torch.tensor([p[i] if i in kept else 0.0 for i in range(len(p))])
    p = p / p.sum()
    n = 60_000
    got = draw(P.log().expand(n, -1), generator=torch.Generator().manual_seed(11), **options)
    counts = torch.bincount(got, minlength=len(p))
    assert (counts[p == 0] == 0).all()
    expected = n * p[p > 0]
    chi_square = float(((counts[p > 0] - expected) ** 2 / expected).sum())
    freedom = int((p > 0).sum()) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom) + 4
    # and the bound can tell: one entry a tenth too frequent is far outside
    wrong = p.clone()
    wrong[p.argmax()] *= 1.1
    wrong = n * (wrong / wrong.sum())[p > 0]
    assert float(((counts[p > 0] - wrong) ** 2 / wrong).sum()) > freedom + 4 * math.sqrt(2 * freedom) + 4


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0}, {"temperature": 30.0}, {"top_k": 6}, {"top_p": 0.999}, {"top_k": 3, "top_p": 0.9}],
)
def test_what_is_forbidden_is_never_drawn(options):
    log_p = torch.zeros(5000, 8)
    log_p[:, [0, 1, 6]] = -math.inf
    log_p[:, 2] = -3.0
    got = set(draw(log_p, generator=torch.Generator().manual_seed(2), **options).tolist())
    assert got
    assert not got & {0, 1, 6}


def test_streams_are_drawn_for_themselves():
    log_p = torch.full((3, 4), -math.inf)
    log_p[0, 2] = log_p[1, 0] = log_p[2, 3] = 0.0
    for options in ({}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0}):
        assert draw(log_p, **options).tolist() == [2, 0, 3]


def test_the_same_seed_draws_the_same():
    log_p = torch.zeros(1, 50)
    twice = [
        [int(draw(log_p, generator=g)) for _ in range(20)]
        for g in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
    ]
    assert twice[0] == twice[1] != twice[2]


def test_what_is_drawn_from_is_left_as_it_was():
    log_p = P.log()[None].clone()
    draw(log_p, temperature=0.5, top_k=3, top_p=0.5)
    assert torch.equal(log_p, P.log()[None])


def test_sampling_reads_what_it_wrote_and_carries_the_state():
    """A step that always goes up by its state: every token and every state has to be handed on for the series to be right."""
    seen = []

    def step(read, state):
        seen.append((read.tolist(), state))
        log_p = torch.full((2, 100), -math.inf)
        log_p[range(2), (read + state) % 100] = 0.0
        return log_p, state + 1

    first = torch.full((2, 100), -math.inf)
    first[0, 5] = first[1, 40] = 0.0
    series = sample(step, first, 1)
    got = [next(series).tolist() for _ in range(6)]
    assert got == [[5, 40], [6, 41], [8, 43], [11, 46], [15, 50], [20, 55]]
    assert seen == [(g, i + 1) for i, g in enumerate(got[:5])], "no step is taken that nobody asked for"


def test_sampling_hands_its_options_on():
    def step(read, state):
        return P.log()[None], state

    def some(**options):
        series = sample(step, P.log()[None], None, generator=torch.Generator().manual_seed(0), **options)
        return {int(t) for t in itertools.islice(series, 300)}

    assert some(temperature=0) == {1}
    assert some(top_k=2) == {1, 3}
    assert some(top_p=0.6) == {1, 3, 4}
    assert len(some()) > 6
