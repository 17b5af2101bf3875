"""Trained text models as WebAssembly: they cut texts, read and write in Node as in Python."""

import json
import shutil
from pydoc_data.topics import topics

import pytest
import torch

import throughtime as tt
from in_node import in_node
from throughtime.errors import UserError

pytest.importorskip("ziglang", reason="no linker: pip install ziglang")
pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(shutil.which("node") is None, reason="no node on the PATH"),
]
ODD = "Größe naïve día 日本 _x y_z q's don’t stop... ² Ⅷ ٣ e\u0301"
TEXT = "\n\n".join(topics[name].strip() for name in sorted(topics))[:8_000] + f"\n{ODD}\n"
KINDS = {"characters": "file", "bytes": "line", "words": "paragraph", "bpe": "file"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _one_thread):
    """A function that trains for a moment; and the folders of runs and exports."""
    folder = tmp_path_factory.mktemp("text")
    made = {}

    def train(tokens, documents="file", text=TEXT, steps=60):
        name = f"{tokens}-{documents}-{hash(text)}"
        if name not in made:
            file = folder / f"{name}.txt"
            file.write_text(text, encoding="utf-8")
            made[name] = tt.train(
                "text",
                [file],
                out=folder / name,
                steps=steps,
                model={"tokens": tokens, "hidden_size": 24, "cell": "gru"},
                data={"documents": documents},
                training={"batch_size": 4, "chunk": 40, "learning_rate": 0.03, "evaluations": 2},
                progress=False,
            )
        return made[name]

    return train


@pytest.mark.filterwarnings("ignore:the model never saw these")
@pytest.mark.parametrize("tokens", KINDS)
def test_it_cuts_and_writes_as_in_python(tokens, trained, tmp_path):
    model = trained(tokens, KINDS[tokens])
    folder = tt.export(model, to="wasm", path=tmp_path / "net")
    prompts = ["", "The ", "stat", "a day\n", ODD, TEXT[500:900], "x \t\n\n zz", "\u2028\x85\x1c a\ufeffb, ★"]
    out = in_node(
        folder, "out = given.map((p) => [net.encode(p), net.write(p, { length: 60, temperature: 0 })]);", prompts
    )
    for prompt, (ids, text) in zip(prompts, out, strict=True):
        assert ids == model.tokens.encode(prompt).tolist(), prompt
        assert prompt + text == model.generate(prompt, length=60, temperature=0), prompt


def test_a_document_that_ends_is_forgotten(trained, tmp_path):
    lines = "".join(f"{a} {a}{b}\n" for a in "abc" for b in "xyz") * 120
    model = trained("characters", "line", lines, steps=150)
    folder = tt.export(model, to="wasm", path=tmp_path / "net")
    out = in_node(folder, """
        const stream = net.stream.bind(net);
        let begun = 0;
        net.stream = () => {
          const made = stream(), read = made.read.bind(made);
          made.read = (token, logP) => { begun += token === net.start; return read(token, logP); };
          return made;
        };
        const text = net.write("a", { length: 40, temperature: 0 });
        out = { text, begun };
    """)  # fmt: skip
    assert "a" + out["text"] == model.generate("a", length=40, temperature=0)
    assert out["begun"] == 1 + out["text"].count("\n") > 4


def test_reading_a_token(trained, tmp_path):
    model = trained("characters")
    folder = tt.export(model, to="wasm", path=tmp_path / "net", name="writer")
    ids = [1, *model.tokens.encode("The state").tolist()]
    out = in_node(folder, """
        const s = net.stream(), logs = given.map((token) => list(s.read(token))), state = s.state;
        const there = list(s.read(5)); s.state = state;
        out = { logs, back: JSON.stringify(there) === JSON.stringify(list(s.read(5))), start: net.start, words: net.vocabulary };
        out.said = [said(() => s.read(given.length * 1000)), said(() => s.read(-1)), said(() => s.read("a")),
          said(() => net.streams(2).read(1)), said(() => net.write("a", { length: -1 })),
          said(() => net.write("a", { temperature: NaN }))];
    """, ids)  # fmt: skip
    right = model.network.log_probabilities(torch.tensor(ids).unsqueeze(1))[:, 0]
    torch.testing.assert_close(torch.tensor(out["logs"]), right.detach(), rtol=1e-4, atol=1e-5)
    assert out["back"] and out["start"] == 1 and out["words"] == model.tokens.entries
    size = len(model.tokens)
    assert out["said"] == [
        f"RangeError: writer: tokens are numbered from 0 to {size - 1}, got {len(ids) * 1000}",
        f"RangeError: writer: tokens are numbered from 0 to {size - 1}, got -1",
        f"RangeError: writer: tokens are numbered from 0 to {size - 1}, got a",
        "RangeError: writer: one stream reads tokens, not 2 together",
        "RangeError: writer: length is 0 or more, got -1",
        "RangeError: writer: temperature is 0 or more, got NaN",
    ]


def test_what_is_drawn_is_as_likely_as_the_model_says(trained, tmp_path):
    model = trained("characters")
    folder = tt.export(model, to="wasm", path=tmp_path / "net")
    out = in_node(folder, """
        const first = Array.from({ length: 4000 }, (_, seed) => net.write("", { length: 1, temperature: 0.7, seed }));
        out = { first, same: net.write("a", { seed: 3 }) === net.write("a", { seed: 3 }),
          other: net.write("a", { seed: 3 }) === net.write("a", { seed: 4 }),
          pieces: [...net.pieces("The", { seed: 3 })], whole: net.write("The", { seed: 3 }) };
    """)  # fmt: skip
    log_p = model.network.log_probabilities(torch.tensor([[1]]))[0, 0].detach()
    log_p[:2] = -torch.inf
    p = (log_p / 0.7).softmax(-1)
    counts = torch.tensor([float(out["first"].count(entry)) for entry in model.tokens.entries])
    likely = p > 0.01
    assert (counts[likely] - 4000 * p[likely]).abs().div((4000 * p[likely] * (1 - p[likely])).sqrt()).max() < 4.5
    assert out["same"] and not out["other"]
    assert "".join(out["pieces"]) == out["whole"] and len(out["pieces"]) == 400


def test_eight_bits(trained, tmp_path):
    model = trained("characters")
    sizes = []
    for int8 in (False, True):
        folder = tt.export(model, to="wasm", path=tmp_path / str(int8), int8=int8)
        sizes.append((folder / "text.wasm").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0]
    assert len(in_node(folder, "out = net.write('The ', { length: 50 });")) == 50


def test_what_does_not_write_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="inputs is not for a trained model"):
        tt.export(trained("characters"), to="wasm", path=tmp_path / "net", inputs=torch.zeros(1, 3))
    assert not list(tmp_path.iterdir())


def test_the_export_says_what_it_is(trained, tmp_path):
    folder = tt.export(trained("words", "paragraph"), to="wasm", path=tmp_path / "net")
    assert json.loads((folder / "EXPORT.json").read_text())["made_of"] == "text"
    assert "net.write(" in (folder / "README.md").read_text()
    assert "TextNetwork" in (folder / "text.d.ts").read_text() and "{{" not in (folder / "text.d.ts").read_text()
