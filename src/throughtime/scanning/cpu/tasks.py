"""Compiled functions of tasks: each thread that calls one takes tasks from a shared counter until there are none."""

from __future__ import annotations

from collections.abc import Callable

from throughtime.scanning.cpu.assembly import Assembly, Module


def define_tasks(module: Module, name: str, body: Callable[[Assembly, str], None]) -> None:
    """A function of an argument block, to be called by as many threads as there are.

    args[0] counts the tasks taken, args[1] is how many there are. body: writes one task, given its number.
    Returns, each call of it: the number of tasks that the caller has done.
    """

    def whole(code: Assembly) -> None:
        taken = code.slot("i64")
        code.store("i64", "0", taken)
        again, go, done = code.label(), code.label(), code.label()
        code.place(again)
        task = code.let("atomicrmw add ptr %args, i64 1 monotonic")
        total = code.load("i64", code.at("%args", 1, "i64"))
        code.line(f"br i1 {code.less(task, total)}, label %{go}, label %{done}")
        code.lines.append(f"{go}:")
        body(code, task)
        code.store("i64", code.add(code.load("i64", taken), 1), taken)
        code.line(f"br label %{again}")
        code.lines.append(f"{done}:")
        code.line(f"ret i64 {code.load('i64', taken)}")

    module.define(name, "ptr %args", whole, returns="i64")


def fields(code: Assembly, args: str, *names: str, first: int = 2) -> list[str]:
    """Entries of the argument block; a name with a star is a pointer."""
    return [
        code.load("ptr" if n.endswith("*") else "i64", code.at(args, first + i, "i64")) for i, n in enumerate(names)
    ]


def define_chain(module: Module) -> None:
    """`chain`: functions one after the other. Its block says how many, then for each its address and that of its argument
    block, whose count of tasks begins anew."""

    def body(code: Assembly) -> None:
        count = code.load("i64", "%args")
        with code.loop(count) as i:
            at = code.add(code.mul(i, 2), 1)
            function = code.load("ptr", code.at("%args", at, "i64"))
            block = code.load("ptr", code.at("%args", code.add(at, 1), "i64"))
            code.store("i64", "0", block)
            code.let(f"call i64 {function}(ptr {block})")

    module.define("chain", "ptr %args", body)
