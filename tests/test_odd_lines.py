"""Any line at all is looked into and answered: white space wherever it stands, what the vocabulary does not know, one token."""

import warnings

import pytest

import throughtime as tt
from throughtime.errors import UserError
from throughtime.inspect.report import look_into
from throughtime.tasks.pairs import Limit

pytestmark = pytest.mark.usefixtures("_one_thread")

SMALL = {"hidden_size": 8, "embedding_size": 8, "dropout": 0.0}
ODD = ["ab ", " ab", "a  b", "\tab", "a\tb", "a", "é", "ab é", "a\u00a0b", "ab\r", "?!", "ab \u3000", "\u200bab"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One of every task and every kind of tokens."""
    folder = tmp_path_factory.mktemp("kinds")
    lines = ["ab a b", "b a", "a ab ab", "ba ab a b", "a b", "ab"] * 8
    text = folder / "text.txt"
    text.write_text("\n".join(lines) + "\n")
    table, both = folder / "labels.tsv", folder / "pairs.tsv"
    table.write_text("text\tlabel\n" + "".join(f"{line}\t{line[0]}\n" for line in lines))
    both.write_text("".join(f"{line}\t{line[::-1]}\n" for line in lines))
    tagged = folder / "tagged.tsv"
    tagged.write_text("\n\n".join("\n".join(f"{w}\t{w[0]}" for w in line.split()) for line in lines) + "\n")
    options = {"steps": 2, "progress": False}
    found = {}
    for kind in ("characters", "words", "bpe", "bytes"):
        found[f"text {kind}"] = tt.train(
            "text", [text], out=folder / f"text-{kind}", model={**SMALL, "tokens": kind},
            training={"batch_size": 2, "chunk": 10}, **options,
        )  # fmt: skip
        found[f"classify {kind}"] = tt.train(
            "classify", [table], out=folder / f"classify-{kind}", model={**SMALL, "tokens": kind},
            training={"batch_size": 4}, **options,
        )  # fmt: skip
        if kind != "bytes":
            found[f"translate {kind}"] = tt.train(
                "translate", [both], out=folder / f"translate-{kind}", model={**SMALL, "tokens": kind},
                training={"batch_size": 4}, **options,
            )  # fmt: skip
    sizes = {"hidden_size": 8, "embedding_size": 8, "character_size": 4}
    found["tag"] = tt.train("tag", [tagged], out=folder / "tag", model=sizes, training={"batch_size": 4}, **options)
    return found


NAMED = ["tag", *(f"{task} {kind}" for task in ("text", "classify") for kind in ("characters", "words", "bpe", "bytes")),
         *(f"translate {kind}" for kind in ("characters", "words", "bpe"))]  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_any_line_is_looked_into_and_answered(models, name):
    model = models[name]
    if name.startswith("translate"):
        model.limit = Limit(2, 1.0)  # it has learned nothing, and would write on
    with warnings.catch_warnings(action="ignore"):
        for line in ODD:
            values = look_into(model, [line])
            assert len(values["probabilities"]) == len(values["outputs"]) >= 1
            for layer in values["layers"]:
                assert len(next(iter(layer["states"].values()))) == len(layer["steps"])
            list(model.predict([line]))
        for empty in ("", " ", "\t", "\n", " \u3000 "):
            if name.startswith("text") and empty:  # to a language model white space is a text
                look_into(model, [empty])
            else:
                with pytest.raises(UserError, match="empty"):
                    look_into(model, [empty])
