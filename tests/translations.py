"""ONNX's translations of PyTorch's operators: PyTorch's exporter parses the source of all of them anew for each graph."""

import functools


def read_once():
    """What to set so that a process does so once: (an object, the name of its attribute, its value)."""
    from torch.onnx._internal.exporter import _registration

    apis = _registration.onnxscript_apis
    return apis, "get_torchlib_ops", functools.cache(apis.get_torchlib_ops)
