"""What is cut, left out or bounded is said; what is scored is scored whole, and alike wherever it is scored."""

import csv
import json
import math
import random
import warnings

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import main
from throughtime.inspect.report import look_into
from throughtime.tasks import pairs
from throughtime.tasks.edits import edits
from throughtime.tasks.metrics import bleu_and_chrf, line_scores
from throughtime.tasks.pairs import END, Limit, Pair, coded, longest_learned, read_tokens
from throughtime.tasks.tokens import learn

pytestmark = pytest.mark.usefixtures("_one_thread")

NAMES = {"a": "alfa", "b": "bravo", "c": "charlie", "d": "delta"}
SMALL = {"hidden_size": 8, "embedding_size": 8, "dropout": 0.0}


def spelled(word):
    return "-".join(NAMES[c] for c in word)


def tsv(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def speller(tmp_path_factory):
    """Letters to the words that spell them: a target is many times as long as its source."""
    folder, rng = tmp_path_factory.mktemp("spelling"), random.Random(0)
    words = ["".join(rng.choice("abcd") for _ in range(rng.randint(1, 4))) for _ in range(440)]
    rows = [(word, spelled(word)) for word in words]
    return tt.train(
        "translate", [tsv(folder / "train.tsv", rows[40:])], valid=tsv(folder / "dev.tsv", rows[:40]), out=folder / "run",
        steps=400, model={"hidden_size": 64, "embedding_size": 32, "dropout": 0.0},
        # of one precision: what so small a network has learned by then differs from machine to machine else
        training={"batch_size": 16, "learning_rate": 1e-2, "evaluations": 2, "precision": "float32"}, progress=False,
    )  # fmt: skip


def trained_on(folder, rows, steps=2, **options):
    options = {"model": SMALL, "training": {"batch_size": 4}, **options}
    return tt.train(
        "translate", [tsv(folder / "pairs.tsv", rows)], out=folder / "run", steps=steps, progress=False, **options
    )


# ------------------------------------------------------------------------------------------------ lengths


def test_a_long_spelling_is_written_whole(speller, recwarn):
    (found,) = speller.predict(["cccc"])
    assert found["translation"] == "charlie-charlie-charlie-charlie"
    assert found["complete"] is True
    assert speller.limit.of(4) > 31 > Limit().of(4)  # of lengths that training did not see it was cut
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]


def test_a_limit_has_room_for_all_that_training_saw():
    rng = np.random.default_rng(0)
    source = rng.integers(1, 60, 1000)
    target = (source * rng.uniform(0.5, 7, 1000)).astype(int) + rng.integers(0, 30, 1000)
    limit = Limit.fitted(source, target)
    assert all(limit.of(s) >= t + 20 - 1 for s, t in zip(source.tolist(), target.tolist(), strict=True))
    assert 5 < limit.ratio < 20
    assert Limit.fitted(np.array([10, 20]), np.array([9, 20])) == Limit()  # as generous as it was
    assert Limit.read(list(limit)) == limit and Limit.read(None) == Limit()
    for wrong in ([1], "ab", [-1, 2.0], [20, math.nan], [20, 1e9], 7):
        with pytest.raises((TypeError, ValueError)):
            Limit.read(wrong)


def test_what_reaches_its_limit_is_said(speller, tmp_path, monkeypatch):
    model = speller
    monkeypatch.setattr(model, "limit", Limit())  # as of an older version's run
    with pytest.warns(
        UserWarning, match="a line is translated up to the limit of its length, and not to an end: 'cccc'"
    ):
        (found,) = model.predict(["cccc"])
    assert len(found["translation"]) <= 28 and found["complete"] is False
    with pytest.warns(UserWarning, match="2 lines are translated up to the limit"):
        assert sum(not v["complete"] for v in model.predict(["cccc", "a", "cccc"], temperature=0.0)) == 2
    with pytest.warns(UserWarning, match="1 of 2 translations are scored as far as they go"):
        scores = model.evaluate([tsv(tmp_path / "some.tsv", [("cccc", spelled("cccc")), ("a", "alfa")])])
    assert scores["incomplete"] == 1 and scores["exact"] == 0.5


