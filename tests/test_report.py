"""The learning curve: what is drawn is what metrics.jsonl holds, and the point that is marked is the one that is kept."""

import json

import pytest
from matplotlib import pyplot

from throughtime.runs import Run
from throughtime.training.report import draw_curve

ACCURACIES = {10: 0.5, 20: 0.9, 30: 0.8}


def evaluation(step, **scores):
    return {"step": step, "valid": scores}


STEPS = [{"step": step, "loss": 2.0 - step / 20} for step in range(1, 31)]
CLASSIFIED = [evaluation(s, loss=1 - a, accuracy=a, nats=1.0 + s / 100) for s, a in ACCURACIES.items()]
READ = [evaluation(step, loss=3.0 - step / 10, nats_per_token=3.0 - step / 10) for step in (10, 20, 30)]


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """What `draw_curve` drew: [label -> points] of each axis, and the words on the axes."""
    monkeypatch.setattr(pyplot, "close", lambda figure: None)

    def draw(lines, **options):
        run = Run(tmp_path)
        run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
        assert draw_curve(run, **options) is None
        assert run.curve.read_bytes().startswith(b"\x89PNG")
        figure = pyplot.gcf()
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        axes = [
            {line.get_label(): dict(zip(*map(list, line.get_data()), strict=True)) for line in ax.lines}
            for ax in figure.axes
        ]
        assert legend == [label for ax in axes for label in ax], "each line has its words, on both axes"
        return axes, [ax.get_ylabel() for ax in figure.axes]

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def test_a_score_that_decides_has_an_axis_and_its_kept_point_a_mark(drawn):
    (left, right), words = drawn(STEPS + CLASSIFIED, kept=20, decides="accuracy", loss="nats")
    assert words == ["loss (nats)", "accuracy"]
    assert left["training loss"] == {line["step"]: line["loss"] for line in STEPS}
    assert left["held-out loss"] == {10: 1.1, 20: 1.2, 30: 1.3}, "whose lowest point is not the one that is kept"
    assert right == {"held-out accuracy": ACCURACIES, "kept: step 20, accuracy 0.9": {20: 0.9}}


def test_where_the_loss_decides_there_is_one_axis(drawn):
    (axis,), words = drawn(
        STEPS + READ, kept=30, decides="nats_per_token", loss="nats_per_token", baselines={"unigram": 2.5}
    )
    assert words == ["loss (nats)"]
    assert axis["held-out loss"] == {10: 2.0, 20: 1.0, 30: 0.0}
    assert axis["kept: step 30, nats per token 0"] == {30: 0.0}
    assert set(axis["unigram 2.500"].values()) == {2.5}


def test_of_an_older_run(drawn):
    (_, right), _ = drawn(STEPS + CLASSIFIED, kept=20, decides="loss", loss="nats")
    assert right["kept: step 20, loss 0.1"] == {20: pytest.approx(0.1)}
    (axis,), _ = drawn(STEPS + READ, kept=30)
    assert axis["kept: step 30, loss 0"] == {30: 0.0}


def test_undefined_scores_and_a_measure_of_another_kind(drawn):
    lines = [evaluation(10, error=None, loss=1.0), evaluation(20, error=0.4, loss=0.4)]
    (left, right), words = drawn(
        STEPS + lines, kept=20, decides="error", measure="squared error", loss="error_of_values"
    )
    assert words == ["loss (squared error)", "error"]
    assert list(left) == ["training loss"] and right["held-out error"] == {20: 0.4}


def test_too_few_steps(tmp_path):
    run = Run(tmp_path)
    run.metrics.write_text(json.dumps(STEPS[0]) + "\n")
    assert "too few steps" in draw_curve(run) and not run.curve.exists()
