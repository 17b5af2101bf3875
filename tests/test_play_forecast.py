"""The panel *Forecast* of `throughtime play`: its numbers beside those of Python."""

from __future__ import annotations

import json
import math

import httpx
import numpy as np
import pytest

import throughtime as tt
from panels import LOOKS, nothing_serious
from serving import Playing, eventually
from test_play import shown

pytestmark = pytest.mark.usefixtures("_one_thread")
HORIZON, LENGTH = 6, 90


TOUCHED = """() => {
  const grip = document.querySelector(".chart .grip"), r = grip.getBoundingClientRect();
  const send = (to, type, dy) => to.dispatchEvent(new PointerEvent(type, {
    pointerType: "touch", pointerId: 7, bubbles: true, clientX: r.x + r.width / 2, clientY: r.y + r.height / 2 + dy,
  }));
  send(grip, "pointerdown", 0);
  for (const [type, dy] of [["pointermove", 60], ["pointermove", 120], ["pointerup", 120]]) send(window, type, dy);
}"""  # a finger on the point takes it down


def csv_of(values, start=0):
    return "ds,y\n" + "".join(
        f"{2000 + i // 12}-{i % 12 + 1:02},{v}\n" for i, v in enumerate(values, start) if v is not None
    )


def course(shift=0.0):
    generator = np.random.default_rng(4)
    t = np.arange(LENGTH)
    return [round(float(v), 3) for v in 100 + shift + 0.4 * t + 15 * np.sin(t / 2) + generator.normal(size=LENGTH)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("forecasts")
    (folder / "sales.csv").write_text(csv_of(course()))
    for kind in ("segments", "steps"):
        model = {"kind": kind, "hidden_size": 8}
        tt.train(
            "forecast", [folder / "sales.csv"], out=folder / kind, steps=15, data={"horizon": HORIZON}, model=model, progress=False
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def playing(runs):
    with Playing(runs / "segments") as made:
        yield made
    assert made.said[1:] == []


def forecast(url, **body):
    answer = httpx.post(f"{url}/play/forecast", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def predicted(run, values, tmp_path, level="80"):
    """The forecast of Python: its columns."""
    (tmp_path / "here.csv").write_text(csv_of(values))
    rows = list(tt.load(run).predict(tmp_path / "here.csv", level=level))
    names = {"forecast": "forecast", "low": f"forecast-lo-{level}", "high": f"forecast-hi-{level}"}
    return {name: [row[column] for row in rows] for name, column in names.items()}, [row["ds"] for row in rows]


def same(told, expected):
    assert told.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(told[name], values, rtol=1e-6)


@pytest.mark.parametrize("kind", ["segments", "steps"])
def test_both_futures_are_those_of_predict(kind, runs, tmp_path):
    values = course()
    with Playing(runs / kind) as made:
        found = forecast(made.url, level="95", changes=[{"time": 80, "value": 170.5}, {"time": 3, "value": 90}])
        was, ds = predicted(runs / kind, values, tmp_path, "95")
        same(found["was"], was)
        changed = [*values]
        changed[80], changed[3] = 170.5, 90
        now, _ = predicted(runs / kind, changed, tmp_path, "95")
        same(found["now"], now)
        assert found["now"] != found["was"]
        assert found["values"] == pytest.approx(values) and found["ds"][-HORIZON:] == ds
        season = tt.load(runs / kind).fitted.seasons[0]
        assert found["naive"] == pytest.approx([values[len(values) - season + h % season] for h in range(HORIZON)])
        hidden = forecast(made.url, hold=True)
        same(hidden["was"], predicted(runs / kind, values[:-HORIZON], tmp_path)[0])
        assert hidden["truth"] == pytest.approx(values[-HORIZON:]) and hidden["time"] == LENGTH - HORIZON
        other = course(40)
        same(forecast(made.url, table=csv_of(other))["was"], predicted(runs / kind, other, tmp_path)[0])
    assert made.said[1:] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"changes": [{"time": LENGTH, "value": 1}]}, f"there is no value at time {LENGTH}; they go from 0 to"),
        ({"changes": [{"time": 0}]}, "changes.0.value"),
        ({"level": "120"}, "level: got '120'"),
        ({"level": "80,95"}, "level: got '80,95'"),
        ({"series": "nobody"}, "series: there is no 'nobody'"),
        ({"table": "ds,y\n2000-01,x\n2000-02,2\n"}, "table:2: "),
        ({"table": ""}, "table"),
        ({"hold": True, "table": csv_of([1, 2, 3, 4, 5])}, "are held back"),
        ({"model": "nobody"}, "unknown model"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(playing, body, said):
    answer = httpx.post(f"{playing.url}/play/forecast", json=body)
    assert 400 <= answer.status_code < 500 and said in answer.json()["error"]["message"], answer.text
    assert httpx.post(f"{playing.url}/play/music", json={"notes": "C4"}).status_code == 400


def test_without_its_files_it_asks_for_a_table(tab, runs, tmp_path):
    (runs / "sales.csv").rename(runs / "gone.csv")
    try:
        with Playing(runs / "segments") as made:
            answer = httpx.post(f"{made.url}/play/forecast", json={})
            assert answer.status_code == 400 and "are not where they were; give a CSV" in answer.text
            page = tab(url=made.url)
            assert "Choose or drop a CSV" in page.locator(".empty").inner_text()
            (tmp_path / "mine.csv").write_text(csv_of(course(7)))
            page.locator("input[type=file]").set_input_files(tmp_path / "mine.csv")
            page.locator(".chart").wait_for()
            assert like(table_of(page)["forecast"], predicted(runs / "segments", course(7), tmp_path)[0]["forecast"])
            page.get_by_label("Or paste it").fill(csv_of(course(9)))
            page.get_by_role("button", name="Forecast it").click()
            wanted = predicted(runs / "segments", course(9), tmp_path)[0]["forecast"]
            eventually(lambda: like(table_of(page)["forecast"], wanted))
    finally:
        (runs / "gone.csv").rename(runs / "sales.csv")


def like(found, values):
    """Whether numbers as the page writes them, to six digits, are these."""
    numbers = [float(v.replace("−", "-")) for v in found or []]
    return len(numbers) == len(values) and np.allclose(numbers, values, rtol=1e-5, atol=0)


def table_of(page):
    """The columns of the table, as they are written."""
    if not page.locator("details.table").first.evaluate("e => e.open"):
        page.get_by_text("As numbers").click()
    heads = page.locator("details thead th").all_inner_texts()
    rows = [row.locator("th, td").all_inner_texts() for row in page.locator("details tbody tr").all()]
    found: dict[str, list[str]] = {}
    for head, column in zip(heads, zip(*rows, strict=True), strict=True):
        found.setdefault(head if head not in found else f"{head} after", list(column))
    return found


def changed_in(page):
    return dict(json.loads(page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('changes')")))


def after(page, runs, tmp_path):
    """Wait until the page shows what Python forecasts of the changes in its address."""
    page.wait_for_timeout(600)  # until all of it is in the address
    values = course()
    changes = changed_in(page)
    for t, v in changes.items():
        values[t] = v
    now, _ = predicted(runs / "segments", values, tmp_path)
    eventually(lambda: like(table_of(page).get("after"), now["forecast"]))
    found = table_of(page)
    assert like(found["low after"], now["low"]) and like(found["high after"], now["high"])
    return changes


def test_a_past_value_is_moved_by_keyboard_alone(tab, runs, tmp_path):
    page = tab()
    page.locator(".chart").wait_for()
    was, _ = predicted(runs / "segments", course(), tmp_path)
    assert like(table_of(page)["forecast"], was["forecast"])
    while page.evaluate("document.activeElement.getAttribute('role')") != "slider":
        page.keyboard.press("Tab")
    for key in ["ArrowLeft"] * 3 + ["ArrowUp"] * 5:
        page.keyboard.press(key)
    changes = after(page, runs, tmp_path)
    assert list(changes) == [LENGTH - 4] and changes[LENGTH - 4] > course()[LENGTH - 4]
    facts = dict(
        zip(page.locator(".fact dt").all_inner_texts(), page.locator(".fact dd.n").all_inner_texts(), strict=True)
    )
    values = course()
    values[LENGTH - 4] = changes[LENGTH - 4]
    now, _ = predicted(runs / "segments", values, tmp_path)
    assert facts["next"] == shown(was["forecast"][0], 5) and facts["after the change"] == shown(now["forecast"][0], 5)
    far = max(abs(a - b) for a, b in zip(was["forecast"], now["forecast"], strict=True))
    assert math.isclose(float(facts["furthest apart"]), far, rel_tol=2e-3)
    page.reload()  # the address holds what is shown
    page.locator(".chart .line.now").wait_for(state="attached")
    after(page, runs, tmp_path)
    page.get_by_role("button", name="Take back").click()
    page.locator(".chart .line.now").wait_for(state="detached")


def test_a_past_value_is_dragged_by_mouse_and_touch(tab, runs, tmp_path):
    page = tab(height=900)
    grip = page.locator(".chart .grip")
    grip.wait_for()
    table_of(page)
    box = grip.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for up in (10, 30, 60):
        page.mouse.move(x, y - up)
    page.mouse.up()
    changes = after(page, runs, tmp_path)
    assert list(changes) == [LENGTH - 1] and changes[LENGTH - 1] > course()[LENGTH - 1]
    page.evaluate(TOUCHED)
    assert after(page, runs, tmp_path)[LENGTH - 1] < changes[LENGTH - 1]


def test_the_end_is_hidden_and_compared(tab, runs, tmp_path):
    page = tab("#/forecast?hold=1&level=95")
    page.locator(".chart .truth").wait_for(state="attached")
    found = table_of(page)
    was, _ = predicted(runs / "segments", course()[:-HORIZON], tmp_path, "95")
    assert like(found["high"], was["high"]) and like(found["came"], course()[-HORIZON:])


@LOOKS
def test_axe_finds_nothing_serious(tab, width, theme):
    page = tab("#/forecast?changes=[[85,180]]", width=width, theme=theme)
    page.locator(".chart .line.now").wait_for(state="attached")
    page.get_by_text("As numbers").click()
    nothing_serious(page)
