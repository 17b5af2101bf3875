"""A language model of texts as what says how words of speech follow one another."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.tasks import text_words
from throughtime.tasks.text_words import TextWords, open_words
from throughtime.tasks.tokens import START, UNKNOWN

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "speech"
LINES = ["YES", "C Z D Z W EIGHT", "ENTER SIX TWO FOUR", "RUBOUT G M E F THREE NINE"]
KINDS = ["words", "bpe", "characters", "bytes"]

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data"),
]


def transcripts(corpus, part="train"):
    return [json.loads(line)["text"] for line in (DATA / corpus / f"{part}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, _one_thread):
    """A function that trains for a moment on transcripts of AN4, once for the same settings."""
    folder, made = tmp_path_factory.mktemp("texts"), {}
    (folder / "train.txt").write_text("\n".join(transcripts("an4")) + "\n")
    (folder / "valid.txt").write_text("\n".join(transcripts("an4", "dev")) + "\n")

    def train(tokens, documents, steps=25, **model):
        key = tokens, documents, steps, *model.items()
        if key not in made:
            made[key] = tt.train(
                "text",
                [folder / "train.txt"],
                valid=folder / "valid.txt",
                out=folder / str(len(made)),
                steps=steps,
                model={"tokens": tokens, "hidden_size": 24, **model},
                data={"documents": documents},
                progress=False,
            )
        return made[key]

    return train


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory, _one_thread):
    """A run that hears next to nothing, so that what words are likely decides."""
    pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("speech")
    rows = [json.loads(line) for line in (DATA / "fsdd" / "dev.jsonl").read_text().splitlines()[::5]]
    for row in rows:
        row["audio"] = str(DATA / "fsdd" / row["audio"])
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tt.train(
        "transcribe",
        [folder / "rows.jsonl"],
        out=folder / "run",
        steps=4,
        model={"hidden_size": 8, "layers": 1, "bandwidth": 8000},
        data={"speed": 0.0},
        progress=False,
    )
    settled = json.loads((folder / "run" / "settled.json").read_text())
    (folder / "run" / "settled.json").write_text(json.dumps(settled | {"kind": "words", "weight": 3.0, "bonus": 8.0}))
    return folder


def network_log_p(model, before, text):
    """log p of each token of a text after another, by the network read whole."""
    first, ids = model.tokens.encode(before), model.tokens.encode(before + text).astype("int64")
    tokens = torch.from_numpy(ids).unsqueeze(1)
    with torch.inference_mode():
        log_p = model.network.log_probabilities(torch.cat([torch.tensor([[START]]), tokens[:-1]]))
    return log_p.gather(2, tokens.unsqueeze(2)).flatten()[len(first) :].double()


def said(words, line):
    """log P of the words of a line, and of its end."""
    state, found = words.begin(), []
    for word in line.split():
        log_p, state = words.score(state, word)
        found.append(log_p)
    return found, words.end(state)


@pytest.mark.parametrize("documents", ["line", "file"])
@pytest.mark.parametrize("tokens", KINDS)
def test_the_words_of_a_line_and_its_end_have_its_probability(trained, tokens, documents):
    model = trained(tokens, documents)
    words = TextWords(model, {word for line in LINES for word in line.split()})
    before = "\n" if documents == "file" else ""
    for line in LINES:
        found, end = said(words, line)
        assert sum(found) + end == pytest.approx(float(network_log_p(model, before, line + "\n").sum()), abs=1e-3)
        assert end == pytest.approx(float(network_log_p(model, before, line + "\n")[-1]), abs=1e-4)
        first = float(network_log_p(model, before, line.split()[0]).sum())
        assert found[0] == pytest.approx(first, abs=1e-4)


def test_it_scores_lines_as_the_model_does(trained, tmp_path):
    model = trained("words", "line")
    words = TextWords(model, {word for line in LINES for word in line.split()})
    found = [said(words, line) for line in LINES]
    lines = [answer["log_probability"] for answer in model.predict(LINES)]
    assert [sum(log_p) for log_p, _ in found] == pytest.approx(lines, abs=1e-3)
    (tmp_path / "lines.txt").write_text("\n".join(LINES) + "\n")
    scores = model.evaluate(tmp_path / "lines.txt")
    total = sum(sum(log_p) + end for log_p, end in found)
    assert -total == pytest.approx(scores["nats_per_token"] * scores["tokens"], abs=1e-3)


@pytest.mark.parametrize("documents", ["line", "paragraph"])
def test_an_utterance_begins_as_a_document(trained, documents):
    model = trained("characters", documents)
    words = TextWords(model, ["YES"])
    assert words.begin() == ()
    assert words.score((), "YES")[0] == pytest.approx(float(network_log_p(model, "", "YES").sum()), abs=1e-4)


def test_it_knows_transcripts_it_was_trained_on(trained):
    """Per word and end, far below the 98 words there are."""
    train, dev = transcripts("an4"), transcripts("an4", "dev")
    words = TextWords(trained("words", "line", steps=150), {word for line in train for word in line.split()})
    total, count = 0.0, 0
    for line in dev:
        found, end = said(words, line)
        total, count = total + sum(found) + end, count + len(found) + 1
    assert math.exp(-total / count) < 25


def test_states_are_what_was_read(trained):
    words = TextWords(trained("characters", "line"), ["A", "B"])
    once, again = (words.score(words.score((), "A")[1], "B") for _ in range(2))
    assert once == again and hash(once[1]) == hash(again[1])
    assert words.score(words.score((), "B")[1], "A")[1] != once[1]


def test_what_is_forgotten_is_read_again(trained, monkeypatch):
    model = trained("characters", "line")
    known = {word for line in LINES for word in line.split()}
    whole = [said(TextWords(model, known), line) for line in LINES]
    monkeypatch.setattr(text_words, "MEMORY", 1)
    short = TextWords(model, known)
    states = []
    for line in LINES * 2:
        state = short.begin()
        for word in line.split():
            _, state = short.score(state, word)
        states.append(state)
    assert len(short._known) <= 16
    assert [short.end(state) for state in states] == [end for _, end in whole] * 2
    assert [said(short, line) for line in LINES] == whole


def test_an_unknown_word_has_the_probability_of_the_unknown(trained):
    model = trained("words", "line")
    with pytest.warns(UserWarning, match=r"does not know 'NOWHERE', of 2 words"):
        words = TextWords(model, ["NOWHERE", "YES"])
    with torch.inference_mode():
        expected = float(model.network.log_probabilities(torch.tensor([[START]]))[0, 0, UNKNOWN])
    assert words.score((), "NOWHERE")[0] == pytest.approx(expected, abs=1e-5)
    assert words.score((), "NOWHERE")[1] == (UNKNOWN,)


def test_texts_without_lines_say_nothing_of_ends(tmp_path):
    text = "yes no maybe so " * 60
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(text)
    model = tt.train(
        "text",
        [tmp_path / "train.txt"],
        valid=tmp_path / "valid.txt",
        out=tmp_path / "run",
        steps=2,
        model={"tokens": "characters", "hidden_size": 8},
        progress=False,
    )
    words = TextWords(model, ["yes"])
    assert words.begin() == () and words.end(words.score((), "yes")[1]) == 0.0


def test_what_cannot_be_a_language_model_is_refused(trained, recogniser, tmp_path):
    transformer = trained("words", "line", 2, kind="transformer")
    with pytest.raises(UserError, match=r"language_model: .* is a Transformer, .*; take a recurrent network"):
        open_words(str(transformer.run.folder), ["YES"])
    with pytest.raises(UserError, match=r"language_model: .*: knows none of the words, as 'yes'; train it on texts"):
        open_words(str(trained("words", "line").run.folder), ["yes"])
    with pytest.raises(UserError, match=r"language_model: .*: is a run of the task 'transcribe', not 'text'"):
        open_words(str(recogniser / "run"), ["yes"])
    with pytest.raises(UserError, match=r"language_model: .*nowhere: no such run folder"):
        open_words(str(tmp_path / "nowhere"), ["yes"])


@pytest.fixture(scope="module")
def sevens(tmp_path_factory, _one_thread):
    """A language model of texts in which nearly all digits are sevens."""
    folder = tmp_path_factory.mktemp("sevens")
    digits = sorted(set(transcripts("fsdd")))
    (folder / "digits.txt").write_text("".join(f"{digit}\n" + 30 * "seven\n" for digit in digits))
    data, model = {"documents": "line"}, {"tokens": "words", "hidden_size": 16}
    tt.train("text", [folder / "digits.txt"], out=folder / "run", steps=150, data=data, model=model, progress=False)
    return folder / "run"


def test_predict_and_evaluate_hear_what_is_likely(recogniser, sevens, capsys):
    run, rows = str(recogniser / "run"), str(recogniser / "rows.jsonl")
    model = tt.load(run)
    counted = model.evaluate(rows)
    likely = model.evaluate(rows, language_model=str(sevens))
    assert main(["predict", run, rows]) == 0
    plain = capsys.readouterr().out.split()
    assert main(["predict", run, rows, "--language-model", str(sevens)]) == 0
    heard = capsys.readouterr().out.split()
    assert heard.count("seven") > 0.9 * counted["utterances"] > plain.count("seven")
    assert likely["worst"] != counted["worst"] and likely["decoding"] == "words"


def test_one_decoding_serves_all_that_is_predicted(recogniser, sevens, monkeypatch):
    """The language model is loaded once, not for each group of recordings."""
    model, opened = tt.load(recogniser / "run"), []
    monkeypatch.setattr(
        TextWords, "__init__", lambda self, *given, _made=TextWords.__init__: opened.append(_made(self, *given))
    )
    assert len(list(model.predict(recogniser / "rows.jsonl", 4, language_model=str(sevens)))) == 50
    assert len(opened) == 1
    list(model.predict(recogniser / "rows.jsonl", language_model=str(sevens)))
    assert len(opened) == 2


def test_the_command_line_says_what_is_wrong_in_a_line(recogniser, tmp_path, capsys):
    run, rows = str(recogniser / "run"), str(recogniser / "rows.jsonl")
    assert main(["predict", run, rows, "--language-model", run]) == 2
    told = capsys.readouterr()
    assert not told.out and told.err.count("\n") == 1 and "is a run of the task 'transcribe', not 'text'" in told.err
    assert main(["evaluate", run, rows, "--decoding", "greedy", "--language-model", run]) == 2
    assert "language_model: only decoding words takes it, not greedy" in capsys.readouterr().err
