"""A loop of a program as a compiled function: each thread takes some sequences and runs them through all steps.

A step is done in stages: the products whose left sides are ready, all rows of the thread at once, then the pointwise work
between them, row
by row, on sums that are still in cache. Values that two pieces of work need are worked out again where that is cheap and
kept in the
thread's own space where it is not.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from throughtime.scanning.cpu import functions, product
from throughtime.scanning.cpu.assembly import Assembly, Module
from throughtime.scanning.cpu.target import Target
from throughtime.scanning.nodes import FUNCTIONS, REDUCTIONS, Node, Row, ordered, width_of
from throughtime.scanning.program import Loop, Program, describe

Array = tuple[str, int]

THIN = 2  # a product of so few inputs is worked out in the loop, sooner than fetched from memory

# the argument block: two words that tasks share, these, and then what `Layout` says
HEAD = ["steps", "first", "step", "tiles*", "scratch*", "stride", "active*", "bounds*"]


@dataclass
class Layout:
    """Where a loop's arguments are. arrays: each takes three words (address, step stride, row stride; for `s` also the
    initial state's address
    and row stride; for `c` the address of the second buffer). packed: one word for each product's weights."""

    words: dict[Array, int] = field(default_factory=dict)
    packed: list[int] = field(default_factory=list)
    size: int = 2 + len(HEAD)

    def add(self, array: Array) -> None:
        if array not in self.words:
            self.words[array] = self.size
            self.size += 5 if array[0] == "s" else 4 if array[0] in ("c", "C") else 3


@dataclass
class Work:
    """One sweep over the features of a row: values to store, or to add up."""

    width: int
    stores: list[tuple[Node, Array, int]] = field(default_factory=list)  # value, array, offset
    reductions: list[tuple[Node, Node]] = field(default_factory=list)  # (reduction, its argument of this width)


@dataclass
class Stage:
    """Products, then sweeps, each phase after the one before."""

    products: list[int]
    phases: list[list[Work]]


class Schedule:
    """A loop in order."""

    def __init__(self, loop: Loop, target: Target, dtype: str) -> None:
        self.loop, self.target, self.dtype = loop, target, dtype
        self.lanes = target.lanes(dtype)
        self.order = ordered([n for _, row in loop.targets for n in row])
        self._level: dict[int, int] = {}
        self._depth: dict[int, int] = {}
        for node in self.order:
            level = max((self._level[id(a)] for a in node.args), default=0)
            self._level[id(node)] = level + (node.op == "product")
        # how many reductions of the same level stand before a node
        for node in self.order:
            same = [a for a in node.args if self._level[id(a)] == self._level[id(node)]]
            depth = max((self._depth[id(a)] for a in same), default=0)
            self._depth[id(node)] = depth + (node.op in REDUCTIONS)
        self.lefts: list[Array] = []  # what each product reads
        extra: list[tuple[Array, Row]] = []
        written = {row: key for key, row in loop.targets if key[0] != "c"}
        for i, p in enumerate(loop.products):
            found = self._whole_array(p.row) or written.get(p.row)
            if found is None:
                found = ("left", i)
                extra.append((found, p.row))
                written[p.row] = found
            self.lefts.append(found)
        self.targets = [*loop.targets, *extra]
        self.scratch: dict[Array, int] = {("left", i): width_of(row) for (_, i), row in extra}
        for i, p in enumerate(loop.products):
            self.scratch["product", i] = p.width
        self.product_of = {id(p.node): i for i, p in enumerate(loop.products)}
        self.saved: dict[int, Array] = {}  # values kept in the thread's own space
        self.stages = self._stages()
        self._save()

    def _whole_array(self, row: Row) -> Array | None:
        """The array that a row of one leaf is, from its first number on; its row stride does the rest."""
        if (
            len(row) == 1
            and row[0].op == "leaf"
            and row[0].attribute[0] in ("s", "a", "k", "g", "n")
            and row[0].attribute[2] == 0
        ):
            return row[0].attribute[:2]  # type: ignore[no-any-return]
        return None

    def _stages(self) -> list[Stage]:
        """For each level: its products, and the sweeps that what comes later waits for; all else in the last."""
        last = max((self._level[id(n)] for n in self.order), default=0)
        wanted_at: dict[int, list[tuple[Array, Row]]] = defaultdict(list)
        lefts = set(self.lefts)
        for key, row in self.targets:
            at = max((self._level[id(n)] for n in row), default=0) if key in lefts else last
            wanted_at[at].append((key, row))
        products: dict[int, list[int]] = defaultdict(list)
        for i, p in enumerate(self.loop.products):
            products[self._level[id(p.node)]].append(i)
        return [Stage(products[level], self._phases(wanted_at[level])) for level in range(last + 1)]

    def _phases(self, wanted: list[tuple[Array, Row]]) -> list[list[Work]]:
        roots = [n for _, row in wanted for n in row]
        reductions = [n for n in ordered(roots, stop=lambda n: n.op == "product") if n.op in REDUCTIONS]
        depths: dict[int, list[Node]] = defaultdict(list)
        for node in reductions:
            depths[self._reduction_depth(node)].append(node)
        phases = []
        for depth in sorted(depths):
            works: dict[int, Work] = {}
            for node in depths[depth]:
                for arg in node.args:
                    works.setdefault(arg.width, Work(arg.width)).reductions.append((node, arg))
            phases.append(list(works.values()))
        works = {}
        for key, row in wanted:
            offset = 0
            for node in row:
                works.setdefault(node.width, Work(node.width)).stores.append((node, key, offset))
                offset += node.width
        if works:
            phases.append(list(works.values()))
        return phases

    def _reduction_depth(self, node: Node) -> int:
        return self._level[id(node)] * 1000 + self._depth[id(node)]

    def _save(self) -> None:
        """Mark what several sweeps need and none should do twice."""
        done_in: dict[int, int] = {}
        stage_of: dict[int, int] = {}  # reductions: the stage they are done in
        number = 0
        for s, stage in enumerate(self.stages):
            for phase in stage.phases:
                for work in phase:
                    roots = [n for n, _, _ in work.stores] + [n for _, n in work.reductions]
                    for node in ordered(roots, stop=lambda n: n.op in REDUCTIONS or n.op == "product"):
                        if node.op in FUNCTIONS and node.width > 1:
                            if done_in.setdefault(id(node), number) != number:
                                self._keep(node)
                        elif node.op in REDUCTIONS and id(node) in stage_of and stage_of[id(node)] != s:
                            self._keep(node)
                    for reduction, _ in work.reductions:
                        stage_of.setdefault(id(reduction), s)
                    number += 1

    def _keep(self, node: Node) -> None:
        if id(node) not in self.saved:
            key = ("saved", len(self.saved))
            self.saved[id(node)] = key
            self.scratch[key] = node.width


