"""Binary frames of a WebSocket: steps of many sessions in one. Little-endian, without gaps, n sessions a frame.

asked:      tag u32, n u32, number u32[n], first u64[n], an input[n]: a token i32, or the numbers of a row
answered:   tag u32, n u32, number u32[n], status u32[n], time u64[n], an answer[n]: top × token i32 and then top × p f32, or the
            numbers of an output
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from throughtime.serve.refused import Refused

Array = np.ndarray[Any, Any]
HEAD = np.dtype([("tag", "<u4"), ("count", "<u4")])


@dataclass(frozen=True)
class Frame:
    """What is asked: input[i] is number first[i] of session number[i]."""

    tag: int
    number: Array
    first: Array
    inputs: Array


def unpacked(data: bytes, kind: np.dtype[Any]) -> Frame:
    """A frame that is asked. kind: of an input. Raises: Refused where it is none."""
    if len(data) < HEAD.itemsize:
        raise Refused(400, f"a frame of {len(data)} bytes; there are at least {HEAD.itemsize}: tag u32, n u32")
    tag, count = (int(v) for v in np.frombuffer(data, HEAD, 1)[0])
    kinds = (np.dtype("<u4"), np.dtype("<u8"), kind)
    size = HEAD.itemsize + count * sum(one.itemsize for one in kinds)
    if len(data) != size or not count:
        raise Refused(400, f"frame {tag}: {len(data)} bytes; {size} hold {count} steps, of which there is at least 1")
    parts, at = [], HEAD.itemsize
    for one in kinds:
        parts.append(np.frombuffer(data, one, count, at))
        at += count * one.itemsize
    number, first, inputs = parts
    if first.max() >= 2**53:
        raise Refused(400, f"frame {tag}: first: {first.max()}; less than 2**53")
    return Frame(tag, number, first, inputs)


def packed(frame: Frame, status: Array, time: Array, answers: Array) -> bytes:
    """A frame that answers one."""
    head = np.array([(frame.tag, len(frame.number))], HEAD)
    parts = (head, frame.number, status.astype("<u4"), time.astype("<u8"), answers)
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
