"""Classify, tag and translate, from files to a run folder and back: each learns something, says so truly, and refuses what
cannot work in one line."""

import csv
import io
import json
import random
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import processes
import throughtime as tt
from throughtime.cli import main
from throughtime.errors import UserError
from throughtime.tasks.base import taken
from throughtime.tasks.classify import ClassifyData, ClassifyModel
from throughtime.tasks.pairs import pairs
from throughtime.tasks.source import Source
from throughtime.tasks.split import hold_out
from throughtime.tasks.tables import Columns, rows
from throughtime.tasks.translate import _kinds


def labelled_in(paths, *columns):
    return [row for path in paths for row in rows(Source.of(path), *columns, labelled=True)]


def pairs_in(paths):
    return [(pair.source, pair.target) for pair in pairs([Source.of(path) for path in paths], both=True)]


pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    # of networks that have hardly learned
    pytest.mark.filterwarnings("ignore:.* translated up to the limit of its length"),
    pytest.mark.filterwarnings("ignore:.* translations are scored as far as they go"),
]


# ------------------------------------------------------------------------------------------------ classify

GOOD, BAD = ["fine", "lovely", "great", "splendid"], ["poor", "dull", "awful", "weak"]
THINGS = ["film", "story", "acting", "music", "ending", "plot", "cast", "script"]


def review(rng):
    """A judgement that a word order decides: 'not fine' is negative."""
    good, negated = rng.random() < 0.5, rng.random() < 0.5
    word = rng.choice(GOOD if good else BAD)
    other = " ".join(rng.choice(THINGS) for _ in range(rng.randint(0, 6)))
    text = f"the {rng.choice(THINGS)} {other} was {'not' if negated else 'very'} {word}"
    return " ".join(text.split()), "positive" if good != negated else "negative"


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("reviews"), random.Random(0)
    for name, n in (("train", 1200), ("dev", 300)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(review(rng) for _ in range(n))
    return folder


SMALL = {"hidden_size": 24, "embedding_size": 24, "dropout": 0.1, "word_dropout": 0.0}


@pytest.fixture(scope="module")
def classifier(reviews):
    return tt.train(
        "classify",
        [reviews / "train.csv"],
        valid=reviews / "dev.csv",
        out=reviews / "run",
        epochs=10,
        model={**SMALL, "counts": False, "pooling": "attention"},
        training={"learning_rate": 1e-2},
        progress=False,
    )


def test_a_classifier_learns_what_counting_words_cannot(reviews, classifier):
    scores = classifier.evaluate([reviews / "dev.csv"])
    assert scores["accuracy"] > 0.97
    assert scores["examples"] == 300
    counting = tt.train(
        "classify", [reviews / "train.csv"], valid=reviews / "dev.csv", out=reviews / "none", epochs=3,
        model={**SMALL, "cell": "none", "counts": False}, training={"learning_rate": 1e-2}, progress=False,
    )  # fmt: skip
    assert counting.evaluate([reviews / "dev.csv"])["accuracy"] < 0.75


def test_what_a_classifier_says_adds_up(reviews, classifier):
    scores = classifier.evaluate([reviews / "dev.csv"])
    rows = labelled_in([reviews / "dev.csv"])
    found = list(classifier.predict([r.text for r in rows]))
    right = sum(v["label"] == r.label for v, r in zip(found, rows, strict=True))
    assert scores["accuracy"] == pytest.approx(right / len(rows))
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == len(rows)
    diagonal = sum(scores["confusion"][label][label] for label in ("negative", "positive"))
    assert diagonal == right
    for values in found[:20]:
        assert sum(values["probabilities"].values()) == pytest.approx(1)
        assert values["probability"] == max(values["probabilities"].values())
    f1 = [scores["labels"][label]["f1"] for label in ("negative", "positive")]
    assert scores["macro_f1"] == pytest.approx(sum(f1) / 2)


def test_scores_do_not_hang_on_the_batch(reviews, classifier, monkeypatch):
    rows = [r.text for r in labelled_in([reviews / "dev.csv"])][:40]
    whole = [v["probability"] for v in classifier.predict(rows, batch=40)]
    assert whole == pytest.approx([v["probability"] for v in classifier.predict(rows, batch=1)], abs=1e-6)


@pytest.mark.parametrize("form", ["tsv", "jsonl", "folder", "csv"])
def test_forms_of_labelled_texts_are_the_same(tmp_path, form):
    rows = [('Good, "they" say', "a"), ("bad", "b"), ("two words", "a")]
    if form == "folder":
        for i, (text, label) in enumerate(rows):
            (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
            (tmp_path / "data" / label / f"{i}.txt").write_text(text)
        path = tmp_path / "data"
    else:
        path = tmp_path / f"data.{form}"
        if form == "jsonl":
            path.write_text("".join(json.dumps({"id": 1, "review": t, "class": y}) + "\n" for t, y in rows))
        elif form == "tsv":
            path.write_text("Label\tSentence\n" + "".join(f"{y}\t{t}\n" for t, y in rows))
        else:
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *rows])
    assert sorted((r.text, r.label) for r in labelled_in([path])) == sorted(rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\nx,y\n", "data.csv:1: no column for the text; there are a, b: name one by --data.text-column"),
        ("text,label\nx,y,z\n", "data.csv:2: 3 fields, the first line has 2"),
        ("text,label\nx,y\nz,y\n", "all texts have the label 'y'; there must be two labels or more"),
        ("", "data.csv: is empty"),
        ("text,label\n", "data.csv: no labelled text in it"),
    ],
)
def test_bad_tables_are_refused(tmp_path, text, said):
    (tmp_path / "data.csv").write_text(text)
    with pytest.raises(UserError) as error:
        tt.train("classify", [tmp_path / "data.csv"], out=tmp_path / "run", steps=1, progress=False)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_label_that_training_never_had(reviews, classifier, tmp_path):
    (tmp_path / "v.csv").write_text("text,label\nx,positive\ny,positve\n")
    for call in (
        lambda: classifier.evaluate([tmp_path / "v.csv"]),
        lambda: tt.train(
            "classify", [reviews / "train.csv"], valid=tmp_path / "v.csv", out=tmp_path / "r", progress=False
        ),
    ):
        with pytest.raises(
            UserError, match=r"v.csv:3: training never had it: unknown label 'positve'; did you mean 'positive'"
        ):
            call()


