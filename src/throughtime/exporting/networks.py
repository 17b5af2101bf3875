"""A trained model as ONNX: its networks, what else is needed to ask them, and a Python script that does, without this library."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime.errors import UserError
from throughtime.exporting.agreement import TOLERANCE
from throughtime.exporting.folder import MARK, new_folder
from throughtime.exporting.readme import write_readme
from throughtime.exporting.vectors import VECTORS, values_of
from throughtime.tasks import pauses
from throughtime.tasks.base import Trained
from throughtime.tasks.networks import Network

TRACED = (7, 3, 11, 5, 13, 17, 19)  # sizes that a network is traced with: none 0 or 1, none like another
COMPARED = (
    (1, 1, 1, 1, 1, 1, 1),
    (5, 2, 7, 3, 4, 6, 2),
    (23, 4, 9, 6, 8, 3, 5),
)  # and those at which what was written is run
SMALL = (3, 2, 4, 3, 2, 2, 2)  # of the test vectors
SCRIPT = "answer.py"
ANSWERS = Path(__file__).parent / "answers"  # scripts by task: they are written out, and not imported
HELPERS = [  # what scripts import
    *(ANSWERS / f"{name}.py" for name in ("vocabulary", "beam", "series", "logmel")),
    Path(pauses.__file__),
]


def write_trained(trained: Trained[Any], path: Path, *, overwrite: bool = False, int8: bool = False) -> Path:
    """Write a trained model into a folder: an .onnx file for each network, what else is needed, test vectors, a script that answers
    with onnxruntime and numpy alone, and a README.

    int8: weights in eight bits, by onnxruntime's dynamic quantisation.
    Returns: the path. Raises: UserError where a package is missing, the model cannot be exported, what was written does not give
        what the model gives, or something is in the way.
    """
    _need_packages()
    networks, files = trained.networks(), trained.beside()
    with new_folder(path, overwrite=overwrite) as folder:
        facts = {network.name: _write(trained, network, folder, int8) for network in networks}
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        _write_vectors(folder, networks)
        script = ANSWERS / f"{trained.task.name.replace('-', '_')}.py"
        shutil.copyfile(script, folder / SCRIPT)
        for helper in HELPERS:
            if f"from {helper.stem} import" in script.read_text(encoding="utf-8"):
                shutil.copyfile(helper, folder / helper.name)
        write_readme(folder, f"{trained.task.name}: {trained.task.describe(trained.config)}", [
            ("", _about(trained, int8)),
            *((f"{network.name}.onnx", _table(network, facts[network.name])) for network in networks),
            ("Files", "\n".join(f"- `{name}`: {what}" for name, what in _files(files, script).items())),
            ("In Python", f"```python\n{script.read_text(encoding='utf-8').strip()}\n```"),
        ])  # fmt: skip
        _write_mark(folder, trained, networks, facts, int8)
    return path


def _need_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"ONNX needs {error.name}, which is not installed (pip install 'throughtime[export]')"
        ) from error


@dataclass(frozen=True)
class Facts:
    """Of a network that was written. shapes: of its outputs, by name. away: the largest difference that was found; of eight bits,
    from the network whose weights have all theirs."""

    shapes: dict[str, list[str | int]]
    types: dict[str, str]
    away: float
    opset: int


def _write(trained: Trained[Any], network: Network, folder: Path, int8: bool) -> Facts:
    """Write one network, and set it beside itself."""
    import onnx

    from throughtime.exporting.scans import unmarked
    from throughtime.exporting.tracing import OPSET, trace

    what, path = f"{network.name}.onnx", folder / f"{network.name}.onnx"
    example = network.example(_sizes(network, TRACED), torch.Generator().manual_seed(0))
    network.module.eval()
    try:
        model, taken = trace(network.module, network.call, example, [given.axes for given in network.inputs])
        unmarked(model, taken)
    except UserError as error:
        raise UserError(f"{what}: {error}: nothing was written") from error
    _rename(model, network)
    model.producer_name = "throughtime"
    onnx.checker.check_model(model)
    onnx.save(model, path)
    session = _session(path)
    away = max(_compare(network, session, sizes, what) for sizes in COMPARED)
    if int8:
        _quantise(path)
        session = _session(path)
        away = max(_compare(network, session, sizes, what, exact=False) for sizes in COMPARED)
    shapes = {o.name: list(o.shape) for o in session.get_outputs()}
    types = {
        t.name: t.type.removeprefix("tensor(").removesuffix(")")
        for t in [*session.get_inputs(), *session.get_outputs()]
    }
    return Facts(shapes, types, away, OPSET)


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _sizes(network: Network, sizes: Sequence[int]) -> dict[str, int]:
    return {a: max(n, network.fewest.get(a, 1)) for a, n in zip(network.axes, sizes, strict=False)}


def _rename(model: Any, network: Network) -> None:
    """Give what goes in and out its name, and free sizes theirs. PyTorch's own names are those of its operations."""
    graph = model.graph
    names: dict[str, str] = {}
    for value, given in zip(graph.input, network.inputs, strict=True):
        for size, axis in zip(value.type.tensor_type.shape.dim, given.axes, strict=True):
            if isinstance(axis, str):
                if not size.dim_param:
                    raise UserError(
                        f"{network.name}.onnx: {axis} of {given.name} does not stay free: nothing was written"
                    )
                names[size.dim_param] = axis
    for value in [*graph.input, *graph.output, *graph.value_info]:
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_param = names.get(size.dim_param, size.dim_param)
    new = {value.name: given.name for value, given in zip(graph.input, network.inputs, strict=True)}
    for value, name in zip(graph.output, network.outputs, strict=True):
        _output_called(graph, value, name)
    for value in graph.input:
        value.name = new[value.name]
    _renamed_uses(graph, new)


