"""What the tests share."""

import shutil

import pytest
import torch


def pytest_make_parametrize_id(config, val, argname):
    """Bytes name no test: what packs them may write the time into them, and two workers then collect other names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="module")
def _one_thread():
    """So small a network is quickest so, and the numbers are the same wherever it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def chromium():
    """A real browser without a screen."""
    where = shutil.which("chromium") or shutil.which("google-chrome")
    if where is None:
        pytest.skip("no chromium on the PATH")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        yield p.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-gpu"])
