"""The recogniser's network: its loss, what it sees, what is hidden from it in training."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from throughtime.decode.alignment import log_probability
from throughtime.models.recogniser import Ahead, Noise, Recogniser, Recognisers, Sizes, Speech, _mean, ctc

pytestmark = pytest.mark.usefixtures("_one_thread")
FEATURES, UNITS = 5, 4
KINDS = {
    "both directions": {"cell": "gru", "bidirectional": True},
    "one direction": {"cell": "lstm", "bidirectional": False},
    "no memory": {"cell": "none", "bidirectional": True},
    "transformer": {"cell": "gru", "bidirectional": True, "kind": "transformer"},
}


def network(stride=2, after=3, **options):
    """A small one in float64, with weights large enough to matter."""
    torch.manual_seed(1)
    options = {"cell": "gru", "bidirectional": True, "attention": 0.3, "dropout": 0.0} | options
    made = Recogniser(Sizes(FEATURES, UNITS, stride, 2, after), hidden_size=6, layers=2, **options).double()
    with torch.no_grad():
        for p in made.parameters():
            p.add_(torch.randn_like(p), alpha=0.3)
    return made


def speech(lengths=(9, 6, 4), units=((1, 2, 2), (3,), ())):
    """Utterances of noise side by side, with what is past their ends far from 0."""
    torch.manual_seed(2)
    features = torch.randn(max(lengths), len(lengths), FEATURES, dtype=torch.float64)
    for i, length in enumerate(lengths):
        features[length:, i] = 0.0
    said = torch.zeros(max(map(len, units)), len(units), dtype=torch.int64)
    for i, one in enumerate(units):
        said[: len(one), i] = torch.tensor(one, dtype=torch.int64)
    return Speech(features, torch.tensor(lengths), said, torch.tensor([len(one) for one in units]))


def alone(batch, i):
    """One utterance of a batch."""
    frames, count = int(batch.lengths[i]), int(batch.unit_lengths[i])
    return Speech(
        batch.features[:frames, i : i + 1],
        batch.lengths[i : i + 1],
        batch.units[:count, i : i + 1],
        batch.unit_lengths[i : i + 1],
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_every_path(kind, stride):
    made, batch = network(stride, **KINDS[kind]).eval(), speech((11, 8, 4))
    nats, count, _ = made(batch, None)
    log_p, real = made.log_probabilities(batch.features, batch.lengths)
    said = [(1, 2, 2), (3,), ()]
    wanted = [log_probability(log_p[:n, i].detach().numpy(), said[i]) for i, n in enumerate(real.tolist())]
    assert count == 4 and real.tolist() == [-(-n // stride) for n in (11, 8, 4)]
    assert nats.item() == pytest.approx(-sum(wanted), rel=1e-9)


def test_the_loss_by_hand():
    """Every path of units over the steps of one utterance, its repeats made one and its blanks taken out."""
    made, batch = network().eval(), speech((9,), ((1, 2),))
    log_p = made.log_probabilities(batch.features, batch.lengths)[0][:, 0].detach().numpy()
    total = 0.0
    for path in product(range(UNITS), repeat=len(log_p)):
        collapsed = [u for u, before in zip(path, (0, *path), strict=False) if u and u != before]
        if collapsed == [1, 2]:
            total += np.exp(sum(row[u] for row, u in zip(log_p, path, strict=True)))
    assert made(batch, None)[0].item() == pytest.approx(-np.log(total), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_an_utterance_is_the_same_beside_longer_ones(kind):
    """And its decoder's loss too: in training, without noise and dropout."""
    made, batch = network(**KINDS[kind]), speech((11, 8, 5))
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    apart = [made(alone(batch, i), None)[0].item() for i in range(3)]
    assert made(batch, None)[0].item() == pytest.approx(sum(apart), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_has_its_gradient(kind):
    made, batch = network(**KINDS[kind]), speech()
    made(batch, None)[0].backward()
    torch.manual_seed(3)
    for name, p in made.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name
        direction, size = torch.randn_like(p), 1e-6
        with torch.no_grad():
            values = []
            for sign in (1, -2, 1):
                p.add_(direction, alpha=sign * size)
                values.append(made(batch, None)[0].item())
        slope = (values[0] - values[1]) / (2 * size)
        assert slope == pytest.approx((p.grad * direction).sum().item(), rel=1e-4, abs=1e-6), name


def several():
    """Three that differ, in evaluation."""
    torch.manual_seed(1)
    sizes = Sizes(FEATURES, UNITS, 2, 2, 3)
    made = Recognisers(
        lambda: Recogniser(sizes, cell="gru", hidden_size=6, layers=1, bidirectional=True, dropout=0.0, attention=0.3),
        3,
    ).double()
    return made.eval()


def test_several_hear_what_they_hear_in_the_mean():
    made, batch = several(), speech()
    found, real = made.log_probabilities(batch.features, batch.lengths)
    each = [one.log_probabilities(batch.features, batch.lengths)[0].exp() for one in made.members]
    assert not torch.allclose(each[0], each[1]), "they begin apart"
    product = (each[0] * each[1] * each[2]) ** (1 / 3)
    torch.testing.assert_close(found.exp(), product / product.sum(-1, keepdim=True))
    wanted = [
        log_probability(found[:n, i].detach().numpy(), said)
        for i, (n, said) in enumerate(zip(real.tolist(), [(1, 2, 2), (3,), ()], strict=True))
    ]
    nats, count, _ = made(batch, None)
    assert count == 4 and nats.item() == pytest.approx(-sum(wanted), rel=1e-9)


def test_several_learn_by_themselves_and_together():
    """Half of the loss is the mean of their own, half that of the mean of what they say."""
    made, batch = several().train(), speech()
    nats, count, _ = made(batch, None)
    own = [one.learned(batch) for one in made.members]
    together = ctc((sum(log_p for _, log_p, _ in own) / 3).log_softmax(-1), own[0][2], batch)
    assert count == 4
    assert nats.item() == pytest.approx((sum(n.item() for n, _, _ in own) / 3 + together.item()) / 2, rel=1e-12)
    nats.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in made.parameters())