def _output_called(graph: Any, value: Any, name: str) -> None:
    """One node more gives an output its name: what it was may be an input, or another output too."""
    from onnx import helper

    graph.node.append(helper.make_node("Identity", [value.name], [name]))
    value.name = name


def _renamed_uses(graph: Any, new: Mapping[str, str]) -> None:
    for node in graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = new.get(name, name)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _renamed_uses(attribute.g, new)


def _compare(network: Network, session: Any, sizes: Sequence[int], what: str, *, exact: bool = True) -> float:
    """Run what was written and the network on the same random inputs; where a state is carried, a second time from where each came
    to. Returns: the largest difference of numbers. Raises: UserError where they differ by more than rounding, if `exact`."""
    generator, own = torch.Generator().manual_seed(len(network.axes)), _sizes(network, sizes)
    example, worst = network.example(own, generator), 0.0
    given = {i.name: t for i, t in zip(network.inputs, example, strict=True)}
    carried = dict(given)
    for _ in range(2 if network.carried else 1):
        with torch.no_grad():
            right = dict(zip(network.outputs, network.call(*given.values()), strict=True))
        got = dict(
            zip(
                network.outputs,
                map(torch.from_numpy, session.run(None, {n: t.numpy() for n, t in carried.items()})),
                strict=True,
            )
        )
        for name, value in right.items():
            worst = max(worst, _difference(got[name], value, f"{what}: {name}", own, exact))
        fresh = {i.name: t for i, t in zip(network.inputs, network.example(own, generator), strict=True)}
        back = {i: o for o, i in network.carried.items()}
        given = {n: right[back[n]] if n in back else t for n, t in fresh.items()}
        carried = {n: got[back[n]] if n in back else t for n, t in fresh.items()}
    return worst


