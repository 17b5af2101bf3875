"""What an editor and mypy know of a trained model: mypy reads this file (`make check`), and pytest runs it."""

# mypy: warn-unused-ignores

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pytest

import throughtime as tt
from throughtime.errors import UserError
from throughtime.tasks import Trained
from throughtime.tasks.classify import ClassifyModel
from throughtime.tasks.tag import TagModel
from throughtime.tasks.text import TextModel
from throughtime.tasks.text_session import TextSession
from throughtime.tasks.translate import TranslateModel


def whatever_the_task(folder: Path) -> None:
    model = tt.load(folder)
    assert_type(model, Trained[Any])
    assert_type(model.predict(["I saw a saw"]), Iterator[dict[str, Any]])
    assert_type(model.evaluate(folder), dict[str, Any])
    assert_type(model.generate("I saw", length=10), str)
    assert_type(model.stream("I saw"), Iterator[str])
    assert_type(model.push_to_hub("ann/model", private=True), str)
    assert_type(tt.Inspection(model, "I saw a saw").data, dict[str, Any])
    assert_type(tt.train("text", [folder], out=folder), Trained[Any])
    model.predicts  # type: ignore[attr-defined]  # noqa: B018


def of_a_task(folder: Path) -> None:
    assert_type(tt.load(folder, "classify"), ClassifyModel)
    assert_type(tt.load(folder, "tag"), TagModel)
    assert_type(tt.load("ann/model", "translate", download=True), TranslateModel)
    model = tt.load(folder, "text")
    assert_type(model, TextModel)
    assert_type(model.session(), TextSession)
    model.generate("I saw", len=10)  # type: ignore[call-arg]


def test_what_is_said_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("I saw a saw. " * 300)
    tt.train("text", [tmp_path / "book.txt"], out=tmp_path / "run", steps=1, model={"hidden_size": 8}, progress=False)
    for model in (tt.load(tmp_path / "run"), tt.load(tmp_path / "run", "text")):
        assert type(model).__name__ == "TextModel"
    with pytest.raises(UserError, match="run: is a run of the task 'text', not 'tag'"):
        tt.load(tmp_path / "run", "tag")