def test_several_come_to_say_a_unit_at_one_step():
    """Two that say it at different steps, each as if that were certain, are drawn to one another."""
    steps, said = 6, torch.tensor([[1]])
    logits = [torch.full((steps, 1, 3), -4.0).index_fill(2, torch.tensor(0), 4.0) for _ in range(2)]
    for place, one in zip((1, 4), logits, strict=True):
        one[place, 0] = torch.tensor([-4.0, 4.0, -4.0])
        one.requires_grad_()
    optimiser = torch.optim.Adam(logits, lr=0.05)
    real, count = torch.tensor([steps]), torch.tensor([1])
    for _ in range(300):
        optimiser.zero_grad()
        every = [one.log_softmax(-1) for one in logits]
        batch = Speech(torch.zeros(steps, 1, 1), real, said, count)
        loss = ctc(_mean(every), real, batch) + sum(ctc(log_p, real, batch) for log_p in every) / 2
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_the_decoder_writes_all_units_and_their_end():
    """Its loss: of each the likelihood, and a tenth of it spread over all units."""
    made, batch = network(attention=1.0), speech()
    logits = []
    made.decoder.output.register_forward_hook(lambda module, given, found: logits.append(found))
    nats = made(batch, None)[0]
    log_p = logits[0].log_softmax(-1).detach().numpy()
    goals = [(0, 0, 1), (1, 0, 2), (2, 0, 2), (3, 0, 0), (0, 1, 3), (1, 1, 0), (0, 2, 0)]  # place, utterance, unit
    wanted = -sum(0.9 * log_p[at, i, unit] + 0.1 * log_p[at, i].mean() for at, i, unit in goals)
    assert nats.item() == pytest.approx(wanted, rel=1e-9)


