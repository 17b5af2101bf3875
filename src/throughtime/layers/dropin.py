"""RNN, LSTM and GRU: torch.nn's layers by another engine. One import changes, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.cells import GRU as GRUCell
from throughtime.cells import LSTM as LSTMCell
from throughtime.cells import Cell, Elman, State
from throughtime.layers.answering import Answering
from throughtime.scanning import Stepper, scan
from throughtime.scanning.foreign import in_bfloat16, transform, untransformed_context, without_autocast
from throughtime.scanning.graph import is_fixed
from throughtime.scanning.int8 import FLOAT


class _Layers(Answering, nn.RNNBase):
    """What the three share: the arguments, weights, checks and messages are torch.nn's; the way through time is `scan`."""

    backend = "auto"  # handed to `scan`

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: Any = None,
        lengths: Tensor | Sequence[int] | None = None,
        resets: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Run every layer in every direction.

        Args:
            input: [T, B, I], [B, T, I] with `batch_first`, [T, I] for one sequence, or a PackedSequence.
            hx: the first states as in torch.nn: [layers · directions, B, N], for the LSTM a pair; None: zeros.
            lengths: [B]: how much of each sequence is real; packing is not needed. Outputs past it are zero.
            resets: bool [T, B] ([B, T] with `batch_first`): put zeros back for the state before this step.
        Returns: (output, last states), shaped as in torch.nn; a PackedSequence for a PackedSequence; no outputs for no steps.
        Raises: what torch.nn raises for the same mistake; ValueError for lengths or resets that do not fit.
        """
        if isinstance(input, torch.fx.Proxy):  # symbolic tracing: a layer is one node, as torch.nn's is
            tracer, more = input.tracer, {k: v for k, v in (("lengths", lengths), ("resets", resets)) if v is not None}
            given = (input,) if hx is None else (input, hx)
            return tracer.create_proxy("call_module", tracer.path_of_module(self), given, more)  # type: ignore[return-value]
        plain = lengths is None and resets is None and self.backend in ("auto", "torch") and self.weights == FLOAT
        if plain and self._is_for_torch(input, hx):
            return super().forward(input, hx)  # type: ignore[no-any-return]
        self._refresh_checks()
        packed = input if isinstance(input, PackedSequence) else None
        states: list[Tensor] | None = None if hx is None else [*hx] if self.mode == "LSTM" else [hx]
        if packed is not None:
            if lengths is not None:
                raise ValueError("a PackedSequence carries its own lengths; leave out lengths=")
            self.check_input(packed.data, packed.batch_sizes)
            x, lengths = pad_packed_sequence(packed)
            single = False
        else:
            assert not isinstance(input, PackedSequence)
            single = input.dim() == 2
            if input.dim() not in (2, 3) or any(s.dim() != input.dim() for s in states or ()):
                return super().forward(input, hx)  # type: ignore[no-any-return]  # raises, in torch.nn's words
            x = input.unsqueeze(1) if single else input.transpose(0, 1) if self.batch_first else input
            if single and states is not None:
                states = [s.unsqueeze(1) for s in states]
            self.check_input(x, None)
        if resets is not None:
            resets = resets.unsqueeze(1) if single else resets.transpose(0, 1) if self.batch_first else resets
        directions = 2 if self.bidirectional else 1
        if states is None:
            widths = [self.proj_size or self.hidden_size] + [self.hidden_size] * (self.mode == "LSTM")
            states = [x.new_zeros(self.num_layers * directions, x.shape[1], n) for n in widths]
        else:
            self._check_states(x, states)

        x, last = self._through_time(x, states, lengths, resets, packed)
        if self.mode == "LSTM":
            ends: Any = tuple(torch.stack(tensors) for tensors in zip(*last, strict=True))
        else:
            ends = torch.stack(last)  # type: ignore[arg-type]
        if packed is not None:
            return _repack(x, packed), ends
        if single:
            ends = tuple(e.squeeze(1) for e in ends) if self.mode == "LSTM" else ends.squeeze(1)
            return x.squeeze(1), ends
        return x.transpose(0, 1) if self.batch_first else x, ends

    def _through_time(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        lengths: Tensor | Sequence[int] | None,
        resets: Tensor | None,
        packed: PackedSequence | None,
    ) -> tuple[Tensor, list[State]]:
        """Every layer in every direction. Returns: the last one's outputs, and the last states in the order of torch.nn."""
        directions = 2 if self.bidirectional else 1
        last: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.training and self.dropout > 0:
                x = self._drop(x, packed)
            outputs = []
            for direction in range(directions):
                row = layer * directions + direction
                first: State = tuple(s[row] for s in states) if self.mode == "LSTM" else states[0][row]
                output, state, _ = scan(
                    self._cell(layer, direction),
                    x,
                    first,
                    initial=first if resets is None else None,  # which nothing puts back
                    lengths=lengths,
                    resets=resets,
                    reverse=direction == 1,
                    backend=self.backend,
                    weights=self.weights,
                )
                outputs.append(output)
                last.append(state)
            x = outputs[0] if directions == 1 else torch.cat(outputs, -1)
        return x, last

    def step(self, x: Tensor, hx: Any = None) -> tuple[Tensor, Any]:
        """One step. x: [B, I]; hx: the states before it, as in `forward`. Returns: (output [B, N], states after it).
        Gradients pass."""
        time = 1 if self.batch_first else 0
        output, states = self(x.unsqueeze(time), hx)
        return output.squeeze(time), states

    def stepper(self, batch: int = 1, hx: Any = None, *, backend: str = "auto", weights: str | None = None) -> Stepper:
        """What steps `batch` streams through the layers with as little as can be between Python and the compiled code: see
        `Stepper`.

        Args: hx: the states to begin with, as in `forward`; None: zeros. weights: "float" or "int8", as of `Stepper`; None: as
            the layer's.
        Raises: ValueError for a bidirectional network, which needs the whole sequence.
        """
        if self.bidirectional:
            raise ValueError("a bidirectional network cannot step: its backward half begins at the end of the sequence")
        weight = self.weight_ih_l0
        if hx is None:
            widths = [self.proj_size or self.hidden_size] + [self.hidden_size] * (self.mode == "LSTM")
            zeros = [weight.new_zeros(self.num_layers, batch, n) for n in widths]  # type: ignore[operator]
            hx = tuple(zeros) if self.mode == "LSTM" else zeros[0]
        states: list[State] = [
            tuple(s[layer] for s in hx) if self.mode == "LSTM" else hx[layer] for layer in range(self.num_layers)
        ]
        x = weight.new_zeros(batch, self.input_size)  # type: ignore[operator]
        return Stepper(self._cells(), states, x, backend=backend, again=self._cells, weights=weights or self.weights)

    def _cells(self) -> list[Cell]:
        """Those that run forwards, over the weights as they are now."""
        return [self._cell(layer, 0) for layer in range(self.num_layers)]

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script takes in its place: torch.nn's layer over the same weights."""
        twin = copy.copy(self)
        twin.__class__ = {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(self.mode, nn.RNN)  # type: ignore[assignment]
        return twin

    def _is_for_torch(self, input: Tensor | PackedSequence, hx: Any) -> bool:
        """Whether torch.nn's own forward is better: on CUDA, where cuDNN takes the whole stack in one call, and where PyTorch
        traces, exports or changes its operations; where it transforms functions it lacks rules for its kernels."""
        if torch.compiler.is_compiling():
            return torch.compiler.is_exporting() and not self._has_open_time(input)
        if self._flat_weights[0] is not None and self._flat_weights[0].is_cuda:
            return True
        if transform() is not None:
            return False
        given = [input.data if isinstance(input, PackedSequence) else input]
        given += [hx] if isinstance(hx, Tensor) else hx or ()
        given += [w for w in self._flat_weights if w is not None]
        if in_bfloat16():
            with without_autocast():
                return untransformed_context(given) is not None
        return untransformed_context(given) is not None

    def _refresh_checks(self) -> None:
        """Let torch.nn's checks see the weights of now; an export, which warns of attributes that are set, has those of before."""
        now = self._parameters
        for name, weight in zip(self._flat_weights_names, self._flat_weights, strict=False):
            if now.get(name) is not weight:
                if not torch.compiler.is_exporting():
                    self._update_flat_weights()
                return

    def _has_open_time(self, input: Tensor | PackedSequence) -> bool:
        """Whether the graph that is exported is to take any number of steps, which torch.nn's kernel fixes."""
        if isinstance(input, PackedSequence) or input.dim() not in (2, 3):
            return False
        return not is_fixed(input.shape[1 if self.batch_first and input.dim() == 3 else 0])

    def _cell(self, layer: int, direction: int) -> Cell:
        """A cell over the weights of one layer in one direction."""
        suffix = f"_l{layer}" + ("_reverse" if direction else "")
        own: dict[str, Any] = self._parameters  # type: ignore[assignment]
        weights: dict[str, Any] = {}
        for name, there in (
            ("weight_ih", True), ("weight_hh", True), ("bias_ih", self.bias), ("bias_hh", self.bias), ("weight_hr", self.proj_size),
        ):  # fmt: skip
            whole = name + suffix
            weights[name] = own[whole] if whole in own else getattr(self, whole, None) if there else None
        n, mode = self.hidden_size, self.mode
        inputs = weights["weight_ih"].shape[1]
        if mode == "LSTM":
            return LSTMCell.over(input_size=inputs, hidden_size=n, state_sizes=(self.proj_size or n, n), **weights)
        del weights["weight_hr"]
        if mode == "GRU":
            return GRUCell.over(input_size=inputs, hidden_size=n, state_sizes=n, **weights)
        nonlinearity = mode.removeprefix("RNN_").lower()
        return Elman.over(input_size=inputs, hidden_size=n, state_sizes=n, nonlinearity=nonlinearity, **weights)

    def _check_states(self, x: Tensor, states: list[Tensor]) -> None:
        """torch.nn's check of the shapes of hx, which reads the batch where `batch_first` puts it."""
        like = x.transpose(0, 1) if self.batch_first else x
        self.check_forward_args(like, tuple(states) if self.mode == "LSTM" else states[0], None)  # type: ignore[arg-type]

    def _drop(self, x: Tensor, packed: PackedSequence | None) -> Tensor:
        """Dropout between layers, drawn over the tensor torch.nn draws it over, so that a seed gives the same mask."""
        if packed is None:
            return torch.dropout(x, self.dropout, True)
        data = torch.dropout(_repack(x, packed).data, self.dropout, True)
        return pad_packed_sequence(packed._replace(data=data))[0]


def _repack(x: Tensor, packed: PackedSequence) -> PackedSequence:
    """Padded [T, B, N] as a PackedSequence in the order of `packed`."""
    if packed.sorted_indices is not None:
        x = x.index_select(1, packed.sorted_indices)
    lengths = (torch.arange(x.shape[1]).unsqueeze(1) < packed.batch_sizes).sum(1)
    return packed._replace(data=pack_padded_sequence(x, lengths).data)


class RNN(_Layers, nn.RNN):
    """torch.nn.RNN: plain recurrent layers. Takes what it takes, gives what it gives, shares its state dict both ways; and
    `forward` also takes `lengths=` and `resets=`.

        h_t = tanh(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), or with ReLU

    >>> import torch, throughtime as tt
    >>> y, h = tt.RNN(3, 5, num_layers=2)(torch.randn(7, 2, 3))
    >>> y.shape, h.shape
    (torch.Size([7, 2, 5]), torch.Size([2, 2, 5]))

    Args:
        input_size: I. hidden_size: N. num_layers: how many above each other. nonlinearity: "tanh" or "relu".
        bias: add the biases b. batch_first: inputs and outputs are [B, T, ...], not [T, B, ...].
        dropout: the probability, in training, that an output of a layer but the last is 0.
        bidirectional: run each layer both ways and set the outputs side by side.
        device, dtype: of the weights.
    Raises: what torch.nn.RNN raises for a value that cannot be.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            nonlinearity=nonlinearity,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )


class LSTM(_Layers, nn.LSTM):
    """torch.nn.LSTM, projections included. Takes what it takes, gives what it gives, shares its state dict both ways; and
    `forward` also takes `lengths=` and `resets=`.

    >>> import torch, throughtime as tt
    >>> y, (h, c) = tt.LSTM(3, 5, bidirectional=True)(torch.randn(7, 2, 3))
    >>> y.shape, h.shape, c.shape
    (torch.Size([7, 2, 10]), torch.Size([2, 2, 5]), torch.Size([2, 2, 5]))

    Args:
        input_size: I. hidden_size: N. num_layers: how many above each other.
        bias: add the biases b. batch_first: inputs and outputs are [B, T, ...], not [T, B, ...].
        dropout: the probability, in training, that an output of a layer but the last is 0.
        bidirectional: run each layer both ways and set the outputs side by side.
        proj_size: the width that h is projected to; 0: none.
        device, dtype: of the weights.
    Raises: what torch.nn.LSTM raises for a value that cannot be.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            proj_size=proj_size,
            device=device,
            dtype=dtype,
        )


class GRU(_Layers, nn.GRU):
    """torch.nn.GRU. Takes what it takes, gives what it gives, shares its state dict both ways; and `forward` also takes `lengths=`
    and `resets=`.

    >>> import torch, throughtime as tt
    >>> y, h = tt.GRU(3, 5, batch_first=True)(torch.randn(2, 7, 3), lengths=[7, 4])
    >>> y.shape, h.shape
    (torch.Size([2, 7, 5]), torch.Size([1, 2, 5]))

    Args:
        input_size: I. hidden_size: N. num_layers: how many above each other.
        bias: add the biases b. batch_first: inputs and outputs are [B, T, ...], not [T, B, ...].
        dropout: the probability, in training, that an output of a layer but the last is 0.
        bidirectional: run each layer both ways and set the outputs side by side.
        device, dtype: of the weights.
    Raises: what torch.nn.GRU raises for a value that cannot be.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers=num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            device=device,
            dtype=dtype,
        )
