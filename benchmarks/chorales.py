"""How chorales that a model writes lead their voices, beside Bach's: parallels, ranges, crossings; what they copy.

    python benchmarks/chorales.py jsb-chorales-quarter.json RUN [--pieces 100]

RUN is of `throughtime train music jsb-chorales-quarter.json`. The voices of quarter frames are told by height, so that there are
more parallels than in the scores, and no crossings; the file lies an octave above the voices.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import throughtime as tt
from throughtime.tasks.likeness import Grams, intervals, overlap, pitch_classes
from throughtime.tasks.music_data import GRAMS
from throughtime.tasks.scores import read_pieces
from throughtime.tasks.voice_leading import voice_figures, voices_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pieces", type=int, default=100)
    given = parser.parse_args()
    model = tt.load(given.run, "music")
    sets = {f"Bach, {part}": read_pieces(given.data, part=part) for part in ("train", "test")}
    sets["written"] = [one.piece for one in model.compose(given.pieces, seed=0)]
    grams, train = Grams.open(given.run / GRAMS), sets["Bach, train"]
    print("| | pieces | parallel fifths, octaves in 100 changes | out of range | copied | keys, intervals shared |")
    print("|---|---|---|---|---|---|")
    for name, pieces in sets.items():
        found = voice_figures(voices_of(piece.transposed(-12)) for piece in pieces)
        parallels = f"{found['parallel_fifths']:.2f}, {found['parallel_octaves']:.2f}"
        copied = np.nanmean([grams.copied(piece) for piece in pieces])
        shared = [overlap(of(pieces), of(train)) for of in (pitch_classes, intervals)]
        row = f"{100 * found['out_of_range']:.1f} % | {100 * copied:.0f} % | {shared[0]:.2f}, {shared[1]:.2f}"
        print(f"| {name} | {len(pieces)} | {parallels} | {row} |")


if __name__ == "__main__":
    main()
