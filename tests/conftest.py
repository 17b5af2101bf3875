"""What the tests share."""

import shutil

import pytest
import torch

import translations
from pictures import once_a_kind
from serving import Playing
from throughtime.training import report

# The files that take longest, the longest first, so that no worker is alone with one in the end.
LONG = (
    "test_training",
    "test_serve_several",
    "test_c_export",
    "test_contexts",
    "test_export_trained",
    "test_transcribe",
    "test_sequence_tasks",
    "test_loops",
    "test_serve",
    "test_cli",
    "test_real_data",
    "test_serve_hardness",
    "test_runs",
    "test_serve_tasks",
    "test_cell_fuzz",
    "test_speech_stream",
    "test_dropin",
    "test_wasm",
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))


def pytest_make_parametrize_id(config, val, argname):
    """Bytes name no test: what packs them may write the time into them, and two workers then collect other names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True, scope="session")
def _curves_are_drawn_once_a_kind():
    """Hundreds of small networks are trained here, and to draw the curve takes longer than many of those trainings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw_curve", once_a_kind(report.draw_curve))
        yield


@pytest.fixture(scope="module")
def _translations_are_read_once():
    """Which takes a quarter of an export's time."""
    pytest.importorskip("onnxscript")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*translations.read_once())
        yield


@pytest.fixture(scope="module")
def _one_thread():
    """So small a network is quickest so, and the numbers are the same wherever it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def _own_cache(tmp_path_factory):
    """Nothing that was compiled before is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THROUGHTIME_CACHE", str(tmp_path_factory.mktemp("compiled")))
        yield


@pytest.fixture(scope="module")
def chromium():
    """A real browser without a screen."""
    where = shutil.which("chromium") or shutil.which("google-chrome")
    if where is None:
        pytest.skip("no chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture(scope="module")
def playing():
    with Playing() as made:
        yield made
    assert made.process.returncode == 0
    assert made.said[1:] == []  # no traceback, no warning


@pytest.fixture
def tab(chromium, playing):
    """A page of the browser; what goes wrong in it, or leaves this machine, fails the test."""
    wrong = []

    def opened(address="", *, width=1440, height=1000, theme="light", url=playing.url):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=theme)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
        page.on("request", lambda r: None if r.url.startswith((url, "data:")) else wrong.append(f"asks {r.url}"))
        page.goto(f"{url}/{address}")
        page.wait_for_selector("main .lead .soft")
        return page

    opened.wrong = wrong
    yield opened
    for context in chromium.contexts:
        context.close()
    assert wrong == []
