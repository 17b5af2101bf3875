"""The panel *Music* of `throughtime play`: its moments, notes and costs beside those of Python."""

from __future__ import annotations

import base64
import json
import re

import httpx
import numpy as np
import pytest

import throughtime as tt
from panels import LOOKS, nothing_serious
from serving import Playing
from test_music_session import small
from test_play import shown, until
from throughtime.tasks.clock import seconds
from throughtime.tasks.midi import write_midi
from throughtime.tasks.scores import read_pieces

pytestmark = pytest.mark.usefixtures("_one_thread")
NOTES = "C4+E4 G4 A4 C5"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("music")
    for kind, cell in (("tunes", "gru"), ("tracks", "elman"), ("frames", "lstm")):
        (folder / kind).mkdir()
        small(folder / kind, kind, cell=cell)
    return folder


@pytest.fixture(scope="module")
def playing(runs):
    with Playing(runs / "tunes/run") as made:
        yield made
    assert made.said[1:] == []


@pytest.fixture
def model(runs):
    return tt.load(runs / "tunes/run")


def asked(url, **body):
    answer = httpx.post(f"{url}/play/music", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def same(told, session):
    """Whether a line is what a session has read."""
    assert [m["words"] for m in told["moments"]] == session.words
    np.testing.assert_allclose([m["nats"] for m in told["moments"]], session.surprise(), rtol=1e-4, atol=1e-5)
    piece = session.branch()
    piece.rewind(len(piece))
    notes = piece.piece.notes
    assert [n["pitch"] for n in told["notes"]] == notes["pitch"].tolist()
    np.testing.assert_allclose([[n["start"], n["end"]] for n in told["notes"]], seconds(piece.piece), atol=1e-5)
    walker = session.writing.walker()
    for told_of, moment in zip(told["moments"], session.moments(), strict=True):
        walker.read(moment)
        assert told_of["seconds"] == pytest.approx(walker.seconds, abs=1e-5)


def futures(model, changes=(), notes=NOTES, bars=2, seed=3, ahead=2):
    """Both lines of Python."""
    past = model.session()
    past.feed(notes)
    past.write(bars, seed=seed)
    was, now = past.branch(), past.branch()
    was.write(ahead, seed=seed + 1)
    for t, keys in changes:
        now.edit(t, input=keys)
    changed = now.branch()
    now.write(ahead, seed=seed + 1)
    return past, was, now, past.diff(changed, [(t, t) for t in range(past.time + 1)])


@pytest.mark.parametrize("kind", ["tunes", "tracks", "frames"])
def test_both_futures_are_those_of_a_session(kind, runs, tmp_path):
    model = tt.load(runs / kind / "run")
    notes = model.session()
    notes.feed(NOTES)
    t = next(t for t, words in enumerate(notes.words) if words == "C4 E4")
    with Playing(runs / kind / "run") as made:
        found = asked(made.url, notes=NOTES, bars=2, seed=3, ahead=2, changes=[{"time": t, "notes": "D4+F#4"}])
        past, was, now, apart = futures(model, [(t, "D4+F#4")])
        assert found["present"] == past.time
        assert [words for words, _ in found["expected"]] == [words for words, _ in past.next(5)]
        same(found["was"], was)
        same(found["now"], now)
        assert found["was"]["nats"] == pytest.approx(sum(past.surprise()), rel=1e-4)
        assert found["parts"] == apart.parts == t + 1
        np.testing.assert_allclose(found["states"], apart.states, rtol=1e-5, atol=1e-9)
        again = asked(made.url, notes=NOTES, bars=2, seed=3, ahead=2)
        assert again["was"] == found["was"] and again["now"] is None
        write_midi(model.compose(bars=3, seed=2)[0].piece, tmp_path / "mine.mid")
        data = base64.b64encode((tmp_path / "mine.mid").read_bytes()).decode()
        session = model.session()
        session.feed(read_pieces(tmp_path / "mine.mid")[0])
        same(asked(made.url, notes=f"data:;base64,{data}")["was"], session)
    assert made.said[1:] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "notes: nothing is read, and nothing written"),
        ({"notes": "H4"}, "notes: 'h4' is no note"),
        ({"notes": "C4", "bars": 99}, "bars"),
        ({"notes": "C4", "changes": [{"time": 9, "notes": "C4"}]}, "changes.0: there is no moment 9 among 2"),
        ({"notes": "C4", "changes": [{"time": 1, "notes": "C4+C9"}]}, "moment 1: C9 is on no key of a piano"),
        ({"notes": "C4 " * 5000}, "4000 in a request"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(playing, body, said):
    answer = httpx.post(f"{playing.url}/play/music", json=body, timeout=60)
    assert 400 <= answer.status_code < 500 and said in answer.json()["error"]["message"], answer.text


def words_of(page):
    """The table of words: as it was, and after."""
    if not page.locator("details.table").evaluate("e => e.open"):
        page.get_by_text("As words").click()
    return [row.locator("td").all_inner_texts() for row in page.locator("details tbody tr").all()]


def shows(page, model, changes=()):
    """Wait until the page shows what Python has."""
    past, was, now, _ = futures(model, changes)
    lines = [was, now] if changes else [was]
    nats = shown(sum(now.surprise(0, past.time)) if changes else sum(past.surprise()), 4)
    until(page, f"[...document.querySelectorAll('.fact dd.n')].some(e => e.textContent === {json.dumps(nats)})")
    until(page, f"document.querySelectorAll('.roll').length === {len(lines)}")
    table = words_of(page)
    for n, line in enumerate(lines):
        told = [row[2 * n : 2 * n + 2] for row in table if row[2 * n]]
        assert told == [[words, shown(v, 3)] for words, v in zip(line.words, line.surprise(), strict=True)]
        notes = page.locator(".roll").nth(n).locator("rect.note").count()
        ended = line.branch()
        ended.rewind(len(ended))
        assert notes == len(ended.piece)
    return past


PLACE = f"#/music?notes={NOTES.replace('+', '%2B').replace(' ', '%20')}&bars=2&seed=3&ahead=2"


def test_a_note_is_changed_by_keyboard_alone_and_at_the_side(tab, model):
    page = tab(PLACE)
    shows(page, model)
    while page.evaluate("document.activeElement.getAttribute('role')") != "slider":
        page.keyboard.press("Tab")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Moment 1", exact=True).wait_for()
    page.keyboard.press("ArrowUp")
    shows(page, model, [(1, "C#4+F4")])
    page.get_by_role("textbox", name="Its keys").fill("D3+A3")
    page.get_by_role("button", name="Change", exact=True).click()
    shows(page, model, [(1, "D3+A3")])
    page.wait_for_timeout(500)
    page.reload()  # the address holds what is shown
    shows(page, model, [(1, "D3+A3")])
    page.get_by_role("button", name="Take back").click()
    shows(page, model)


def test_a_note_is_dragged(tab, model):
    page = tab(PLACE)
    past = shows(page, model)
    t = next(t for t, words in enumerate(past.words) if words == "G4")
    box = page.locator("rect.note").nth(2).bounding_box()  # G4
    x, y = box["x"] + 3, box["y"] + 3
    page.mouse.move(x, y)
    page.mouse.down()
    for up in (3, 9, 14):
        page.mouse.move(x, y - up)
    page.mouse.up()
    shows(page, model, [(t, "A4")])


def test_it_is_heard(chromium, playing, model):
    """Each note is an oscillator of its frequency, in order of time."""
    context = chromium.new_context()
    page = context.new_page()
    page.add_init_script(
        "window.struck = []; const start = OscillatorNode.prototype.start;"
        "OscillatorNode.prototype.start = function (when) {"
        " struck.push([this.frequency.value, when]); return start.call(this, when); };"
    )
    page.goto(f"{playing.url}/{PLACE}")
    page.locator(".roll").wait_for()
    page.get_by_role("button", name="Play, as it was").click()
    _, was, _, _ = futures(model)
    was.rewind(len(was))
    notes, times = was.piece.notes, seconds(was.piece)
    until(page, f"struck.length === {len(notes)}", seconds=60)
    found = np.array(page.evaluate("struck"))
    np.testing.assert_allclose(found[:, 0], 440 * 2 ** ((notes["pitch"].astype(float) - 69) / 12), rtol=1e-5)
    np.testing.assert_allclose(np.diff(found[:, 1]), np.diff(times[:, 0]), atol=0.05)
    if page.get_by_role("button", name="Stop, as it was").count():  # its last note may last long
        page.get_by_role("button", name="Stop, as it was").click()
    until(page, "document.querySelector('.music .button.main').textContent === 'Play'")
    context.close()


def test_a_file_is_dropped(tab, runs, model, tmp_path):
    write_midi(model.compose(bars=3, seed=2)[0].piece, tmp_path / "mine.mid")
    page = tab(PLACE)
    page.locator(".roll").wait_for()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.mid")
    session = model.session()
    session.feed(read_pieces(tmp_path / "mine.mid")[0])
    nats = shown(sum(session.surprise()), 4)
    until(page, f"[...document.querySelectorAll('.fact dd.n')].some(e => e.textContent === {json.dumps(nats)})")
    assert re.search(r"mine\.mid", page.locator("main").inner_text())


@LOOKS
def test_axe_finds_nothing_serious(tab, width, theme):
    page = tab(PLACE + '&changes=[[1,"D4"]]', width=width, theme=theme)
    page.locator(".roll").nth(1).wait_for()
    page.get_by_text("As words").click()
    nothing_serious(page)
