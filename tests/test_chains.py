"""Chains of counts: what pieces cost without a network."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from throughtime.tasks.chains import Chains
from throughtime.tasks.frame_writing import FrameWriting
from throughtime.tasks.moments import KEYS
from throughtime.tasks.music_data import Written
from throughtime.tasks.scores import read_pieces

DATA = Path(os.environ.get("THROUGHTIME_DATA", Path(__file__).parents[2] / "shared" / "data")) / "music"
V = 89


def of(*moments):
    return Written.of_moments(moments, range(len(moments)), FrameWriting(1))


def test_counts_of_a_made_piece():
    """The first moments are read, and not counted."""
    chains = Chains.of([of((9,), (1, 2), (), (1,)), of((5,), (1,))], V)
    expected = {(V, 1): 3, (1, 2): 1, (2, 0): 1, (V, 0): 1, (1, 0): 2}
    assert {(a, b): n for a, row in enumerate(chains.after) for b, n in enumerate(row) if n} == expected
    # of key 1: absent, there, absent, there; absent, there
    assert chains.struck[0].tolist() == [[0, 3], [1, 0]]
    assert chains.struck[1].tolist() == [[2, 1], [1, 0]]
    assert chains.struck[8].tolist() == [[3, 0], [1, 0]]
    assert chains.struck.sum() == KEYS * 4


def test_nats_of_a_made_piece():
    chains = Chains.of([of((9,), (1, 2), (), (1,)), of((5,), (1,))], V)
    general = [4, 3, 1] + [0] * 86

    def p(seen, followed, total):
        return (followed + (general[seen] + 0.5) / (8 + 0.5 * V)) / (total + 1)

    # 4 symbols began a moment: 1 three times, its end once; after 1 came 2 once and an end twice
    told = p(1, 3, 4) * p(2, 1, 3) * p(0, 1, 1) * p(0, 1, 4) * p(7, 0, 4) * p(0, 0, 0)
    assert chains.nats(of((3,), (1, 2), (), (7,))) == pytest.approx(-math.log(told))
    # key 1: absent then there, there and there; 3, which training had not, there then absent, absent and absent
    key = {1: (3.5 / 4) * (0.5 / 2), 3: 0.5 * (4.5 / 5), 2: (2.5 / 4) ** 2, 5: (3.5 / 4) ** 2, 9: (3.5 / 4) ** 2}
    others = (4.5 / 5) ** (2 * (KEYS - 5))
    assert chains.key_nats(of((3,), (1,), (1,))) == pytest.approx(-math.log(math.prod(key.values()) * others))


def test_they_come_back_from_a_file(tmp_path):
    chains = Chains.of([of((9,), (1, 2), (), (1,))], V)
    chains.save(tmp_path / "x.safetensors")
    again = Chains.open(tmp_path / "x.safetensors")
    assert np.array_equal(again.after, chains.after) and np.array_equal(again.struck, chains.struck)
    assert chains.nats(of((1,))) == 0 and chains.key_nats(of((1,))) == 0


@pytest.mark.skipif(not DATA.exists(), reason=f"no {DATA}; THROUGHTIME_DATA names the data")
def test_the_chain_of_each_key_costs_what_is_published():
    """Bai et al. (2018) score the chorales key by key; of a Markov chain a key, 10.49 nats a frame."""
    writing = FrameWriting(1)
    chorales = read_pieces(DATA / "jsb" / "jsb-chorales-quarter.json")
    parts = {part: [Written.of(c, writing) for c in chorales if c.part == part] for part in ("train", "test")}
    chains = Chains.of(parts["train"], V)
    frames = sum(len(c) - 1 for c in parts["test"])
    assert sum(map(chains.key_nats, parts["test"])) / frames == pytest.approx(10.49, abs=0.02)
    assert sum(map(chains.nats, parts["test"])) / frames < 10.49