def _difference(got: Tensor, right: Tensor, what: str, sizes: Mapping[str, int], exact: bool) -> float:
    where = ", ".join(f"{axis} = {n}" for axis, n in sizes.items())
    if got.shape != right.shape or got.dtype != right.dtype:
        raise UserError(
            f"{what} is {list(got.shape)} of {got.dtype}, not {list(right.shape)} of {right.dtype}, at {where}: nothing was written"
        )
    away = (got.double() - right.double()).abs()
    allowed = TOLERANCE * right.double().abs().clamp(min=1) if right.is_floating_point() else torch.zeros_like(away)
    same = (got == right) | (got.isnan() & right.isnan()) | (away <= allowed)
    if exact and not bool(same.all()):
        largest = float(away[~same].nan_to_num(torch.inf).max())
        raise UserError(f"{what} differs from the network by {largest:.3g} at {where}: nothing was written")
    finite = away[away.isfinite()]
    return float(finite.max()) if finite.numel() and right.is_floating_point() else 0.0


def _quantise(path: Path) -> None:
    """Put the weights of products into eight bits, those within Scan too."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from throughtime.exporting.tracing import quiet

    made = path.with_suffix(".int8")
    with quiet():
        quantize_dynamic(path, made, weight_type=QuantType.QInt8, extra_options={"EnableSubgraph": True})
    made.replace(path)


def _about(trained: Trained[Any], int8: bool) -> str:
    import throughtime

    bits = ", its weights in eight bits" if int8 else ""
    return (
        f"A model that was trained with throughtime {throughtime.__version__} on {', '.join(map(str, trained.config.files))}, as "
        f"ONNX{bits}. Its networks are run by onnxruntime or whatever else reads ONNX. Sizes that are letters are free."
    )


def _table(network: Network, facts: Facts) -> str:
    rows = [
        (i.name, "in", ", ".join(map(str, i.axes)), facts.types[i.name], i.meaning) for i in network.inputs
    ]  # fmt: skip
    rows += [
        (n, "out", ", ".join(map(str, facts.shapes[n])), facts.types[n], said) for n, said in network.outputs.items()
    ]
    lines = ["| name | | shape | type | what it is |", "|---|---|---|---|---|"]
    lines += [f"| `{name}` | {way} | [{shape}] | {kind} | {said} |" for name, way, shape, kind, said in rows]
    said = f"\n\nIn the next call `{'`, `'.join(network.carried.values())}` are what came out as `{'`, `'.join(network.carried)}`."
    return "\n".join(lines) + (said if network.carried else "")


def _files(files: Mapping[str, str], script: Path) -> dict[str, str]:
    said = dict.fromkeys(files, "what else it needs to read and to answer")
    return said | {
        VECTORS: "test vectors: what goes into each network and what must come out",
        SCRIPT: f"answers in Python: `python {SCRIPT}`",
        MARK: "by what it was made, and how far it is from the model",
    }


def _write_vectors(folder: Path, networks: Sequence[Network]) -> None:
    cases = []
    for network in networks:
        example = network.example(_sizes(network, SMALL), torch.Generator().manual_seed(1))
        with torch.no_grad():
            found = network.call(*example)
        cases.append({
            "network": network.name,
            "inputs": {i.name: values_of(t) for i, t in zip(network.inputs, example, strict=True)},
            "outputs": {name: values_of(t) for name, t in zip(network.outputs, found, strict=True)},
        })  # fmt: skip
    (folder / VECTORS).write_text(json.dumps(cases) + "\n", encoding="utf-8")


def _write_mark(
    folder: Path, trained: Trained[Any], networks: Sequence[Network], facts: Mapping[str, Facts], int8: bool
) -> None:
    import throughtime

    made = {
        "format": "onnx",
        "made_of": trained.task.name,
        "throughtime": throughtime.__version__,
        "int8": int8,
        "networks": {
            n.name: {
                "opset": facts[n.name].opset,
                "largest_difference": facts[n.name].away,
                "inputs": {i.name: list(i.axes) for i in n.inputs},
                "outputs": facts[n.name].shapes,
                "carried": dict(n.carried),
            }
            for n in networks
        },
    }
    (folder / MARK).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
