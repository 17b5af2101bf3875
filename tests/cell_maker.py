"""A random cell and a random call of it, from a seed, as source text."""

from __future__ import annotations

import math
import re
from typing import Any

import torch

from cell_spec import Spec, draw_tensor
from cell_tables import COUNTING, MIXING, RAISING
from cell_writer import LARGE, SIZES, SMALL, Dropped, Writer

# numbers of another float type than the cell's may be in it: the loop in float64 is then another cell
OTHER_TYPES = re.compile(
    r"float\(\)|double|half\(\)|bfloat16|float16|float32|np\.|from_numpy|torch\.(arange|linspace|eye|tril|triu|tensor|ones|zeros|full|range|scalar_tensor)\("
    r"|_tensor|\.to\(torch|rand\(\d+, [^)]*\)(?!\.to\(dtype\))| \d?\.?\d* if |finfo"
)


class Maker(Writer):
    """Makes one cell: what it takes, its statements, its new states and its output."""

    def shapes(self) -> None:
        r = self.random
        self.batch = r.choice([1, 2, 2, 3, 3, 4, 5, 6, 7, 13, 17, 20]) if not self.chance(0.02) else 0
        sizes = [*SIZES, self.batch or 1, self.batch or 1, self.batch or 1]

        def tail(most: int) -> list[int]:
            rank = r.choices([0, 1, 2, 3], [6, 70, 14, 10 if most > 2 else 0])[0]
            return [r.choice(sizes if rank < 2 else [1, 2, 3, 3, min(self.batch or 1, 5)]) for _ in range(rank)]

        many = r.choices([1, 2, 3, 4], [60, 25, 10, 5])[0]
        kinds = [r.choices(["float", "int", "bool"], [93, 4, 3])[0] if k else "float" for k in range(many)]
        self.states = [(kind, tail(3)) for kind in kinds]
        several = r.choices([1, 2, 3], [80, 14, 6])[0]
        kinds = [r.choices(["float", "int", "bool"], [92, 4, 4])[0] if k else "float" for k in range(several)]
        self.inputs = [(kind, tail(2)) for kind in kinds]
        if r.random() < 0.02:
            self.inputs[0] = ("int", self.inputs[0][1])
        xs = [f"x{k}" for k in range(several)]
        self.x_text = xs[0] if several == 1 and self.chance(0.95) else f"({', '.join(xs)},)"
        if several == 3:
            self.x_text = r.choice(["(x0, x1, x2)", "(x0, (x1, x2))", "((x0, x1), x2)", "((x0,), x1, (x2,))"])
        hs = [f"h{k}" for k in range(many)]
        self.h_text = hs[0] if many == 1 and self.chance(0.93) else f"({', '.join(hs)},)"

    def start(self) -> None:
        for prefix, group in (("x", self.inputs), ("h", self.states)):
            for k, (kind, tail) in enumerate(group):
                whole = draw_tensor(kind, [LARGE, *tail], self.seed + 7 * k + ord(prefix), self.dtype)
                for env, value in ((self.large, whole), (self.small, whole[:SMALL].clone())):
                    env[f"{prefix}{k}"] = value.requires_grad_(kind == "float")
                self.values.append(f"{prefix}{k}")
        if not self.floats(1, 1):  # a row to begin with
            base = self.pick(self.floats(0))
            v = self.new("v")
            self.try_statement(f"{v} = {base}.reshape({base}.shape[0], -1)", v)

    def new_state(self, k: int) -> str:
        """A statement that makes the next value of state k; gives its name."""
        kind, tail = self.states[k]
        h, n = f"h{k}", f"n{k}"
        if kind == "int":
            a = f"({self.row(tail)} > 0)"
            text = self.random.choice(
                [
                    f"{h} + 1",
                    f"({h} + 1) % 5",
                    f"{h} + {a}.long()",
                    f"torch.where({a}, {h} + 1, torch.zeros_like({h}))",
                    f"{h} * 2 - {a}.long()",
                ]
            )
        elif kind == "bool":
            a = f"({self.row(tail)} > 0)"
            text = self.random.choice([f"{h} | {a}", f"~{h}", f"{h} ^ {a}", f"{a}", f"{h} & ({self.row(tail)} > 0.5)"])
        else:
            a = self.row(tail)
            if self.chance(0.4):
                a = f"({a} + {self.row(tail)})"
            text = self.random.choices(
                [
                    f"torch.tanh({a})",
                    f"torch.tanh({a} + {h})",
                    f"0.5 * {h} + 0.5 * torch.tanh({a})",
                    f"{h} + 0.1 * torch.tanh({a})",
                    f"torch.sigmoid({a}) * {h}",
                    f"torch.lerp({h}, torch.tanh({a}), 0.3)",
                    f"{a}.clamp(-1, 1)",
                    h,
                    f"torch.zeros_like({h})",
                    f"{h}.detach() * 0.5 + torch.tanh({a})",
                    f"torch.full_like({h}, 0.3)",
                    f"{h}.new_zeros({h}.shape)",
                    f"torch.tanh({a}).to({h}.dtype)",
                ],
                [20, 20, 15, 10, 8, 8, 5, 2, 1, 3, 1, 1, 3],
            )[0]
        self.try_statement(f"{n} = {text}", n)
        if self.large[n].shape != self.large[h].shape or (
            self.large[n].dtype != self.large[h].dtype and not self.chance(0.2)
        ):
            self.body.pop()
            self.values.pop()
            self.try_statement(f"{n} = ({text} + torch.zeros_like({h})).to({h}.dtype)", n)
            if self.large[n].shape != self.large[h].shape:
                raise Dropped
        return n

    def row(self, tail: list[int]) -> str:
        """A float of this shape behind the batch: one there is, or a product of one, reshaped."""
        fitting = [v for v in self.floats(0) if self.tail(v) == tuple(tail)]
        grown = [v for v in fitting if v[0] == "v"]
        if grown and self.chance(0.8):
            return self.random.choice(grown[-3:])
        source = self.pick([v for v in self.floats(1) if v[0] == "v"] or self.floats(1))
        width = math.prod(self.tail(source))
        weight = self.parameter(math.prod(tail), width)
        flat = source if len(self.tail(source)) == 1 else f"{source}.flatten(1)"
        shape = ", ".join(map(str, (f"{source}.shape[0]" if self.chance(0.5) else "-1", *tail)))
        v = self.new("v")
        text = f"{v} = F.linear({flat}, {weight}).view({shape})"
        self.try_statement(text, v)
        return v

    def make(self) -> Spec:
        self.tame = self.chance(0.6)  # mostly of what the engine has
        self.unknown = 4 if self.chance(0.5) else 0
        self.inner = 4 if self.chance(0.25) else 0
        self.shapes()
        self.start()
        for _ in range(self.random.choice([2, 3, 4, 5, 6, 8, 10, 14])):
            self.some(6, self.statement)
        alone = True
        if self.chance(0.05):
            alone = not self.special(MIXING, "mixes the batch")
        if self.chance(0.03):
            alone = not self.special(COUNTING, "counts") and alone
        if self.chance(0.015):
            v = self.new("v")
            try:
                self.body.append(self.fill(self.random.choice(RAISING), v))
                self.must.add(self.body[-1])
                self.tags.add("raises")
            except Dropped:
                pass
        news = []
        for k in range(len(self.states)):
            if not self.some(6, lambda k=k: news.append(self.new_state(k))):
                news.append(f"h{k}")
        output = None
        if self.chance(0.5):
            output = self.output()
        state = re.sub(r"h(\d+)", lambda m: news[int(m.group(1))], self.h_text)
        if self.chance(0.9):
            self.drop_unused([*news, *([output] if output else []), *self.record])
        alone = alone and self.rows_are_alone()
        if self.batch == 0:
            alone = False
        text = "\n".join((*self.init, *self.body))
        call = self.call()
        starts = ""
        if all(kind == "float" for kind, _ in self.states) and self.chance(0.25):
            starts = self.own_start()
            call["own"] = self.chance(0.7)
        held = [r for r in self.record if self.batched(r)]
        return Spec(
            self.seed,
            self.dtype_name,
            self.init,
            self.body,
            f"({output}, {state})" if output else state,
            self.x_text,
            self.h_text,
            self.inputs,
            self.states,
            output is not None,
            alone,
            not OTHER_TYPES.search(text) and "another type" not in str(self.tags),
            held[:2] if self.chance(0.5) else [],
            self.kept_changes(),
            call,
            sorted(self.tags),
            starts,
        )

    def own_start(self) -> str:
        """Where the cell itself says it starts, in parameters, in the rows of one, or in zeros."""
        self.tags.add("a start of its own")

        def start(match: re.Match[str]) -> str:
            tail = self.states[int(match.group(1))][1]
            if self.chance(0.25):
                self.run_init(f"self.start{match.group(1)} = nn.Parameter(torch.zeros({tail}, dtype=dtype))")
            else:
                sizes = "".join(f", {n}" for n in tail)
                self.run_init(f"self.start{match.group(1)} = nn.Parameter(rand({self.seed % 100}{sizes}).to(dtype))")
            named = f"self.start{match.group(1)}.expand({', '.join(map(str, ('batch', *tail)))})"
            return self.random.choice([named, named, f"{named}.clone()", f"torch.zeros_like({named})"])

        return re.sub(r"h(\d+)", start, self.h_text)

    def drop_unused(self, used: list[str]) -> None:
        """Leave out the statements of which nothing comes, but what a cell counts and where it fails."""
        needed, kept = set(used), []
        for statement in reversed(self.body):
            made = set(re.findall(r"^\s*(\w+) [+*]?= |^(v\d+)_\w, ", statement, re.M))
            made = {name for pair in made for name in pair if name}
            if not made & needed and statement not in self.must:
                self.values = [v for v in self.values if v not in made]
                continue
            needed |= set(re.findall(r"\b[vnxh]\d+\b", statement))
            kept.append(statement)
        self.body = kept[::-1]

    def output(self) -> str | None:
        made = [v for v in self.values if self.batched(v)]
        name = self.random.choice(made[-6:] if self.chance(0.8) else made)
        if not self.chance(0.25):
            return name
        anchor = self.random.choice([v for v in made if self.large[v].is_floating_point() and self.tail(v)] or ["x0"])
        text = self.random.choice(
            [
                f"torch.cat([{anchor}, torch.zeros_like({anchor}[:, :1])], 1)",
                f"torch.zeros_like({anchor})",
                f"torch.ones_like({anchor})",
                f"{anchor}.new_full({anchor}.shape, 0.5)",
                f"torch.cat([torch.ones_like({anchor}[:, :1]), {anchor}], 1)",
                f"torch.stack([{anchor}, torch.zeros_like({anchor})], 1)",
                f"({anchor} > 0)",
                f"({anchor} * 2).long()",
                f"{anchor}.sum(tuple(range(1, {anchor}.dim())))",
                f"{anchor}.double()",
                f"{anchor}.unsqueeze(1)",
                f"torch.zeros({anchor}.shape[0], 2)",
                f"torch.zeros_like({anchor}) + {self.parameter(self.tail(anchor)[-1] if self.tail(anchor) else 1)}",
                f"{anchor}.argmax(-1)",
                f"{anchor}[:, :0]",
            ]
        )
        self.tags.add("output made for it")
        v = "y0"
        return v if self.some(1, lambda: self.try_statement(f"{v} = {text}", v)) else name

    def rows_are_alone(self) -> bool:
        """Whether the first rows of every value of the large batch are those of the small one."""
        for v in self.values:
            one, other = self.large[v].detach().double(), self.small[v].detach().double()
            if self.batched(v):
                one = one[:SMALL]
            if one.shape != other.shape or not torch.allclose(one, other, 1e-2, 1e-2):
                return False
        return True

    def kept_changes(self) -> list[str]:
        self.random.shuffle(self.changes)
        return self.changes[:3]

    def call(self) -> dict[str, Any]:
        r = self.random
        steps = r.choice([0, 1, 2, 3, 4, 5, 6, 7, 3, 4, 5])
        lengths = [r.randint(0, steps) for _ in range(self.batch)] if self.chance(0.5) else None
        return {
            "T": steps,
            "B": self.batch,
            "lengths": lengths,
            "resets": self.chance(0.35),
            "reverse": self.chance(0.35),
            "initial": self.chance(0.6),
            "seed": r.randint(0, 999),
            "poison": lengths is not None and self.chance(0.5),
            "gradients": r.choice(["all", "all", "all", "some", "none"]),
            "layouts": [r.choice(LAYOUTS) for _ in self.inputs],
            "inference": self.chance(0.3),
            "copy": self.chance(0.3),
            "named": self.chance(0.3),
            "loss": r.choice(["all", "all", "all", "outputs", "end"]),
            "own": False,
        }


LAYOUTS = [
    "plain",
    "plain",
    "plain",
    "batch first",
    "every other step",
    "every other feature",
    "one for all time",
    "one for all rows",
]


def make(seed: int) -> Spec:
    """The cell and the call of a seed."""
    return Maker(seed).make()
