"""What every export has beside it: names and shapes, test vectors, a README, the file that marks its folder."""

import json

import pytest
import torch

import throughtime as tt
from throughtime.errors import UserError
from throughtime.exporting import agreement, folder, graphs
from throughtime.exporting.folder import MARK, check_free, new_folder
from throughtime.exporting.interface import interface_of
from throughtime.exporting.names import name_of
from throughtime.exporting.reading import Reading
from throughtime.exporting.readme import shapes, write_mark, write_readme
from throughtime.exporting.running import check_reading
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


def written(path, *, overwrite=False, text="{}"):
    with new_folder(path, overwrite=overwrite) as made:
        (made / MARK).write_text(text)
        (made / "net.o").write_text("one")


def test_files_that_no_export_wrote_are_not_lost(tmp_path):
    path = tmp_path / "out"
    written(path)
    assert json.loads((path / MARK).read_text()) == {"files": [MARK, "net.o"]}
    (path / "__pycache__").mkdir()
    written(path, overwrite=True)
    (path / "main.c").write_text("mine")
    with pytest.raises(UserError, match=r"holds what no export wrote \(main.c\)"):
        written(path, overwrite=True)
    with pytest.raises(UserError, match=r"holds what no export wrote \(main.c\)"):
        tt.export(tt.cells.GRU(3, 5), to="onnx", path=path, overwrite=True)
    assert (path / "main.c").read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_export_that_cannot_be_replaced_is_still_there(tmp_path, monkeypatch):
    path = tmp_path / "out"
    written(path)
    (tmp_path / ".out.old").mkdir()  # of somebody else
    (tmp_path / ".out.old" / "file").touch()
    written(path, overwrite=True, text='{"second": 2}')
    rename = folder.Path.rename

    def fails(self, target):
        if (self / MARK).is_file() and "third" in (self / MARK).read_text():
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(folder.Path, "rename", fails)
    with pytest.raises(UserError, match="No space left"):
        written(path, overwrite=True, text='{"third": 3}')
    assert "second" in (path / MARK).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == [".out.old", "out"]


def test_an_empty_folder_stays_the_one_that_it_is(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written(folder.Path("."))
    assert sorted(p.name for p in folder.Path(".").iterdir()) == [MARK, "net.o"]
    assert [p.name for p in tmp_path.iterdir()] == ["here"]


def test_what_a_link_points_at_is_replaced(tmp_path):
    written(tmp_path / "out")
    (tmp_path / "link").symlink_to("out")
    written(tmp_path / "link", overwrite=True, text='{"second": 2}')
    assert (tmp_path / "link").is_symlink() and "second" in (tmp_path / "out" / MARK).read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "out"]


def test_of_two_exports_at_once_the_first_stays(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(UserError, match="holds an export already"), new_folder(path) as made:
        (made / MARK).write_text("{}")
        written(path, text='{"first": 1}')
    assert "first" in (path / MARK).read_text() and len(list(tmp_path.iterdir())) == 1


def test_what_is_in_the_way_is_said_with_what_helps(tmp_path):
    (tmp_path / "file").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="file: is a file; name a folder"):
            tt.export(tt.cells.GRU(3, 5), to="c", path=tmp_path / "file", overwrite=overwrite)
    (tmp_path / "gru.onnx").mkdir()
    with pytest.raises(UserError, match=r"gru.onnx: is a folder; name a file"):
        tt.export(tt.cells.GRU(3, 5), to="onnx", path=tmp_path / "gru.onnx")


@pytest.mark.parametrize("given", [{"inputs": torch.zeros(1, 3)}, {"state": torch.ones(1, 5)}, {"reverse": True}])
@pytest.mark.parametrize("what", [tt.GRU(3, 5), tt.Recurrent(tt.cells.GRU, 3, 5)], ids=["layer", "stack"])
def test_what_is_for_a_cell_alone_is_not_ignored(what, given, tmp_path):
    with pytest.raises(UserError, match=f"{next(iter(given))} is for a cell"):
        tt.export(what, to="onnx", path=tmp_path / "out", **given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["onnx", "c", "wasm"])
def test_eight_bits_of_no_matrix_are_refused(to, tmp_path):
    with pytest.raises(UserError, match="has no matrices: leave out int8"):
        tt.export(
            lambda x, h: (x * h, torch.tanh(x + h)), to=to, path=tmp_path / "out", int8=True, inputs=torch.zeros(1, 3),
            state=torch.zeros(1, 3),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["3x", "a b", "int", "", "math", "String", "é", "__x"])
def test_names_that_c_does_not_take_are_refused(name):
    with pytest.raises(UserError, match=f"name: '{name}' is no name in C"):
        name_of(stack_of(tt.cells.GRU(3, 5)), name)


def test_a_cell_is_called_by_a_name_that_c_takes():
    def called(name):
        cell = type(name, (torch.nn.Module,), {"forward": lambda self, x, h: (h, torch.tanh(x + h))})()
        return name_of(stack_of(cell, torch.zeros(1, 4), torch.zeros(1, 4)), None)

    assert [called(n) for n in ("GRU", "Const", "Signal", "Zelle_1", "Größe")] == [
        "gru", "net_const", "net_signal", "zelle_1", "gr_e",
    ]  # fmt: skip


def test_a_cell_that_gives_no_numbers_is_not_taken_for_checked(tmp_path):
    with pytest.raises(UserError, match="nothing but NaN or infinity for final state 0"):
        tt.export(lambda x, h: (x, h * torch.nan), to="c", path=tmp_path / "out", name="cell", inputs=torch.zeros(1, 3),
                  state=torch.zeros(1, 3))  # fmt: skip
    root = stack_of(lambda x, h: (torch.sqrt(x), torch.tanh(x + h)), torch.zeros(1, 1), torch.zeros(1, 1))
    assert agreement.check(root, root.run, "root") == 0  # NaN of a half of all inputs


class Reads:
    """Gives a number for the log p of every entry."""

    def __init__(self, value):
        self.value = value

    def steps(self, state, x):
        return torch.full((len(x), 4), self.value), state


@pytest.mark.parametrize("value", [-1e9, -torch.inf, torch.nan])
def test_what_reads_tokens_is_not_measured_by_itself(value):
    def check(given):
        return check_reading(
            Reads(given), stack, reading, "text.o", int8=False, log_p=lambda t: torch.zeros(*t.shape, 4)
        )

    stack, reading = stack_of(tt.cells.GRU(3, 4)), Reading(torch.randn(4, 3), 1, (b"",) * 4)
    assert check(1e-4) == pytest.approx(1e-4)
    with pytest.raises(UserError, match="log p differs from the reference by"):
        check(value)


def test_a_network_that_gives_no_numbers_in_eight_bits_is_refused():
    with pytest.raises(UserError, match="p: it gives no numbers where the network does"):
        graphs._away(torch.tensor([torch.nan, 1]), torch.tensor([0.5, 1]), "p", exact=False)
    assert graphs._away(torch.tensor([0.75, 1]), torch.tensor([0.5, 1]), "p", exact=False) == 0.25