def test_pairs_as_numbers_end_where_they_end():
    tokens = learn("characters", lambda: iter(["abc"]), 10)
    source, target, cut = coded(
        [Pair(a, b, "") for a, b in (("a", "abc"), ("abca", "ab"), ("b", "cccc"))], (tokens, tokens), 3
    )
    a, b, c = (tokens.index[x] for x in "abc")
    assert [source[i].tolist() for i in range(3)] == [[a], [a, b, c], [b]]
    assert [target[i].tolist() for i in range(3)] == [[a, b, c, END], [a, b, END], [c, c, c]]  # the last is cut: no end
    assert cut == 2


@pytest.mark.parametrize("kind", ["characters", "words", "bpe"])
def test_the_beginning_of_a_very_long_text_is_that_of_the_whole(kind):
    rng = random.Random(1)
    text = " ".join("".join(rng.choice("abcdef") for _ in range(rng.randint(1, 9))) for _ in range(3000))
    tokens = learn(kind, lambda: iter([text[:5000]]), 60, spaced=True if kind == "words" else None)
    for longest in (1, 7, 50, 5000, len(text)):
        ids, whole = read_tokens(tokens, text, longest)
        assert ids.tolist() == tokens.encode(text)[:longest].tolist()
        assert whole == (len(tokens.encode(text)) <= longest)
    assert read_tokens(tokens, "ab" * 5000, 3)[0].tolist() == tokens.encode("ab" * 5000)[:3].tolist()  # without a space


def test_what_is_learned_from_fits_the_memory():
    assert longest_learned(64, 100, 1) == 1000
    assert longest_learned(64, 8000, 1) == 262
    assert longest_learned(64, 30_000, 1) == 250
    assert longest_learned(16, 100, 64) == 256


@pytest.mark.filterwarnings("always")
def test_what_training_cuts_and_leaves_out_is_counted_and_said(tmp_path, capsys):
    rows = [(w, w * 4) for w in ("ab", "ba", "aab", "bba", "abab", "baba", "aabb")] * 3
    folder, args = tmp_path / "run", ["--steps", "2", "--model.hidden-size", "8", "--model.embedding-size", "8"]
    file, dev = tsv(tmp_path / "pairs.tsv", [*rows, ("a", ""), ("b", "")]), tsv(tmp_path / "dev.tsv", rows[:7])
    assert (
        main(
            ["train", "translate", str(file), "--valid", str(dev), "--out", str(folder), "--data.longest", "10", *args]
        )
        == 0
    )
    said = capsys.readouterr().err
    cut = "15 of 21 pairs have a side of over 10 tokens: their first 10 are learned from, and a target that is cut teaches no end"
    for words in (cut, "2 pairs with an empty side are left out"):
        assert said.count(words) == 1
        assert any(words in note for note in json.loads((folder / "summary.json").read_text())["notes"])
        assert words in (folder / "README.md").read_text()
    # held-out pairs are scored whole: as by hand, all signs and an end each
    model = tt.load(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = model.evaluate([dev])
    assert scores["nats_per_token"] == pytest.approx(nats_by_hand(model, rows[:7]), rel=1e-5)
    assert model.run.scores()["scores"]["nats_per_token"] == pytest.approx(scores["nats_per_token"], rel=1e-6)


def test_a_cut_target_teaches_no_end(tmp_path):
    """Of many lines that are all cut, a network learns to go on, not to stop where they were cut."""
    rows = [("a" * n, "b" * 40) for n in (2, 3, 4, 5)] * 20
    with pytest.warns(UserWarning, match="76 of 76 pairs"):
        model = trained_on(
            tmp_path, rows, 40, data={"longest": 3, "held_out": 0.05},
            training={"batch_size": 16, "learning_rate": 1e-2, "evaluations": 1},
        )  # fmt: skip
    with torch.no_grad():
        log_p, _, _ = model.network.decode(
            *model.network.encode(torch.full((3, 1), model.source.index["a"]), torch.tensor([3])),
            torch.tensor([[END], *[[model.target.index["b"]]] * 3]),
        )
    assert float(log_p.softmax(-1)[:, 0, END].max()) < 0.1  # an end after three would be every fourth


def test_more_than_can_be_scored_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SCORED", 12)
    rows = [Pair("ab" * n, "ab" * n, "") for n in (1, 2, 3, 4, 5, 6, 7)]
    tokens = learn("characters", lambda: iter(["ab"]), 10)
    with pytest.warns(UserWarning, match="1 of 7 pairs have a side of over 12 tokens: their first 12 are scored"):
        source, target = pairs.scored(rows, (tokens, tokens))
    assert source.lengths.max() == 12 and target.lengths.max() == 13  # an end


@pytest.mark.filterwarnings("always")
def test_words_that_are_not_read_whole_are_said(tmp_path, capsys):
    rows = [["the", "D"], ["x" * 41, "N"], ["sees", "V"], []] * 6
    (tmp_path / "train.tsv").write_text("\n".join("\t".join(row) for row in rows) + "\n")
    assert main(["train", "tag", str(tmp_path / "train.tsv"), "--out", str(tmp_path / "run"), "--steps", "2"]) == 0
    words = "of a word of over 40 characters the first 40 are read as characters: " + "x" * 40
    assert capsys.readouterr().err.count(words) == 1
    assert any(words in note for note in json.loads((tmp_path / "run/summary.json").read_text())["notes"])
    (tmp_path / "new.txt").write_text(f"the {'y' * 50} sees\nthe {'z' * 40}\n")
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "new.txt")]) == 0
    assert "the first 40 are read as characters: " + "y" * 40 in capsys.readouterr().err
    with pytest.warns(UserWarning, match="the first 40 are read"):
        tt.load(tmp_path / "run").evaluate([tmp_path / "train.tsv"])


