"""The panel *Transcribe* of `throughtime play`: words from a file and from the microphone, beside those of Python."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import throughtime as tt
from panels import LOOKS, nothing_serious
from serving import Playing
from sounds import RATE, WORDS, spoken, write_table
from test_play import percent, shown, until
from throughtime.tasks.speech_stream import Partial

soundfile = pytest.importorskip("soundfile")
pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    """A recogniser that hears a stream, and one that reads from both ends."""
    folder = tmp_path_factory.mktemp("speech")
    table, held = write_table(folder, "train", 90), write_table(folder, "dev", 10)
    quick = {"learning_rate": 0.02, "warmup": 10, "batch_size": 16}
    for name, streaming in (("ear", True), ("whole", False)):
        model = {
            "hidden_size": 24,
            "layers": 1,
            "dropout": 0.0,
            "units": "characters",
            "subsampling": 3,
            "streaming": streaming,
        }
        tt.train(
            "transcribe", [table], valid=held, out=folder / name, steps=120, model=model, data={"speed": 0.0, "masks": 0.0},
            training=quick, progress=False,
        )  # fmt: skip
    said = [spoken([word], 7 + n, pause=1.0) for n, word in enumerate(WORDS * 2)]
    soundfile.write(folder / "said.wav", np.concatenate(said), RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def playing(runs):
    with Playing(runs / "ear") as made:
        yield made
    assert made.said[1:] == []


def heard(model, path):
    """The words that a session of Python hears in a file, and how sure it is of each."""
    samples, rate = soundfile.read(path, dtype="int16")
    session = model.session(rate=rate)
    events = session.feed(samples.astype(np.float32) / np.float32(32768)) + session.finish()
    return [word for event in events if not isinstance(event, Partial) for word in event.words]


def predicted(model, path):
    """The words of a recording that is read whole."""
    return [SimpleNamespace(**word) for answer in model.predict([path]) for word in answer["words"]]


def shows(page, words):
    """Wait until these words are shown, with how sure the network is of each."""
    until(page, f"document.querySelectorAll('.heard .word').length === {len(words)}", seconds=30)
    assert page.locator(".heard .word > span:first-child").all_inner_texts() == [w.word for w in words]
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("tbody tr").all()]
    assert rows == [[w.word, shown(w.start, 4), shown(w.end, 4), percent(w.confidence)] for w in words]


@pytest.mark.parametrize("name", ["ear", "whole"])
def test_the_words_of_a_file_are_those_of_a_session(name, tab, runs):
    with Playing(runs / name) as made:
        page = tab(url=made.url)
        model = tt.load(runs / name)
        words = heard(model, runs / "said.wav") if name == "ear" else predicted(model, runs / "said.wav")
        assert len(words) >= 4
        page.locator("input[type=file]").set_input_files(runs / "said.wav")
        shows(page, words)
        until(page, "document.querySelector('[role=status]').textContent === 'Done.'")
        said = page.get_by_text("How it hears").locator("xpath=ancestor::section").inner_text()
        assert ("words come while they are spoken" in said) == (name == "ear")
    assert made.said[1:] == []


def test_real_speech_is_heard_as_python_hears_it(tab, runs, tmp_path):
    """A network that knows tones hears no digits; what it does hear is the same."""
    folder = Path(os.environ.get("THROUGHTIME_DATA", "/data")) / "speech/fsdd/audio"
    if not folder.is_dir():
        pytest.skip("no recordings of digits: THROUGHTIME_DATA names the folder of data")
    parts = [soundfile.read(path)[0] for path in sorted(folder.rglob("*.flac"))[:40:8]]
    sound = np.concatenate([np.concatenate([part, np.zeros(8000)]) for part in parts])
    soundfile.write(tmp_path / "digits.wav", sound, 8000, subtype="PCM_16")
    with Playing(runs / "ear") as made:
        page = tab(url=made.url)
        page.locator("input[type=file]").set_input_files(tmp_path / "digits.wav")
        until(page, "document.querySelector('[role=status]').textContent === 'Done.'", seconds=30)
        words = heard(tt.load(runs / "ear"), tmp_path / "digits.wav")
        shows(page, words)


def test_the_microphone_is_heard(runs, playing, chromium):
    """The browser's microphone is a file, played again and again: its words come while they are spoken."""
    file = f"--use-file-for-fake-audio-capture={runs / 'said.wav'}"
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", file]
    where = shutil.which("chromium") or shutil.which("google-chrome")
    browser = chromium.browser_type.launch(executable_path=where, args=["--no-sandbox", "--disable-gpu", *fake])
    context = browser.new_context(permissions=["microphone"])
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(playing.url)
    page.get_by_role("button", name="Listen").click()
    words = {w.word for w in heard(tt.load(runs / "ear"), runs / "said.wav")}
    until(page, "document.querySelectorAll('.heard .word').length >= 2", seconds=30)
    assert "Listening" in page.get_by_role("status").inner_text(), "words come while it listens"
    page.get_by_role("button", name="Stop").click()
    until(page, "document.querySelector('[role=status]').textContent === 'Done.'")
    found = page.locator(".heard .word > span:first-child").all_inner_texts()
    assert set(found) & words, (found, words)
    assert wrong == []
    browser.close()


def test_without_a_microphone_it_says_what_to_do(tab):
    page = tab()
    page.evaluate(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }; undefined"
    )
    page.get_by_role("button", name="Listen").click()
    assert "there is no microphone to be had (NotFoundError); choose or drop" in page.get_by_role("alert").inner_text()
    page.evaluate(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotAllowedError'); }; undefined"
    )
    page.get_by_role("button", name="Listen").click()
    until(page, "document.querySelector('[role=alert]').textContent.includes('was not allowed')")


@LOOKS
def test_axe_finds_nothing_serious(tab, runs, width, theme):
    page = tab(width=width, theme=theme)
    page.locator("input[type=file]").set_input_files(runs / "said.wav")
    until(page, "document.querySelector('[role=status]').textContent === 'Done.'", seconds=30)
    nothing_serious(page)
