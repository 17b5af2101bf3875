"""PyTorch's own kernels for the three standard cells: oneDNN and ATen on the CPU, cuDNN on CUDA.

They run a whole sequence in one call and know nothing of resets, so a scan with resets is cut in time where one stands;
lengths go in as a packed sequence.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from throughtime.cells import GRU, LSTM, Elman, State
from throughtime.cells.base import somebody_watches
from throughtime.scanning.call import Call, Scanned, where_rows
from throughtime.scanning.cell import name_of
from throughtime.scanning.foreign import transform

name = "torch"

_KINDS: dict[type[nn.Module], str] = {
    Elman: "rnn", nn.RNNCell: "rnn", GRU: "gru", nn.GRUCell: "gru", LSTM: "lstm", nn.LSTMCell: "lstm",
}  # fmt: skip


def why_not(call: Call) -> str | None:
    """Why PyTorch's kernels cannot run this call; None where they can."""
    cell = call.cell
    if (reason := transform()) is not None:
        return reason
    if type(cell) not in _KINDS:
        return f"PyTorch has no kernel for {name_of(cell)}, only for Elman, GRU and LSTM"
    if call.record:
        return f"the kernel does not show inner values ({', '.join(call.record)})"
    if somebody_watches():
        return "somebody watches inner values, which the kernel does not show"
    hooks = cell._forward_hooks, cell._forward_pre_hooks, cell._backward_hooks, cell._backward_pre_hooks
    if any(hooks) or "forward" in cell.__dict__:
        return "the cell has hooks or a forward of its own, which the kernel would pass by"
    if not isinstance(call.inputs, Tensor):
        return "the inputs are several tensors; the kernel takes one"
    if call.inputs.dim() != 3:
        return f"the inputs are not [T, B, I] but {list(call.inputs.shape)}"
    return None


def run(call: Call) -> Scanned:
    """Run the cell by PyTorch's kernel, as `scan` documents."""
    call, turn_back = call.forwards()
    inputs, state = call.inputs, call.state
    assert isinstance(inputs, Tensor)
    if call.lengths is not None:
        t_T1 = torch.arange(call.steps, device=inputs.device).unsqueeze(1)
        inputs = torch.where((t_T1 < call.lengths).unsqueeze(-1), inputs, torch.zeros_like(inputs))
    outputs = []
    cuts = _reset_steps(call)
    for start, end in zip([0, *cuts], [*cuts, call.steps], strict=True):
        if start in cuts:
            assert call.resets is not None
            state = where_rows(call.resets[start], call.initial, state)
        lengths = None if call.lengths is None else (call.lengths - start).clamp(0, end - start)
        part, state = _segment(call.cell, inputs[start:end], state, lengths)
        outputs.append(part)
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return Scanned(turn_back(output), state, {})


def _reset_steps(call: Call) -> list[int]:
    if call.resets is None:
        return []
    steps: list[int] = call.resets.any(1).nonzero().flatten().tolist()
    return steps


def _segment(cell: nn.Module, inputs: Tensor, state: State, lengths: Tensor | None) -> tuple[Tensor, State]:
    steps, batch = inputs.shape[:2]
    if steps == 0 or batch == 0:
        width = state.shape[-1] if isinstance(state, Tensor) else state[0].shape[-1]
        return inputs.new_zeros(steps, batch, width), state
    if lengths is None or bool((lengths == steps).all()):
        return _kernel(cell, inputs, None, state)
    lengths = lengths.cpu()
    # a packed sequence has at least one step in every row; rows with none are put right afterwards
    packed = pack_padded_sequence(inputs, lengths.clamp(min=1), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    ordered = state[order] if isinstance(state, Tensor) else tuple(s[order] for s in state)
    data, new = _kernel(cell, packed.data, packed.batch_sizes, ordered)
    output, _ = pad_packed_sequence(packed._replace(data=data), total_length=steps)
    new = new[back] if isinstance(new, Tensor) else tuple(s[back] for s in new)
    some = (lengths > 0).to(inputs.device)
    if not bool(some.all()):
        new = where_rows(some, new, state)
        output = torch.where(some.unsqueeze(-1), output, torch.zeros_like(output))
    return output, new


def _kernel(cell: nn.Module, inputs: Tensor, batch_sizes: Tensor | None, state: State) -> tuple[Tensor, State]:
    """One unidirectional layer: inputs [T, B, I], or the data of a packed sequence with its batch sizes."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    weights: Sequence[Tensor] = [w for n in names if (w := getattr(cell, n, None)) is not None]
    has_bias = cell.bias_ih is not None
    kind = _KINDS[type(cell)]
    function: Any = {"gru": torch.gru, "lstm": torch.lstm}.get(kind)
    if function is None:
        function = torch.rnn_tanh if cell.nonlinearity == "tanh" else torch.rnn_relu
    hidden = [s.unsqueeze(0).contiguous() for s in (state if isinstance(state, tuple) else (state,))]
    given = hidden if kind == "lstm" else hidden[0]
    # num_layers, dropout, train (which is whether a backward may follow) and bidirectional
    train = (
        torch.is_grad_enabled() or torch._C._get_tracing_state() is not None
    )  # a graph must not hang on where it was traced
    if inputs.is_cuda:
        # cuDNN wants a layer's weights in one piece, and copies them together at every call where they are not
        warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
    if batch_sizes is None:
        result = function(inputs, given, weights, has_bias, 1, 0.0, train, False, False)
    else:
        result = function(inputs, batch_sizes, given, weights, has_bias, 1, 0.0, train, False)
    output, *new = result
    return output, tuple(n.squeeze(0) for n in new) if kind == "lstm" else new[0].squeeze(0)