def test_a_vocabulary_that_has_no_room_says_so(tmp_path):
    text = [f"w{i} " * (i + 1) for i in range(9)]
    with pytest.warns(
        UserWarning, match=r"of 9 different words the vocabulary has room for 4; the others, 33.33% of the text"
    ):
        learn("words", lambda: iter(text), 6, spaced=True, asked=False)
    for kind, size in (("words", 100), ("characters", 100), ("bpe", 100), ("bytes", 6)):
        learn(kind, lambda: iter(text), size, asked=False)  # all have room
    with pytest.warns(UserWarning, match="different characters the vocabulary has room for 3"):
        learn("characters", lambda: iter(text), 5, asked=False)
    with pytest.warns(UserWarning, match="different characters the vocabulary has room for"):
        learn("bpe", lambda: iter(text), 10, asked=False)


def test_inputs_that_are_not_looked_into_are_said(speller):
    with pytest.warns(UserWarning, match="there are more inputs than 2: the first 2 are looked into"):
        assert look_into(speller, iter(["ab", "ba", "cc"]), most=2)["averaged_over"] == 2
    assert look_into(speller, iter(["ab", "ba"]), most=2)["averaged_over"] == 2


# ------------------------------------------------------------------------------------------------ scores


def slow_edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, before = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def test_edits_against_the_textbook():
    rng = random.Random(0)
    for _ in range(300):
        a, b = ("".join(rng.choice("abc") for _ in range(rng.randint(0, 9))) for _ in range(2))
        assert edits(a, b) == slow_edits(a, b)
    assert edits("kitten", "sitting") == 3
    assert edits(["the", "cat", "sat"], ["a", "cat", "sat", "down"]) == 2


def test_bleu_is_undefined_where_no_line_has_four_words():
    words = ["a b c", "d-e"]  # 13a leaves the hyphen between letters where it is
    scores = line_scores(words, words, "characters")
    assert list(scores)[:2] == ["exact", "character_error_rate"]
    assert scores["exact"] == 1 and scores["character_error_rate"] == 0
    assert scores["bleu"] is None and scores["bleu_signature"] == "undefined: no line has 4 words"
    assert scores["chrf"] == pytest.approx(100)
    scores = line_scores(["a b c d", "x"], ["a b c, d", "y"], "words")
    assert next(iter(scores)) == "bleu" and isinstance(scores["bleu"], float)
    assert scores["word_error_rate"] == pytest.approx(2 / 5)
    from sacrebleu import corpus_bleu

    found, truth = ["the cat sat on a mat", "yes"], ["the cat sat on the mat", "no"]
    assert bleu_and_chrf(found, truth)["bleu"] == pytest.approx(corpus_bleu(found, [truth]).score)
    assert bleu_and_chrf(["no", "no"], truth)["bleu"] == 0  # it should have had words, and has none


