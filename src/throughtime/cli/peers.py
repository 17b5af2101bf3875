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
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return None
    given = {"X": x.numpy()[None], "H": np.zeros((1, 1, layer.hidden_size), np.float32)}
    return onnx_session(onnx_model(layer, 1, 1, state=True), 1, given)


def onnx_session(model: Any, threads: int, given: dict[str, Any]) -> Job:
    """A model at work in onnxruntime: what runs it on what is given."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # its threads wait by spinning, and would go on between two runs, where they take the cores from what is timed next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, given)


def onnx_model(layer: Any, steps: int, batch: int, state: bool = False) -> Any:
    """A torch.nn layer, RNN, GRU or LSTM, over X [T, B, I] as ONNX's own operation. state: a GRU's H [1, B, N] goes in, and the
    last one comes out in place of the outputs."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    n, inputs = layer.hidden_size, layer.input_size
    # torch.nn's rows are r, z, n and i, f, g, o; those of ONNX z, r, n and i, o, f, c
    order = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}.get(layer.mode, (0,))

    def reordered(weight: Any) -> Any:
        parts = np.split(weight.detach().numpy(), len(order))
        return np.concatenate([parts[i] for i in order])

    weights = {
        "W": reordered(layer.weight_ih_l0)[None],
        "R": reordered(layer.weight_hh_l0)[None],
        "B": np.concatenate([reordered(layer.bias_ih_l0), reordered(layer.bias_hh_l0)])[None],
    }
    kind = "RNN" if layer.mode.startswith("RNN") else layer.mode
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    first = ["", "H"] if state else []
    node = helper.make_node(
        kind, ["X", "W", "R", "B", *first], ["", "Yh"] if state else ["Y"], hidden_size=n, **options
    )
    info = helper.make_tensor_value_info
    end = info("Yh", TensorProto.FLOAT, [1, batch, n]) if state else info("Y", TensorProto.FLOAT, [steps, 1, batch, n])
    given = [info("X", TensorProto.FLOAT, [steps, batch, inputs])]
    if state:
        given.append(info("H", TensorProto.FLOAT, [1, batch, n]))
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph([node], "layer", given, [end], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
