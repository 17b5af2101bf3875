"""The same on a GPU. Skipped, visibly, where there is none."""

from pydoc_data.topics import topics

import pytest
import torch

import throughtime as tt

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


@pytest.mark.parametrize("cell", [tt.cells.Elman, tt.cells.GRU, tt.cells.LSTM])
@pytest.mark.parametrize("lengths", [None, [9, 4, 0, 1]])
@pytest.mark.parametrize("reverse", [False, True])
def test_cudnn_equals_the_reference(cell, lengths, reverse):
    torch.manual_seed(0)
    made = cell(3, 5, device="cuda", dtype=torch.float64)
    x = torch.randn(9, 4, 3, device="cuda", dtype=torch.float64, requires_grad=True)
    resets = torch.rand(9, 4, device="cuda") < 0.2
    results = []
    for backend in ("torch", "reference"):
        outputs, state, _ = tt.scan(made, x, lengths=lengths, reverse=reverse, resets=resets, backend=backend)
        tensors = state if isinstance(state, tuple) else (state,)
        total = outputs.sin().sum() + sum(s.cos().sum() for s in tensors)
        results.append([outputs, *tensors, *torch.autograd.grad(total, [x, *made.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_training_on_the_gpu_learns_what_one_on_the_cpu_does(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(topics[name] for name in sorted(topics))[:40_000], encoding="utf-8")
    found = []
    for name, device in (
        ("first", "cpu"),
        ("gpu", "cuda"),
        ("again", "cpu"),
    ):  # each where it is asked for, in one process
        settings = {"model": {"hidden_size": 64}, "training": {"device": device}}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model = tt.train("text", [text], out=tmp_path / name, steps=100, progress=False, **settings)
        assert (torch.cuda.max_memory_allocated() - before > 2**20) is (device == "cuda")
        found.append(model.run.scores()["scores"]["nats_per_character"])
    assert found[0] == found[2]
    assert found[1] == pytest.approx(found[0], abs=0.05)
    assert max(found) < 3.0  # signs alone, by how frequent they are: 3.1
