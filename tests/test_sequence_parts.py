"""What the tasks on sequences are made of: attention, pooling, CRF, counting, beam search, batches; each against plain loops."""

import itertools
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
import torch

from throughtime.decode.beam import beam_search
from throughtime.decode.sampling import draw
from throughtime.layers import Attention
from throughtime.models.classifier import Classifier, Pool
from throughtime.models.counts import Counts
from throughtime.models.encoder import Encoder, TokenBatch
from throughtime.models.tagger import Crf, Tagger
from throughtime.models.transformer import TransformerTranslator, TransformerWindow, parameters_of
from throughtime.models.translator import Translator
from throughtime.tasks.batches import ByLength, Sequences, in_order_of_length, padded
from throughtime.tasks.spelling import Reading, Spelling, pieces_of
from throughtime.tasks.tokens import Tokens

F64 = torch.float64


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# Attention and pooling


@pytest.mark.parametrize("kind", ["additive", "multiplicative"])
def test_attention_is_the_formula(kind):
    torch.manual_seed(0)
    attention = Attention(4, 6, kind, inner_size=5 if kind == "additive" else None).double().requires_grad_(False)
    values, queries, lengths = random(7, 3, 6, seed=1), random(2, 3, 4, seed=2), torch.tensor([7, 1, 4])
    contexts, weights = attention(queries, attention.remember(values, lengths))
    for t, b in itertools.product(range(2), range(3)):
        scores = []
        for s in range(int(lengths[b])):
            key = attention.key.weight @ values[s, b]
            if kind == "additive":
                inner = torch.tanh(attention.query.weight @ queries[t, b] + attention.query.bias + key)
                scores.append(float(attention.score.weight[0] @ inner))
            else:
                scores.append(float(queries[t, b] @ key))
        e = np.exp(np.array(scores) - max(scores))
        a = e / e.sum()
        expected = sum(a[s] * values[s, b].numpy() for s in range(len(a)))
        np.testing.assert_allclose(weights[t, b, : len(a)], a, atol=1e-12)
        np.testing.assert_allclose(contexts[t, b], expected, atol=1e-12)
        assert bool((weights[t, b, len(a) :] == 0).all())


def test_attention_refuses_another_kind():
    with pytest.raises(ValueError, match="'additive' or 'multiplicative', got 'dot'"):
        Attention(3, 3, "dot")
    with pytest.raises(ValueError, match="inner_size is of additive attention"):
        Attention(3, 3, "multiplicative", inner_size=5)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("kind", ["last", "mean", "max", "attention"])
