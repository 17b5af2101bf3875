"""The screen *Reach*: gradients of an output over a text, beside those of `throughtime.inspect`."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

import throughtime as tt
from serving import Playing, eventually
from throughtime.inspect.gradients import gradients_of, summarise
from throughtime.scanning.observe import observing

pytestmark = pytest.mark.usefixtures("_one_thread")

PLAY = Path(__file__).parent.parent / "src/throughtime/play"
FOLDERS = {"shakespeare": PLAY / "shakespeare", **{name: PLAY / "cells" / name for name in ("elman", "lstm", "gru")}}
TEXT = "ROMEO:\nBut soft, what light through yonder window breaks?"


def asked(url, **body):
    answer = httpx.post(f"{url}/play/reach", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["networks"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    """A tagger and a classifier that read both ways, a language model of words in two layers, a Transformer."""
    folder = tmp_path_factory.mktemp("reach")
    (folder / "rows.csv").write_text(
        "text,label\n" + "".join(f"{w} and so on {i},{w}\n" for i in range(60) for w in ("up", "down"))
    )
    (folder / "tags.conll").write_text("".join(f"the DET\ncat NOUN\nsat{i} VERB\n\n" for i in range(60)))
    (folder / "text.txt").write_text("".join(f"{i % 7} sheep went over hill {i % 5};\n" for i in range(200)))
    small = {"hidden_size": 8, "embedding_size": 6}
    tt.train("classify", [folder / "rows.csv"], out=folder / "classify", steps=20, model=small, progress=False)
    tt.train("tag", [folder / "tags.conll"], out=folder / "tag", steps=20, model={"hidden_size": 8}, progress=False)
    words = {"tokens": "words", "layers": 2, "cell": "gru", **small}
    tt.train("text", [folder / "text.txt"], out=folder / "words", steps=20, model=words, progress=False)
    tt.train(
        "text", [folder / "text.txt"], out=folder / "former", steps=5, model={"kind": "transformer"}, progress=False
    )
    return folder


@pytest.mark.parametrize("output", [57, 20, 0])
def test_it_is_what_inspect_says_in_all_four_networks(playing, output):
    found = asked(playing.url, text=TEXT, output=output, cells=True)
    assert [network["name"] for network in found] == list(FOLDERS)
    for network in found:
        model = tt.load(FOLDERS[network["name"]], "text")
        look = model.look(TEXT)
        ((name, curve),) = gradients_of(model, look, output).items()
        (layer,) = network["layers"]
        seen = summarise([curve])
        assert layer["begins"] == output and len(layer["norms"]) == output + 1 == len(curve.norms)
        np.testing.assert_allclose(layer["norms"], curve.norms / curve.norms[0], rtol=1e-5)
        for value in ("horizon_e", "horizon_1", "rate", "verdict", "advice"):
            assert layer[value] == getattr(seen, value)
        assert name and network["inputs"] == ["", *TEXT] and network["outputs"][:-1] == [*TEXT]
        with torch.no_grad():
            np.testing.assert_allclose(network["p"], look.score(look.batch).exp(), rtol=1e-5)


def test_the_gradient_is_that_of_the_state_at_its_step(playing):
    """Without inspect: where the curve stands in the text, and that all tensors of the state count."""
    model = tt.load(FOLDERS["lstm"], "text")
    output, ids = 30, model.tokens.encode(TEXT)
    with observing(gradients=True) as scans:
        log_p = model.network.log_probabilities(torch.tensor([[1], *([int(i)] for i in ids)]))
    (-log_p[output, 0, ids[output]]).backward()
    norms = torch.cat(scans[0].gradients, -1)[:, 0].norm(dim=-1)
    assert not norms[output + 1 :].any()
    layer = asked(playing.url, text=TEXT, output=output, cells=True)[2]["layers"][0]
    np.testing.assert_allclose(layer["norms"], norms[: output + 1].flip(0) / norms[output], rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "text", "counts"),
    [
        ("classify", "up and so on it goes", [1, 2]),
        ("tag", "the cat sat3", [3, 2]),
        ("words", "3 sheep went over", [5, 2]),
    ],
)
def test_other_tasks_are_what_inspect_says_too(name, text, counts, runs):
    with Playing(runs / name) as made:
        (found,) = asked(made.url, text=text)
        outputs, layers = counts
        assert len(found["outputs"]) == outputs == found["output"] + 1 and len(found["layers"]) == layers
        model = tt.load(runs / name)
        source = model.task.source(model.config, [text], model.task.inspect_options())
        look = model.look(next(iter(model.pieces(source, 1000))))
        curves = gradients_of(model, look, outputs - 1)
        for layer, curve in zip(found["layers"], curves.values(), strict=True):
            np.testing.assert_allclose(layer["norms"], summarise([curve]).norms, rtol=1e-5)
            back = layer["begins"] if not layer["reverse"] else len(layer["steps"]) - 1 - layer["begins"]
            assert len(layer["norms"]) <= back + 1
        answer = httpx.post(f"{made.url}/play/reach", json={"text": text, "cells": True})
        assert answer.status_code == 400 and "cells: they read characters" in answer.json()["error"]["message"]
    assert [line for line in made.said if "serving" in line] == made.said[-1:], "nothing after it"


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"text": TEXT, "output": 58}, 400, "output: there is no output 58; they go from 0 to 57"),
        ({"text": ""}, 400, "text: there is nothing in it to look into"),
        ({"text": "a" * 2001}, 413, "text: has 2,001 steps; gradients are shown over up to 2,000"),
        ({"text": "a", "model": "b"}, 404, "unknown model 'b'"),
        ({"text": "a", "steps": 3}, 400, "steps"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(playing, body, status, said):
    answer = httpx.post(f"{playing.url}/play/reach", json=body)
    assert answer.status_code == status and said in answer.json()["error"]["message"]


def test_a_network_without_a_state_is_refused(runs):
    with Playing(runs / "former") as made:
        answer = httpx.post(f"{made.url}/play/reach", json={"text": "a"})
        assert answer.status_code == 400 and "has no state to look into" in answer.json()["error"]["message"]
    assert made.said[1:] == []


# ------------------------------------------------------------------------------------------------ in a browser


def shown(page):
    """The table: of each network what stands in its row."""
    page.wait_for_selector(".scroll tr:nth-child(4)")
    return {
        row.locator("th").inner_text(): row.locator("td").all_inner_texts()
        for row in page.locator(".scroll tbody tr").all()
    }


def becomes(page, expected):
    eventually(lambda: (page.wait_for_timeout(50), shown(page) == expected)[1])


def right(output):
    names = {"elman": "plain RNN", "lstm": "LSTM", "gru": "GRU"}
    found = {}
    for name, folder in FOLDERS.items():
        model = tt.load(folder, "text")
        look = model.look(TEXT)
        (curve,) = gradients_of(model, look, output).values()
        seen = summarise([curve])
        with torch.no_grad():
            p = float(look.score(look.batch)[output].exp())
        after = [
            f"more than {len(seen.norms) - 1} steps" if h is None else f"{float(f'{h:.3g}'):g} steps"
            for h in (seen.horizon_e, seen.horizon_1)
        ]
        size = sum(q.numel() for q in model.network.parameters())
        found[names.get(name, name)] = [
            f"{size:,}",
            f"{100 * p:.1f} %" if p >= 0.0005 else "< 0.1 %",
            *after,
            seen.verdict,
        ]
    return found


def addressed(page, what):
    eventually(lambda: what in page.evaluate("location.hash"))


def test_the_numbers_that_are_shown_are_pythons_and_keys_choose_the_output(tab):
    page = tab("#/reach")
    page.get_by_label("Text", exact=True).fill(TEXT)
    rows = page.get_by_label("Output in the text")
    page.wait_for_selector('.strip canvas[aria-valuenow="58"][aria-valuemax="58"]')
    becomes(page, right(57))
    rows.focus()
    page.keyboard.press("PageUp")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector('.strip canvas[aria-valuenow="47"]')
    addressed(page, "output=46")
    becomes(page, right(46))
    page.keyboard.press("Home")
    page.wait_for_selector('.strip canvas[aria-valuenow="1"]')
    addressed(page, "output=0")
    assert "“R”" in page.locator("h2").first.inner_text()
    page.reload()
    page.wait_for_selector('.strip canvas[aria-valuenow="1"]')
    rows.click(position={"x": 20.5 * 15, "y": 60})
    page.wait_for_selector('.strip canvas[aria-valuenow="20"]')


def test_the_gradient_runs_only_where_motion_is_welcome(tab):
    """How many pictures there are of the lowest line of the first row of bars, while another output is shown."""
    pictures = """() => new Promise(done => {
        const canvas = document.querySelector('.strip canvas'), seen = new Set();
        const each = left => {
            seen.add(canvas.getContext('2d').getImageData(0, 101, canvas.width, 1).data.reduce((n, v) => n + v, 0));
            left ? requestAnimationFrame(() => each(left - 1)) : done(seen.size);
        };
        canvas.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft', bubbles: true }));
        each(90);
    })"""
    page = tab("#/reach")
    page.wait_for_selector('.strip canvas[aria-valuemax="78"]')
    page.wait_for_timeout(1200)
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate(pictures) <= 3  # before, with the mark elsewhere, after
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(pictures) > 6
    tab.wrong[:] = [line for line in tab.wrong if "willReadFrequently" not in line]  # of the test's own reading


def test_with_other_models_it_says_what_it_cannot(tab, runs):
    with Playing(runs / "former") as made:
        assert "has no state" in tab("#/reach", url=made.url).locator(".empty").inner_text()
    with Playing(runs / "tag") as made:
        page = tab("#/reach?text=the%20cat%20sat3", url=made.url)
        page.wait_for_selector(".scroll tbody tr:nth-child(2)")
        assert page.locator(".scroll tbody th").all_inner_texts() == [
            "tag, layer 1, forwards",
            "tag, layer 1, backwards",
        ]
