"""The screen *Story*: eight steps, each with a live screen in its state, and Python that runs."""

from __future__ import annotations

import pytest

import throughtime as tt
from serving import eventually
from throughtime.play import EXAMPLE

pytestmark = pytest.mark.usefixtures("_one_thread")
STEPS = {
    "order": "Tape",
    "loop": "Tape",
    "unrolled": "Tape",
    "back": "Reach",
    "vanishing": "Train",
    "exploding": "Train",
    "gates": "Train",
    "after": "Fork",
}


def live(page, screen):
    return page.get_by_role("region", name=f"{screen}, live")


def test_one_goes_from_step_to_step_by_keyboard_and_each_is_live(tab):
    page = tab("#/story")
    for number, (key, screen) in enumerate(STEPS.items()):
        region = live(page, screen)
        region.locator("canvas").first.wait_for()
        assert page.locator(".refusal").count() == 0
        current = page.locator(".steps [aria-current]")
        assert current.inner_text().split() == [str(number + 1), *page.locator("article h2").inner_text().split()]
        if number:
            eventually(lambda key=key: f"step={key}" in page.evaluate("location.hash"))
            assert page.evaluate("document.activeElement.tagName") == "H2"
        forward = page.locator("article .ends .button")
        forward.focus()
        page.keyboard.press("Enter")
    page.locator("nav [aria-current=page]", has_text="Tape").wait_for()
    page.go_back()
    assert page.locator("article h2").inner_text() == "What came after"


def test_the_two_words_of_the_same_letters_are_expected_otherwise(tab):
    page, model = tab("#/story?step=order"), tt.load(EXAMPLE)
    for text in ("no", "on"):
        page.get_by_role("button", name=f"let it read “{text}”").click()
        session = model.session()
        session.feed(text)
        ((_, p), *_) = session.next(1)
        first = live(page, "Tape").locator(".likeliest li .n").first
        eventually(lambda p=p, first=first: first.inner_text() == f"{100 * p:.1f} %")


def test_what_is_changed_is_in_the_address_and_comes_back(tab):
    page = tab("#/story?step=loop")
    live(page, "Tape").locator("textarea").fill("to be or not to be")
    eventually(lambda: "to+be+or+not+to+be" in page.evaluate("location.hash"))
    page.reload()
    assert live(page, "Tape").locator("textarea").input_value() == "to be or not to be"
    assert page.locator("article h2").inner_text() == "The loop"


def test_the_plain_network_breaks_unclipped_and_is_held_clipped(tab):
    page = tab("#/story?step=exploding")
    region = live(page, "Train")
    region.get_by_role("button", name="Train", exact=True).click()
    region.get_by_role("alert").wait_for(timeout=60_000)
    assert "It broke at step" in region.get_by_role("alert").inner_text()
    region.get_by_role("button", name="The same, clipped at 1").click()
    steps = region.locator(".fact", has_text="steps").locator("dd").first
    eventually(lambda: int(steps.inner_text().replace(",", "") or 0) > 300, seconds=60)
    assert region.get_by_role("alert").count() == 0


@pytest.mark.parametrize("key", STEPS)
def test_the_python_that_is_copied_runs(tab, key, capsys):
    page = tab(f"#/story?step={key}")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_text("As Python").click()
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied.").wait_for()
    code = page.evaluate("navigator.clipboard.readText()")
    assert code == page.get_by_label("Python that does the same").inner_text()
    exec(compile(code, f"{key}.py", "exec"), {"__name__": key})
    assert capsys.readouterr().out.strip()