def is_thin(program: Program, hoisted: int) -> bool:
    """Whether a hoisted product is worked out within the loop after all."""
    return program.arrays[program.hoisted[hoisted].array].width <= THIN


class LoopCode:
    """Writes the function of one loop."""

    def __init__(self, program: Program, loop: Loop, target: Target, dtype: str, backward: bool) -> None:
        self.program, self.target, self.dtype, self.backward = program, target, dtype, backward
        self.schedule = Schedule(loop, target, dtype)
        self.lanes = target.lanes(dtype)
        self.done: set[int] = set()  # values that an earlier sweep has saved
        self.layout = Layout()
        for node in self.schedule.order:
            if node.op == "leaf":
                for array in self.sources(node):
                    self.layout.add(array)
        for key, _ in loop.targets:
            self.layout.add(self._out(key))
        for left in self.schedule.lefts:
            if left not in self.schedule.scratch:
                self.layout.add(self._out(left) if left in dict(loop.targets) else left)
        for _ in loop.products:
            self.layout.packed.append(self.layout.size)
            self.layout.size += 1
        self.scratch_offsets: dict[Array, int] = {}
        self.scratch_widths: dict[Array, int] = {}
        width = 0
        for key, n in self.schedule.scratch.items():
            padded = -(-n // self.lanes) * self.lanes
            self.scratch_offsets[key], self.scratch_widths[key] = width, padded
            width += padded
        self.scratch_width = width  # numbers for each row

    def _out(self, key: Array) -> Array:
        """The array a target is written to: the carried gradient goes to the other of its two buffers."""
        return ("C", key[1]) if key[0] == "c" else key

    def sources(self, leaf: Node) -> list[Array]:
        """The arrays a leaf is read from: itself, or what a thin product is worked out of (`m`: its matrix, [K, n])."""
        kind, index = leaf.attribute[:2]
        if kind != "u" or not is_thin(self.program, index):
            return [(kind, index)]
        h = self.program.hoisted[index]
        return [("a", h.array), ("m", index), *([] if h.bias is None else [("v", h.bias)])]

    def key(self) -> str:
        """All that the code depends on."""
        weights = [p.weights for p in self.schedule.loop.products]
        thin = [
            (u, h, self.program.arrays[h.array].width)
            for u, h in enumerate(self.program.hoisted)
            if is_thin(self.program, u)
        ]
        return "\n".join(
            ["loop", self.dtype, str(self.backward), str(weights), str(thin), *describe(self.schedule.loop.targets)]
        )

    def text(self) -> str:
        module = Module()
        self.done.clear()
        product.define_tasks(module, "loop", self.dtype, self.lanes, self._body)
        return module.text()

    # ---------------------------------------------------------------------------------------------- the function

    def _body(self, code: Assembly, task: str) -> None:
        names = [n.rstrip("*") for n in HEAD]
        head = dict(zip(names, product.fields(code, "%args", *HEAD), strict=True))
        low = code.load("i64", code.at(head["bounds"], task, "i64"))
        high = code.load("i64", code.at(head["bounds"], code.add(task, 1), "i64"))
        space = code.at(head["scratch"], code.mul(task, head["stride"]))
        words = {a: self._words(code, a, at) for a, at in self.layout.words.items()}
        packed = [code.load("ptr", code.at("%args", at, "i64")) for at in self.layout.packed]
        shrinking = code.let(f"icmp ne ptr {head['active']}, null")
        # [rows, width] blocks of the thread's own space, one after the other
        rows_all = code.sub(high, low)
        own = {k: code.at(space, code.mul(rows_all, offset)) for k, offset in self.scratch_offsets.items()}
        with code.loop(head["steps"]) as count:
            s = code.sub(code.sub(head["steps"], 1), count) if self.backward else count
            t = code.add(head["first"], code.mul(s, head["step"]))
            rows_slot = code.slot("i64")
            code.store("i64", rows_all, rows_slot)
            with code.when(shrinking):
                alive = code.sub(code.load("i64", code.at(head["active"], t, "i64")), low)
                alive = code.choose(code.less(alive, 0), "0", alive)
                code.store("i64", code.least(alive, rows_all), rows_slot)
            rows = code.load("i64", rows_slot)
            at = {a: self._at_step(code, a, w, s, t, head["step"], low) for a, w in words.items()}
            for stage in self.schedule.stages:
                for i in stage.products:
                    self._product(code, i, at, own, packed[i], head["tiles"], rows)
                if any(stage.phases):
                    with code.loop(rows) as row:
                        _Rows(self, code, at, own, row).run(stage)

    def _words(self, code: Assembly, array: Array, at: int) -> list[str]:
        kinds = {
            "s": ["ptr", "i64", "i64", "ptr", "i64"],
            "c": ["ptr", "i64", "i64", "ptr"],
            "C": ["ptr", "i64", "i64", "ptr"],
        }
        return [
            code.load(kind, code.at("%args", at + i, "i64"))
            for i, kind in enumerate(kinds.get(array[0], ["ptr", "i64", "i64"]))
        ]

    def _at_step(
        self, code: Assembly, array: Array, words: list[str], s: str, t: str, step: str, low: str
    ) -> tuple[str, str]:
        """The address of the thread's first row at this step, and the row stride."""
        if array[0] in ("v", "m"):
            return words[0], "0"
        if array[0] in ("c", "C"):  # two buffers in turn: step s reads number (s + 1) % 2 and writes number s % 2
            number = code.let(f"and i64 {code.add(s, 1) if array[0] == 'c' else s}, 1")
            even = code.let(f"icmp eq i64 {number}, 0")
            base, stride = code.choose(even, words[0], words[3], "ptr"), words[2]
        elif array[0] == "s":  # the state before: the initial one at first, then what the step before left
            first = code.let(f"icmp eq i64 {s}, 0")
            before = code.at(words[0], code.mul(code.sub(t, step), words[1]))
            base = code.choose(first, words[3], before, "ptr")
            stride = code.choose(first, words[4], words[2])
        else:
            base, stride = code.at(words[0], code.mul(t, words[1])), words[2]
        return code.at(base, code.mul(low, stride)), stride

    def _place(self, key: Array, at: dict[Array, tuple[str, str]], own: dict[Array, str]) -> tuple[str, str]:
        """The address of the thread's first row of an array or of a block of its own space, and the row stride."""
        if key in own:
            return own[key], str(self.scratch_widths[key])
        return at[key] if key in at else at[self._out(key)]

    def _product(
        self,
        code: Assembly,
        i: int,
        at: dict[Array, tuple[str, str]],
        own: dict[Array, str],
        packed: str,
        table: str,
        rows: str,
    ) -> None:
        p = self.schedule.loop.products[i]
        depth = width_of(p.row)
        wide = product.panel(self.target, self.dtype)
        a, stride = self._place(self.schedule.lefts[i], at, own)
        c, ldc = own["product", i], str(self.scratch_widths["product", i])
        whole, left = divmod(p.width, wide)

        def panels(first: str, vectors: int, columns: int) -> None:
            product.tiles(
                code, self.target, rows, table, str(vectors), a, stride, "1", code.at(packed, code.mul(first, depth)),
                str(vectors * self.lanes), code.at(c, first), ldc, "null", "0", str(depth), str(columns),
            )  # fmt: skip

        if whole:
            with code.loop(whole) as number:
                panels(code.mul(number, wide), self.target.vectors, wide)
        if left:
            panels(str(whole * wide), -(-left // self.lanes), left)


class _Rows:
    """The pointwise work of a stage on one row."""

    def __init__(
        self, owner: LoopCode, code: Assembly, at: dict[Array, tuple[str, str]], own: dict[Array, str], row: str
    ) -> None:
        self.owner, self.code, self.row = owner, code, row
        self.schedule, self.lanes = owner.schedule, owner.lanes
        self.places = lambda key: owner._place(key, at, own)
        self.pointers: dict[Array, str] = {}
        self.known: dict[int, str] = {}  # values that are the same along the row, in every lane
        self.sums: dict[int, str] = {}  # where reductions are added up
        self.saving: set[int] = set()  # values that the present sweep saves
        self.inputs: dict[Array, list[str]] = {}  # of thin products, by array: each of its numbers, in every lane

    def run(self, stage: Stage) -> None:
        for phase in stage.phases:
            for work in phase:
                self._sweep(work)
            for reduction in {id(r): r for w in phase for r, _ in w.reductions}.values():
                self._finish(reduction)

    def pointer(self, key: Array) -> str:
        """The address of this row."""
        if key not in self.pointers:
            base, stride = self.places(key)  # type: ignore[no-untyped-call]
            self.pointers[key] = self.code.at(base, self.code.mul(self.row, stride)) if stride != "0" else base
        return self.pointers[key]

    def _to(self, key: Array) -> Array:
        """Where a target is written."""
        return key if key in self.owner.scratch_offsets else self.owner._out(key)

    def _sweep(self, work: Work) -> None:
        code = self.code
        for node, key, _ in work.stores:
            self.pointer(self._to(key))
            self._prepare(node)
        for reduction, node in work.reductions:
            self._prepare(node)
            if id(reduction) not in self.sums:
                slot = code.slot(code.vector)
                start = 0.0 if reduction.op == "sum" else functions.NOTHING
                code.store(code.vector, code.literal(start), slot)
                self.sums[id(reduction)] = slot
        whole, left = divmod(work.width, self.lanes)
        if whole:
            with code.loop(whole * self.lanes, step=self.lanes) as j:
                self._vectors(work, j, None)
        if left:
            self._vectors(work, str(whole * self.lanes), left)
        self.owner.done |= self.saving
        self.saving.clear()

    def _vectors(self, work: Work, j: str, count: int | None) -> None:
        code = self.code
        values: dict[int, str] = {}
        for node, key, offset in work.stores:
            value = self._value(node, j, count, values)
            code.store_vector(value, code.at(self.pointer(self._to(key)), code.add(j, offset)), count)
        for reduction, node in work.reductions:
            value = self._value(node, j, count, values)
            neutral = 0.0 if reduction.op == "sum" else functions.NOTHING
            if count is not None:
                value = code.select(code.mask(count), value, code.literal(neutral))
            slot = self.sums[id(reduction)]
            before = code.load(code.vector, slot)
            after = (
                code.binary("fadd", before, value)
                if reduction.op == "sum"
                else code.intrinsic("maximum", before, value)
            )
            code.store(code.vector, after, slot)

    def _finish(self, reduction: Node) -> None:
        """A reduction's lanes, brought together."""
        code = self.code
        total = code.load(code.vector, self.sums[id(reduction)])
        kind = f"v{self.lanes}f{code.bytes * 8}"
        if reduction.op == "sum":
            code.module.declare(f"declare {code.dtype} @llvm.vector.reduce.fadd.{kind}({code.dtype}, {code.vector})")
            one = code.let(
                f"call reassoc {code.dtype} @llvm.vector.reduce.fadd.{kind}({code.dtype} -0.0, {code.vector} {total})"
            )
        else:
            code.module.declare(f"declare {code.dtype} @llvm.vector.reduce.fmaximum.{kind}({code.vector})")
            one = code.let(f"call {code.dtype} @llvm.vector.reduce.fmaximum.{kind}({code.vector} {total})")
        self.known[id(reduction)] = code.splat(one)
        key = self.schedule.saved.get(id(reduction))
        if key is not None:
            code.store(code.dtype, one, self.pointer(key))

    def _prepare(self, node: Node) -> None:
        """Before a sweep: the values that are the same along the row, and the addresses it reads."""
        for n in ordered([node], stop=self._stop):
            if n.op == "leaf":
                arrays = self.owner.sources(n)
                for array in arrays:
                    self.pointer(array)
                if len(arrays) > 1 and arrays[0] not in self.inputs:
                    start, depth = self.pointer(arrays[0]), self.owner.program.arrays[arrays[0][1]].width
                    numbers = [self.code.load(self.code.dtype, self.code.at(start, k)) for k in range(depth)]
                    self.inputs[arrays[0]] = [self.code.splat(number) for number in numbers]
            elif n.op == "slice":
                self.pointer(("product", self.schedule.product_of[id(n.args[0])]))
            elif n.op == "product":
                self.pointer(("product", self.schedule.product_of[id(n)]))
            if id(n) in self.schedule.saved:
                self.pointer(self.schedule.saved[id(n)])
            if n.width == 1 and id(n) not in self.known and n.op != "expand":
                self.known[id(n)] = self._one(n)

    def _stop(self, node: Node) -> bool:
        return (
            node.op in REDUCTIONS
            or node.op in ("product", "slice")
            or id(node) in self.known
            or id(node) in self.owner.done
        )

    def _one(self, node: Node) -> str:
        """A value of width 1, in every lane."""
        code = self.code
        if node.op == "number":
            return code.literal(node.attribute[0])
        if node.op in REDUCTIONS:  # done in an earlier stage
            return code.splat(code.load(code.dtype, self.pointer(self.schedule.saved[id(node)])))
        source = self._memory(node)
        if source is not None:
            return code.splat(code.load(code.dtype, code.at(*source)))
        if node.op == "leaf":
            one = code.let(f"extractelement {code.vector} {self._thin(node, '0', 1)}, i64 0")
            return code.splat(one)
        return functions.pointwise(code, node.op, [self.known[id(a)] for a in node.args])

    def _memory(self, node: Node) -> tuple[str, int] | None:
        """Where a value lies, if it does."""
        if node.op == "leaf" and len(self.owner.sources(node)) == 1:
            return self.pointer(node.attribute[:2]), node.attribute[2]
        if node.op == "slice":
            return self.pointer(("product", self.schedule.product_of[id(node.args[0])])), node.attribute
        if node.op == "product":
            return self.pointer(("product", self.schedule.product_of[id(node)])), 0
        return None

    def _thin(self, leaf: Node, j: str, count: int | None) -> str:
        """A thin product's numbers, summed in the order of the product itself."""
        code = self.code
        _, index, offset = leaf.attribute
        array, matrix, *bias = self.owner.sources(leaf)
        width = self.owner.program.hoisted[index].width
        at = code.add(j, offset)
        total = code.load_vector(code.at(self.pointer(bias[0]), at), count) if bias else code.literal(0.0)
        for k, x in enumerate(self.inputs[array]):
            row = code.at(self.pointer(matrix), k * width)
            total = code.fma(x, code.load_vector(code.at(row, at), count), total)
        return total

    def _value(self, node: Node, j: str, count: int | None, values: dict[int, str]) -> str:
        """A vector of a value, from feature j on."""
        code = self.code
        if id(node) in self.known:
            return self.known[id(node)]
        if id(node) in values:
            return values[id(node)]
        for n in ordered([node], stop=lambda n: self._stop(n) or id(n) in values):
            if id(n) in values or id(n) in self.known:
                continue
            source = self._memory(n)
            if source is not None:
                values[id(n)] = code.load_vector(code.at(source[0], code.add(j, source[1])), count)
                continue
            key = self.schedule.saved.get(id(n))
            if key is not None and id(n) in self.owner.done:
                values[id(n)] = code.load_vector(code.at(self.pointer(key), j), count)
                continue
            if n.op == "leaf":
                values[id(n)] = self._thin(n, j, count)
                continue
            args = [self.known.get(id(a)) or values[id(a)] for a in n.args]
            values[id(n)] = functions.pointwise(code, n.op, args)
            if key is not None:
                code.store_vector(values[id(n)], code.at(self.pointer(key), j), count)
                self.saving.add(id(n))
        return values[id(node)]
