"""A language model from a text file to a run folder and back: one that has learned something, and says so truly."""

import importlib.util
import json
import math
import shutil
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

import throughtime as tt
from throughtime.config import to_yaml
from throughtime.errors import UserError
from throughtime.runs import Run
from throughtime.tasks.base import ignore
from throughtime.tasks.corpus import write_corpus
from throughtime.tasks.ngram import ngram_nats
from throughtime.tasks.spans import hold_out, open_files, read_blocks
from throughtime.tasks.text import TextConfig, TextTask
from throughtime.tasks.tokens import START, UNKNOWN, learn

TEXT = "\n\n".join(topics[name].strip() for name in sorted(topics))[:60_000] + "\n"
STEPS = 250


pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def book(tmp_path_factory, _one_thread):
    path = tmp_path_factory.mktemp("book") / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(book):
    return tt.train(
        "text",
        [book],
        out=book.parent / "run",
        steps=STEPS,
        model={"hidden_size": 64, "dropout": 0.0},
        training={"batch_size": 16, "chunk": 50, "learning_rate": 6e-3, "warmup": 20, "evaluations": 5},
        progress=False,
    )


@pytest.fixture(scope="module")
def small(book):
    """A function that trains for a moment, on a part of the text."""
    short = book.parent / "short.txt"
    short.write_text(TEXT[:6_000], encoding="utf-8")
    made = {}

    def train(tokens="characters", documents="file", steps=25):
        name = f"{tokens}-{documents}"
        if name not in made:
            made[name] = tt.train(
                "text",
                [short],
                out=book.parent / name,
                steps=steps,
                model={"tokens": tokens, "hidden_size": 16, "cell": "gru"},
                data={"documents": documents},
                training={"batch_size": 4, "chunk": 40, "learning_rate": 0.02, "evaluations": 2},
                progress=False,
            )
        return made[name]

    return train


