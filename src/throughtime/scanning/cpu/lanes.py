"""The lanes of a vector one by one, and all together."""

from __future__ import annotations

from throughtime.scanning.cpu.assembly import Assembly


def by_lane(code: Assembly, name: str, *args: str) -> str:
    """A function of the C library, called for each lane."""
    scalar = name + ("f" if code.dtype == "float" else "")
    helper = f"each_{scalar}_{code.lanes}"
    vector, dtype = code.vector, code.dtype

    def body(inner: Assembly) -> None:
        inner.module.declare(f"declare {dtype} @{scalar}({', '.join([dtype] * len(args))}) nounwind")
        result = "poison"
        for i in range(inner.lanes):
            parts = [inner.let(f"extractelement {vector} %a{j}, i64 {i}") for j in range(len(args))]
            value = inner.let(f"call {dtype} @{scalar}({', '.join(f'{dtype} {p}' for p in parts)})")
            result = inner.let(f"insertelement {vector} {result}, {dtype} {value}, i64 {i}")
        inner.line(f"ret {vector} {result}")

    signature = ", ".join(f"{vector} %a{j}" for j in range(len(args)))
    code.module.define(helper, signature, body, returns=vector, kind="internal ", attributes="noinline nounwind")
    return code.let(f"call {vector} @{helper}({', '.join(f'{vector} {a}' for a in args)})")


def anywhere(code: Assembly, mask: str) -> str:
    """Whether a mask is true in any lane."""
    name, kind = f"llvm.vector.reduce.or.v{code.lanes}i1", f"<{code.lanes} x i1>"
    code.module.declare(f"declare i1 @{name}({kind})")
    return code.let(f"call i1 @{name}({kind} {mask})")


def combined(code: Assembly, reduction: str, a: str, b: str) -> str:
    """Two vectors of a reduction as one."""
    return code.binary("fadd", a, b) if reduction == "sum" else code.intrinsic("maximum", a, b)


def across(code: Assembly, reduction: str, x: str) -> str:
    """The lanes of a vector, brought together: one number."""
    name = f"llvm.vector.reduce.{'fadd' if reduction == 'sum' else 'fmaximum'}.v{code.lanes}f{code.bytes * 8}"
    if reduction == "sum":
        code.module.declare(f"declare {code.dtype} @{name}({code.dtype}, {code.vector})")
        return code.let(f"call reassoc {code.dtype} @{name}({code.dtype} -0.0, {code.vector} {x})")
    code.module.declare(f"declare {code.dtype} @{name}({code.vector})")
    return code.let(f"call {code.dtype} @{name}({code.vector} {x})")
