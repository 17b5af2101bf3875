"""What the engine is timed beside: torch.nn; jax.lax.scan under jit, and a step of onnxruntime, None where one is not installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Job = Callable[[], Any]
Row = dict[str, Any]  # what was measured of one thing
Shape = tuple[int, int, int, int]  # T·B·I·H


def shown(shape: tuple[int, ...]) -> str:
    """A shape as the tables have it."""
    return "·".join(map(str, shape))


def pair(kind: str, inputs: int, hidden: int) -> tuple[Any, Any]:
    """Our layer of a kind, "RNN", "LSTM" or "GRU", and torch.nn's, of the same weights."""
    import torch

    import throughtime as tt

    theirs, ours = getattr(torch.nn, kind)(inputs, hidden), getattr(tt, kind)(inputs, hidden)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def jax_jobs(kind: str, shape: Shape) -> dict[str, Job] | None:
    """The RNN or GRU as a scan, its input product hoisted: forward, and forward with the gradients of inputs, weights and
    biases."""
    try:
        import jax
        import jax.numpy as jnp
        from jax import lax
    except ImportError:
        return None
    steps, batch, inputs, n = shape
    gates = {"RNN": 1, "GRU": 3}[kind]
    keys = jax.random.split(jax.random.PRNGKey(0), 3)
    x = jax.random.normal(keys[0], (steps, batch, inputs))
    w = jax.random.normal(keys[1], (inputs, gates * n)) / n**0.5
    u = jax.random.normal(keys[2], (n, gates * n)) / n**0.5
    b, c = jnp.zeros(gates * n), jnp.zeros(gates * n)

    def step(h: Any, given: Any, u: Any, c: Any) -> Any:
        a = h @ u + c
        if kind == "RNN":
            h = jnp.tanh(given + a)
        else:
            r, z, new = jnp.split(given, 3, -1)
            s, v, m = jnp.split(a, 3, -1)
            r, z = jax.nn.sigmoid(r + s), jax.nn.sigmoid(z + v)
            h = (1 - z) * jnp.tanh(new + r * m) + z * h
        return h, h

    def run(x: Any, w: Any, u: Any, b: Any, c: Any) -> Any:
        given = x @ w + b
        return lax.scan(lambda h, g: step(h, g, u, c), jnp.zeros((batch, n)), given)[1]

    forward = jax.jit(run)
    both = jax.jit(jax.value_and_grad(lambda *args: run(*args).sum(), argnums=(0, 1, 2, 3, 4)))
    args = (x, w, u, b, c)
    return {
        "forward": lambda: jax.block_until_ready(forward(*args)),
        "both": lambda: jax.block_until_ready(both(*args)),
    }


def onnx_step(layer: Any, x: Any) -> Job | None:
    """One step of a torch.nn.GRU with one layer by onnxruntime on one thread, its state handed in and out."""
    try:
        import numpy as np
        import onnxruntime
        from onnx import TensorProto, helper, numpy_helper
    except ImportError:
        return None
    n, inputs = layer.hidden_size, layer.input_size

    def reordered(weight: Any) -> Any:  # torch.nn's rows are r, z, n; those of ONNX z, r, n
        r, z, new = np.split(weight.detach().numpy(), 3)
        return np.concatenate([z, r, new])

    weights = {
        "W": reordered(layer.weight_ih_l0)[None],
        "R": reordered(layer.weight_hh_l0)[None],
        "B": np.concatenate([reordered(layer.bias_ih_l0), reordered(layer.bias_hh_l0)])[None],
    }
    node = helper.make_node(
        "GRU", ["X", "W", "R", "B", "", "H"], ["Y", "Yh"], hidden_size=n, linear_before_reset=1
    )  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "step",
        [info("X", TensorProto.FLOAT, [1, 1, inputs]), info("H", TensorProto.FLOAT, [1, 1, n])],
        [info("Yh", TensorProto.FLOAT, [1, 1, n])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given, hidden = x.numpy()[None], np.zeros((1, 1, n), np.float32)
    return lambda: session.run(["Yh"], {"X": given, "H": hidden})