def test_pooling_sees_real_steps_alone(kind, directions):
    torch.manual_seed(0)
    pool = Pool(kind, 4, directions).double()
    hidden, lengths = random(6, 3, 4), [6, 1, 3]
    found = pool(hidden, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        h = hidden[:n, b]
        if kind == "last":
            expected = h[-1] if directions == 1 else torch.cat([h[-1, :2], h[0, 2:]])
        elif kind == "attention":
            a = torch.softmax(torch.stack([pool.score(torch.tanh(pool.inner(row)))[0] for row in h]), 0)
            expected = sum(a[t] * h[t] for t in range(n))
        else:
            expected = h.mean(0) if kind == "mean" else h.max(0).values
        torch.testing.assert_close(found[b], expected)


# The conditional random field, against all paths


@pytest.fixture
def field():
    crf = Crf(3).double()
    for i, p in enumerate(crf.parameters()):
        p.data = random(*p.shape, seed=i)
    return crf


@torch.no_grad()
def path_score(crf, scores, tags):
    total = crf.first[tags[0]] + crf.last[tags[-1]] + sum(scores[t, k] for t, k in enumerate(tags))
    return float(total + sum(crf.after[a, b] for a, b in itertools.pairwise(tags)))


def test_crf_against_all_paths(field):
    scores, lengths = 2 * random(5, 3, 3, seed=9), [5, 1, 3]
    tags = torch.tensor([[0, 2, 1], [1, 0, 1], [2, 0, 0], [2, 0, 0], [1, 0, 0]])
    nats = field.nats(scores, torch.tensor(lengths), tags)
    best = field.best(scores, torch.tensor(lengths))
    for b, n in enumerate(lengths):
        every = {path: path_score(field, scores[:, b], path) for path in itertools.product(range(3), repeat=n)}
        total = math.log(sum(map(math.exp, every.values())))
        assert nats[b].item() == pytest.approx(total - every[tuple(tags[:n, b].tolist())], abs=1e-10)
        assert tuple(best[:n, b].tolist()) == max(every, key=every.get)


def test_crf_gradients(field):
    scores, tags = random(4, 2, 3, seed=3).requires_grad_(), torch.tensor([[0, 1], [2, 2], [1, 0], [0, 0]])
    lengths = torch.tensor([4, 2])
    torch.autograd.gradcheck(lambda s, *p: field.nats(s, lengths, tags), (scores, *field.parameters()))


# Counting


SPELT = {2: "cat", 3: "cats", 4: "dog", 5: "bat"}


def spelt(rows):
    """Rows of token numbers as `TokenBatch`, their words spelt with `SPELT`."""
    spelling = Spelling.learn(SPELT.values())
    tokens, lengths = padded(rows)
    return TokenBatch(tokens, lengths, spelling.spelt(tokens.numpy(), ["", "", *SPELT.values()])), spelling


def test_counts_against_a_plain_count():
    rows = [([2, 3, 3, 4], 0), ([3, 2], 1), ([4], 1), ([2, 3], 0), ([5, 2], 2), ([4, 4, 3], 2), ([5], 2)]
    classes = (0, 1, 2)
    shared = [p for p, n in Counter(p for w in SPELT.values() for p in pieces_of(w)).items() if n > 1]
    assert {"<ca", "at>", "<cat", "cat"} <= set(shared)
    sorts = (
        (set, 6),
        (lambda tokens: set(itertools.pairwise(tokens)), 1 << 17),
        (lambda tokens: {p for t in tokens for p in pieces_of(SPELT[t]) if p in shared}, len(shared)),
    )
    counts = Counts(6, 3, len(shared))
    counts.count((spelt([tokens])[0], torch.tensor([label])) for tokens, label in rows)

    def ratios(tokens, sort, own=None):
        """{kind: r of each class}"""
        kinds_of, size = sorts[sort]
        total = {c: sum(len(kinds_of(t)) for t, y in rows if y == c) for c in classes}
        found = {}
        for kind in kinds_of(tokens):
            n = {c: sum(kind in kinds_of(t) and y == c for t, y in rows) - (c == own) for c in classes}
            r = []
            for c in classes:
                others = [d for d in classes if d != c]
                here = (n[c] + 1) / (total[c] + size)
                elsewhere = (sum(n[d] for d in others) + 1) / (sum(total[d] for d in others) + size)
                r.append(math.log(here / elsewhere))
            found[kind] = [v - sum(r) / 3 if sum(n.values()) > 0 else 0.0 for v in r]
        return found

    def expected(tokens, own=None):
        return [[sum(r[c] for r in ratios(tokens, sort, own).values()) for c in classes] for sort in range(3)]

    asked = [[2, 3, 5], [4]]
    np.testing.assert_allclose(counts(spelt(asked)[0])[0], [expected(t) for t in asked], atol=1e-5)
    read, labels = spelt([t for t, _ in rows])[0], torch.tensor([y for _, y in rows])
    np.testing.assert_allclose(counts(read, labels)[0], [expected(t, own=y) for t, y in rows], atol=1e-5)
    assert counts(read, labels)[1].eq(0).all()  # no weights, no say

    tokens, pairs, pieces = counts.weights
    torch.nn.init.normal_(tokens)
    torch.nn.init.constant_(pairs, 0.7)
    torch.nn.init.normal_(pieces)
    torch.nn.init.normal_(counts.bias)
    learned = spelt(asked)[1].pieces
    weight_of = (lambda t: tokens[t], lambda t: torch.tensor(0.7), lambda t: pieces[learned.index(t)])

    def weighed(sequence):
        out = counts.bias.tolist()
        for sort, weight in enumerate(weight_of):
            r = ratios(sequence, sort)
            norm = math.sqrt(3 * sum(sum(x**2 for x in v) / 3 for v in r.values()))
            for c in classes:
                out[c] += sum(8 * float(weight(kind).detach()) * v[c] for kind, v in r.items()) / max(norm, 1e-6)
        return out

    np.testing.assert_allclose(counts(spelt(asked)[0])[1].detach(), [weighed(t) for t in asked], rtol=1e-4)
    # a sequence's own label is left in: it is the weights that have to hold back
    np.testing.assert_allclose(counts(read, labels)[1].detach(), [weighed(t) for t, _ in rows], rtol=1e-4)
    squares = sum(float(w.detach().square().sum()) for w in counts.weights)
    assert float(counts.penalty().detach()) == pytest.approx(4e-5 * 64 * squares)


def test_a_classifier_learns_from_three_and_answers_by_two():
    torch.manual_seed(0)
    counts = Counts(6, 3)
    read = TokenBatch(*padded([[2, 3, 5], [4], [3, 3]]))
    labels = torch.tensor([0, 2, 1])
    counts.count([(read, labels)])
    network = Classifier(Encoder(6, "gru", 4, 3), 3, "mean", 0.0, counts, [1.0, 2.0, 0.5])
    for weights in counts.weights:
        torch.nn.init.normal_(weights)
    bare = Classifier(network.reader, 3, "mean", 0.0)
    bare.output = network.output
    alone = bare.logits(read)
    said, weighed = counts(read)
    voice = network.voice.view(1, -1, 1)
    torch.testing.assert_close(network.logits(read), (alone + (voice * said).sum(1) + 2 * weighed) / 3)
    said = counts(read, labels)[0]
    weights = torch.tensor([1.0, 0.5, 2.0])[:, None]  # of the labels, in the order of the examples

    def nats(logits):
        return -(weights * logits.log_softmax(-1))[range(3), labels].sum()

    found, count, _ = network((read, labels), None)
    expected = nats(alone + (voice * said).sum(1)) + nats(alone) + nats(weighed) + 3 * counts.penalty()
    torch.testing.assert_close(found, expected / 3)
    assert int(count) == 3


# Spelling


class AsItIs(torch.nn.Module):
    def forward(self, x, lengths):
        return (x,)


def test_a_word_is_read_as_itself_and_the_mean_of_its_pieces():
    read, spelling = spelt([[2, 3, 5], [4]])
    assert set(spelling.pieces) == {"<ca", "cat", "<cat", "at>"}
    reader = Encoder(6, "none", 4, 3, pieces=len(spelling)).eval()
    reader.stack = AsItIs()
    found = reader(read)
    of = reader.pieces.weight[[spelling.pieces.index(p) for p in ("<ca", "cat", "<cat")]]
    torch.testing.assert_close(found[1, 0], reader.embedding.weight[3] + of.mean(0))
    torch.testing.assert_close(
        found[2, 0], reader.embedding.weight[5] + reader.pieces.weight[spelling.pieces.index("at>")]
    )
    torch.testing.assert_close(found[0, 1], reader.embedding.weight[4])  # no piece that another word has


def test_unknown_words_are_told_apart_by_their_spelling():
    tokens = Tokens("words", ["<unk>", "<s>", "cat", "cats", "dog", "bat"], spaced=True)
    reading = Reading(tokens, str, Spelling.learn(SPELT.values()), None)
    texts = reading.texts(["cat catty rat", "rat", ""], 100)
    assert texts.others == ["catty", "rat"]
    read = texts.read([0, 1, 2])
    assert read.tokens.t().tolist() == [[2, 0, 0], [0, 0, 0], [0, 0, 0]] and read.lengths.tolist() == [3, 1, 0]
    index, pieces, starts = read.spelt
    names = [[texts.reading.spelling.pieces[p] for p in pieces[a:b]] for a, b in itertools.pairwise(starts)]
    assert set(names[index[1, 0]]) == {"<ca", "cat", "<cat"} and names[index[2, 0]] == names[index[0, 1]] == ["at>"]


def test_words_as_a_language_model_numbers_them():
    tokens = Tokens("words", ["<unk>", "<s>", "paris", "city"], spaced=True)
    language = Tokens("words", ["<unk>", "<s>", " city", "Paris"], spaced=False)
    texts = Reading(tokens, str, None, language).texts(["paris city rome"], 100)
    assert texts.read([0]).language.t().tolist() == [[3, 2, 0]]


# Beam search


def table_step(table):
    """A step whose next token hangs on the last two."""

    def step(tokens, state):
        before, line = state
        return torch.stack([table[n, b, t] for n, b, t in zip(line, before, tokens, strict=True)]), (tokens, line)

    return step


def every_sequence(table, line, longest, vocabulary, end):
    def grow(tokens, log_p, before, last):
        row = table[line, before, last]
        yield tokens, log_p + float(row[end])
        if len(tokens) < longest:
            for v in range(vocabulary):
                if v != end:
                    yield from grow([*tokens, v], log_p + float(row[v]), last, v)

    yield from grow([], 0.0, end, end)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_wide_beam_finds_the_best_of_all(alpha):
    vocabulary, end = 4, 1
    table = (2 * random(3, vocabulary, vocabulary, vocabulary, seed=4)).log_softmax(-1)
    limits = [4, 2, 0]
    state = (torch.full((3,), end), torch.arange(3))
    found = beam_search(table_step(table), torch.full((3,), end), state, size=60, end=end, longest=limits, alpha=alpha)
    for line, limit in enumerate(limits):
        scored = [
            (log_p / ((5 + len(tokens) + 1) / 6) ** alpha, tokens, log_p)
            for tokens, log_p in every_sequence(table, line, limit, vocabulary, end)
        ]
        score, tokens, log_p = max(scored)
        assert found[line][0].tokens == tokens
        assert found[line][0].score == pytest.approx(score)
        assert found[line][0].log_probability == pytest.approx(log_p)
        scores = [h.score for h in found[line]]
        assert scores == sorted(scores, reverse=True)


def test_a_beam_of_one_is_greedy_and_never_writes_what_it_may_not():
    vocabulary, end = 6, 1
    table = random(1, vocabulary, vocabulary, vocabulary, seed=7).log_softmax(-1)
    state = (torch.tensor([end]), torch.tensor([0]))
    (found,) = beam_search(
        table_step(table), torch.tensor([end]), state, size=1, end=end, longest=[8], never=(0,), alpha=0.0
    )
    tokens, before, last = [], end, end
    while len(tokens) < 8:
        row = table[0, before, last].clone()
        row[0] = -torch.inf
        v = int(row.argmax())
        if v == end:
            break
        tokens.append(v)
        before, last = last, v
    assert found[0].tokens == tokens


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize(("stops", "alpha", "complete"), [(0.1, 0.6, False), (0.1, 0.0, False), (0.9, 0.6, True)])
def test_a_search_that_its_limit_cut_off_says_so(size, stops, alpha, complete):
    """Whether the best is as long as the limit, or a shorter one won because a longer one was not let go on."""
    log_p = torch.tensor([0.0, stops, 1 - stops]).log()  # 1 is the end

    def step(tokens, state):
        return log_p.expand(len(tokens), 3).clone(), state

    tokens, state = torch.ones(2, dtype=torch.int64), torch.zeros(2, 1)
    for found in beam_search(step, tokens, state, size=size, end=1, longest=[3, 5], alpha=alpha):
        assert found[0].complete is complete


# Batches


class Numbers(NamedTuple):
    """Examples that are their own numbers."""

    lengths: np.ndarray

    def batch(self, numbers):
        return torch.from_numpy(numbers)


def test_batches_hold_every_example_once_an_epoch_and_processes_share_them():
    lengths = np.random.default_rng(0).integers(1, 40, 103)
    whole = ByLength(Numbers(lengths), 10, 5, slice(None))
    halves = [ByLength(Numbers(lengths), 10, 5, s) for s in (slice(0, 5), slice(5, 10))]
    for _ in range(2):
        seen = []
        for _ in range(whole.per_epoch):
            batch, fresh = whole.next(torch.device("cpu"))
            assert fresh
            assert torch.equal(batch, torch.cat([h.next(torch.device("cpu"))[0] for h in halves]))
            seen += batch.tolist()
        assert set(seen) == set(range(103))
        assert len(seen) == 110
    place = whole.state()
    again = ByLength(Numbers(lengths), 10, 5, slice(None))
    again.restore(place)
    assert torch.equal(whole.next(torch.device("cpu"))[0], again.next(torch.device("cpu"))[0])


def test_every_epoch_is_cut_anew():
    """Other examples stand together, in another order; and another seed cuts otherwise still."""
    lengths = np.random.default_rng(0).integers(1, 40, 103)

    def epochs(seed, count=3):
        stream = ByLength(Numbers(lengths), 10, seed, slice(None))
        return [
            [tuple(stream.next(torch.device("cpu"))[0].tolist()) for _ in range(stream.per_epoch)] for _ in range(count)
        ]

    several = [*epochs(5), epochs(6, 1)[0]]
    for a, b in itertools.combinations(several, 2):
        together = [{frozenset(batch) for batch in epoch} for epoch in (a, b)]
        assert len(together[0] & together[1]) < len(a) / 2
        assert [max(lengths[list(batch)]) for batch in a] != [max(lengths[list(batch)]) for batch in b]
    assert epochs(5) == epochs(5)


def test_batches_waste_little_on_padding():
    lengths = np.random.default_rng(0).integers(1, 60, 5000)
    stream = ByLength(Numbers(lengths), 32, 0, slice(None))
    padded = real = 0
    for _ in range(stream.per_epoch):
        batch = lengths[stream.next(torch.device("cpu"))[0].numpy()]
        assert (np.diff(batch) <= 0).all()  # the longest first
        padded, real = padded + batch.max() * len(batch), real + batch.sum()
    assert real / padded > 0.93


def test_sequences_on_disk(tmp_path):
    rows = [[3, 1, 2], [], [7], list(range(300))]
    Sequences.of(rows).save(tmp_path / "x.bin")
    back = Sequences.open(tmp_path / "x.bin")
    assert [list(back[i]) for i in range(len(back))] == rows
    Sequences.of([[]]).save(tmp_path / "e.bin")
    assert len(Sequences.open(tmp_path / "e.bin")[0]) == 0


def test_scoring_visits_every_example_once():
    lengths = [5, 900, 1, 0, 4096, 77, 3]
    visited = np.concatenate(list(in_order_of_length(lengths, 1000)))
    assert sorted(visited.tolist()) == list(range(7))


# Networks: padding and company change nothing


def test_a_tagger_gives_a_sentence_the_same_scores_in_any_company():
    torch.manual_seed(0)
    tagger = Tagger(
        9, 7, 4, cell="lstm", hidden_size=5, embedding_size=6, character_size=3, layers=2, dropout=0.3, crf=False
    ).double()
    tagger.eval()
    words, lengths = padded([[2, 3, 4, 5, 6], [7, 8]])
    index, _ = padded([[0, 1, 2, 3, 1], [2, 0]])
    spelt, spelt_lengths = padded([[2], [3, 4, 5], [6, 2], [4, 4, 4, 4]])
    together = tagger.scores(words, lengths, index, spelt, spelt_lengths)
    alone = tagger.scores(words[:2, 1:], lengths[1:], torch.tensor([[0], [1]]), *padded([[6, 2], [2]]))
    torch.testing.assert_close(together[:2, 1:], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", ["lstm", "gru", "elman"])
@pytest.mark.parametrize("joint", [False, True])
def test_a_fresh_translator_tells_the_tokens_of_a_source_apart(cell, joint):
    """Where all that attention can choose from is nearly the same, it is learned late."""
    torch.manual_seed(0)
    network = Translator(
        100, 100, cell=cell, hidden_size=128, embedding_size=128, layers=1, attention="multiplicative",
        input_feeding=False, dropout=0.3, smoothing=0.1, tied=True, joint=joint,
    ).eval()  # fmt: skip
    values = network.encode(torch.randint(2, 100, (12, 50)), torch.full((50,), 12))[0].values
    embedded = network.embedding(torch.arange(2, 100)) * network.scale
    assert values.std(1).mean() > 0.12 * embedded.std(0).mean()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("feeding", [False, True])
def test_a_translator_step_by_step_is_the_translator_at_once(feeding, cell, monkeypatch):
    torch.manual_seed(0)
    network = Translator(
        11, 9, cell=cell, hidden_size=5, embedding_size=6, layers=2, attention="additive", input_feeding=feeding,
        dropout=0.3, smoothing=0.1, tied=True, joint=False,
    ).double()  # fmt: skip
    network.eval()
    source, lengths = padded([[2, 3, 4, 5], [6, 7]])
    target, target_lengths = padded([[3, 4, 1], [5, 6, 7, 8]])  # the first with its end, the second cut
    step, state = network.stepping(source, lengths)
    tokens, total = torch.tensor([1, 1]), torch.zeros(2, dtype=F64)
    for t in range(4):
        log_p, state = step(tokens, state)
        for b in range(2):
            if t < int(target_lengths[b]):
                total[b] -= log_p[b, target[t, b]]
        tokens = target[t]
    nats, count, _ = network((source, lengths, target, target_lengths), None)
    assert int(count) == 7
    torch.testing.assert_close(nats, total.sum(), rtol=1e-10, atol=1e-10)
    # each alone, and in other company's order
    alone = [network((*padded([s]), *padded([t])), None)[0]
             for s, t in (([2, 3, 4, 5], [3, 4, 1]), ([6, 7], [5, 6, 7, 8]))]  # fmt: skip
    torch.testing.assert_close(sum(alone), nats, rtol=1e-10, atol=1e-10)
    monkeypatch.setattr("throughtime.models.translator.CELLS", 2 * 8 * network.attention.width)  # two steps at a time
    with torch.no_grad():
        parts = network((source, lengths, target, target_lengths), None)[0]
        read = torch.cat([torch.ones(1, 2, dtype=torch.int64), target])
        attended = network.attended(source, lengths, read)
    torch.testing.assert_close(parts, nats.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(attended, network.attended(source, lengths, read).detach(), rtol=1e-10, atol=1e-10)


# Transformers


def test_a_transformer_window_sees_its_document_and_no_more():
    torch.manual_seed(0)
    network = TransformerWindow(6, 16, 2, 0.0, window=5).double().eval()
    x = random(5, 2, 6, seed=1)
    resets = torch.zeros(5, 2, dtype=torch.bool)
    resets[2, 0] = True
    y, state = network(x, resets=resets)
    for row, first in ((0, 2), (1, 0)):  # what came before a reset, or later, changes nothing
        other = x.clone()
        other[:first, row] += 1
        other[4, row] -= 1
        again, _ = network(other, resets=resets)
        torch.testing.assert_close(again[first:4, row], y[first:4, row])
        assert not torch.allclose(again[4, row], y[4, row])
    more, _ = network(random(3, 2, 6, seed=2), state)
    alone, _ = network(random(3, 2, 6, seed=2))
    assert not torch.allclose(more, alone)
    begun, _ = network(
        random(3, 2, 6, seed=2), state, resets=torch.ones(3, 2).bool() & (torch.arange(3).view(3, 1) == 0)
    )
    torch.testing.assert_close(begun, alone)
    assert network(random(12, 2, 6, seed=3))[0].shape == (12, 2, 16)


@pytest.mark.parametrize("cell", ["lstm", "elman"])
def test_transformers_have_as_many_parameters(cell):
    recurrent, transformer = (Encoder(50, cell, 64, 32, 2, kind=kind) for kind in ("recurrent", "transformer"))
    assert parameters_of(transformer) == pytest.approx(parameters_of(recurrent), rel=0.15)


def test_a_transformer_reader_gives_a_sequence_the_same_in_any_company():
    torch.manual_seed(0)
    reader = Encoder(20, "lstm", 16, 8, kind="transformer").double().eval()
    tokens, lengths = padded([[2, 3, 4, 5, 6], [7, 8]])
    together = reader(TokenBatch(tokens, lengths))
    alone = reader(TokenBatch(tokens[:2, 1:], lengths[1:]))
    torch.testing.assert_close(together[:2, 1:], alone)


def test_a_transformer_translator_step_by_step_is_the_same_at_once():
    torch.manual_seed(0)
    network = TransformerTranslator(11, 9, 16, 2, dropout=0.2, smoothing=0.1, tied=True, joint=False).double().eval()
    source, lengths = padded([[2, 3, 4, 5], [6, 7]])
    target, target_lengths = padded([[3, 4, 1], [5, 6, 7, 8]])  # the first with its end, the second cut
    step, state = network.stepping(source, lengths)
    tokens, total = torch.tensor([1, 1]), torch.zeros((), dtype=F64)
    for t in range(4):
        log_p, state = step(tokens, state)
        for b in range(2):
            if t < int(target_lengths[b]):
                total -= log_p[b, target[t, b]].detach()
        tokens = target[t]
    nats, count, _ = network((source, lengths, target, target_lengths), None)
    assert int(count) == 7
    torch.testing.assert_close(nats.detach(), total)
    weights = network.attended(source, lengths, torch.cat([torch.ones(1, 2, dtype=torch.int64), target]))
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 2, dtype=F64))
    assert bool((weights[:, 1, 2:] == 0).all())


def test_a_beam_of_one_stops_at_the_likeliest_end():
    """Even where a sequence that goes on against it would score higher, by its length."""
    # by the token before; 0 is the end
    log_p = torch.tensor([[0.36, 0.35, 0.29], [0.99, 0.005, 0.005], [0.1, 0.2, 0.7]]).log()

    def step(tokens, state):
        return log_p[tokens], state

    ((found,),) = beam_search(step, torch.tensor([0]), None, size=1, end=0, longest=[20])
    assert found.tokens == [], "the likeliest at once is the end"
    assert beam_search(step, torch.tensor([0]), None, size=3, end=0, longest=[20])[0][0].tokens == [1]
    ((found,),) = beam_search(step, torch.tensor([2]), None, size=1, end=0, longest=[3])
    assert found.tokens == [2, 2, 2]


def test_as_good_as_no_temperature_takes_the_likeliest():
    log_p = torch.tensor([[0.1, 0.7, 0.2]]).log()
    for temperature in (0.0, 1e-320, 1e-9):
        assert draw(log_p, temperature=temperature).tolist() == [1]
