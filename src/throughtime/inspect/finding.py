"""What was found, in a few plain sentences made from the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from throughtime.inspect.gradients import ADVICE, SHORT, TOO_SHORT, ThroughTime
from throughtime.inspect.influence import Influence
from throughtime.inspect.stacks import Layer
from throughtime.tasks.look import Look, visible

NOTHING = 0.01  # nats that the removal of an input moves an answer by, under which it is said to change nothing
SECOND = 0.25  # of what the first did, from which the second input is named too


def content_output(look: Look, log_p: Sequence[float]) -> int:
    """The output that is looked at where none is asked for: the last that is about letters or digits, not about a sign, white space
    or the end; where there is none, the least certain."""
    texts = look.about or look.outputs.texts or look.outputs.labels
    with_content = [i for i, text in enumerate(texts) if any(sign.isalnum() for sign in text)]
    return with_content[-1] if with_content else min(range(len(log_p)), key=log_p.__getitem__)


def used_for(look: Look, one: Influence) -> str:
    """A sentence on what the network used for an output: by removal, or by gradient × input where nothing can be taken away."""
    words = f"{_asked(look, one)} the network"
    known = [(size, i) for i, size in enumerate(one.removal) if size is not None]
    ranked = sorted(known or [(size, i) for i, size in enumerate(one.gradient)], key=lambda pair: -abs(pair[0]))
    names = [_named(look, i, one.output) for _, i in ranked[:2]]
    most = ranked[0][0]
    second = len(ranked) > 1 and ranked[1][0] * most > 0 and abs(ranked[1][0]) >= SECOND * abs(most)
    also = f", then {names[1]}" if second else ""
    if not known:
        return f"{words} used {names[0]} most, by gradient × input{also}."
    if abs(most) < NOTHING:
        return f"{words} needed no single input: whichever is taken away, it changes by less than 1 %."
    if look.distribution is not None:
        change = f"p would be {min(one.probability * math.exp(-most), 1.0):.2g}"
    else:
        change = f"the answer would be {math.exp(abs(most)):.2g} times {'less' if most > 0 else 'more'} likely"
    without = f"without {names[0] if second else 'it'} {change}."
    if most < 0:
        return f"{words} had {names[0]} most against it{also}; {without}"
    return f"{words} used {names[0]} most{also}; {without}{_attended(look, one)}"


def _asked(look: Look, one: Influence) -> str:
    """What the network was to answer: to what, where others are answered alike by which number, and how sure it is."""
    about = look.about or [""] * len(look.outputs)
    answers = list(zip(look.outputs.labels, about, strict=True))
    words = f"To {look.verb} {_quoted(one.chosen)}"
    if about[one.output]:
        words += f" for {_quoted(about[one.output])}"
    if answers.count(answers[one.output]) > 1:
        words += f" (output {one.output})"
    if look.distribution is not None:
        words += f", p {'over 0.99' if one.probability > 0.995 else f'= {one.probability:.2g}'},"
    return words


def _attended(look: Look, one: Influence) -> str:
    """Where the attention lay, of a network that has one."""
    if one.attention is None:
        return ""
    most = max(range(len(one.attention)), key=one.attention.__getitem__)
    return f" Its attention lay on {_named(look, most)} most ({100 * one.attention[most]:.0f} %)."


def held_for(layers: Sequence[Layer], found: Mapping[str, ThroughTime]) -> str:
    """Sentences on how long the network remembers: of each of its parts and directions the layer that remembers longest."""
    parts: dict[str, dict[str, ThroughTime]] = {}
    lasts = {layer.of.name.partition(",")[0]: layer.of.lasts or _inputs(layer.of.stride) for layer in layers}
    whole = {layer.of.name.partition(",")[0] for layer in layers if layer.of.whole}
    for layer in layers:
        seen = found.get(layer.name)
        if seen is None or (len(seen.norms) < 2 and seen.verdict != "broken"):
            continue
        ways = parts.setdefault(layer.of.name.partition(",")[0], {})
        way = "backwards" if layer.scan.reverse else "forwards"
        if way not in ways or _length(seen) > _length(ways[way]):
            ways[way] = seen
    sentences: list[str] = []
    for part, ways in parts.items():
        plain = ", about a third," if not sentences else ""
        words = _fades(ways, plain) if all(map(_fading, ways.values())) else _stays(ways)
        if lasts.get(part):
            words += f" (a step is {lasts[part]})"
        if part in whole:
            words += "; answers are made of all its steps at once, so far ones count all the same"
        if any(len(seen.norms) <= SHORT and seen.horizon_1 is None for seen in ways.values()):
            words += f"; {ADVICE[TOO_SHORT]}"
        sentences.append(f"What {f'the {part}' if part else 'it'} holds {words}.")
    return " ".join(sentences) or "With one step there is nothing to remember: give a longer input."


def _inputs(stride: int) -> str:
    """How long a step is that is several inputs."""
    return f"{stride} inputs" if stride > 1 else ""


def _length(seen: ThroughTime) -> float:
    return math.inf if seen.horizon_e is None else seen.horizon_e


def _fading(seen: ThroughTime) -> bool:
    return seen.horizon_e is not None and seen.verdict not in ("broken", "exploding")


def _fades(ways: Mapping[str, ThroughTime], plain: str) -> str:
    """How what is held fades, in each direction. plain: 1/e in words."""
    several, seen = len(ways) > 1, list(ways.values())
    after = " and ".join(_steps(_length(one)) + (f" {way}" if several else "") for way, one in ways.items())
    gone = [one.horizon_1 for one in seen if one.horizon_1 is not None]
    if len(gone) == len(seen):
        rest = f"so what is more than about {_steps(math.ceil(max(gone)))} away hardly counts"
    else:
        left = max(seen, key=lambda one: one.norms[-1])
        rest = f"and {_left(left)} is left after {_steps(len(left.norms) - 1)}"
    return f"fades to 1/e{plain} after {after}, {rest}"


def _stays(ways: Mapping[str, ThroughTime]) -> str:
    """The same where in some direction it does not fade."""
    found = []
    for way, seen in ways.items():
        if seen.verdict == "broken":
            words = "has a gradient that is not a number"
        elif seen.verdict == "exploding":
            words = f"grows instead of fading, up to {max(seen.norms):,.0f} times"
        elif seen.horizon_e is None:
            words = f"hardly fades: {_left(seen)} is left after {_steps(len(seen.norms) - 1)}, the most seen here"
        else:
            words = _fades({way: seen}, "")
        found.append(words + (f" (reading {way})" if len(ways) > 1 else ""))
    return " and ".join(found)


def _left(seen: ThroughTime) -> str:
    return f"{100 * seen.norms[-1]:.2g} % of its influence"


def _steps(count: float) -> str:
    return "less than a step" if count < 1 else f"{count:.2g} step{'' if f'{count:.2g}' == '1' else 's'}"


def _quoted(label: str) -> str:
    return f"“{visible(label.strip(' ') or label)}”"


def _named(look: Look, number: int, output: int | None = None) -> str:
    """An input by its label; of several that are alike which it is. output: which answer it is named for."""
    labels = [label.strip(" ") or label for label in look.inputs.labels]
    label = labels[number]
    if look.about and number == output and len(look.outputs) == len(labels):
        return f"{_quoted(label)} itself"
    if labels.count(label) == 1:
        return _quoted(label)
    place = labels[: number + 1].count(label)
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"the {place}{ending} {_quoted(label)}"