def test_booleans_of_json_mean_the_labels_of_an_earlier_version(tmp_path):
    rows = [("a fine film", True), ("a dull film", False)] * 20
    (tmp_path / "old.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    (tmp_path / "new.jsonl").write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows))
    model = tt.train("classify", [tmp_path / "old.csv"], out=tmp_path / "run", steps=3, model=SMALL, progress=False)
    with pytest.warns(UserWarning, match="the label (true is taken for True|false is taken for False)") as said:
        scores = model.evaluate(tmp_path / "new.jsonl")
    assert len(said) == 2 and scores == model.evaluate(tmp_path / "old.csv")


@pytest.mark.parametrize("tokens", ["words", "characters"])
def test_a_language_model_reads_first(reviews, classifier, tmp_path, capsys, tokens):
    texts = tmp_path / "unlabelled.txt"
    texts.write_text("\n".join(r.text for r in labelled_in([reviews / "train.csv"])) + "\n")
    first = tt.train(
        "text", [texts], out=tmp_path / "language", steps=30, model={"tokens": tokens, "hidden_size": 24},
        training={"batch_size": 8, "chunk": 20, "learning_rate": 1e-2}, progress=False,
    )  # fmt: skip
    files = [str(reviews / "train.csv"), "--valid", str(reviews / "dev.csv"), "--init-from", str(tmp_path / "language")]
    noise = ["--model.dropout", "0.1", "--model.word-dropout", "0", "--training.learning-rate", "0.01"]
    code = main(
        [
            "train",
            "classify",
            *files,
            *noise,
            "--out",
            str(tmp_path / "run"),
            "--epochs",
            "5",
            "--model.no-counts",
            "--quiet",
        ]
    )
    assert code == 0
    model = tt.load(tmp_path / "run")
    assert model.evaluate([reviews / "dev.csv"])["accuracy"] > 0.65  # half of them are positive
    assert torch.equal(model.network.reader.language.embedding.weight, first.network.embedding.weight)
    read = [v["label"] for v in model.predict(["the film was not fine", "the film was very fine"])]
    (tmp_path / "language").rename(tmp_path / "gone")  # the run is whole by itself
    again = [v["label"] for v in tt.load(tmp_path / "run").predict(["the film was not fine", "the film was very fine"])]
    assert read == again
    for options, said in (
        (["--init-from", str(reviews / "run")], "is a run of the task 'classify', not 'text'"),
        (["--init-from", str(tmp_path / "gone"), "--model.tokens", "bpe"], "leave it out"),
        (["--init-from", str(tmp_path / "missing")], "no such run folder"),
    ):
        code = main(
            ["train", "classify", str(reviews / "train.csv"), "--out", str(tmp_path / "x"), "--steps", "1", *options]
        )
        assert code == 2
        assert said in capsys.readouterr().err
        assert not (tmp_path / "x").exists()


@pytest.mark.filterwarnings("ignore:the labels are uneven")
def test_rare_labels_count_for_more_where_asked(tmp_path):
    rng = random.Random(1)
    rows = [("common " + rng.choice(THINGS), "a") for _ in range(380)] + [
        ("rare common " + rng.choice(THINGS), "b") for _ in range(20)
    ]
    with (tmp_path / "d.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    model = tt.train("classify", [tmp_path / "d.csv"], out=tmp_path / "r", steps=2, model=SMALL, progress=False)
    assert model.config.data.balance == 0.5
    from throughtime.tasks.labels import class_weights

    a, b = class_weights([380, 20], 0.5)
    assert b / a == pytest.approx((380 / 20) ** 0.5)
    assert 380 * a + 20 * b == pytest.approx(400)
    assert class_weights([380, 20], 0.0) is None


def test_classify_resumes_exactly(reviews, tmp_path):
    def train(**more):
        return tt.train(
            "classify", [reviews / "train.csv"], out=tmp_path / "r", steps=40, model=SMALL,
            training={"evaluations": 4}, progress=False, **more,
        )  # fmt: skip

    whole = train()
    weights = {k: v.clone() for k, v in whole.network.state_dict().items()}
    from throughtime.training.loop import Interrupted, Trainer

    original = Trainer._one_step
    with pytest.MonkeyPatch.context() as patch:

        def stopping(self, stop):
            if self.step == 17:
                stop.set()
            return original(self, stop)

        patch.setattr(Trainer, "_one_step", stopping)
        with pytest.raises(Interrupted):
            train(overwrite=True)
    again = tt.train("classify", out=tmp_path / "r", resume=True, progress=False)
    for name, value in again.network.state_dict().items():
        assert torch.equal(value, weights[name]), name


# ------------------------------------------------------------------------------------------------ tag

SAWS = [
    ("I saw a saw", "PRON VERB DET NOUN"),
    ("you saw the dog", "PRON VERB DET NOUN"),
    ("the saw is old", "DET NOUN AUX ADJ"),
    ("a dog saw you", "DET NOUN VERB PRON"),
    ("I walk the dog", "PRON VERB DET NOUN"),
    ("the walk is long", "DET NOUN AUX ADJ"),
    ("you walk", "PRON VERB"),
    ("a walk", "DET NOUN"),
    ("I saw you", "PRON VERB PRON"),
    ("the old saw", "DET ADJ NOUN"),
]


def conllu(sentences):
    blocks = []
    for words, tags in sentences:
        lines = [f"# text = {words}"]
        for i, (w, t) in enumerate(zip(words.split(), tags.split(), strict=True), 1):
            lines.append("\t".join([str(i), w, "_", t, t.lower(), "_", "0", "_", "_", "_"]))
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


TAGGER = {"hidden_size": 16, "embedding_size": 12, "character_size": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def saws(tmp_path_factory):
    path = tmp_path_factory.mktemp("saws") / "saws.conllu"
    path.write_text(conllu(SAWS * 4))
    return path


TAGGERS = {}  # the folder of each that was trained, by its settings


def tagger(saws, name, **model):
    """Of equal settings the second is a copy of the first."""
    first = TAGGERS.setdefault((saws, *model.items()), saws.parent / name)
    if first.name != name:
        return tt.load(shutil.copytree(first, saws.parent / name))
    return tt.train(
        "tag", [saws], valid=saws, out=saws.parent / name, steps=120, model={**TAGGER, **model},
        training={"batch_size": 8, "learning_rate": 1e-2, "evaluations": 3}, progress=False,
    )  # fmt: skip


@pytest.mark.parametrize("crf", [False, True])
def test_i_saw_a_saw(saws, crf):
    model = tagger(saws, f"run{crf}", crf=crf)
    (found,) = model.predict(["I saw a saw"])
    assert found["tags"] == ["PRON", "VERB", "DET", "NOUN"]
    assert model.evaluate([saws])["accuracy"] == 1


def test_without_a_memory_both_saws_are_the_same(saws):
    model = tagger(saws, "none", cell="none")
    (found,) = model.predict(["I saw a saw"])
    assert found["tags"][1] == found["tags"][3]
    assert model.evaluate([saws])["accuracy"] < 1


def test_conllu_comes_back_with_tags_and_nothing_else_changed(saws):
    model = tagger(saws, "written")
    text = (
        "# sent_id = 1\n1-2\tcannot\t_\t_\t_\t_\t_\t_\t_\t_\n1\tI\t_\tX\tZ\tA=b\t0\troot\t_\t_\n"
        "2\tsaw\t_\t_\t_\t_\t_\t_\t_\t_\n2.1\t_\t_\t_\t_\t_\t_\t_\t_\t_\n\n# of no sentence\n\n"
        "# b\n1\tdog\t_\t_\t_\t_\t_\t_\t_\tSpace=No\n\n"
    )
    written = "\n".join(model.written(v) for v in model.predict(text.splitlines()))
    lines, before = written.strip().split("\n"), text.strip().split("\n")
    assert len(lines) == len(before)
    for now, then in zip(lines, before, strict=True):
        a, b = now.split("\t"), then.split("\t")
        if then[:1].isdigit() and b[0].isdigit():
            assert a[3] in {"PRON", "VERB", "DET", "NOUN", "AUX", "ADJ"}
            assert a[:3] + a[4:] == b[:3] + b[4:]
        else:
            assert a == b


def test_known_and_unknown_words(saws, tmp_path):
    model = tagger(saws, "known")
    (tmp_path / "d.tsv").write_text("I\tPRON\nsaw\tVERB\nthe\tDET\nzebra\tX\n\na\tDET\nwalk\tNOUN\n")
    scores = model.evaluate([tmp_path / "d.tsv"])
    assert scores["words"] == 6
    assert scores["unknown_words"] == 1
    assert scores["unknown_accuracy"] == 0
    assert scores["accuracy"] == pytest.approx(5 / 6 * scores["known_accuracy"])


def test_a_tag_that_training_never_had_is_told_with_its_line(saws, tmp_path):
    model = tagger(saws, "never")
    lines = "# a\n\n# b\n" + conllu([("I saw you", "PRON VERV PRONN")])
    (tmp_path / "d.conllu").write_text(lines)
    number = next(i for i, line in enumerate(lines.split("\n"), 1) if "VERV" in line)
    with pytest.raises(UserError, match=rf"d.conllu:{number}: training never had it: .*'VERV'"):
        model.evaluate([tmp_path / "d.conllu"])
    (tmp_path / "d.tsv").write_text("I\tPRON\nsaw\tVERB\n\nthe\tDEX\nold\tDEX\nzebra\tDEX\n")
    with pytest.raises(UserError, match=r"d.tsv:4: training never had it: .*'DEX'"):
        model.evaluate([tmp_path / "d.tsv"])


def test_conllu_is_answered_as_it_comes(saws):
    model = tagger(saws, "stream")

    class Slowly:
        """Lines of two sentences; the second is not there before the first has been answered."""

        name = "-"

        def __init__(self):
            self.lines, self.read = conllu(SAWS[:2]).splitlines(), 0
            self.first = self.lines.index("") + 1

        def __iter__(self):
            return self

        def __next__(self):
            if self.read == len(self.lines):
                raise StopIteration
            assert self.read < self.first or self.answered
            self.read += 1
            return self.lines[self.read - 1]

        answered = False

        def ready(self, block):
            assert block
            return self.answered

    lines = Slowly()
    answers = model.predict(lines)
    assert next(answers)["words"] == SAWS[0][0].split()
    lines.answered = True
    assert [found["words"] for found in answers] == [SAWS[1][0].split()]
    broken = [*conllu(SAWS[:1]).splitlines(), "", "1\tI"]
    found = model.predict(broken)
    assert next(found)["tags"]
    with pytest.raises(UserError, match="2 fields"):
        next(found)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.conllu", "1\tI\t_\tPRON\n", "x.conllu:1: 4 fields; a line of CoNLL-U has 10"),
        ("x.tsv", "I\tPRON\nsaw\n", "x.tsv:2: 1 fields; a line has a word and its tag with a tab between them"),
        ("x.txt", "I saw a saw\n", "x.txt:1: 1 fields; a line has a word and its tag"),
        ("x.tsv", "I\tA\n\nyou\tA\n", "all words have the tag 'A'; there must be two tags or more"),
    ],
)
def test_bad_sentences_are_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        tt.train("tag", [tmp_path / name], valid=tmp_path / name, out=tmp_path / "run", steps=1, progress=False)
    assert said in str(error.value)


# ------------------------------------------------------------------------------------------------ translate


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Spellings to their letters in reverse order, doubled vowels: needs attention and a memory."""
    folder, rng = tmp_path_factory.mktemp("letters"), random.Random(0)
    for name, n in (("train", 1500), ("dev", 100)):
        words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randint(2, 6))) for _ in range(n)]
        answers = ["".join(c * 2 if c in "ae" else c for c in reversed(w)) for w in words]
        (folder / f"{name}.in").write_text("\n".join(words) + "\n")
        (folder / f"{name}.out").write_text("\n".join(answers) + "\n")
    return folder


@pytest.fixture(scope="module")
def translator(letters):
    return tt.train(
        "translate", [letters / "train.in", letters / "train.out"], valid=[letters / "dev.in", letters / "dev.out"],
        out=letters / "run", steps=500, model={"hidden_size": 48, "embedding_size": 32, "dropout": 0.0, "attention": "additive"},
        training={"batch_size": 32, "learning_rate": 1e-2, "evaluations": 4}, progress=False,
    )  # fmt: skip


def test_a_translator_learns(letters, translator):
    assert translator.config.model.tokens == "characters"
    scores = translator.evaluate([letters / "dev.in", letters / "dev.out"])
    assert scores["exact"] > 0.9
    assert "bleu_signature" in scores
    assert translator.config.valid == [str(letters / "dev.in"), str(letters / "dev.out")]


def test_a_translator_says_how_far_its_evaluation_has_come(letters, translator, tmp_path):
    shares = []
    for side in ("in", "out"):
        lines = (letters / f"train.{side}").read_text().splitlines()[:640]
        (tmp_path / f"some.{side}").write_text("\n".join(lines) + "\n")
    translator.evaluate([tmp_path / "some.in", tmp_path / "some.out"], shares.append)
    assert sum(shares) == pytest.approx(1)
    assert max(shares) <= 0.1 and shares.count(max(shares)) == 10, "each tenth of the lines"


def test_searches_agree_where_the_network_is_sure(letters, translator):
    lines = (letters / "dev.in").read_text().split()[:20]
    beam = list(translator.predict(lines))
    greedy = list(translator.predict(lines, beam=1))
    cold = list(translator.predict(lines, temperature=0.0))
    assert [v["translation"] for v in greedy] == [v["translation"] for v in cold]
    assert sum(a["translation"] == b["translation"] for a, b in zip(beam, greedy, strict=True)) >= 18
    alone = list(translator.predict(lines, batch=1))
    assert [v["translation"] for v in alone] == [v["translation"] for v in beam]
    for a, b in zip(alone, beam, strict=True):
        assert a["log_probability"] == pytest.approx(b["log_probability"], abs=1e-4)
    drawn = [v["translation"] for v in translator.predict(lines, temperature=2.0, seed=3)]
    assert drawn == [v["translation"] for v in translator.predict(lines, temperature=2.0, seed=3)]
    assert drawn != [v["translation"] for v in greedy]


def test_attention_looks_where_the_letter_stands(translator):
    (found,) = translator.predict(["bcdfg"], alignments=True)
    assert found["source"] == list("bcdfg")
    assert found["target"] == [*"gfdcb", "</s>"]
    for row in found["attention"]:
        assert sum(row) == pytest.approx(1, abs=1e-5)
    assert len(found["attention"]) == 6


def test_nothing_unknown_and_very_long_lines_cope(translator):
    with pytest.warns(UserWarning, match="a line is not read past token 1,000: 'abab"):
        found = list(translator.predict(["", "xyz", "ab" * 750, "abc"], beam=2))
    assert [v["line"][:3] for v in found] == ["", "xyz", "aba", "abc"]
    assert found[0]["translation"] == ""
    assert found[3]["translation"] == "cbaa"


@pytest.mark.parametrize(
    "options", [{"input_feeding": True}, {"cell": "gru", "layers": 2, "tied": False}, {"joint": True}]
)
def test_options_of_a_translator_train(letters, options, tmp_path):
    model = tt.train(
        "translate", [letters / "train.in", letters / "train.out"], out=tmp_path / "run", steps=3,
        model={"hidden_size": 8, "embedding_size": 8, **options}, training={"batch_size": 8}, progress=False,
    )  # fmt: skip
    assert len(list(model.predict(["abc", "b"], beam=3))) == 2
    if options.get("joint"):
        assert model.network.encoder.embedding is model.network.embedding


def test_pairs(tmp_path):
    (tmp_path / "a").write_text("one\ntwo\n\nfour\n")
    (tmp_path / "b").write_text("1\n2\n3\n4\n")
    (tmp_path / "c").write_text("1\n2\n3\n")
    (tmp_path / "t.tsv").write_text("one\t1\n\ntwo\t2\n")
    with pytest.warns(UserWarning, match="1 pairs with an empty side are left out"):
        assert pairs_in([tmp_path / "a", tmp_path / "b"]) == [("one", "1"), ("two", "2"), ("four", "4")]
    assert pairs_in([tmp_path / "t.tsv"]) == [("one", "1"), ("two", "2")]
    with pytest.raises(UserError, match=r"a has 4 lines and .*c 3; .*a:4 has nothing beside it"):
        pairs_in([tmp_path / "a", tmp_path / "c"])
    (tmp_path / "bad.tsv").write_text("one\t1\ntwo\n")
    with pytest.raises(UserError, match=r"bad.tsv:2: 1 fields"):
        pairs_in([tmp_path / "bad.tsv"])
    with pytest.raises(UserError, match="3 files"):
        pairs_in([tmp_path / "a"] * 3)


# ------------------------------------------------------------------------------------------------ the command line


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_verbs_take_every_task(capsys, reviews, classifier, letters, translator, tmp_path):
    (tmp_path / "lines").write_text("the film was not fine\n")
    code, out, _ = run(capsys, "predict", reviews / "run", tmp_path / "lines")
    assert code == 0
    assert out.startswith("negative\t")
    code, out, _ = run(capsys, "evaluate", reviews / "run", reviews / "dev.csv", "--json")
    assert json.loads(out)["task"] == "classify"
    code, out, _ = run(capsys, "info", letters / "run", "--json")
    assert json.loads(out)["task"] == "translate"
    code, out, _ = run(capsys, "evaluate", letters / "run", letters / "dev.in", letters / "dev.out", "--json")
    assert json.loads(out)["exact"] > 0.9
    (tmp_path / "words").write_text("abc\n")
    code, out, _ = run(
        capsys, "predict", letters / "run", tmp_path / "words", "--beam", "2", "--alignments", tmp_path / "a.json"
    )
    assert out == "cbaa\n"
    assert json.loads((tmp_path / "a.json").read_text())[0]["source"] == ["a", "b", "c"]
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    code, _, err = run(capsys, "predict", letters / "run", tmp_path / "words", "--alignments", tmp_path / "a.json")
    assert code == 2
    assert "is there already" in err


@pytest.mark.parametrize("verb", [("predict", "--beam", "3"), ("generate",)])
def test_a_verb_of_another_task_is_refused(capsys, reviews, classifier, verb, tmp_path):
    (tmp_path / "lines").write_text("x\n")
    arguments = [verb[0], reviews / "run", *([tmp_path / "lines"] if verb[0] == "predict" else []), *verb[1:]]
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert "'classify'" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("task", ["classify", "tag", "translate"])
def test_options_a_task_does_not_have_are_refused(capsys, task, tmp_path):
    code, _, err = run(capsys, "train", task, "x", "--out", tmp_path / "r", "--training.chunk", "5")
    assert code == 2
    assert "training.chunk" in err
    code, _, err = run(capsys, "train", task, "x", "--out", tmp_path / "r", "--model.cell", "lstn")
    assert code == 2
    assert "lstm" in err
    code, _, err = run(capsys, "train", task, tmp_path / "missing", "--out", tmp_path / "r")
    assert code == 2
    assert "missing: cannot read it" in err


def test_compare_sets_runs_side_by_side(capsys, reviews, classifier, letters, translator, saws, tmp_path_factory):
    code, out, _ = run(
        capsys, "compare", reviews / "run", reviews / "run", reviews / "dev.csv", "--no-memory", "--json"
    )
    assert code == 0
    first, second = json.loads(out)
    assert first["accuracy"] == second["accuracy"] == classifier.evaluate([reviews / "dev.csv"])["accuracy"]
    assert first["parameters"] == sum(p.numel() for p in classifier.network.parameters())
    code, out, _ = run(capsys, "compare", letters / "run", letters / "dev.in", letters / "dev.out")
    assert "mb_at_1000" in out
    columns = tmp_path_factory.mktemp("columns")
    for column in ("upos", "xpos"):
        tt.train("tag", [saws], valid=saws, out=columns / column, steps=1, data={"column": column}, progress=False)
    for arguments, said in (
        ((columns / "upos", columns / "xpos", saws), "gives tags of the column upos and"),
        ((reviews / "run", letters / "run", reviews / "dev.csv"), "compare runs of one task"),
        ((reviews / "run",), "compare takes run folders, then the data"),
        ((reviews / "run", reviews / "nothing"), "no such run folder, nor a file"),
    ):
        code, _, err = run(capsys, "compare", *arguments)
        assert code == 2
        assert said in err


@pytest.mark.parametrize("task", ["classify", "tag", "translate", "text"])
def test_a_transformer_learns_the_same_tasks(task, reviews, saws, letters, tmp_path):
    files = {
        "classify": [reviews / "train.csv"],
        "tag": [saws],
        "translate": [letters / "train.in", letters / "train.out"],
        "text": [letters / "train.out"],
    }[task]
    model = {"kind": "transformer", "hidden_size": 16, "embedding_size": 16, "dropout": 0.0}
    made = tt.train(
        task, files, out=tmp_path / "run", steps=60, model=model, progress=False,
        training={"batch_size": 16, "learning_rate": 5e-3, "evaluations": 3},
    )  # fmt: skip
    losses = [line["loss"] for line in made.run.read_metrics() if "loss" in line]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    again = tt.load(tmp_path / "run")
    assert [made.written(v) for v in made.predict(["abc dog"])] == [
        again.written(v) for v in again.predict(["abc dog"])
    ]


def test_options_without_an_effect_are_refused(capsys, reviews, letters, tmp_path):
    for arguments, said in (
        (["classify", reviews / "train.csv", "--model.tokens", "characters", "--data.lower"], "data.lower"),
        (["translate", letters / "train.in", letters / "train.out", "--model.kind", "transformer", "--model.input-feeding"],
         "model.input_feeding"),
        (["translate", letters / "train.in", letters / "train.out", "--model.kind", "transformer", "--model.attention", "additive"],
         "model.attention"),
    ):  # fmt: skip
        code, _, err = run(capsys, "train", *arguments, "--out", tmp_path / "x", "--steps", "1")
        assert code == 2
        assert said in err


def test_a_table_is_read_by_its_column(capsys, reviews, classifier, tmp_path, monkeypatch):
    rows = [("the film was not fine", "negative"), ('a fine film,\n"truly"', "positive")]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "Satz", "Urteil"), *((i, *row) for i, row in enumerate(rows))])
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text, _ in rows))
    (tmp_path / "t.txt").write_text("".join(" ".join(text.split()) + "\n" for text, _ in rows))
    code, plain, _ = run(capsys, "predict", reviews / "run", tmp_path / "t.txt")
    assert (code, len(plain.splitlines())) == (0, 2)
    plain = plain.replace("film, ", r"film,\n")  # a line's end within a field
    assert run(capsys, "predict", reviews / "run", tmp_path / "t.jsonl") == (0, plain, "")
    assert run(capsys, "predict", reviews / "run", tmp_path / "t.csv", "--text-column", "Satz") == (0, plain, "")
    code, out, err = run(capsys, "predict", reviews / "run", tmp_path / "t.csv")
    assert (code, out) == (2, "")
    assert "t.csv:1: no column for the text; there are id, Satz, Urteil: name one by --text-column" in err
    (tmp_path / "t.dat").write_text((tmp_path / "t.csv").read_text())
    assert run(capsys, "predict", reviews / "run", tmp_path / "t.dat", "--text-column", "Satz") == (0, plain, "")
    source = io.TextIOWrapper(io.BytesIO((tmp_path / "t.csv").read_bytes()))
    monkeypatch.setattr(sys, "stdin", source)
    assert run(capsys, "predict", reviews / "run", "-", "--text-column", "Satz") == (0, plain, "")
    (tmp_path / "T.JSONL").write_text((tmp_path / "t.jsonl").read_text() + '{"text": null, "n": 1}\n')
    code, out, _ = run(capsys, "predict", reviews / "run", tmp_path / "T.JSONL")
    assert (code, out.startswith(plain), out.count("\n")) == (0, True, 3)
    for what in ("text", "label"):
        code, _, err = run(capsys, "evaluate", reviews / "run", tmp_path, f"--{what}-column", "Satz")
        assert code == 2
        assert f"--{what}-column: {tmp_path} is a folder and has no columns" in err
    columns = ("--text-column", "Satz", "--label-column", "Urteil")
    code, out, _ = run(capsys, "evaluate", reviews / "run", tmp_path / "t.csv", *columns, "--json")
    assert code == 0
    found = [line.split("\t")[0] for line in plain.splitlines()]
    assert json.loads(out)["accuracy"] == sum(f == y for f, (_, y) in zip(found, rows, strict=True)) / 2
    once = json.loads(out)["accuracy"]
    code, out, _ = run(capsys, "compare", reviews / "run", tmp_path / "t.csv", *columns, "--no-memory", "--json")
    assert (code, json.loads(out)[0]["accuracy"]) == (0, once)
    code, _, err = run(capsys, "evaluate", reviews / "run", tmp_path / "t.csv", "--text-column", "Satz")
    assert code == 2
    assert "no column for the label" in err
    assert "by --label-column" in err


def test_columns_of_training_are_looked_for_first(reviews, classifier, tmp_path):
    model = ClassifyModel(
        classifier.task,
        classifier.run,
        classifier.config.model_copy(update={"data": ClassifyData(text_column="b", label_column="c")}),
        classifier.network,
        classifier.reading,
        classifier.labels,
    )
    (tmp_path / "a.csv").write_text("text,b,c,label\nnonsense,the film,positive,negative\n")
    assert [found["line"] for found in model.predict(tmp_path / "a.csv")] == ["the film"]
    assert model.evaluate([tmp_path / "a.csv"])["labels"]["positive"]["examples"] == 1
    (tmp_path / "b.csv").write_text("text,label\nthe film,negative\n")  # they have others here: those are found by name
    assert [found["line"] for found in model.predict(tmp_path / "b.csv")] == ["the film"]
    assert model.evaluate([tmp_path / "b.csv"])["labels"]["negative"]["examples"] == 1


def test_columns_are_of_tables_and_folders_have_none(tmp_path):
    for label in ("a", "b"):
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "folder" / label / "1.txt").write_text(f"text of {label}")
    (tmp_path / "t.csv").write_text("Satz,label\n" + "one,a\ntwo,b\n" * 3)
    given = {"out": tmp_path / "run", "steps": 1, "model": SMALL, "data": {"text_column": "Satz"}, "progress": False}
    with pytest.raises(UserError, match=r"--data.text-column: .*folder is a folder and has no columns"):
        tt.train("classify", [tmp_path / "folder"], **given)
    model = tt.train("classify", [tmp_path / "t.csv"], valid=tmp_path / "folder", **given)
    assert model.evaluate([tmp_path / "folder"])["examples"] == 2


def test_columns_are_those_of_classify(capsys, letters, translator):
    pairs = (letters / "dev.in", letters / "dev.out")
    for arguments in (("evaluate", letters / "run", *pairs), ("predict", letters / "run", pairs[0])):
        code, _, err = run(capsys, *arguments, "--text-column", "x")
        assert code == 2
        assert "--text-column: a model of the task 'translate' has no such option" in err


def test_sides_cut_differently_are_told(capsys, tmp_path):
    signs = {"a": "AH", "b": "B IY", "c": "S IY"}
    words = [x + y + z for x in "abc" for y in "abc" for z in "abc"]
    (tmp_path / "w.tsv").write_text("".join(f"{w}\t{' '.join(signs[c] for c in w)}\n" for w in words))
    tt.train("translate", [tmp_path / "w.tsv"], out=tmp_path / "run", steps=1, progress=False)
    code, out, _ = run(capsys, "info", tmp_path / "run", "--json")
    assert code == 0
    cut = json.loads(out)["cut"]
    assert cut["source"].endswith(" characters")
    assert cut["target"].endswith(" words")


def test_two_valid_files_on_the_command_line(capsys, letters, tmp_path):
    code, out, _ = run(
        capsys, "train", "translate", letters / "train.in", letters / "train.out", "--valid", letters / "dev.in",
        letters / "dev.out", "--print-config",
    )  # fmt: skip
    assert code == 0
    assert f"valid:\n- {letters / 'dev.in'}\n- {letters / 'dev.out'}" in out
    assert Path(letters / "dev.in").exists()


def test_predict_draws_where_it_is_asked_to(capsys, letters, translator):
    run, lines = str(translator.run.folder), str(letters / "dev.in")

    def said(*options):
        assert main(["predict", run, lines, *options]) == 0
        return capsys.readouterr().out

    greedy = said("--beam", "1")
    assert said("--temperature", "0") == greedy
    assert said("--temperature", "2", "--seed", "3") == said("--temperature", "2", "--seed", "3") != greedy
    for options, message in (
        (["--temperature", "1", "--beam", "2"], "give one"),
        (["--seed", "1"], "give temperature too"),
        (["--temperature", "-1"], "--temperature: got -1.0; input should be greater than or equal to 0"),
    ):
        assert main(["predict", run, lines, *options]) == 2
        assert message in capsys.readouterr().err


# -- what a second reader found


def process(*arguments):
    """The command in a process of its own, with pipes."""
    command = [sys.executable, "-m", "throughtime", *map(str, arguments)]
    return processes.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_line_is_answered_before_the_next_is_written(letters, translator):
    with process("predict", letters / "run") as running:
        waiting = threading.Timer(60, running.kill)  # where no answer comes, none is waited for
        waiting.start()
        for word, answer in (("abc", "cbaa"), ("dcb", "bcd")):
            running.stdin.write(f"{word}\n".encode())
            running.stdin.flush()
            assert running.stdout.readline().decode().strip() == answer
        running.stdin.write(b"fgh\n\xff\n")  # what comes before a line that cannot be read is answered
        running.stdin.close()
        assert running.stdout.read().decode() == "hgf\n"
        assert b"<stdin>:4: byte 12 (0xff) is not UTF-8; " in running.stderr.read()
        waiting.cancel()
    assert running.returncode == 2


def test_a_sentence_is_answered_while_the_next_is_being_written(saws):
    tagger(saws, "piped")
    with process("predict", saws.parent / "piped") as running:
        waiting = threading.Timer(60, running.kill)
        waiting.start()
        first, second = (conllu([sentence]) for sentence in SAWS[:2])
        running.stdin.write(f"{first}\n# text".encode())
        running.stdin.write(b" = of the next\n")
        running.stdin.flush()
        answer = [running.stdout.readline().decode() for _ in first.splitlines()]
        assert [line.split("\t")[:2] for line in answer] == [line.split("\t")[:2] for line in first.splitlines(True)]
        running.stdin.write(second.encode())
        running.stdin.close()
        rest = running.stdout.read().decode().strip().splitlines()
        assert len(rest) == len(second.splitlines()) + 1  # and the line that came first
        waiting.cancel()
    assert running.returncode == 0


def test_lines_in_groups():
    class Slow:
        """Three lines at once, then one by one."""

        def __init__(self):
            self.given = 0

        def __iter__(self):
            return self

        def __next__(self):
            if self.given == 5:
                raise StopIteration
            self.given += 1
            return f"{self.given}\r\n"

        def ready(self):
            return self.given < 3

    def groups(size):
        slow = Slow()
        return [[line.strip() for line in group] for group in taken(slow, size, slow.ready)]

    assert groups(64) == [["1", "2", "3"], ["4"], ["5"]]
    assert groups(2) == [["1", "2"], ["3"], ["4"], ["5"]]
    assert list(taken(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(taken([], 2)) == []


def test_white_space_is_translated_as_nothing(translator):
    assert [v["translation"] for v in translator.predict(["   ", "", " abc "])] == ["", "", "cbaa"]


def test_sampling_writes_nothing_unknown(tmp_path):
    """Half of what is learned from is unknown, and would be drawn."""
    (tmp_path / "a").write_text("".join(f"one two w{i}\n" for i in range(200)))
    (tmp_path / "b").write_text("".join(f"un deux v{i}\n" for i in range(200)))
    sizes = {"hidden_size": 16, "embedding_size": 16, "tokens": "words", "vocabulary": 4, "dropout": 0.0}
    model = tt.train(
        "translate", [tmp_path / "a", tmp_path / "b"], out=tmp_path / "r", steps=60, model=sizes,
        training={"learning_rate": 1e-2}, progress=False,
    )  # fmt: skip
    assert sum(0 in model.target.encode(line) for line in ("un deux v1",)) == 1
    drawn = [v["translation"] for v in model.predict(["one two w3"] * 50, temperature=1.0, seed=0)]
    assert any(drawn) and not any("<unk>" in line for line in drawn)
    (found,) = model.predict(["one two w3"], alignments=True)
    assert found["source"] == ["one", "two", "w3"], "an unknown word is shown as it is written"


def test_alignments_go_where_they_can(capsys, letters, translator, tmp_path):
    (tmp_path / "in").write_text("abc\n" + "abcd" * 40 + "\n")
    for path, words in (
        (tmp_path / "a.png", "is where the picture goes"),
        (tmp_path / "no" / "a.json", "there is no folder"),
    ):
        code, out, err = run(capsys, "predict", letters / "run", tmp_path / "in", "--alignments", path)
        assert (code, out) == (2, "") and words in err
    code, _, err = run(capsys, "predict", letters / "run", tmp_path / "in", "--alignments", tmp_path / "a.json")
    assert code == 0 and "no picture of 1 lines of over 100 tokens" in err
    assert len(json.loads((tmp_path / "a.json").read_text())) == 2 and (tmp_path / "a.png").exists()


def test_running_text_is_cut_alike_on_both_sides():
    long, short = ("many words of running text " * 20,) * 400, ("fewer words here " * 28,) * 400
    assert sum(map(len, long)) > 200_000 > sum(map(len, short)) > 190_000
    varied = [tuple(f"{line} {i}" for i, line in enumerate(side)) for side in (long, short)]
    assert _kinds(varied) == ["bpe", "bpe"]
    assert _kinds([varied[1], varied[1]]) == ["characters", "characters"]
    assert _kinds([("word",) * 400, varied[0]]) == ["characters", "bpe"]


@pytest.mark.parametrize("seed", range(6))
def test_what_has_one_example_is_learned_from(seed):
    labels = ["a"] * 8 + ["b"] * 2 + ["alone"]
    train, held = hold_out(labels, 0.5, seed, Path("f"), lambda row: [row])
    assert sorted(train + held) == sorted(labels)
    assert set(train) == {"a", "b", "alone"} and held
    with pytest.raises(UserError, match="f: no label has two examples"):
        hold_out(["a", "b"], 0.5, seed, Path("f"), lambda row: [row])


def test_uneven_labels_are_said_and_chosen_for(tmp_path):
    rows = ["text,label\n", *(f"word {i},often\n" for i in range(60)), *(f"word {i},seldom\n" for i in range(10))]
    (tmp_path / "d.csv").write_text("".join(rows))
    for balance, words in (
        (0.5, "rare ones count more .* by macro F1"),
        (0.0, "each example counts the same .* by accuracy"),
    ):
        with pytest.warns(UserWarning, match=f"the labels are uneven .'often' .*, 'seldom' .*: {words}"):
            model = tt.train(
                "classify", [tmp_path / "d.csv"], out=tmp_path / f"r{balance}", steps=2, model=SMALL,
                data={"balance": balance}, progress=False,
            )  # fmt: skip
        scores = model.run.read_json("summary.json")["scores"]
        assert scores["macro_f1"] < scores["accuracy"] - 0.1
        best = scores["macro_f1" if balance else "accuracy"]
        assert "loss" not in scores and best == max(scores["macro_f1" if balance else "accuracy"], 0)


def test_long_texts_are_cut_and_said(classifier):
    with pytest.warns(UserWarning, match=r"1 texts of over 2,000 words: their beginning and end are read"):
        next(classifier.predict(["the film was fine " * 700]))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label,text\nx,y,z\n", "a.csv:1: two columns are called 'text'"),
        ("a.csv", "text,label\nx,y,z\n", "a.csv:2: 3 fields, the first line has 2; put a field with a comma"),
        ("a.tsv", "text\tlabel\nx\ty\tz\n", "each tab ends a field"),
        ("a.jsonl", '{"text":"x","label":["y","z"]}\n', "a.jsonl:1: 'label' holds a list; it takes one text or number"),
        ("a.jsonl", '{"text":"x \\ud800 y","label":"z"}\n', "a.jsonl:1: 'text' holds half of a character"),
    ],
)
def test_labelled_texts_that_cannot_be_read(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=re.escape(words)):
        labelled_in([tmp_path / name])


def test_one_column_is_not_both(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nx,y\n")
    with pytest.raises(UserError, match="'label' is both the text and the label"):
        labelled_in([tmp_path / "a.csv"], Columns(text="label"))
    (tmp_path / "b.csv").write_text("Klasse,text\nx,y\n")
    with pytest.raises(UserError, match="there are Klasse, text: name one by --label-column"):
        labelled_in([tmp_path / "b.csv"], Columns(option="--"))


def test_a_field_may_be_a_whole_book(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n" + "word " * 40_000 + ",y\n")
    (row,) = labelled_in([tmp_path / "a.csv"])
    assert len(row.text) == 200_000


def test_a_carriage_return_in_a_line_ends_none(tmp_path):
    (tmp_path / "a").write_bytes(b"one\rmore\r\ntwo\n")
    (tmp_path / "b").write_bytes(b"eins\nzwei\n")
    assert [source.split() for source, _ in pairs_in([tmp_path / "a", tmp_path / "b"])] == [["one", "more"], ["two"]]
    (tmp_path / "c").write_bytes(b"one\rtwo\r")
    assert len(pairs_in([tmp_path / "c", tmp_path / "b"])) == 2


def test_plain_lines_and_conllu_are_told_apart(capsys, saws, tmp_path):
    tagger(saws, "told")
    folder = saws.parent / "told"

    def said(name, content):
        (tmp_path / name).write_text(content)
        code, out, err = run(capsys, "predict", folder, tmp_path / name)
        return (code, [line.split("\t")[1] for line in out.splitlines() if line[:1].isdigit()], err)

    word = "{}\t{}" + "\t_" * 8 + "\n"
    assert said("a.txt", "#saw a\nI saw\n")[1] == ["#", "saw", "a", "I", "saw"]
    assert said("b.txt", "#saw a\n")[1] == ["#", "saw", "a"]
    assert said("c.txt", "\n# sent_id = 1\n" + word.format(1, "I"))[1] == ["I"]
    assert said("d.conllu", "# x\n1\tI\t_\t_\n")[::2] == (
        2, f"throughtime: {tmp_path / 'd.conllu'}:2: 4 fields; a line of CoNLL-U has 10, with tabs between them\n",
    )  # fmt: skip
    assert said("e.txt", "\n\n" + word.format(1, "I") + "2\tsaw\t_\t_\n")[2].startswith(
        f"throughtime: {tmp_path / 'e.txt'}:4: "
    )


def test_no_score_of_words_there_are_not(saws):
    model = tagger(saws, "all-known")
    scores = model.evaluate([saws])
    assert scores["unknown_words"] == 0 and "unknown_accuracy" not in scores and scores["known_accuracy"] == 1


def test_a_new_run_leaves_nothing_of_another_task(reviews, saws, tmp_path):
    tt.train("classify", [reviews / "dev.csv"], out=tmp_path / "r", steps=1, model=SMALL, progress=False)
    assert (tmp_path / "r" / "labels.json").exists()
    tt.train("tag", [saws], out=tmp_path / "r", steps=1, model=TAGGER, overwrite=True, progress=False)
    assert not (tmp_path / "r" / "labels.json").exists()


@pytest.mark.parametrize("content", ["{}", "[]", '{"labels": ["a", "b"]}'])
def test_damaged_labels_are_said(capsys, reviews, tmp_path, content):
    tt.train("classify", [reviews / "dev.csv"], out=tmp_path / "r", steps=1, model=SMALL, progress=False)
    (tmp_path / "r" / "labels.json").write_text(content)
    code, _, err = run(capsys, "evaluate", tmp_path / "r", reviews / "dev.csv")
    assert code == 2 and "labels.json: the run is damaged" in err


def test_standard_input_is_read_once(capsys, letters, translator):
    code, _, err = run(capsys, "evaluate", letters / "run", "-", "-")
    assert code == 2 and "<stdin> stands there twice" in err
