"""Reads frames, one a line, as C4 E4 G4: python answer.py 16 < frames.txt

Tells what each but the first costs in nats, and their sum; then, where a number is given, so many frames that come next, the
likeliest symbol each time. Needs numpy and onnxruntime.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

here = Path(__file__).parent
known = json.loads((here / "music.json").read_text(encoding="utf-8"))
if known["kind"] != "frames":
    sys.exit(
        "this model writes events, and what may stand where hangs on their grammar: README.md says what its networks take"
    )
listener, writer = (onnxruntime.InferenceSession(here / f"{name}.onnx") for name in ("listener", "writer"))
names, number = known["names"], {name: i for i, name in enumerate(known["names"])}
END, NONE = 0, len(names)


def zeros(session: Any) -> dict[str, Any]:
    """The states that a network begins with."""
    return {i.name: np.zeros((1, *i.shape[1:]), np.float32) for i in session.get_inputs() if i.name.startswith("state")}


class Piece:
    """What has been read of a piece."""

    def __init__(self) -> None:
        self.frames, self.keys, self.states = 0, [0] * known["looked"], zeros(listener)
        self.heard = np.zeros((1, known["heard"]), np.float32)

    def next_log_p(self, frame: list[int], states: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Of each symbol after those of a frame so far, and the states of the writer."""
        asked = {"read": [frame[-1] if frame else NONE], "before": [[*self.keys, 0]]}
        asked |= {"now": [(frame[::-1] + [0] * 4)[:4]], "under": [frame[-1] if frame else 0]}
        asked |= {"first": [int(self.frames == 0)]}
        given = {name: np.array(value, np.int64) for name, value in asked.items()}
        log_p, *finals = writer.run(None, {**given, "heard": self.heard, **states})
        return log_p[0], dict(zip(states, finals, strict=True))

    def nats(self, frame: list[int]) -> float:
        """What a frame costs."""
        total, states = 0.0, zeros(writer)
        for i, symbol in enumerate([*frame, END]):
            log_p, states = self.next_log_p(frame[:i], states)
            total -= float(log_p[symbol])
        return total

    def likeliest(self) -> list[int]:
        """A frame that comes next."""
        frame, states = list[int](), zeros(writer)
        while True:
            log_p, states = self.next_log_p(frame, states)
            if (symbol := int(log_p.argmax())) == END:
                return frame
            frame.append(symbol)

    def read(self, frame: list[int]) -> None:
        """Go on by a frame."""
        asked = {"symbols": [frame or [NONE]], "places": [self.frames % known["places"]]}
        asked |= {"bars": [self.frames // known["places"] % known["phrase"]], "before": [[*self.keys, 0]]}
        given = {name: np.array(value, np.int64) for name, value in asked.items()}
        self.heard, *finals = listener.run(None, {**given, **self.states})
        self.states = dict(zip(self.states, finals, strict=True))
        self.keys = (frame[::-1] + self.keys)[: known["looked"]]
        self.frames += 1


piece, total = Piece(), 0.0
for line in [] if sys.stdin.isatty() else sys.stdin:
    frame = sorted(number[name] for name in line.split())
    if piece.frames:
        total += (nats := piece.nats(frame))
        print(f"{nats:.4f}\t{line.strip()}")
    piece.read(frame)
if piece.frames:
    print(f"{total:.4f}")
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 0):
    frame = piece.likeliest()
    print(*(names[symbol] for symbol in frame))
    piece.read(frame)
