"""The notebook in examples/ is executed as a reader executes it. `python tests/test_notebook.py` writes its outputs anew."""

import re
import sys
import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "i-saw-a-saw.ipynb"
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def execute(folder):
    """The notebook with the outputs of a run, in a kernel of this Python that works in `folder`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    with warnings.catch_warnings():  # of the packages that run it
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def results(notebook):
    """Of each cell of code what it gave: kind -> text."""
    given = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            streams = {o.name: o.text for o in cell.outputs if o.output_type == "stream"}
            given.append(streams | {kind: text for o in cell.outputs for kind, text in o.get("data", {}).items()})
    return given


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    return execute(tmp_path_factory.mktemp("examples"))


@pytest.mark.slow
def test_it_shows_what_it_says(executed):
    found = results(executed)
    (taggers,) = [r["stdout"] for r in found if "with a memory" in r.get("stdout", "")]
    without, with_memory = (eval(tags) for tags in re.findall(r"\[.*?\]", taggers))
    assert without[1] == without[3], "the same word, the same tag"
    assert with_memory == ["PRON", "VERB", "DET", "NOUN"]
    (inspection,) = [r for r in found if "text/html" in r]
    assert inspection["text/html"].startswith("<iframe") and "what mattered" in inspection["text/plain"]
    (stream,) = [r["stdout"] for r in found if "the first is where it was" in r.get("stdout", "")]
    we, they, again = stream.splitlines()
    assert "… ourselves" in re.sub(" +", " ", we) and "… themselves" in re.sub(" +", " ", they)
    assert again.endswith(we.partition("…")[2].strip())
    (loop,) = [r["stdout"] for r in found if "greatest difference" in r.get("stdout", "")]
    assert float(re.search(r"\d\S*e-\d+", loop).group()) < 1e-5


@pytest.mark.slow
def test_its_outputs_are_of_the_cells_that_stand_in_it(executed):
    """Line by line, without the figures, which are another machine's, and without what a site would not show."""

    def count(text):
        """Lines; of a paragraph at the beginning, which is wrapped by its figures, one."""
        first, blank, rest = text.partition("\n\n")
        return 1 + len(rest.splitlines()) if blank else len(first.splitlines())

    def lines(notebook):
        return [{kind: count(r[kind]) for kind in ("stdout", "text/plain") if kind in r} for r in results(notebook)]

    kept = nbformat.read(NOTEBOOK, as_version=4)
    assert lines(kept) == lines(executed)
    counts = [cell.execution_count for cell in kept.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


if __name__ == "__main__":
    made = execute(sys.argv[1])
    for one in made.cells:
        one.metadata = {}
        for output in one.get("outputs", []):
            output.get("data", {}).pop("text/html", None)  # a frame, which no site shows
        if "outputs" in one:
            one.outputs = [o for o in one.outputs if o.get("name") != "stderr"]
    nbformat.write(made, NOTEBOOK)
