"""What a notebook shows of a network: the page in a frame of its own."""

import json
import re

import pytest

import throughtime as tt
from throughtime.errors import UserError
from throughtime.inspect.page import page
from throughtime.inspect.report import look_into
from throughtime.inspect.words import in_words

pytestmark = pytest.mark.usefixtures("_one_thread")
SAW = "".join(f"I\tPRON\nsaw\tVERB\na\tDET\n{what}\tNOUN\n\n" for what in ["saw", "<b>&amp;", "man"] * 7)


@pytest.fixture(scope="module")
def model(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("tag")
    (folder / "saw.tsv").write_text(SAW)
    size = {"hidden_size": 8, "embedding_size": 8, "character_size": 8}
    return tt.train("tag", [folder / "saw.tsv"], out=folder / "run", steps=2, model=size, progress=False)


def test_an_inspection_holds_what_the_command_shows(model, tmp_path):
    seen = tt.Inspection(model, "I saw a saw", output=1)
    assert seen.data == look_into(model, ["I saw a saw"], output=1)
    assert seen.data != tt.Inspection(model, "I saw a saw", output=2).data
    assert repr(seen) == in_words(seen.data)
    seen.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(seen.data)
    other = tt.Inspection(model, "a man")
    with pytest.raises(UserError, match=r"page\.html: is there already"):
        other.save(tmp_path / "page.html")
    other.save(str(tmp_path / "page.html"), overwrite=True)
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(other.data)


def test_a_notebook_shows_the_page_and_keeps_its_own_looks(model, chromium, tmp_path):
    """Two of them in one document, whose inputs are themselves HTML: each draws, and the document stays as it is."""
    seen = [tt.Inspection(model, text) for text in ("I saw a saw", "<b>&amp; </iframe> \" ' saw")]
    shown = "".join(one._repr_html_() for one in seen)
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><style>body {{ color: red }}</style><h1>mine</h1>{shown}")
    with chromium.new_context(offline=True) as context:
        tab, wrong = context.new_page(), []
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text))
        tab.goto(notebook.as_uri())
        assert tab.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(255, 0, 0)"
        assert tab.evaluate("document.body.children.length") == 3, "a heading and two frames"
        for one, frame in zip(seen, tab.frames[1:], strict=True):
            assert frame.locator("svg").count() > 2, "its script has drawn"
            assert json.loads(frame.locator("#data").text_content()) == one.data
            assert frame.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
            with pytest.raises(Exception, match=r"cross-origin|SecurityError"):
                frame.evaluate("parent.document.body")
        assert not [line for line in wrong if not re.search("sandbox", line)]