@pytest.fixture
def damaged(model, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(model.run.folder, tmp_path / "copy")


def read_steps(model, ids):
    """log p of every next token, token by token: after START, then after each of `ids`. [n + 1, V]."""
    rows, state = [], None
    with torch.no_grad():
        for token in [START, *map(int, ids)]:
            log_p, state = model.network.read(torch.tensor([[token]]), state)
            rows.append(log_p[0].double())
    return torch.stack(rows)


def nats_of(model, text):
    """-log p of a text as one document, summed token by token, and how many tokens it has."""
    ids = model.tokens.encode(text)
    log_p = read_steps(model, ids)
    return -sum(float(log_p[i, int(t)]) for i, t in enumerate(ids)), len(ids)


def total(scores):
    return scores["nats_per_token"] * scores["tokens"]


def written(folder, text, name="some.txt"):
    path = Path(folder) / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


# -- it has learned


def test_it_beats_counting(model, book):
    """A network that learned no more than how often each token comes cannot pass, in training or held out."""
    train, held = ("".join(read_blocks(span)) for (span,) in hold_out(open_files([book]), model.config.data.held_out))
    assert len(held) == pytest.approx(6000, rel=0.1)
    a, b = model.tokens.encode(train), model.tokens.encode(held)
    counted_train = ngram_nats(a, a, len(model.tokens), 1) / len(a)
    counted = ngram_nats(a, b, len(model.tokens), 1)
    losses = [line["loss"] for line in model.run.read_metrics() if "loss" in line]
    assert len(losses) == STEPS
    assert losses[0] == pytest.approx(math.log(len(model.tokens)), rel=0.1), "it began knowing nothing"
    assert np.mean(losses[-20:]) < 0.8 * counted_train
    scores = model.run.scores()["scores"]
    assert scores["tokens"] == len(b)
    assert scores["nats_per_token"] < 0.8 * counted / len(b)
    assert scores["nats_per_character"] < 0.8 * counted / len(held)
    # and per character it is far under how often each character comes
    characters = learn("characters", lambda: iter([train]), 10_000)
    by_character = ngram_nats(characters.encode(train), characters.encode(held), len(characters), 1) / len(held)
    assert scores["nats_per_character"] < 0.8 * by_character


def test_the_score_it_was_given_is_that_of_the_held_out_text(model, book, tmp_path):
    """The training scores many lanes at once, each warmed up; walking the text once from its beginning comes to the same."""
    _, (span,) = hold_out(open_files([book]), model.config.data.held_out)
    held = written(tmp_path, book.read_bytes()[span.start : span.end])
    ours, theirs = model.evaluate([held]), model.run.scores()["scores"]
    assert ours["tokens"] == theirs["tokens"]
    assert ours["nats_per_token"] == pytest.approx(theirs["nats_per_token"], rel=0.01)
    assert ours["nats_per_character"] == pytest.approx(theirs["nats_per_character"], rel=0.01)


def test_loading_gives_the_same_model(model, tmp_path):
    again = tt.load(str(model.run.folder))
    path = written(tmp_path, TEXT[1000:3000])
    assert again.evaluate([path]) == model.evaluate([path])
    assert again.generate("The ", 40, seed=3) == model.generate("The ", 40, seed=3)
    for (name, ours), (other, theirs) in zip(
        model.network.state_dict().items(), again.network.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(ours, theirs)
    assert not again.network.training


def test_the_weights_are_the_best_of_the_training(model):
    lines = model.run.read_metrics()
    scores = {line["step"]: line["valid"]["nats_per_token"] for line in lines if "valid" in line}
    assert len(scores) >= 2
    best = min(scores, key=scores.get)
    assert model.run.scores()["best_step"] == best
    with safe_open(str(model.run.weights), "pt") as file:
        about = json.loads(file.metadata()["throughtime"])
    assert about["step"] == best
    assert about["scores"]["nats_per_token"] == scores[best]


def test_the_state_is_carried_from_chunk_to_chunk_while_training(book, tmp_path):
    """With a learning rate next to nothing every loss is that of one network, walking its lanes with the state carried."""
    model = tt.train(
        "text",
        [written(tmp_path, TEXT[:3_000])],
        out=tmp_path / "run",
        steps=60,
        model={"tokens": "characters", "hidden_size": 32, "dropout": 0.0},
        training={"batch_size": 3, "chunk": 20, "learning_rate": 1e-12, "patience": None, "precision": "float32"},
        progress=False,
    )
    (span,), _ = hold_out(open_files([tmp_path / "some.txt"]), 0.1)
    ids = [START, *model.tokens.encode("".join(read_blocks(span))).tolist()]
    lanes = torch.tensor(ids[: len(ids) // 3 * 3]).view(3, -1).T  # [T, 3], as in the first epoch
    steps = (len(lanes) - 1) // 20
    assert 30 < steps < 60
    state, carried, forgotten = None, [], []
    with torch.no_grad():
        for place in range(0, 20 * steps, 20):
            batch = lanes[place : place + 20], lanes[place + 1 : place + 21]
            total_nats, count, state = model.network(batch, state)
            carried.append(float(total_nats / count))
            forgotten.append(float(model.network(batch, None)[0] / count))
    losses = [line["loss"] for line in model.run.read_metrics() if "loss" in line][:steps]
    assert losses == pytest.approx(carried, rel=1e-5)
    assert max(abs(a - b) for a, b in zip(carried, forgotten, strict=True)) > 1e-3


# -- evaluate


@pytest.mark.parametrize("warm", [256, 7])
def test_held_out_text_is_scored_in_lanes_that_begin_warm(model, tmp_path, monkeypatch, warm):
    """While it is trained: each of 16 lanes has read what stands before its first target, and the first of them nothing."""
    monkeypatch.setattr("throughtime.tasks.text.WARM", warm)
    corpus = write_corpus(
        tmp_path / "valid.bin", open_files([written(tmp_path, TEXT[:9_000])]), model.tokens, "file", ignore
    )
    score = TextTask().score(model, corpus, quick=True)["nats_per_token"]
    ids, sums = torch.from_numpy(corpus.tokens.astype("int64")), {"warm": 0.0, "cold": 0.0}
    n = len(ids) - 1
    length = -(-n // 16)
    with torch.no_grad():
        for first in range(0, n, length):
            for name, back in (("warm", min(warm, n // 16) if first else 0), ("cold", 0)):
                part = ids[first - back : first + length + 1].unsqueeze(1)
                sums[name] += float(model.network.nats(part[:-1], part[1:], None)[0][back:].sum())
    assert score == pytest.approx(sums["warm"] / n, rel=1e-5)
    assert sums["cold"] > sums["warm"] * 1.001  # what a memory is good for
    monkeypatch.setattr("throughtime.tasks.text.QUICK", n // 2 + 1)  # the first begins it
    assert TextTask().score(model, corpus, quick=True)["tokens"] == n // 2
    assert TextTask().score(model, corpus, quick=False)["tokens"] == n


def test_evaluation_is_token_by_token(model, tmp_path):
    text = TEXT[2000:6500]
    scores = model.evaluate([written(tmp_path, text)])
    nats, n = nats_of(model, text)
    assert n > 2500, "longer than what is read at a time"
    assert scores["tokens"] == n
    assert scores["characters"] == len(text)
    assert total(scores) == pytest.approx(nats, rel=1e-5)
    assert scores["nats_per_character"] == pytest.approx(nats / len(text), rel=1e-5)


def test_the_units_agree(model, tmp_path):
    scores = model.evaluate([written(tmp_path, TEXT[:1000])])
    assert set(scores) == {
        "task",
        "tokens",
        "characters",
        "unknown",
        *(f"{unit}_per_{what}" for unit in ("nats", "bits") for what in ("token", "character")),
        "perplexity",
        "perplexity_per_character",
    }
    assert scores["task"] == "text"
    assert scores["bits_per_token"] == pytest.approx(scores["nats_per_token"] / math.log(2))
    assert scores["bits_per_character"] == pytest.approx(scores["nats_per_character"] / math.log(2))
    assert scores["perplexity"] == pytest.approx(math.exp(scores["nats_per_token"]))
    assert scores["perplexity_per_character"] == pytest.approx(math.exp(scores["nats_per_character"]))
    assert total(scores) == pytest.approx(scores["nats_per_character"] * scores["characters"])


def test_what_is_unknown_is_counted_and_scored(model, tmp_path):
    text = "The statement ☃ is Ж here.\n"
    scores = model.evaluate([written(tmp_path, text)])
    assert scores["unknown"] == 2
    assert scores["characters"] == len(text)
    assert total(scores) == pytest.approx(nats_of(model, text)[0], rel=1e-5)
    assert model.evaluate([written(tmp_path, text.replace("☃", "").replace("Ж", ""))])["unknown"] == 0


def test_files_are_documents_of_their_own(model, tmp_path):
    a, b = written(tmp_path, TEXT[:700], "a"), written(tmp_path, TEXT[5000:5600], "b")
    both = model.evaluate([a, b])
    assert both["tokens"] == model.evaluate([a])["tokens"] + model.evaluate([b])["tokens"]
    assert total(both) == pytest.approx(total(model.evaluate([a])) + total(model.evaluate([b])), rel=1e-5)


def test_evaluation_tells_of_its_progress(model, tmp_path):
    amounts = []
    model.evaluate([written(tmp_path, TEXT[:20_000])], amounts.append)
    assert len(amounts) > 1
    assert all(a >= 0 for a in amounts)


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"a\n\xff", ":2: byte 2 "), (b"a\0b", "is NUL")])
def test_what_cannot_be_evaluated(model, content, words, tmp_path):
    path = written(tmp_path, content)
    with pytest.raises(UserError, match=words) as error:
        model.evaluate([path])
    assert str(error.value).startswith(str(path))


def test_memory_passes_through_a_file_but_not_from_line_to_line(small, tmp_path):
    lines = ["The first line of it.\n", "Another line, by itself.\n"]
    both = written(tmp_path, "".join(lines))
    alone = [written(tmp_path, line, f"{i}") for i, line in enumerate(lines)]
    by_line, by_file = small(documents="line"), small(documents="file")

    def difference(model):
        return total(model.evaluate([both])) - sum(total(model.evaluate([path])) for path in alone)

    assert abs(difference(by_line)) < 1e-4
    assert abs(difference(by_file)) > 1e-2
    assert by_line.evaluate([both])["tokens"] == by_file.evaluate([both])["tokens"] == len("".join(lines))


def test_memory_passes_to_the_next_line_but_not_to_the_next_paragraph(small, tmp_path):
    model = small(documents="paragraph")
    one, two, three = "The first\n", "line of it.\n\n", "Another one.\n"
    whole = total(model.evaluate([written(tmp_path, one + two + three)]))
    parts = total(model.evaluate([written(tmp_path, one + two)])) + total(model.evaluate([written(tmp_path, three)]))
    assert whole == pytest.approx(parts, abs=1e-4)
    cut = sum(total(model.evaluate([written(tmp_path, part)])) for part in (one, two, three))
    assert abs(whole - cut) > 1e-2


# -- predict

LINES = [
    "The statement is executed.\n",
    "x\n",
    "",
    "\n",
    "statement The is.\r\n",
    "☃ and Ж",
    "An expression list containing at least one comma yields a tuple.",
]


def test_each_line_is_scored_by_itself(model):
    got = list(model.predict(LINES))
    assert [g["line"] for g in got] == [line.rstrip("\r\n") for line in LINES]
    for values in got:
        nats, n = nats_of(model, values["line"])
        assert values["tokens"] == n
        assert values["log_probability"] == pytest.approx(-nats, rel=1e-5, abs=1e-6)
    assert [g["unknown"] for g in got] == [0, 0, 0, 0, 0, 2, 0]
    assert [g["tokens"] for g in got[2:4]] == [0, 0]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_size_of_a_batch_changes_nothing(model, batch):
    lines = LINES * 3
    expected = [-nats_of(model, line.rstrip("\r\n"))[0] for line in LINES] * 3
    got = [g["log_probability"] for g in model.predict(iter(lines), batch=batch)]
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_an_empty_line_is_certain(model):
    (values,) = model.predict([""])
    assert values == {"line": "", "log_probability": 0.0, "tokens": 0, "unknown": 0}
    assert math.copysign(1, values["log_probability"]) == 1, "shown as 0, not as -0"
    assert list(model.predict([])) == []


def test_lines_are_taken_as_they_are_asked_for(model):
    taken = []

    def source():
        for i in range(10):
            taken.append(i)
            yield f"line {i}"

    answers = model.predict(source(), batch=2)
    next(answers)
    assert taken == [0, 1]


def test_the_likelier_order_of_words_scores_better(model):
    right, wrong = model.predict(["The statement is executed.", "Teh tsatement si xecutede."])
    assert right["log_probability"] > wrong["log_probability"] + 5


# -- generate


def greedy(model, ids, begun, length):
    """What the likeliest tokens write: the first has to begin with `begun`. Neither unknowns nor starts are written."""
    ids, entries = list(map(int, ids)), model.tokens.entries
    pieces = []
    for i in range(length):
        log_p = read_steps(model, ids)[-1]
        allowed = [t for t in range(2, len(entries)) if i or entries[t].startswith(begun)]
        ids.append(max(allowed, key=lambda t: float(log_p[t])))
        pieces.append(entries[ids[-1]])
    return "".join(pieces)


@pytest.mark.parametrize(
    ("prompt", "read", "begun"),
    [
        ("", "", ""),
        ("The statement", None, None),
        ("The statement ", "The statement", " "),
        ("An expr", None, None),
        ("It is.\n", "It is.\n", ""),
        ("It is.\n\n  ", "It is.\n\n ", " "),
    ],
)
def test_the_likeliest_text(model, prompt, read, begun):
    """A prompt that ends in a space or in half a word is completed: the last piece is taken back and written anew."""
    ids = model.tokens.encode(prompt if read is None else read)
    if read is None:
        begun, ids = model.tokens.entries[int(ids[-1])], ids[:-1]
    expected = prompt[: len(prompt) - len(begun)] + greedy(model, ids, begun, 12)
    assert expected.startswith(prompt)
    assert model.generate(prompt, 12, temperature=0) == expected
    assert "".join(model.stream(prompt, 12, temperature=0)) == expected[len(prompt) :]


def test_a_half_word_becomes_a_word(model):
    """Written at once after its first half, the second half begins no new word with a space within the piece."""
    for seed in range(10):
        first = next(model.stream("The statem", 1, seed=seed))
        assert not first.startswith(" ")
    # the end of a word is as near as it can be: without taking a piece back, a space would often come next to a space
    doubled = sum(next(model.stream("The ", 1, seed=seed, temperature=1.0)).startswith(" ") for seed in range(30))
    assert doubled <= 3


@pytest.mark.parametrize("length", [0, 1, 7, 60])
def test_the_length_is_counted_in_tokens(model, length):
    assert len(list(model.stream("The ", length, seed=0))) == length
    text = model.generate("The ", length, seed=0)
    assert text.startswith("The ")
    if length == 0:
        assert text == "The "


def test_the_same_seed_writes_the_same(model):
    texts = [model.generate("The ", 60, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    torch.manual_seed(0)
    unseeded = [model.generate("The ", 60) for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_the_one_likeliest_is_the_likeliest(model):
    expected = model.generate("A ", 40, temperature=0)
    assert model.generate("A ", 40, temperature=0, seed=9) == expected
    assert model.generate("A ", 40, top_k=1, seed=1) == expected
    assert model.generate("A ", 40, top_p=1e-9, seed=2) == expected
    assert model.generate("A ", 40, temperature=1e-4, seed=3) == expected
    assert model.generate("A ", 40, temperature=1.0, seed=3) != expected


def test_a_higher_temperature_is_wilder(model):
    def surprise(temperature):
        texts = [model.generate("\n", 80, temperature=temperature, seed=seed) for seed in range(3)]
        return sum(-g["log_probability"] / g["tokens"] for g in model.predict(t.replace("\n", " ") for t in texts))

    assert surprise(0.3) < surprise(1.0) < surprise(2.5)


def test_neither_unknowns_nor_starts_are_written(small):
    """At a temperature where every entry is about as likely as any other."""
    for kind in ("characters", "words"):
        model = small(kind)
        text = model.generate("", 300, temperature=1e6, seed=1)
        assert text
        ids = model.tokens.encode(text)
        assert START not in ids
        if kind == "characters":
            assert len(text) == 300
            assert UNKNOWN not in ids
        assert "<s>" not in text
        assert "<unk>" not in text


def test_characters_that_were_never_seen_are_named_and_passed_over(model):
    with pytest.warns(UserWarning, match="never saw these characters of the prompt: ☃ Ж"):
        text = model.generate("☃The Жstatement", 10, temperature=0)
    assert text.startswith("☃The Жstatement")
    after = model.generate("The statement", 10, temperature=0).removeprefix("The statement")
    with pytest.warns(UserWarning, match="☃"):
        assert model.generate("☃☃The statement", 10, temperature=0) == "☃☃The statement" + after
    with pytest.warns(UserWarning, match="☃"):
        assert model.generate("☃", 10, temperature=0) == "☃" + model.generate("", 10, temperature=0)


def test_words_that_were_never_seen_are_named(small):
    model = small("words")
    with pytest.warns(UserWarning, match="never saw these words of the prompt: zebra quux"):
        text = model.generate("The zebra and quux zebra is", 5, seed=0)
    assert text.startswith("The zebra and quux zebra is")


@pytest.mark.parametrize("kind", ["characters", "bytes", "words"])
def test_every_kind_of_token_writes_after_its_prompt(small, kind):
    model = small(kind)
    assert model.tokens.kind == kind
    text = model.generate("The ", 30, seed=4)
    assert text.startswith("The ")
    assert len(text) > 10
    assert model.generate("The ", 30, seed=4) == text
    nats, n = nats_of(model, "The end is.")
    (values,) = model.predict(["The end is."])
    assert values["tokens"] == n
    assert values["log_probability"] == pytest.approx(-nats, rel=1e-5)


def test_a_model_of_bytes_reads_any_bytes(small, tmp_path):
    content = b"caf\xe9 \xff\0 end\r\n"
    scores = small("bytes").evaluate([written(tmp_path, content)])
    assert scores["tokens"] == len(content)
    assert scores["unknown"] == 0


def test_a_prompt_of_many_bytes_a_character_is_kept(small):
    text = small("bytes").generate("é漢", 20, seed=0)
    assert text.startswith("é漢")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("length", -1),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_k", -3),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_p", math.nan),
    ],
)
def test_values_out_of_range(model, name, value):
    with pytest.raises(UserError, match=f"^{name}: got {value}"):
        model.generate("The ", **{"length": 3, name: value})


# -- the run folder


def test_what_a_run_folder_holds(model):
    folder = model.run.folder
    expected = {"README.md", "config.yaml", "metrics.jsonl", "model.safetensors", "summary.json", "vocabulary.json"}
    if importlib.util.find_spec("matplotlib"):
        expected.add("learning_curve.png")
        assert (folder / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert {str(p.relative_to(folder)) for p in folder.rglob("*")} == expected
    # nothing that could run when it is opened: texts, a picture, and safetensors
    for name in expected - {"learning_curve.png", "model.safetensors"}:
        assert (folder / name).read_text(encoding="utf-8").isprintable() is False  # it has line ends
        assert b"\0" not in (folder / name).read_bytes()
    with safe_open(str(folder / "model.safetensors"), "pt") as file:
        assert len(list(file.keys())) > 3


def test_nothing_is_left_beside_the_run(model, book):
    assert not [p.name for p in book.parent.iterdir() if p.name.startswith(".")]


def test_the_metrics_tell_of_every_step(model):
    lines = [json.loads(line) for line in model.run.metrics.read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    for line in steps:
        assert line["loss"] > 0
        assert line["gradient_norm"] > 0
        assert 0 <= line["learning_rate"] <= 6e-3
    assert max(line["learning_rate"] for line in steps) == pytest.approx(6e-3, rel=0.03)
    assert steps[-1]["learning_rate"] < 1e-5
    assert [line["tokens"] for line in steps] == sorted({line["tokens"] for line in steps})
    assert lines[-1]["step"] == STEPS
    assert "valid" in lines[-1]


def test_the_model_card_has_the_measured_scores(model):
    card = (model.run.folder / "README.md").read_text()
    scores = model.run.scores()["scores"]
    for name in ("nats_per_token", "nats_per_character"):
        assert f"| {name.replace('_', ' ')} | {scores[name]:.4g} |" in card
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "throughtime"
    (result,) = front["model-index"][0]["results"]
    measured = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert measured == {name: value for name, value in scores.items() if name != "tokens"}, "which is a count"
    assert f"{sum(p.numel() for p in model.network.parameters()):,} parameters" in card
    assert "book.txt" in card
    settings = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert settings == model.config.model_dump()


def test_info(model, book):
    info = model.info()
    assert json.loads(json.dumps(info)) == info
    assert info["task"] == "text"
    assert info["files"] == [str(book)]
    assert info["valid"] is None
    weights = {p.data_ptr(): p.numel() for p in model.network.parameters()}
    assert info["parameters"] == sum(weights.values())
    assert info["steps"] == STEPS
    assert info["scores"] == json.loads((model.run.folder / "summary.json").read_text())["scores"]
    lines = model.run.read_metrics()
    assert info["tokens_seen"] == max(line.get("tokens", 0) for line in lines)
    assert info["minutes"] > 0
    assert info["epochs"] == pytest.approx(info["tokens_seen"] / len(model.tokens.encode(TEXT[:54_000])), rel=0.03)
    assert info["settings"]["model"]["hidden_size"] == 64
    assert info["settings"]["model"]["tokens"] == "bpe"
    assert info["settings"]["steps"] == STEPS
    assert info["settings"]["seed"] == 0


def test_the_settings_are_written_whole_and_read_the_same(model):
    text = (model.run.folder / "config.yaml").read_text()
    config = model.run.read_config(TextConfig)
    assert to_yaml(config) == text
    assert config == model.config
    values = yaml.safe_load(text)
    assert values["format"] == 1
    assert values["task"] == "text"
    left_open = [f"{group}.{name}" for group in ("model", "training") for name, v in values[group].items() if v is None]
    # a text has no limit of passes but its budget; threads are chosen as it trains, and again as that changes
    assert left_open == ["training.passes", "training.threads"], "every other setting that was left open was chosen"


def test_the_settings_are_enough_to_train_the_same_again(small, tmp_path):
    model = small("characters")
    again = tt.train("text", out=tmp_path / "again", config=model.run.folder / "config.yaml", progress=False)
    for name, weights in model.network.state_dict().items():
        assert torch.equal(weights, again.network.state_dict()[name]), name
    assert again.run.scores()["scores"] == model.run.scores()["scores"]
    assert again.config == model.config


def test_another_seed_trains_another_network(small, tmp_path):
    model = small("characters")
    other = tt.train("text", out=tmp_path / "other", config=model.run.folder / "config.yaml", seed=1, progress=False)
    assert not torch.equal(other.network.embedding.weight, model.network.embedding.weight)
    assert other.config.seed == 1


def test_a_held_out_file(book, tmp_path):
    """With a file to hold out, the whole of the other is trained on."""
    valid = written(tmp_path, TEXT[20_000:22_000], "valid.txt")
    model = tt.train(
        "text",
        [written(tmp_path, TEXT[:6_000], "short.txt")],
        out=tmp_path / "run",
        valid=valid,
        steps=3,
        model={"hidden_size": 8, "tokens": "characters"},
        progress=False,
    )
    assert model.config.valid == str(valid)
    assert model.run.scores()["scores"]["tokens"] == 2000
    assert model.run.scores()["scores"]["nats_per_token"] == pytest.approx(
        model.evaluate([valid])["nats_per_token"], rel=0.01
    )


# -- damage


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(**changes):
    def change(path):
        values = yaml.safe_load(path.read_text())
        for key, value in changes.items():
            group = values
            *groups, last = key.split("__")
            for name in groups:
                group = group[name]
            group[last] = value
        path.write_text(yaml.safe_dump(values))

    return change


def fewer_entries(path):
    values = json.loads(path.read_text())
    values.update(kind="characters", entries=["<unk>", "<s>", "a", "b"], merges=None)
    path.write_text(json.dumps(values))


DAMAGE = {
    "weights cut short": ("model.safetensors", truncate, "damaged"),
    "weights empty": ("model.safetensors", lambda p: p.write_bytes(b""), "damaged"),
    "weights missing": ("model.safetensors", Path.unlink, "no weights"),
    "vocabulary missing": ("vocabulary.json", Path.unlink, "missing"),
    "vocabulary cut short": ("vocabulary.json", truncate, "damaged"),
    "vocabulary of another model": ("vocabulary.json", fewer_entries, "damaged"),
    "vocabulary of something else": ("vocabulary.json", lambda p: p.write_text('{"a": 1}'), "damaged"),
    "settings not YAML": ("config.yaml", lambda p: p.write_text("model: [1, 2\ntask: text\n"), "not YAML"),
    "settings empty": ("config.yaml", lambda p: p.write_text(""), "damaged"),
    "settings of bytes": ("config.yaml", lambda p: p.write_bytes(b"\xff\xfe\0"), "cannot read"),
    "settings missing": ("config.yaml", Path.unlink, "is not a run folder"),
    "a newer format": ("config.yaml", edit(format=99), "format 99 is from a newer throughtime"),
    "an unknown setting": ("config.yaml", edit(model__hiden_size=3), "did you mean 'model.hidden_size'"),
    "a value out of range": ("config.yaml", edit(model__layers=0), "model.layers: got 0"),
    "an unknown task": ("config.yaml", edit(task="txt"), "did you mean 'text'"),
    "an unknown cell": ("config.yaml", edit(model__cell="grru"), "did you mean 'gru'"),
    "a size left open": ("config.yaml", edit(model__hidden_size=None), "model.hidden_size"),
    "weights of another size": ("config.yaml", edit(model__hidden_size=32), "trained with 64; put it back"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_run_is_said_to_be_damaged(damaged, what):
    name, damage, words = DAMAGE[what]
    damage(damaged / name)
    with pytest.raises(UserError) as error:
        tt.load(damaged)
    message = str(error.value)
    assert words in message
    assert "\n" not in message
    # the file itself, or where the trouble is in how two of them fit, the run
    named = str(damaged / name) if what not in ("weights missing", "settings missing") else ""
    assert named in message
    assert str(damaged) in message


def test_where_there_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        tt.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has no config\.yaml"):
        tt.load(tmp_path)


def test_damaged_metrics_are_said_to_be_damaged_but_for_a_last_line_cut_short(damaged):
    run = Run(damaged)
    whole = run.read_metrics()
    text = run.metrics.read_text()
    run.metrics.write_text(text + '{"step": 999, "lo')
    assert run.read_metrics() == whole
    run.metrics.write_text(text.replace("\n", "\n{oh\n", 1))
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: is damaged"):
        run.read_metrics()


def test_a_line_that_is_written_begins_without_memory_of_the_one_before(tmp_path):
    """Where lines stand by themselves, the likeliest line is the likeliest every time."""
    text = tmp_path / "lines.txt"
    text.write_text("one two three\nfour five six\nseven eight nine\nten\n" * 40)
    model = tt.train(
        "text",
        [text],
        out=tmp_path / "run",
        steps=150,
        model={"hidden_size": 32, "tokens": "characters"},
        data={"documents": "line"},
        progress=False,
    )
    lines = model.generate("", 80, temperature=0).split("\n")[:-1]
    assert len(lines) >= 4
    assert set(lines) == {lines[0]}


def test_the_less_text_the_smaller_and_noisier_the_network(tmp_path):
    found = []
    for characters in (2_000, 20_000, 48_000):
        spans = open_files([written(tmp_path, TEXT[:characters], f"{characters}.txt")])
        folder = tmp_path / str(characters)
        (folder / "data").mkdir(parents=True)
        parts, run = hold_out(spans, 0.1), Run(folder, folder / "data")
        model = TextTask().prepare(TextConfig(minutes=5), *parts, run, ignore).model
        found.append((model.hidden_size, model.dropout))
    assert found == [(128, 0.6), (128, 0.4), (256, 0.4)]


@pytest.mark.parametrize(
    ("cell", "name", "refused"),
    [
        ("mingru", "recurrent_dropout", True), ("mingru", "weight_dropout", True), ("indrnn", "weight_dropout", True),
        ("indrnn", "recurrent_dropout", False), ("gru", "weight_dropout", False), ("mingru", "zoneout", False),
    ],
)  # fmt: skip
def test_noise_of_recurrent_products_is_refused_where_a_cell_has_none(cell, name, refused):
    config = TextConfig(model={"cell": cell, name: 0.25})
    if not refused:
        return TextTask().check(config)
    with pytest.raises(UserError, match=f"model.{name}: the cell '{cell}' has no recurrent product; leave it out"):
        TextTask().check(config)
