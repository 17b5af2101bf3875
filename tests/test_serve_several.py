"""Several processes that serve the same sessions."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import throughtime as tt
from serve_chaos import beside_one_that_is_left_alone, processes
from serving import Serving
from throughtime.errors import UserError

pytestmark = pytest.mark.usefixtures("_one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory, _one_thread):
    folder = tmp_path_factory.mktemp("several")
    (folder / "text.txt").write_text(
        "".join(f"{i % 7} sheep and {i % 3} goats went over hill {i % 5};\n" for i in range(400))
    )
    tt.train(
        "text",
        [folder / "text.txt"],
        out=folder / "lm",
        steps=60,
        model={"tokens": "characters", "cell": "gru", "hidden_size": 20, "layers": 2},
        progress=False,
    )
    return folder / "lm"


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pauses and kills processes as Linux has them")
@pytest.mark.parametrize(("shared", "seed"), [("folder", 1), ("redis", 2)])
def test_chaos_changes_no_answer(run, tmp_path, shared, seed):
    with processes(run, tmp_path, shared) as at:
        print(beside_one_that_is_left_alone(run, tmp_path, at, (60, 8), 6, seed))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on the PATH")
def test_replicas_under_ray_change_no_answer(run):
    """In a process of its own, since Ray warns where it is imported."""
    script = Path(__file__).parent / "serve_chaos.py"
    options = ["--shared", "ray", "--sessions", "40", "--requests", "6", "--seconds", "4"]
    done = subprocess.run([sys.executable, script, *options, run], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.rstrip().endswith("in all)") and ": all the same (" in done.stdout, done.stdout


def test_what_two_processes_say_goes_from_one_to_the_other(run, tmp_path):
    asked = {"first": 0, "text": "sheep", "logprobs": True, "top": 2}
    options = [run, "--port", 0, "--shared", tmp_path / "shared", "--lease", 1]
    with Serving(*options) as one, Serving(*options) as other:
        assert f"sessions in {tmp_path / 'shared'}" in one.said[-1]
        with httpx.Client(timeout=30) as api:
            assert api.post(f"{one.url}/v1/sessions", json={"id": "x"}).status_code == 201
            assert api.post(f"{other.url}/v1/sessions", json={"id": "x"}).status_code == 409
            first = api.post(f"{one.url}/v1/sessions/x/steps", json=asked).json()
            again = api.post(f"{other.url}/v1/sessions/x/steps", json=asked).json()  # which waits for it
            assert first == again and first["time"] == 5
            more = [
                api.post(f"{where}/v1/sessions/x/steps", json={"first": 5 + i, "text": "s"})
                for i, where in enumerate([other.url, one.url, other.url])
            ]
            assert [answer.json()["time"] for answer in more] == [6, 7, 8]
            assert api.get(f"{one.url}/v1/sessions/x").json()["time"] == 8
            assert [kept["id"] for kept in api.get(f"{one.url}/v1/sessions").json()["data"]] == ["x"]
    assert one.process.returncode == other.process.returncode == 0
    assert one.said[1:] == other.said[1:] == []


def test_a_deployment_names_what_is_shared(tmp_path):
    from throughtime.serve.ray import build

    with pytest.raises(UserError, match=r"shared: .*the arguments are runs, shared, replicas"):
        build({"runs": "book"})
