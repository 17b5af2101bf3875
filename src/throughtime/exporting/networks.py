"""A trained model as ONNX: its networks, what else is needed to ask them, and a Python script that does, without this library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from throughtime.errors import UserError
from throughtime.exporting.folder import MARK, new_folder
from throughtime.exporting.onnx import check_installed
from throughtime.exporting.readme import write_readme
from throughtime.exporting.vectors import VECTORS, values_of
from throughtime.tasks import pauses
from throughtime.tasks.base import Trained
from throughtime.tasks.networks import Network

SMALL = (3, 2, 4, 3, 2)  # sizes of the axes in test vectors
SCRIPT = "answer.py"
ANSWERS = Path(__file__).parent / "answers"  # scripts by task: they are written out, and not imported
HELPERS = [  # what scripts import
    *(ANSWERS / f"{name}.py" for name in ("vocabulary", "beam", "series", "logmel")),
    Path(pauses.__file__),
]


@dataclass(frozen=True)
class Written:
    """A network that was written. shapes, types: of what goes in and out, by name. difference: the largest of numbers
    from the model's."""

    shapes: dict[str, list[str | int]]
    types: dict[str, str]
    difference: float
    opset: int


def write_trained(trained: Trained[Any], path: Path, *, overwrite: bool = False, int8: bool = False) -> Path:
    """Write a trained model into a folder: an .onnx file for each network, what else is needed, test vectors, a script that answers
    with onnxruntime and numpy alone, and a README.

    int8: weights in eight bits, by onnxruntime's dynamic quantisation.
    Returns: the path. Raises: UserError where a package is missing, the model cannot be exported, what was written does not give
        what the model gives, or something is in the way.
    """
    check_installed("onnx", "onnxruntime", "onnxscript")
    if path.suffix == ".onnx":
        raise UserError(f"{path}: a trained model is several files; name a folder, as {path.with_suffix('')}")
    networks, files, task = trained.networks(), trained.beside(), trained.task.name
    scripts = _scripts_of(task)
    with new_folder(path, overwrite=overwrite) as folder:
        written = {network.name: _write(network, folder, int8) for network in networks}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        for name, text in scripts.items():
            (folder / name).write_text(text, encoding="utf-8")
        _write_vectors(folder, networks)
        write_readme(folder, f"{task}: {trained.task.describe(trained.config)}", [
            ("", _about(trained, networks, written, int8)),
            *((f"{network.name}.onnx", _table(network, written[network.name])) for network in networks),
            ("Files", _files(files, scripts)),
            *([("In Python", f"{SCRIPT}:\n\n```python\n{scripts[SCRIPT].strip()}\n```")] if scripts else []),
        ])  # fmt: skip
        _write_mark(folder, trained, networks, written, int8)
    return path


def _write(network: Network, folder: Path, int8: bool) -> Written:
    """Write one network, once it has been set beside itself."""
    from throughtime.exporting.graphs import differences, graph_of
    from throughtime.exporting.onnx.quantised import quantised
    from throughtime.exporting.onnx.running import session

    file = f"{network.name}.onnx"
    try:
        model = graph_of(network, int8=int8)
        made = session(model.SerializeToString())
        away = differences(network, made)
        if int8:
            model = quantised(model)
            made = session(model.SerializeToString())
            away = differences(network, made, exact=False)
    except UserError as error:
        raise UserError(f"{file}: {error}: nothing was written") from error
    (folder / file).write_bytes(model.SerializeToString())
    all_of = [*made.get_inputs(), *made.get_outputs()]
    types = {t.name: t.type.removeprefix("tensor(").removesuffix(")") for t in all_of}
    return Written({t.name: list(t.shape) for t in all_of}, types, away, model.opset_import[0].version)


def _about(
    trained: Trained[Any], networks: Sequence[Network], written: Mapping[str, Written], int8: bool
) -> str:  # fmt: skip
    import throughtime

    away = max(written[network.name].difference for network in networks)
    bits = (
        f"Its weights are in eight bits, by which its numbers differ by up to {away:.2g} on random inputs: measure what that "
        "changes on inputs of your own."
        if int8
        else f"Its numbers are those of the model, within {away:.2g} on random inputs."
    )
    return (
        f"A model that was trained with throughtime {throughtime.__version__} on {', '.join(map(str, trained.config.files))}, as "
        f"ONNX: run by onnxruntime, or whatever else reads ONNX. {bits}\n\nSizes that are letters are free."
    )


def _table(network: Network, written: Written) -> str:
    rows = [(i.name, "in", ", ".join(map(str, i.axes)), i.meaning) for i in network.inputs]
    rows += [(n, "out", ", ".join(map(str, written.shapes[n])), said) for n, said in network.outputs.items()]
    lines = ["| name | | shape | type | what it is |", "|---|---|---|---|---|"]
    lines += [f"| `{name}` | {way} | [{shape}] | {written.types[name]} | {said} |" for name, way, shape, said in rows]
    return "\n".join(lines)


def _scripts_of(task: str) -> dict[str, str]:
    """The script that answers, and what it imports of its folder, by their names; none of a task that is somebody else's."""
    script = ANSWERS / f"{task.replace('-', '_')}.py"
    if not script.is_file():
        return {}
    text = script.read_text(encoding="utf-8")
    helpers = [helper for helper in HELPERS if f"from {helper.stem} import" in text]
    return {SCRIPT: text, **{helper.name: helper.read_text(encoding="utf-8") for helper in helpers}}


def _files(files: Mapping[str, str], scripts: Mapping[str, str]) -> str:
    said = dict.fromkeys(files, "what else is needed to read and to answer")
    said |= {name: f"answers: `python {SCRIPT}`" if name == SCRIPT else f"of {SCRIPT}" for name in scripts}
    said |= {VECTORS: "test vectors: random inputs of each network, and what comes out"}
    said |= {MARK: "by what this was written"}
    return "\n".join(f"- `{name}`: {what}" for name, what in said.items())


def _write_vectors(folder: Path, networks: Sequence[Network]) -> None:
    """A list of cases: {"network", "inputs", "outputs"}, of each {name: {"shape", "values"}}, values row by row."""
    from throughtime.exporting.graphs import sizes_of

    cases = []
    for network in networks:
        example = network.example(sizes_of(network, SMALL), torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = network.call(*example)
        cases.append({
            "network": network.name,
            "inputs": {i.name: values_of(t) for i, t in zip(network.inputs, example, strict=True)},
            "outputs": {name: values_of(t) for name, t in zip(network.outputs, found, strict=True)},
        })  # fmt: skip
    (folder / VECTORS).write_text(json.dumps(cases) + "\n", encoding="utf-8")


def _write_mark(
    folder: Path, trained: Trained[Any], networks: Sequence[Network], written: Mapping[str, Written], int8: bool
) -> None:
    import throughtime

    made = {
        "format": "onnx",
        "made_of": trained.task.name,
        "throughtime": throughtime.__version__,
        "int8": int8,
        "networks": {
            n.name: {
                "opset": written[n.name].opset,
                "difference": written[n.name].difference,
                "shapes": written[n.name].shapes,
                "carried": dict(n.carried),
            }
            for n in networks
        },
    }
    (folder / MARK).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
