"""What was found, in a few plain sentences made from the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from throughtime.inspect.gradients import ThroughTime
from throughtime.inspect.influence import Influence
from throughtime.inspect.stacks import Layer
from throughtime.tasks.look import Look, Steps, visible

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
    labels, number = look.outputs.labels, one.output
    about = look.about[number] if look.about else ""
    same = [i for i, label in enumerate(labels) if (label, look.about and look.about[i]) == (one.chosen, about or None)]
    words = f"To {look.verb} {_quoted(one.chosen)}" + (f" for {_quoted(about)}" if about else "")
    words += f" (output {number})" if len(same) > 1 else ""
    if look.distribution is not None:
        words += f", p {'over 0.99' if one.probability > 0.995 else f'= {one.probability:.2g}'},"
    known = [(r, i) for i, r in enumerate(one.removal) if r is not None]
    sizes = known or [(g, i) for i, g in enumerate(one.gradient)]
    ranked = sorted(sizes, key=lambda pair: -abs(pair[0]))
    itself = number if look.about and len(labels) == len(look.inputs) else -1
    (first, place), name = ranked[0], lambda i: _named(look.inputs, i, itself)
    if abs(first) < NOTHING:
        return f"{words} the network needed no single input: whichever is taken away, it changes by less than 1 %."
    seconds = [i for size, i in ranked[1:2] if size * first > 0 and abs(size) >= SECOND * abs(first)]
    also = f", then {name(seconds[0])}" if seconds else ""
    if not known:
        return f"{words} the network used {name(place)} most, by gradient × input{also}."
    p = one.probability
    change = (
        f"p would be {min(p * math.exp(-first), 1.0):.2g}"
        if look.distribution is not None
        else f"the answer would be {math.exp(abs(first)):.2g} times {'less' if first > 0 else 'more'} likely"
    )
    without = f"without {'it' if not seconds else name(place)} {change}"
    if first < 0:
        return f"{words} the network had {name(place)} most against it{also}; {without}."
    return f"{words} the network used {name(place)} most{also}; {without}." + _attended(look, one)


def _attended(look: Look, one: Influence) -> str:
    """Where the attention lay, of a network that has one."""
    if one.attention is None:
        return ""
    most = max(range(len(one.attention)), key=one.attention.__getitem__)
    return f" Its attention lay on {_named(look.inputs, most)} most ({one.attention[most]:.0%})."


def held_for(layers: Sequence[Layer], found: Mapping[str, ThroughTime]) -> str:
    """Sentences on how long the network remembers: of each of its parts and directions the layer that remembers longest."""
    best: dict[tuple[str, bool], tuple[ThroughTime, Layer]] = {}
    for layer in (layer for layer in layers if layer.name in found):
        part = (layer.of.name.partition(",")[0], layer.scan.reverse)
        if part not in best or _length(found[layer.name]) > _length(best[part][0]):
            best[part] = found[layer.name], layer
    sentences = []
    for (part, reverse), (seen, layer) in best.items():
        fades = _fades(seen, reverse, first=not sentences)
        if not fades:
            continue
        holder = f"the {part}" if part else "it"
        sentences.append(f"Reading backwards {holder} {fades}." if reverse else f"What {holder} holds {fades}.")
        if layer.of.whole and (reverse or (part, True) not in best):
            sentences.append("Answers are made of all these steps at once, so far ones count all the same.")
    return " ".join(sentences) or "With one step there is nothing to remember: give a longer input."


def _length(seen: ThroughTime) -> float:
    return math.inf if seen.horizon_e is None else seen.horizon_e


def _fades(seen: ThroughTime, reverse: bool, first: bool) -> str:
    """How it fades, after its subject; nothing where there is one step. first: of several, where words are made plain."""
    last, way = len(seen.norms) - 1, "ahead" if reverse else "back"
    if seen.verdict == "broken":
        return "has a gradient that is not a number"
    if last < 1:
        return ""
    left = f"{100 * seen.norms[-1]:.2g} % of its influence"
    if seen.verdict == "exploding":
        return f"grows instead of fading: {max(seen.norms):.2g} times as much, further {way}"
    if seen.horizon_e is None:
        words = f"hardly fades: {left} is left {_steps(last)} {way}, the furthest seen here"
    else:
        words = f"fades to 1/e{', about a third,' if first else ''} after {_steps(seen.horizon_e)}, "
        if seen.horizon_1 is None:
            words += f"and {left} is left {_steps(last)} {way}"
        else:
            words += f"so what is more than about {_steps(math.ceil(seen.horizon_1))} {way} hardly counts"
    return words + (f"; {seen.advice}" if seen.verdict == "too short to tell" else "")


def _steps(count: float) -> str:
    return f"{count:.2g} step{'' if f'{count:.2g}' == '1' else 's'}"


def _quoted(label: str) -> str:
    return f"“{visible(label.strip(' ') or label)}”"


def _named(inputs: Steps, number: int, itself: int = -1) -> str:
    """An input by its label; of several that are alike which it is."""
    label, labels = inputs.labels[number], inputs.labels
    if number == itself:
        return f"{_quoted(label)} itself"
    if labels.count(label) == 1:
        return _quoted(label)
    place = labels[: number + 1].count(label)
    ending = "th" if place % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"the {place}{ending} {_quoted(label)}"
