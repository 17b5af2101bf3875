"""Short trainings on public data, with floors that a broken network cannot pass."""

import math
import os
from collections import Counter
from pathlib import Path

import pytest

import throughtime as tt
from throughtime.tasks.batches import Sequences
from throughtime.tasks.sentences import sentences
from throughtime.tasks.source import Source

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data"))


def needs(folder):
    return pytest.mark.skipif(
        not (DATA / folder).exists(), reason=f"no {DATA / folder}; THROUGHTIME_DATA names the data"
    )


pytestmark = pytest.mark.usefixtures("_one_thread")


@needs("classify/sst2")
def test_sentiment(tmp_path):
    folder = DATA / "classify" / "sst2"
    model = tt.train(
        "classify", [folder / "train.csv"], valid=folder / "dev.csv", out=tmp_path / "run", epochs=2,
        model={"counts": False, "dropout": 0.3, "word_dropout": 0.1}, training={"evaluations": 2}, progress=False,
    )  # fmt: skip
    assert model.evaluate([folder / "dev.csv"])["accuracy"] > 0.72  # half of them are positive


@needs("tag/ewt")
@pytest.mark.filterwarnings("ignore:.* of over 40 characters the first 40 are read")
def test_parts_of_speech(tmp_path):
    folder = DATA / "tag" / "ewt"
    blocks = (folder / "train.conllu").read_text(encoding="utf-8").split("\n\n")[:3000]
    (tmp_path / "train.conllu").write_text("\n\n".join(blocks) + "\n\n", encoding="utf-8")
    model = tt.train(
        "tag", [tmp_path / "train.conllu"], valid=folder / "dev.conllu", out=tmp_path / "run", steps=200,
        model={"hidden_size": 64, "character_size": 24, "dropout": 0.2}, progress=False,
        training={"evaluations": 2, "learning_rate": 1e-2, "batch_size": 16},
    )  # fmt: skip
    scores = model.evaluate([folder / "dev.conllu"])
    train, held = ([*sentences(Source.of(p), tagged=True)] for p in (tmp_path / "train.conllu", folder / "dev.conllu"))
    of_word: dict[str, Counter[str]] = {}
    for sentence in train:
        for word, tag in zip(sentence.words, sentence.tags, strict=True):
            of_word.setdefault(word, Counter())[tag] += 1
    usual = sum(
        of_word.get(w, Counter({"NOUN": 1})).most_common(1)[0][0] == t
        for s in held
        for w, t in zip(s.words, s.tags, strict=True)
    ) / sum(len(s.words) for s in held)
    assert scores["accuracy"] > usual + 0.02
    (found,) = model.predict(["I saw a saw"])
    assert found["tags"][1::2] == ["VERB", "NOUN"]


@needs("translate/multi30k")
@pytest.mark.filterwarnings("ignore:.* translations are scored as far as they go")
def test_captions(tmp_path):
    folder = DATA / "translate" / "multi30k"
    for part, count in (("train", 4000), ("valid", 300)):
        for side in ("de", "en"):
            lines = (folder / f"{part}.{side}").read_text(encoding="utf-8").split("\n")[:count]
            (tmp_path / f"{part}.{side}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    model = tt.train(
        "translate", [tmp_path / "train.de", tmp_path / "train.en"], valid=[tmp_path / "valid.de", tmp_path / "valid.en"],
        out=tmp_path / "run", steps=240, progress=False,
        model={"hidden_size": 96, "embedding_size": 96, "vocabulary": 1000, "dropout": 0.0, "smoothing": 0.0},
        training={"evaluations": 1, "learning_rate": 1e-2, "batch_size": 32},
    )  # fmt: skip
    scores = model.run.scores()["scores"]
    held = Sequences.of(
        model.target.encode(line) for line in (tmp_path / "valid.en").read_text(encoding="utf-8").split("\n")
    )
    counts = Counter(held.values.tolist())
    unigram = -sum(n / counts.total() * math.log(n / counts.total()) for n in counts.values())
    assert scores["nats_per_token"] < unigram - 1.1
    # a source of its own says more than another's
    sides = [(tmp_path / f"valid.{side}").read_text(encoding="utf-8").split("\n")[:200] for side in ("de", "en")]
    (tmp_path / "own.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in zip(*sides, strict=True)), encoding="utf-8")
    turned = [sides[0][1:] + sides[0][:1], sides[1]]
    (tmp_path / "other.tsv").write_text("\n".join(f"{a}\t{b}" for a, b in zip(*turned, strict=True)), encoding="utf-8")
    own, other = (model.evaluate([tmp_path / f"{n}.tsv"], beam=1)["nats_per_token"] for n in ("own", "other"))
    assert own < other - 0.1