def test_a_step_sees_no_further_than_it_says():
    """In one direction: a frame changes the steps that are at most `after` frames before it, and those after."""
    made, batch = network(2, 3, cell="gru", bidirectional=False).eval(), speech((20,), ((1,),))
    before = made.log_probabilities(batch.features, batch.lengths)[0]
    for frame in (0, 7, 12, 19):
        features = batch.features.clone()
        features[frame] += 1.0
        after = made.log_probabilities(features, batch.lengths)[0]
        changed = (before != after).any(-1)[:, 0].nonzero().flatten().tolist()
        first = max(0, -(-(frame - 3) // 2))
        assert changed == list(range(first, 10)), frame


@pytest.mark.parametrize("pieces", [(10,), (1,) * 10, (3, 4, 3)])
def test_a_stream_in_pieces_is_the_whole(pieces):
    """Each piece with the frames that its steps see before and after."""
    made, batch = network(2, 3, cell="gru", bidirectional=False).eval(), speech((20,), ((1,),))
    whole = made.log_probabilities(batch.features, batch.lengths)[0][:, 0]
    padded = torch.cat([torch.zeros(2, 1, FEATURES), batch.features, torch.zeros(4, 1, FEATURES)]).double()
    found, state, at = [], None, 0
    for steps in pieces:
        hidden, state = made.stack(made.read(padded[2 * at : 2 * (at + steps - 1) + 6]), state)
        found.append(made.output(hidden)[:, 0].log_softmax(-1))
        at += steps
    assert torch.allclose(torch.cat(found), whole, atol=1e-12)


def test_a_step_hears_as_many_steps_ahead_as_it_says():
    torch.manual_seed(0)
    made, hidden = Ahead(3, 2), torch.randn(5, 2, 3)
    torch.nn.init.normal_(made.weight)
    found = made(hidden)
    for s in range(5):
        wanted = sum(made.weight[k] * hidden[s + k] for k in range(3) if s + k < 5)
        assert torch.allclose(found[s], wanted)


def test_masks_hide_stretches_and_nothing_else():
    lengths = torch.tensor([100, 60, 300])
    torch.manual_seed(0)
    hidden = np.zeros((3, 2))
    for _ in range(50):
        seen = Noise(1.0, 0.0)(torch.ones(300, 3, 80), lengths)
        assert set(seen.unique().tolist()) <= {0.0, 1.0}
        for i, length in enumerate(lengths.tolist()):
            times, bins = (seen[:, i] == 0).all(1).numpy(), (seen[:, i] == 0).all(0).numpy()
            assert (seen[:, i].numpy() == np.outer(~times, ~bins)).all(), (
                "what is hidden are whole frames and whole bins"
            )
            assert not times[length:].any(), "what is not there is not hidden"
            assert stretches(times) <= 2 and times.sum() <= 2 * (min(25, length / 5) + 1)
            assert stretches(bins) <= 2 and bins.sum() <= 2 * 17
            hidden[i] += times.sum(), bins.sum()
    # of two masks of a width that is drawn evenly half of what they may be, less what lies on each other
    assert (hidden[:, 1] / 50 > 12).all() and (hidden[:, 1] / 50 < 17).all()
    assert np.allclose(hidden[:, 0] / 50, [20, 12, 25], atol=5)


def stretches(hidden):
    """How many there are in a row of what is hidden."""
    return int((np.diff(np.concatenate([[0], hidden.astype(int)])) == 1).sum())


def test_noise_is_as_loud_as_it_says_and_nothing_where_none_is_asked():
    lengths, zeros = torch.full((400,), 50), torch.zeros(50, 400, 20)
    torch.manual_seed(0)
    loud = Noise(0.0, 0.2)(zeros, lengths).std((0, 2))
    assert loud.max() < 0.22 and loud.min() < 0.01
    assert float(loud.mean()) == pytest.approx(0.1, abs=0.01), "evenly from none to as much as is said"
    assert Noise(0.0, 0.0)(zeros, lengths) is zeros


def test_what_is_done_in_training_is_not_done_else():
    made = network(noise=Noise(1.0, 0.5), dropout=0.3)
    batch = speech()
    made.eval()
    first = made(batch, None)[0]
    assert torch.equal(first, made(batch, None)[0])
    made.train()
    assert made(batch, None)[0] != made(batch, None)[0]
    made.eval()
    made.decoder = None
    assert torch.equal(first, made(batch, None)[0]), "the decoder counts in training alone"
