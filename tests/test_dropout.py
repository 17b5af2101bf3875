"""Dropout by sixteen bits an element."""

import pytest
import torch

from throughtime.layers.dropout import Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_kept(rate, dtype):
    torch.manual_seed(0)
    n = 300_001  # no multiple of the elements in a word
    found = dropout(torch.ones(n, dtype=dtype), rate)
    assert found.dtype is dtype
    dropped = (found == 0).double().mean().item()
    assert abs(dropped - rate) < 5 * (rate * (1 - rate) / n) ** 0.5  # five standard errors
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / (1 - rate), dtype=dtype).item()}


def test_the_noise_has_no_pattern():
    """Neighbours in a word, in a row and from call to call are dropped independently of each other."""
    torch.manual_seed(1)
    first, second = ((dropout(torch.ones(1000, 1000), 0.5) == 0).double() - 0.5 for _ in range(2))
    for one, other in [
        *((first[:, :-k], first[:, k:]) for k in (1, 2, 3, 4, 5, 8)),
        (first[:-1], first[1:]),
        (first, second),
    ]:
        assert abs((4 * one * other).mean().item()) < 5e-3  # five standard errors of a million


def test_the_gradient_passes_where_the_value_does_and_a_seed_repeats_it():
    x = torch.randn(17, 3, 5, requires_grad=True)
    torch.manual_seed(3)
    found = dropout(x, 0.3)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient * x, found)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.3), found)
    assert not torch.equal(dropout(x, 0.3), found)


@pytest.mark.parametrize("rate", [0.0, 1e-6, 1 - 1e-6, 1.0])
def test_rates_that_sixteen_bits_do_not_have_are_those_of_pytorch(rate):
    found = []
    for drop in (dropout, lambda x, p: torch.dropout(x, p, True)):
        torch.manual_seed(4)
        found.append(drop(torch.randn(50, 50), rate))
    torch.testing.assert_close(*found, equal_nan=True)


def test_nothing_is_dropped_in_evaluation():
    layer, x = Dropout(0.5), torch.randn(4, 4)
    assert not torch.equal(layer(x), x)
    assert layer.eval()(x) is x
    empty = torch.empty(0, 4)
    assert layer.train()(empty).shape == empty.shape


def test_within_transforms_of_functions_it_is_pytorchs():
    x = torch.ones(4, 1000)
    found = torch.func.vmap(lambda row: dropout(row, 0.5), randomness="different")(x)
    assert not torch.equal(found[0], found[1]) and set(found.unique().tolist()) == {0.0, 2.0}
