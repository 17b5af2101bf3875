"""throughtime.RNN, LSTM and GRU beside torch.nn's: the same numbers, gradients, weights, errors and warnings.

Sizes: T time, B batch, I input, N hidden, P projected.
"""

import copy
import inspect
import io
import itertools
import re
import typing
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence

import throughtime as tt

T, B, I, N, P = 6, 4, 3, 5, 2  # noqa: E741

KINDS = {
    "RNN tanh": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU": ("GRU", {}),
    "LSTM": ("LSTM", {}),
    "LSTM projected": ("LSTM", {"proj_size": P}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
one_of_each = pytest.mark.parametrize("kind", ["RNN tanh", "GRU", "LSTM projected"])
DEPTHS = {"1 layer": (1, 0.0), "2 layers": (2, 0.0), "2 layers dropout": (2, 0.4)}
FORMS = ["batched", "unbatched", "packed sorted", "packed unsorted"]


def pair(kind, dtype=torch.float64, **options):
    """Ours and torch.nn's, from the same seed."""
    name, more = KINDS[kind]
    made = []
    for home in (tt, nn):
        torch.manual_seed(3)
        made.append(getattr(home, name)(I, N, dtype=dtype, **more, **options))
    return made


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_input(form, batch_first):
    """The leaf whose gradient is wanted, and what makes a layer's input of it."""
    if form == "unbatched":
        return random(T, I), lambda x: x
    if form == "batched":
        return random(*((B, T) if batch_first else (T, B)), I), lambda x: x
    lengths = [6, 4, 4, 1] if form == "packed sorted" else [3, 6, 1, 4]
    return random(T, B, I), lambda x: pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted="un" not in form)


def make_hx(layer, rows=B):
    """Random first states for the layer; rows None: unbatched."""
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    widths = [layer.proj_size or N, N] if layer.mode == "LSTM" else [N]
    return tuple(random(count, *(() if rows is None else (rows,)), n, seed=20 + k) for k, n in enumerate(widths))


def everything(layer, x, wrap, hx, **more):
    """Outputs, states, and the gradients of the input, hx and every weight for a random weighing of the outputs."""
    x = x.clone().requires_grad_()
    hx = tuple(h.clone().requires_grad_() for h in hx or ())
    torch.manual_seed(9)  # the dropout's
    output, state = layer(wrap(x), *(() if not hx else (hx,) if layer.mode == "LSTM" else hx), **more)
    assert isinstance(output, PackedSequence) == isinstance(wrap(x), PackedSequence)
    results = {"output": output}
    if isinstance(output, PackedSequence):
        results = {"output": output.data, "batch_sizes": output.batch_sizes}
        if output.sorted_indices is not None:
            results |= {"sorted": output.sorted_indices, "unsorted": output.unsorted_indices}
    assert isinstance(state, tuple) == (layer.mode == "LSTM")
    results |= {f"state {k}": s for k, s in enumerate(state if isinstance(state, tuple) else (state,))}
    loss = sum(
        (v * random(*v.shape, seed=50 + k)).sum() for k, v in enumerate(results.values()) if v.is_floating_point()
    )
    wanted = {"input": x} | {f"hx {k}": h for k, h in enumerate(hx)} | dict(layer.named_parameters())
    found = torch.autograd.grad(loss, list(wanted.values()))
    return results | {f"gradient of {name}": g for name, g in zip(wanted, found, strict=True)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


# The same numbers


def quarter():
    """Of all 960 ways to have a layer those that two parities leave: any four options still meet in each of their ways."""
    ways = ("one way", "both ways"), ("time first", "batch first"), ("bias", "no bias"), FORMS, ("no hx", "hx")
    for kind, depth, *names in itertools.product(KINDS, DEPTHS, *ways):
        both, first, none, form, hx = (way.index(name) for way, name in zip(ways, names, strict=True))
        where = list(KINDS).index(kind), list(DEPTHS).index(depth)
        if (first + none + hx + form + where[1]) % 2 == 0 == (hx + none + both + form // 2 + where[0]) % 2:
            given = kind, *DEPTHS[depth], bool(both), bool(first), not none, FORMS[form], bool(hx)
            yield pytest.param(*given, id="-".join((kind, depth, *names)))


@pytest.mark.parametrize(
    ("kind", "num_layers", "dropout", "bidirectional", "batch_first", "bias", "form", "with_hx"), list(quarter())
)
def test_the_numbers_of_torch_nn(kind, num_layers, dropout, bidirectional, batch_first, bias, form, with_hx):
    ours, theirs = pair(
        kind,
        num_layers=num_layers,
        dropout=dropout,
        bidirectional=bidirectional,
        batch_first=batch_first,
        bias=bias,
    )
    x, wrap = make_input(form, batch_first)
    hx = make_hx(theirs, None if form == "unbatched" else B) if with_hx else None
    expected = everything(theirs, x, wrap, hx)
    assert_same(everything(ours, x, wrap, hx), expected)
    if dropout:
        ours.eval()
        theirs.eval()
        quiet = everything(ours, x, wrap, hx)
        assert_same(quiet, everything(theirs, x, wrap, hx))
        assert not torch.allclose(quiet["output"], expected["output"]), "dropout had no effect"


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@every_kind
def test_the_numbers_of_torch_nn_in_float32(kind):
    ours, theirs = pair(kind, torch.float32, num_layers=2, bidirectional=True)
    x = random(T, B, I).float()
    (output, state), (expected, expected_state) = ours(x), theirs(x)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, expected_state)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_every_rate_of_dropout(rate):
    ours, theirs = pair("GRU", num_layers=3, dropout=rate)
    x, wrap = make_input("batched", False)
    assert_same(everything(ours, x, wrap, None), everything(theirs, x, wrap, None))


@every_kind
def test_three_layers_both_ways(kind):
    ours, theirs = pair(kind, num_layers=3, bidirectional=True, dropout=0.3)
    for form in FORMS:
        x, wrap = make_input(form, False)
        hx = make_hx(theirs, None if form == "unbatched" else B)
        assert_same(everything(ours, x, wrap, hx), everything(theirs, x, wrap, hx))


@every_kind
def test_pack_sequence_and_one_row_and_one_step(kind):
    ours, theirs = pair(kind, bidirectional=True)
    rows = [random(n, I, seed=n) for n in (2, 7, 5)]
    packed = pack_sequence(rows, enforce_sorted=False)
    (output, state), (expected, expected_state) = ours(packed), theirs(packed)
    torch.testing.assert_close(pad_packed_sequence(output), pad_packed_sequence(expected))
    torch.testing.assert_close(state, expected_state)
    for shape in [(1, 1, I), (1, B, I), (T, 1, I), (1, I)]:
        torch.testing.assert_close(ours(random(*shape)), theirs(random(*shape)))


@every_kind
def test_inputs_that_do_not_lie_in_one_piece(kind):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True)
    x = random(B, 2 * T, I).transpose(0, 1)[::2]
    assert not x.is_contiguous()
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


@every_kind
def test_the_reference_backend_on_the_layer_gives_the_same(kind):
    ours, _ = pair(kind, num_layers=2, bidirectional=True)
    other = copy.deepcopy(ours)
    other.backend = "reference"
    for form in FORMS:
        x, wrap = make_input(form, False)
        assert_same(everything(other, x, wrap, None), everything(ours, x, wrap, None))


def test_the_backend_on_the_layer_is_the_one_that_runs(monkeypatch):
    from throughtime.scanning import native, reference
    from throughtime.scanning.cpu import backend as compiled

    ran = []
    for backend in (compiled, native, reference):
        monkeypatch.setattr(backend, "run", lambda call, b=backend, run=backend.run: ran.append(b.name) or run(call))
    layer = tt.GRU(I, N, num_layers=2)
    layer(torch.randn(T, B, I))
    layer.backend = "reference"
    layer(torch.randn(T, B, I))
    assert ran == ["cpu", "cpu", "reference", "reference"]
    layer.backend = "refrence"
    with pytest.raises(ValueError, match="did you mean 'reference'"):
        layer(torch.randn(T, B, I))


@every_kind
def test_without_gradients(kind):
    ours, theirs = pair(kind, num_layers=2, dropout=0.5)
    ours.eval()
    theirs.eval()
    x = random(T, B, I)
    with torch.no_grad():
        found, expected = ours(x), theirs(x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not found[0].requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(ours(x)[0].clone(), expected[0])


# The same weights


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@every_kind
def test_a_seed_gives_the_same_weights(kind, bias):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, bias=bias)
    expected = theirs.state_dict()
    assert list(ours.state_dict()) == list(expected)
    for name, value in ours.state_dict().items():
        assert torch.equal(value, expected[name]), name


@every_kind
def test_state_dicts_fit_both_ways(kind):
    for here, there in ((0, 1), (1, 0)):
        layers = pair(kind, num_layers=2, bidirectional=True)
        source, target = layers[here], layers[there]
        source.reset_parameters()
        x, wrap = make_input("batched", False)
        expected = everything(source, x, wrap, None)
        assert not torch.allclose(expected["output"], target(x)[0])
        target.load_state_dict(source.state_dict())
        assert_same(everything(target, x, wrap, None), expected)


@every_kind
def test_a_state_dict_on_disk(kind):
    ours, theirs = pair(kind)
    ours.reset_parameters()
    file = io.BytesIO()
    torch.save(ours.state_dict(), file)
    file.seek(0)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(theirs(random(T, B, I)), ours(random(T, B, I)), rtol=1e-10, atol=1e-10)


@every_kind
def test_a_whole_layer_on_disk(kind):
    ours, _ = pair(kind, num_layers=2, bidirectional=True)
    file = io.BytesIO()
    torch.save(ours, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert type(again) is type(ours)
    torch.testing.assert_close(again(random(T, B, I)), ours(random(T, B, I)))


@every_kind
def test_deepcopy_has_its_own_weights(kind):
    ours, _ = pair(kind, num_layers=2)
    x = random(T, B, I)
    before = ours(x)
    other = copy.deepcopy(ours)
    torch.testing.assert_close(other(x), before, rtol=0, atol=0)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    torch.testing.assert_close(ours(x), before, rtol=0, atol=0)
    assert not torch.allclose(other(x)[0], before[0])


@every_kind
def test_to_float64(kind):
    ours, theirs = (layer.to(torch.float64) for layer in pair(kind, torch.float32, num_layers=2))
    x, wrap = make_input("batched", False)
    assert_same(everything(ours, x, wrap, None), everything(theirs, x, wrap, None))


@every_kind
def test_functional_call_uses_the_weights_it_is_given(kind):
    ours, theirs = pair(kind, num_layers=2)
    x, plain = random(T, B, I), ours(random(T, B, I))[0]
    weights = {name: (p * 1.5).detach().requires_grad_() for name, p in theirs.named_parameters()}
    found, expected = (torch.func.functional_call(layer, weights, (x,)) for layer in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(found[0], plain)
    for output in (found[0], expected[0]):
        for gradient in torch.autograd.grad(output.sum(), list(weights.values())):
            assert gradient.abs().max() > 0
    torch.testing.assert_close(ours(x)[0], plain)


@one_of_each
def test_functional_call_with_weights_of_another_type(kind):
    ours, theirs = pair(kind, torch.float32)
    weights = {name: p.detach().double() for name, p in theirs.named_parameters()}
    x = random(T, B, I)
    found, expected = (torch.func.functional_call(layer, weights, (x,)) for layer in (theirs, ours))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@every_kind
def test_weight_norm_on_the_recurrent_weights_has_its_effect(kind):
    ours, theirs = pair(kind)
    for layer in (ours, theirs):
        nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
        with torch.no_grad():
            layer.parametrizations.weight_hh_l0.original0.mul_(1.7)
    x = random(T, B, I)
    plain = pair(kind)[0](x)[0]
    found = ours(x)[0]
    assert not torch.allclose(found, plain)
    scaled = pair(kind)[0]
    with torch.no_grad():
        scaled.weight_hh_l0.mul_(1.7)
    torch.testing.assert_close(found, scaled(x)[0], rtol=1e-10, atol=1e-10)
    parametrization = ours.parametrizations.weight_hh_l0
    for gradient in torch.autograd.grad(found.sum(), [parametrization.original0, parametrization.original1]):
        assert gradient.abs().max() > 0


@every_kind
def test_a_weight_that_is_replaced_is_used(kind):
    ours, theirs = pair(kind)
    for layer in (ours, theirs):
        layer.weight_hh_l0 = nn.Parameter(layer.weight_hh_l0.detach() * -2)
    torch.testing.assert_close(ours(random(T, B, I)), theirs(random(T, B, I)), rtol=1e-10, atol=1e-10)


@every_kind
def test_one_is_the_other(kind):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, batch_first=True, bias=False)
    assert isinstance(ours, type(theirs))
    assert isinstance(ours, nn.RNNBase)
    assert repr(ours) == repr(theirs)


# The same errors and warnings


def error_of(function):
    try:
        function()
    except Exception as error:
        return error
    return None


BAD_ARGUMENTS = [
    ("RNN", (I, N), {"nonlinearity": "sigmoid"}),
    ("GRU", (0, N), {}),
    ("GRU", (I, 0), {}),
    ("GRU", (I, -1), {}),
    ("GRU", (3.0, N), {}),
    ("GRU", (I, 5.0), {}),
    ("GRU", (I, N), {"num_layers": 0}),
    ("GRU", (I, N), {"dropout": 1.5}),
    ("GRU", (I, N), {"dropout": -0.1}),
    ("GRU", (I, N), {"dropout": True}),
    ("GRU", (I, N), {"dropout": "0.1"}),
    ("GRU", (I, N), {"bias": 1}),
    ("GRU", (I, N), {"batch_first": "yes"}),
    ("LSTM", (I, N), {"proj_size": N}),
    ("LSTM", (I, N), {"proj_size": -1}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), BAD_ARGUMENTS, ids=str)
def test_the_same_error_for_a_bad_argument(name, arguments, options):
    found, expected = (error_of(lambda h=home: getattr(h, name)(*arguments, **options)) for home in (tt, nn))
    assert expected is not None
    assert type(found) is type(expected)
    assert str(found) == str(expected)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_the_signature_is_the_documented_one(name):
    """In the order and with the defaults of torch.nn's documentation, each parameter by its name and type."""
    (documented, _), ours = typing.get_overloads(getattr(nn, name).__init__), getattr(tt, name).__init__
    theirs = inspect.signature(documented).parameters
    mine = inspect.signature(ours).parameters
    assert [(p.name, p.default, p.kind) for p in mine.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]
    assert all(p.annotation is not p.empty for p in list(mine.values())[1:])


@pytest.mark.parametrize(
    ("name", "arguments", "options", "word"),
    [
        ("RNN", (I, N), {"proj_size": 2}, "proj_size"),
        ("GRU", (I, N), {"proj_size": 2}, "proj_size"),
        ("GRU", (I,), {}, "hidden_size"),
        ("GRU", (I, N), {"num_layrs": 2}, "num_layrs"),
    ],
)
def test_an_argument_that_there_is_not_is_named(name, arguments, options, word):
    with pytest.raises(TypeError, match=rf"^{name}\.__init__.*'{word}'"):
        getattr(tt, name)(*arguments, **options)


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


BAD_CALLS = {
    "one dimension": (lambda h: (zeros(I),)),
    "four dimensions": (lambda h: (zeros(1, T, B, I),)),
    "input too wide": (lambda h: (zeros(T, B, I + 1),)),
    "unbatched input too wide": (lambda h: (zeros(T, I + 1),)),
    "float32 input": (lambda h: (zeros(T, B, I).float(),)),
    "whole numbers": (lambda h: (zeros(T, B, I).long(),)),
    "hx of another batch": (lambda h: (zeros(T, B, I), h(2, B + 1))),
    "hx of another depth": (lambda h: (zeros(T, B, I), h(3, B))),
    "hx with batch before layers": (lambda h: (zeros(T, B, I), h(B, 2))),
    "unbatched hx": (lambda h: (zeros(T, B, I), h(2))),
    "batched hx for an unbatched input": (lambda h: (zeros(T, I), h(2, 1))),
    "unbatched hx of another depth": (lambda h: (zeros(T, I), h(3))),
    "hx of another width": (lambda h: (zeros(T, B, I), h(2, B, extra=1))),
    "float32 hx": (lambda h: (zeros(T, B, I), h(2, B, dtype=torch.float32))),
    "packed input too wide": (lambda h: (pack_padded_sequence(zeros(T, B, I + 1), torch.tensor([6, 4, 4, 1])),)),
    "packed float32": (lambda h: (pack_padded_sequence(zeros(T, B, I).float(), torch.tensor([6, 4, 4, 1])),)),
    "packed with hx of another batch": (
        lambda h: (pack_padded_sequence(zeros(T, B, I), torch.tensor([6, 4, 4, 1])), h(2, B + 1))
    ),
}


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
@one_of_each
def test_the_same_error_for_a_bad_call(kind, call, batch_first):
    ours, theirs = pair(kind, num_layers=2, batch_first=batch_first)

    def hx(*shape, extra=0, dtype=torch.float64):
        made = tuple(torch.zeros(*shape, n + extra, dtype=dtype) for n in ([P, N] if theirs.mode == "LSTM" else [N]))
        return made if theirs.mode == "LSTM" else made[0]

    found, expected = (error_of(lambda m=layer: m(*call(hx))) for layer in (ours, theirs))
    assert expected is not None
    if theirs.mode == "LSTM" and isinstance(call(hx)[0], PackedSequence):
        # torch.nn.LSTM does not look at a PackedSequence and fails inside its kernel; ours says what torch.nn.GRU says
        assert re.match(r"input.size\(-1\) must be|RNN input dtype|Expected hidden\[0\] size \(2, 4, 2\)", str(found))
        return
    assert type(found) is type(expected)
    assert str(found) == str(expected)


@one_of_each
def test_no_steps_leave_the_states_as_they_are(kind):
    """Where torch.nn raises."""
    ours, theirs = pair(kind, num_layers=2)
    hx = make_hx(theirs) if theirs.mode == "LSTM" else make_hx(theirs)[0]
    assert "larger than 0" in str(error_of(lambda: theirs(zeros(0, B, I), hx)))
    output, state = ours(zeros(0, B, I), hx)
    assert output.shape == (0, B, theirs.proj_size or N)
    torch.testing.assert_close(state, hx, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", ["h", "c", "one", "h unbatched", "c unbatched"])
def test_the_same_error_for_a_bad_pair_of_states(wrong):
    ours, theirs = pair("LSTM", num_layers=2)
    h, c = zeros(2, B, N), zeros(2, B, N)
    hx = {
        "h": (h[:1], c),
        "c": (h, c[:1]),
        "one": (h,),
        "h unbatched": (h[:, 0], c),
        "c unbatched": (h, c[:, 0]),
    }[wrong]
    found, expected = (error_of(lambda m=layer: m(zeros(T, B, I), hx)) for layer in (ours, theirs))
    assert expected is not None
    assert type(found) is type(expected)
    assert str(found) == str(expected)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_the_same_warning_for_dropout_with_one_layer(name):
    said = []
    for home in (tt, nn):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            getattr(home, name)(I, N, dropout=0.3)
        said.append([(w.category, str(w.message)) for w in caught])
    assert said[0] == said[1]
    assert len(said[0]) == 1
    assert said[0][0][0] is UserWarning
    assert "num_layers greater than 1" in said[0][0][1]


# What torch.nn has not: lengths and resets


@pytest.mark.parametrize("with_hx", [False, True], ids=["no hx", "hx"])
@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@pytest.mark.parametrize("lengths", [[3, 6, 1, 4], [2, 2, 5, 1]], ids=str)
@every_kind
def test_lengths_give_what_packing_gives(kind, lengths, batch_first, with_hx):
    ours, theirs = pair(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    x, wrap = make_input("batched", batch_first)
    hx = make_hx(theirs) if with_hx else None

    class Packing(nn.Module):
        mode = theirs.mode

        def forward(self, x, *hx):
            packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first, enforce_sorted=False)
            output, state = theirs(packed, *hx)
            return pad_packed_sequence(output, batch_first, total_length=T)[0], state

        def named_parameters(self):
            return theirs.named_parameters()

    expected = everything(Packing(), x, wrap, hx)
    for given in (lengths, torch.tensor(lengths), tuple(lengths)):
        assert_same(everything(ours, x, wrap, hx, lengths=given), expected)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@every_kind
def test_what_stands_past_a_length_has_no_effect(kind, backend):
    """Through both directions of two layers, where the second sees what the first put into the padding."""
    ours, _ = pair(kind, num_layers=2, bidirectional=True, dropout=0.3)
    ours.backend = backend
    x, wrap = make_input("batched", False)
    lengths = torch.tensor([3, 6, 0, 4])
    padding = torch.arange(T).unsqueeze(1) >= lengths
    expected = everything(ours, x, wrap, make_hx(ours), lengths=lengths)
    poisoned = torch.where(padding.unsqueeze(-1), torch.tensor(torch.nan, dtype=x.dtype), x)
    found = everything(ours, poisoned, wrap, make_hx(ours), lengths=lengths)
    assert_same(found, expected)
    assert not found["output"][padding].any()
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@every_kind
def test_resets_are_a_new_sequence(kind, batch_first):
    ours, theirs = pair(kind, num_layers=2, batch_first=batch_first)
    x, hx = random(T, B, I), make_hx(theirs)
    resets = torch.zeros(T, B, dtype=torch.bool)
    resets[2, 0] = resets[4, 0] = resets[0, 1] = resets[5, 2] = True
    given = hx if theirs.mode == "LSTM" else hx[0]

    def turn(value):
        return value.transpose(0, 1) if batch_first else value

    output, state = ours(turn(x), given, resets=turn(resets))
    output, ends = turn(output), state if isinstance(state, tuple) else (state,)
    for b, cuts in enumerate([[0, 2, 4, T], [0, 0, T], [0, 5, T], [0, T]]):
        now = tuple(h[:, b : b + 1].contiguous() for h in hx)
        for k, (start, end) in enumerate(itertools.pairwise(cuts)):
            if k:
                now = tuple(torch.zeros_like(h) for h in now)
            if start == end:
                continue
            part, new = theirs(turn(x[start:end, b : b + 1]), now if theirs.mode == "LSTM" else now[0])
            now = new if isinstance(new, tuple) else (new,)
            torch.testing.assert_close(output[start:end, b : b + 1], turn(part), rtol=1e-10, atol=1e-10)
        for found, expected in zip(ends, now, strict=True):
            torch.testing.assert_close(found[:, b : b + 1], expected, rtol=1e-10, atol=1e-10)


@one_of_each
def test_resets_of_an_unbatched_sequence(kind):
    ours, _ = pair(kind, bidirectional=True)
    x, resets = random(T, I), torch.tensor([False, False, False, True, False, False])
    found = ours(x, resets=resets)
    expected = ours(x.unsqueeze(1), resets=resets.unsqueeze(1))
    torch.testing.assert_close(found[0], expected[0].squeeze(1))
    # backwards, a reset stands before its own step: steps 3, 2, 1, 0 are a sequence of their own
    torch.testing.assert_close(
        found[0][:4, -expected[0].shape[-1] // 2 :], ours(x[:4])[0][:, -expected[0].shape[-1] // 2 :]
    )


@pytest.mark.parametrize("batch_first", [False, True], ids=["time first", "batch first"])
@one_of_each
def test_resets_of_a_packed_sequence(kind, batch_first):
    """In the order of the batch, and laid out as without packing."""
    ours, _ = pair(kind, num_layers=2, bidirectional=True, batch_first=batch_first)
    x, lengths = random(T, B, I), torch.tensor([3, 6, 1, 4])
    resets = torch.rand(T, B, generator=torch.Generator().manual_seed(0)) < 0.4
    laid = (lambda value: value.transpose(0, 1)) if batch_first else (lambda value: value)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    found, state = ours(packed, resets=laid(resets))
    expected, expected_state = ours(laid(x), lengths=lengths, resets=laid(resets))
    torch.testing.assert_close(pad_packed_sequence(found, total_length=T)[0], laid(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, expected_state, rtol=1e-10, atol=1e-10)


def test_lengths_of_an_unbatched_sequence():
    ours, theirs = pair("GRU", bidirectional=True)
    x = random(T, I)
    output, state = ours(x, lengths=[4])
    expected, expected_state = theirs(x[:4])
    torch.testing.assert_close(output[:4], expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, expected_state, rtol=1e-10, atol=1e-10)
    assert not output[4:].any()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"lengths": [1, 2]}, "lengths must be 4 whole numbers"),
        ({"lengths": [1, 2, 3, 7]}, "lengths must lie in 0 to T = 6"),
        ({"resets": torch.zeros(B, T, dtype=torch.bool)}, "resets must be bool [T, B] = [6, 4]"),
        ({"resets": torch.zeros(T, B)}, "resets must be bool"),
    ],
)
def test_lengths_and_resets_that_do_not_fit(more, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tt.GRU(I, N)(torch.zeros(T, B, I), **more)


def test_a_packed_sequence_takes_no_lengths():
    packed = pack_padded_sequence(torch.zeros(T, B, I), torch.tensor([6, 4, 4, 1]))
    with pytest.raises(ValueError, match="a PackedSequence carries its own lengths"):
        tt.GRU(I, N)(packed, lengths=[6, 4, 4, 1])


def test_a_misspelt_argument_is_refused():
    with pytest.raises(TypeError, match="lenghts"):
        tt.GRU(I, N)(torch.zeros(T, B, I), lenghts=[1, 2, 3, 4])


def test_a_layer_in_a_model_trains_as_torch_nn_does():
    losses = []
    for home in (tt, nn):
        torch.manual_seed(0)
        rnn, head = (
            home.LSTM(I, N, num_layers=2, dropout=0.2, dtype=torch.float64),
            nn.Linear(N, 1, dtype=torch.float64),
        )
        optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()], lr=0.05)
        x = random(T, B, I)
        for _ in range(20):
            optimizer.zero_grad()
            loss = (head(rnn(x)[0]).squeeze(-1) - x.sum(-1).cumsum(0)).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
