"""What every export has beside it: names and shapes, test vectors, a README, the file that marks its folder."""

import json

import pytest
import torch

import throughtime as tt
from throughtime.exporting.folder import MARK, check_free
from throughtime.exporting.interface import interface_of
from throughtime.exporting.readme import shapes, write_mark, write_readme
from throughtime.exporting.stack import stack_of
from throughtime.exporting.vectors import write_vectors


def test_names_and_shapes_are_in_the_order_of_the_cells():
    names = interface_of(stack_of(tt.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2)))
    assert [(n.name, n.shape) for n in names.states] == [(f"state{i}", (2, 5)[i % 2 : i % 2 + 1]) for i in range(8)]
    assert [n.name for n in names.finals] == [f"final{i}" for i in range(8)]
    assert (names.inputs[0].name, names.inputs[0].shape, names.output.shape) == ("x", (3,), (4,))
    assert names.states[3].meaning == "layer 0, LSTM, backwards, tensor 2 of the 2 of its state"


def test_several_inputs_have_numbers():
    def cell(x, h):
        return torch.tanh(x[0].sum(-1) + x[1] + h)

    names = interface_of(stack_of(cell, (torch.zeros(1, 4, 2), torch.zeros(1, 4)), torch.zeros(1, 4)))
    assert [(n.name, n.shape, n.width) for n in names.inputs] == [("x0", (4, 2), 8), ("x1", (4,), 4)]


def test_vectors_are_what_the_reference_gives(tmp_path):
    torch.manual_seed(0)
    stack = stack_of(tt.Recurrent(tt.cells.LSTM, 3, 5, num_layers=2))
    write_vectors(tmp_path, stack, ((4, 2),), lengths=True)
    (case,) = json.loads((tmp_path / "vectors.json").read_text())

    def tensors(group):
        return [torch.tensor(v["values"]).reshape(v["shape"]) for v in case[group].values()]

    lengths = torch.tensor(case["lengths"])
    y, finals = stack.run(tensors("inputs")[0], tensors("states"), lengths)
    assert case["T"] == 4 and case["B"] == 2 and len(finals) == 4
    for got, right in zip([*tensors("outputs"), *tensors("finals")], [y, *finals], strict=True):
        assert torch.equal(got, right)  # every digit that a float32 has


def test_an_output_of_nothing_is_refused():
    stack = stack_of(lambda x, h: (h[:, :0], torch.tanh(x + h)), torch.zeros(1, 4), torch.zeros(1, 4))
    with pytest.raises(tt.errors.UserError, match=r"gives an output of \[B, 0\], without features"):
        interface_of(stack)


def test_what_is_elsewhere_than_on_the_cpu_is_refused():
    with pytest.raises(tt.errors.UserError, match=r"GRU is on meta \(weight_ih\): export a copy of it on the CPU"):
        stack_of(tt.cells.GRU(3, 5, device="meta"))


def test_what_json_has_no_number_for_is_said(tmp_path):
    write_vectors(tmp_path, stack_of(lambda x, h: (x - x) / (h - h) + h, torch.ones(1, 2), torch.ones(1, 2)))
    first = json.loads((tmp_path / "vectors.json").read_text())[0]
    assert first["finals"]["final0"]["values"] == ["nan", "nan"]


def test_a_folder_is_known_by_its_mark(tmp_path):
    stack = stack_of(tt.cells.GRU(3, 5))
    write_mark(tmp_path, stack, "onnx", opset=18)
    made = json.loads((tmp_path / MARK).read_text())
    assert made["format"] == "onnx" and made["opset"] == 18 and made["layers"] == [["GRU"]]
    assert made["tensors"]["state0"]["shape"] == [5] and made["throughtime"] == tt.__version__
    check_free(tmp_path, overwrite=True)
    with pytest.raises(tt.errors.UserError, match="holds an export already"):
        check_free(tmp_path, overwrite=False)


def test_a_readme_has_its_table(tmp_path):
    table = shapes(interface_of(stack_of(tt.cells.GRU(3, 5))), time=True)
    write_readme(tmp_path, "A cell", [("", "One."), ("Shapes", table)])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# A cell\n\nOne.\n\n## Shapes\n\n| name")
    assert "| `x` | in | [T, B, 3] | float32 | what a step is given |" in text
    assert "| `final0` | out | [B, 5] | float32 | GRU, its state, after the last step |" in text
