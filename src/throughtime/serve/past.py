"""What a session has read and where it was, at any time: computed anew from the state before that is kept."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.serve.awake import Awake, Live
from throughtime.serve.batcher import EVERY
from throughtime.serve.store import Appended, Kept
from throughtime.travel import Moment


class Read(NamedTuple):
    """What came of reading inputs. before: the output of the step before the first, [N]; None where there is none. outputs: of
    each, [N]."""

    before: Tensor | None
    outputs: list[Tensor]


class Past(Awake):
    """The moments of sessions. Nobody but who is alone with a session asks for one."""

    async def _moment(self, id: str, t: int) -> Moment:
        """Where a session was at time t, computed anew from the state before that is kept."""
        live = self._live.get(id)
        if live is not None and live.time == t:
            return Moment(tuple(await self._call(lambda streams: streams.take(live.row))), self._output(live))
        start, data = self.store.before(id, t)
        moment = self.moments.unpacked(data)
        if start == t:
            return moment
        outputs, state = await self._again(moment, self._inputs(id, start, t))
        return Moment(state, outputs[-1])

    async def _again(self, moment: Moment, inputs: Tensor) -> tuple[list[Tensor], tuple[State, ...]]:
        """What comes of reading inputs from a moment on, written nowhere: the outputs, and the state at the end."""
        async with self._row(moment) as row:
            outputs = await self._run(self._unwritten(row, inputs))
            return outputs, tuple(await self._call(lambda streams: streams.take(row)))

    async def _course(self, id: str, start: int, stop: int) -> list[Moment]:
        """Where a session was at each time from start to stop."""
        moments = [await self._moment(id, start)]
        edits = self.store.edits(id, start)
        for a, b in itertools.pairwise(sorted({start, stop, *(t for t in edits if t < stop)})):
            async with self._row(moments[-1]) as row:
                job = self._unwritten(row, self._inputs(id, a, b), traced=True)
                outputs = await self._run(job)
            moments += [Moment(tuple(s), o) for s, o in zip(job.states, outputs, strict=True)]
            if b in edits:
                moments[-1] = self.moments.unpacked(edits[b])
        return moments

    def _inputs(self, id: str, start: int, stop: int) -> Tensor:
        """The inputs from time start to stop."""
        like = self.engine.empty()
        parts = []
        for first, count, rows in self.store.inputs(id, start, stop):
            part = torch.frombuffer(bytearray(rows), dtype=like.dtype).view(count, *like.shape[1:])
            parts.append(part[max(0, start - first) : stop - first])
        return torch.cat(parts) if parts else like

    async def _wake(self, kept: Kept) -> Live:
        """A session with its row."""
        live = self._live.get(kept.id)
        if live is not None:
            self._live.move_to_end(kept.id)
            return live
        moment = await self._moment(kept.id, kept.time)
        row = await self._take_row()
        await self._call(lambda streams: streams.put(row, list(moment.state)))
        if moment.output is not None:
            self._outputs[row] = moment.output
        made = self._live[kept.id] = Live(row, kept.owner, kept.time, moment.output is not None)
        return made

    async def _once_more(self, id: str, first: int, inputs: Tensor) -> Read:
        moment, outputs = await self._moment(id, first), list[Tensor]()
        stop = first + len(inputs)
        edits = self.store.edits(id, first)
        before = moment.output
        for a, b in itertools.pairwise(sorted({first, stop, *(t for t in edits if t < stop)})):
            made, state = await self._again(moment, inputs[a - first : b - first])
            outputs += made
            moment = self.moments.unpacked(edits[b]) if b in edits else Moment(state, made[-1])
        return Read(before, outputs)

    async def _read_again(
        self, id: str, t: int, moment: Moment, inputs: Tensor, edits: dict[int, bytes]
    ) -> list[Appended]:
        """The records of inputs that are read from time t on, by pieces between snapshots and states that were put in."""
        records = []
        end = t + len(inputs)
        borders = sorted({t, end, *range(t + EVERY - t % EVERY, end, EVERY), *(at for at in edits if t < at < end)})
        for start, stop in itertools.pairwise(borders):
            part = inputs[start - t : stop - t]
            outputs, state = await self._again(moment, part)
            moment = Moment(state, outputs[-1])
            snapshots = ((stop, self.moments.packed(moment)),)
            records.append(Appended(id, start, len(part), part.contiguous().numpy().tobytes(), snapshots))
            if stop in edits:  # its state is another one; what led there stays
                moment = Moment(self.moments.unpacked(edits[stop]).state, outputs[-1])
                edits[stop] = self.moments.packed(moment)
        return records
