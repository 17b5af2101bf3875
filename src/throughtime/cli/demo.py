"""demo: the main job from end to end, on a text that every Python carries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.output import made_folder
from throughtime.errors import UserError

PROMPT = "When a class is defined, "


def demo(
    *,
    out: Annotated[Path, Parameter(help="The run folder to make; where it is taken, one beside it.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, Parameter(help="How long to train.")] = 1.0,
) -> None:
    """Train a small model on Python's own language reference, compare it with counting, and let it write."""
    if not 0 < minutes < float("inf"):
        raise UserError(f"--minutes: got {minutes}; it must be over 0")
    folder = _free(out)
    text = folder.with_name(folder.name + ".txt")
    made_folder(folder.parent, f"--out {folder}")
    text.write_text(language_reference(), encoding="utf-8")
    print(f"The English of Python's language reference, {text.stat().st_size:,} bytes: {text}", file=sys.stderr)

    from throughtime.training import Reporter, train

    model = train("text", [text], out=folder, minutes=minutes)
    report = Reporter()
    report.say("counting n-grams of the same tokens, for comparison …")
    table = baselines(model, text)

    from throughtime.training.report import draw_curve

    per_token = {name: nats["nats_per_token"] for name, nats in table.items() if name != "this network"}
    kept = model.run.scores()["best_step"]
    if why := draw_curve(model.run, kept=kept, decides="nats_per_token", loss="nats_per_token", baselines=per_token):
        report.say(why)
    print(f"\n{'held-out loss':26}{'nats a character':>18}{'nats a token':>16}")
    for name, nats in table.items():
        print(f"{name:26}{nats['nats_per_character']:18.3f}{nats['nats_per_token']:16.3f}")
    print(f"\nIt writes:\n\n{PROMPT}", end="")
    for piece in model.stream(PROMPT, 250, temperature=0.6, seed=1):
        print(piece, end="", flush=True)
    print()
    report.say(f"\nThe run: {folder}    its learning curve: {model.run.curve}")
    report.say(f'Go on:   throughtime generate {folder} --prompt "A class is"')
    report.say("Yours:   throughtime train text FILE --out runs/mine")


def language_reference() -> str:
    """The topics of Python's language reference, as `help()` shows them."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n"


def baselines(model: Any, text: Path) -> dict[str, dict[str, float]]:
    """Held-out nats of the network, a unigram and 5- and 6-grams, over the same tokens of the same split.

    The n-grams count the tokens the network reads, and also characters; per character the two can be compared.
    """
    import numpy as np

    from throughtime.tasks.ngram import ngram_nats
    from throughtime.tasks.spans import hold_out, open_files, read_blocks
    from throughtime.tasks.tokens import learn

    train, held = ("".join(read_blocks(span)) for (span,) in hold_out(open_files([text]), model.config.data.held_out))
    scores = model.run.scores()["scores"]
    n = len(model.tokens.encode(held))
    table = {"this network": {key: scores[key] for key in ("nats_per_character", "nats_per_token")}}

    characters = learn("characters", lambda: iter([train]), 1 << 20)
    for what, tokens, orders in (("characters", characters, (1, 5, 6)), (model.tokens.kind, model.tokens, (1, 3))):
        a, b = (np.asarray(tokens.encode(part)) for part in (train, held))
        for order in orders:
            nats = ngram_nats(a, b, len(tokens), order)
            name = f"{'unigram' if order == 1 else f'{order}-gram'} of {what}"
            table[name] = {"nats_per_character": nats / len(held), "nats_per_token": nats / n}
    return table


def _free(folder: Path) -> Path:
    """The folder, or the first of folder-2, folder-3 … that is not taken."""
    found, number = folder, 1
    while found.exists() or found.with_name(found.name + ".txt").exists():
        number += 1
        found = folder.with_name(f"{folder.name}-{number}")
    return found
