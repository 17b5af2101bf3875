"""Sessions over HTTP or anything else: each a log of inputs, whatever connection they come by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from throughtime.cells import State
from throughtime.serve.catalogue import to_the_end
from throughtime.serve.refused import Refused
from throughtime.serve.stepping import Stepping
from throughtime.serve.store import Appended
from throughtime.travel import Difference, Moment
from throughtime.travel.difference import difference

Again = Callable[
    [Tensor, Tensor], Tensor
]  # of all inputs before a time, and those from there on: these as they are then
COMPARED = 10_000  # times that are compared in one request, at most


class Sessions(Stepping):
    """The sessions of one network.

    A request names the number of its first step, so that one that comes twice changes nothing the second time and gets the same
    numbers. Sessions that nobody steps leave memory and come back when they are.

    Args: name: of the model. engine: of the trained model or the stack. streams: a table of rows for those that are awake.
        store: where they are kept. most: how many an owner may have. longest: how many steps a request may have.
    Raises, all verbs: Refused.
    """

    @to_the_end
    async def create(self, owner: str, id: str | None = None, about: bytes = b"", inputs: Tensor | None = None) -> str:
        """A new session. One that there is already is an error (409).

        Args: id: one's own name for it. about: what is kept of it, for what reads it. inputs: what it has read at once.
        Returns: its id.
        """
        id = self._named(id)
        self._check_quota(owner)
        first, records = self.engine.first(), list[Appended]()
        async with self._held_alone(id):
            if inputs is not None and len(inputs):
                self._check_length(inputs)
                records = await self._read_again(id, 0, first, inputs, {})
            if not self.store.make(id, owner, self.name, self.moments.packed(first), about, records):
                raise Refused(409, f"there is a session {id!r} already; go on with it, or choose another id")
        return id

    @to_the_end
    async def moment(self, owner: str, id: str, t: int | None = None) -> tuple[int, Moment]:
        """Where a session is, or was at time t: the time, and the moment."""
        async with self._held_alone(id):
            kept = self._found(id, owner)
            t = self._checked(kept, kept.time if t is None else t)
            moment = await self._moment(id, t)
            self._check_own(id)
            return t, moment

    @to_the_end
    async def read_inputs(self, owner: str, id: str, t: int | None = None) -> Tensor:
        """The inputs that a session has read up to time t; None: all."""
        async with self._held_alone(id):
            kept = self._found(id, owner)
            found = self._inputs(id, 0, self._checked(kept, kept.time if t is None else t))
            self._check_own(id)
            return found

    @to_the_end
    async def edit(
        self,
        owner: str,
        id: str,
        t: int | None = None,
        *,
        input: Tensor | Again | None = None,
        state: Sequence[State] | None = None,
        output: Tensor | None = None,
    ) -> int:
        """Change the input that was read at time t, [1, ...], or the state there and perhaps the output that led to it; all later
        inputs are read again, as they were, or as they are made anew of those before. t: None: the present. Returns: t."""
        if (input is None) == (state is None):
            raise Refused(400, "edit: give an input or a state, just one of them")
        async with self._held_alone(id):
            kept = self._found(id, owner)
            t = kept.time if t is None else t
            if not 0 <= t <= kept.time - (input is not None):
                what = "has read nothing, so that there is no input to change"
                if kept.time or input is None:
                    what = f"has read {kept.time}, so from 0 to {kept.time - (input is not None)}"
                raise Refused(400, f"time: {t}; the session {what}")
            later = self._inputs(id, t, kept.time)
            edits = self.store.edits(id, t)
            moment = await self._moment(id, t)
            self._sleep(id)
            if isinstance(input, Tensor):
                later = torch.cat([input.to(later.dtype), later[1:]])
            elif input is not None:
                later = await asyncio.to_thread(input, self._inputs(id, 0, t), later)
            else:
                assert state is not None
                moment = Moment(tuple(state), moment.output if output is None else output)
                edits[t] = self.moments.packed(moment)
            records = await self._read_again(id, t, moment, later, edits)
            self.store.rewrite(id, t, records, edits)
            return t

    @to_the_end
    async def diff(self, owner: str, id: str, other: str, start: int, stop: int | None) -> Difference:
        """Where and how far two sessions part, between two times that both have; stop: None: the last of these."""
        async with self._held_alone(id, other):
            both = [self._found(id, owner), self._found(other, owner)]
            stop = min(kept.time for kept in both) if stop is None else stop
            for kept in both:
                self._checked(kept, start, "start")
                self._checked(kept, stop, "stop")
            if not start <= stop < start + COMPARED:
                raise Refused(
                    400, f"diff: from {start} to {stop}; up to {COMPARED} times in a request, the later one last"
                )
            one, two = await asyncio.gather(self._course(id, start, stop), self._course(other, start, stop))
            self._check_own(id, other)
        pairs = (((t, t), a, b) for t, a, b in zip(range(start, stop + 1), one, two, strict=True))
        return await asyncio.to_thread(difference, self.engine, pairs)
