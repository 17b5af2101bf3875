"""bench --beside: a real busy program in a session of its own, real layers, a real training."""

import json
import os
import time
from pathlib import Path

import pytest
import torch

from throughtime.cli import beside, main
from throughtime.errors import UserError

TAGGED = [
    ("I saw you", "PRON VERV PRON"),
    ("the saw is old", "DET NOUN VERB ADJ"),
    ("you saw the old saw", "PRON VERB DET ADJ NOUN"),
]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tagged(tmp_path):
    sentences = (
        "".join(
            f"{i}\t{w}\t_\t{t}\t_\t_\t_\t_\t_\t_\n"
            for i, (w, t) in enumerate(zip(ws.split(), ts.split(), strict=True), 1)
        )
        for ws, ts in TAGGED * 20
    )
    path = tmp_path / "saws.conllu"
    path.write_text("\n".join(sentences) + "\n", encoding="utf-8")
    return path


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not say")
def test_the_busy_program_computes_in_a_session_of_its_own_and_ends():
    with pytest.raises(KeyError), beside.busy() as burner:
        assert os.getsid(burner.pid) == burner.pid != os.getsid(0)
        used = []
        for _ in range(2):
            used.append(int(Path(f"/proc/{burner.pid}/stat").read_text().rpartition(")")[2].split()[11]))
            time.sleep(0.5)
        assert used[1] > used[0]
        raise KeyError("what goes wrong meanwhile")
    assert burner.returncode is not None


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core")
def test_bench_beside(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(beside, "SHAPES", ((4, 2, 3, 5),))
    code = main(["bench", "--beside", "--threads", "2", "--seconds", "0.01", "--json", "--save", str(tmp_path)])
    out, err = capsys.readouterr()
    assert code == 0, err
    values = json.loads(out)
    found = [(r["machine"], r["name"], r["threads"]) for r in values["rows"]]
    assert found == [(m, n, t) for m in ("quiet", "busy") for n in ("throughtime", "torch.nn") for t in (1, 2)]
    assert all(r["mean_ms"] > 0 and r["p90_ms"] > 0 and r["runs"] > 0 for r in values["rows"])
    assert "no training of a tagger" in err
    (path,) = tmp_path.glob("beside_*.md")
    text = path.read_text(encoding="utf-8")
    ours = {(r["machine"], r["threads"]): r for r in values["rows"] if r["name"] == "throughtime"}
    cells = [
        f"{ours[k]['mean_ms']:.1f} ({ours[k]['p90_ms']:.1f})"
        for k in sorted(ours, key=lambda k: (k[0] == "busy", k[1]))
    ]
    share = ours["busy", 1]["mean_ms"] / ours["busy", 2]["mean_ms"]
    assert f"| 4·2·3·5 | throughtime | {' | '.join(cells)} | {share:.2f} |" in text


def test_a_taggers_training_is_a_real_one(tagged):
    row = beside._training(tagged, 1, 0.01)
    assert row["threads"] == 1 and row["words_s"] > 0
    rows = [row | {"machine": machine} for machine in ("quiet", "busy")]
    assert f"| threads: 1 | {row['words_s']:,.0f} | {row['words_s']:,.0f} |" in beside.report(
        {"cpu": "x", "threads": 2, "torch": "y"}, rows
    )


def test_a_training_that_does_not_begin_is_said(tmp_path):
    (tmp_path / "a.conllu").write_text("nothing of the kind\n")
    with pytest.raises(UserError, match=r"a\.conllu: no training came of it: throughtime: .*a\.conllu:1"):
        beside._training(tmp_path / "a.conllu", 1, 0.01)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--beside", "--runs", "3"], "--runs"),
        (["--seconds", "3"], "--seconds"),
        (["--conllu", "x"], "--conllu"),
        (["--beside", "--seconds", "0"], "--seconds: got 0"),
        (["--beside", "--conllu", "no.conllu"], "--conllu: no.conllu"),
        (["--beside", "--threads", "1"], "--threads"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments, words):
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err.splitlines()[-1]
