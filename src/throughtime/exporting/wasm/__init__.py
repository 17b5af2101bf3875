"""To WebAssembly: a module with SIMD that needs nothing around it, and an ES module that runs it in browsers and in Node."""

from __future__ import annotations

from throughtime.exporting.wasm.cells import write, write_trained

__all__ = ["write", "write_trained"]