def test_an_undefined_score_is_said_everywhere(speller, capsys, tmp_path):
    dev = speller.config.valid[0] if isinstance(speller.config.valid, list) else speller.config.valid
    assert main(["evaluate", str(speller.run.folder), dev]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:4]] == ["exact", "character_error_rate"]
    assert any(line.split() == ["bleu", "undefined"] for line in lines)
    assert any("undefined: no line has 4 words" in line for line in lines)
    assert main(["evaluate", str(speller.run.folder), dev, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bleu"] is None
    assert "| bleu | undefined |" in (speller.run.folder / "README.md").read_text()
    assert main(["compare", str(speller.run.folder), str(dev), "--no-memory"]) == 0
    assert "undefined" in capsys.readouterr().out


def nats_by_hand(model, rows):
    """-log p a token, an end each, of every pair by itself, sign by sign."""
    total = count = 0.0
    with torch.no_grad():
        for source, target in rows:
            ids = torch.tensor([model.source.index.get(c, 0) for c in source]).unsqueeze(1)
            goal = [*(model.target.index.get(c, 0) for c in target), END]
            step, state = model.network.stepping(ids, torch.tensor([len(source)]))
            token = torch.tensor([END])
            for k in goal:
                log_p, state = step(token, state)
                total, count, token = total - float(log_p[0, k]), count + 1, torch.tensor([k])
    return total / count


def best_of_metrics(run):
    """What was written while it was trained, of the weights that were kept."""
    (line,) = [v for v in run.read_metrics() if "valid" in v and v["step"] == run.scores()["best_step"]]
    return line["valid"]


def alike(model, scores, names, approximate=()):
    """Training's last scores, and those on the way, are evaluate's."""
    summary, on_the_way = model.run.scores()["scores"], best_of_metrics(model.run)
    for name in names:
        assert summary[name] == pytest.approx(scores[name], rel=1e-6, abs=1e-9), name
        if name in on_the_way:
            assert on_the_way[name] == pytest.approx(scores[name], rel=0.02 if name in approximate else 1e-6, abs=1e-9)


def test_scores_of_a_translator_agree(speller):
    dev = speller.config.valid if isinstance(speller.config.valid, str) else speller.config.valid[0]
    with open(dev, encoding="utf-8") as file:
        rows = [tuple(line.rstrip("\n").split("\t")) for line in file]
    scores = speller.evaluate([dev])
    alike(speller, scores, ["nats_per_token", "exact", "character_error_rate", "chrf", "incomplete"])
    found = [v["translation"] for v in speller.predict([source for source, _ in rows])]
    assert scores["exact"] == sum(f == t for f, (_, t) in zip(found, rows, strict=True)) / len(rows)
    wrong = sum(slow_edits(f, t) for f, (_, t) in zip(found, rows, strict=True))
    assert scores["character_error_rate"] == pytest.approx(wrong / sum(len(t) for _, t in rows))
    assert scores["nats_per_token"] == pytest.approx(nats_by_hand(speller, rows), rel=1e-4)


def test_scores_of_a_classifier_agree(tmp_path):
    rng = random.Random(0)
    for name, n in (("train", 120), ("dev", 37)):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            write = csv.writer(file)
            write.writerow(["text", "label"])
            for _ in range(n):
                label = rng.choices(["good", "bad", "odd"], [5, 3, 1])[0]
                write.writerow(
                    [" ".join(rng.choices([label, "film", "plot", "good", "bad", "x"], k=rng.randint(1, 9))), label]
                )
    with warnings.catch_warnings(action="ignore"):
        model = tt.train(
            "classify", [tmp_path / "train.csv"], valid=tmp_path / "dev.csv", out=tmp_path / "run", steps=12, progress=False,
            model={"hidden_size": 8, "embedding_size": 8, "dropout": 0.1}, training={"batch_size": 16, "evaluations": 3},
        )  # fmt: skip
    scores = model.evaluate([tmp_path / "dev.csv"])
    alike(model, scores, ["accuracy", "macro_f1", "calibration_error", "nats_per_text"])
    rows = list(csv.DictReader((tmp_path / "dev.csv").read_text().splitlines()))
    found = list(model.predict([row["text"] for row in rows], batch=1))
    truth, given = [row["label"] for row in rows], [v["label"] for v in found]
    assert scores["accuracy"] == pytest.approx(sum(a == b for a, b in zip(truth, given, strict=True)) / len(rows))
    nats = [-math.log(v["probabilities"][t]) for v, t in zip(found, truth, strict=True)]
    assert scores["nats_per_text"] == pytest.approx(sum(nats) / len(nats), rel=1e-5)
    f1 = []
    for label in sorted({*truth, *given}):
        hits = sum(a == b == label for a, b in zip(truth, given, strict=True))
        f1.append(2 * hits / (truth.count(label) + given.count(label)))
    assert scores["macro_f1"] == pytest.approx(sum(f1) / len(f1))


def test_scores_of_a_tagger_agree(tmp_path):
    rng, tags = random.Random(0), {"the": "D", "a": "D", "cat": "N", "dog": "N", "sees": "V", "old": "A"}
    unseen = {"fox": "N", "new": "A"}
    for name, known in (("train", tags), ("dev", tags | unseen)):
        sentences = [rng.choices(sorted(known), k=rng.randint(1, 8)) for _ in range(40)]
        lines = ["\n".join(f"{w}\t{known[w] if rng.random() < 0.9 else 'V'}" for w in s) + "\n" for s in sentences]
        (tmp_path / f"{name}.tsv").write_text("\n".join(lines))
    model = tt.train(
        "tag", [tmp_path / "train.tsv"], valid=tmp_path / "dev.tsv", out=tmp_path / "run", steps=12, progress=False,
        model={"hidden_size": 8, "embedding_size": 8, "character_size": 4}, training={"batch_size": 16, "evaluations": 3},
    )  # fmt: skip
    scores = model.evaluate([tmp_path / "dev.tsv"])
    alike(model, scores, ["accuracy", "known_accuracy", "unknown_accuracy"])
    right = {True: [], False: []}
    for block in (tmp_path / "dev.tsv").read_text().strip().split("\n\n"):
        words, truth = zip(*(line.split("\t") for line in block.strip().split("\n")), strict=True)
        (found,) = model.predict([" ".join(words)])
        for word, given, true in zip(words, found["tags"], truth, strict=True):
            right[word not in unseen].append(given == true)
    assert scores["accuracy"] == pytest.approx(np.mean(right[True] + right[False]))
    assert scores["known_accuracy"] == pytest.approx(np.mean(right[True]))
    assert scores["unknown_accuracy"] == pytest.approx(np.mean(right[False]))


def test_scores_of_a_language_model_agree(tmp_path):
    rng = random.Random(0)
    for name, n in (("train", 600), ("dev", 150)):
        (tmp_path / name).write_text(" ".join(rng.choice(["abra", "ka", "dabra", "sim"]) for _ in range(n)))
    model = tt.train(
        "text", [tmp_path / "train"], valid=tmp_path / "dev", out=tmp_path / "run", steps=30, progress=False,
        model={"hidden_size": 12, "embedding_size": 8, "tokens": "characters"}, training={"batch_size": 4, "chunk": 20},
    )  # fmt: skip
    scores = model.evaluate([tmp_path / "dev"])
    # on the way it is scored in lanes, each of which begins with a part of the text before it
    alike(model, scores, ["nats_per_token", "nats_per_character", "tokens"], ["nats_per_token", "nats_per_character"])
    text = (tmp_path / "dev").read_text()
    (found,) = model.predict([text])
    assert scores["tokens"] == scores["characters"] == len(text)
    assert scores["nats_per_token"] == pytest.approx(-found["log_probability"] / len(text), rel=1e-5)
