"""A network that writes music: a stack that goes from moment to moment, and a cell that writes each moment symbol by symbol.

Shapes: T moments, B pieces, L symbols of a moment, E embedding, N output of the stack, C chain, V symbols, K numbers of what was
before, R moments that are written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.layers import Recurrent
from throughtime.layers.dropout import Dropout
from throughtime.models.stacks import Memoryless, recurrent, widened
from throughtime.models.transformer import TransformerWindow, matched, parameters_of

KEYS = 88  # symbols 1 to KEYS, side by side
END = 0
LOWEST_CLASS = 9  # the pitch class of key 1, A
NOW = 4  # keys of the moment itself, lower than the one that is written, that it is told from
ROWS = 2048  # moments that are scored at a time


class Moments(NamedTuple):
    """Stretches of pieces side by side.

    symbols: of each moment without its end, [T, B, L], V where there is none; counts: how many these are, [T, B]. places, bars:
    of each, [T, B]. before: the keys struck last before each moment, the last first, 0 where there is none, and last the first
    key of the scale, from 1, C, to 12, 0 where it is not known, [T, B, K]. first: whether it is the first of its piece, [T, B].
    written: whether it is written by the network, and not only read, [T, B]. lengths: moments of each stretch, [B].
    """

    symbols: Tensor
    counts: Tensor
    places: Tensor
    bars: Tensor
    before: Tensor
    first: Tensor
    written: Tensor
    lengths: Tensor


class Grammar(NamedTuple):
    """What may be written. follow: which symbols may come after which, in the first moment of a piece and in others, [2, V + 1, V],
    bool; the last row: which may begin a moment. restarts: after which a key may be lower than those before it, [V + 1], bool.
    notes: which are notes, [V], bool."""

    follow: np.ndarray[Any, Any]
    restarts: np.ndarray[Any, Any]
    notes: np.ndarray[Any, Any]


class Composer(nn.Module):
    """The probability of each moment, given all before it.

        m_t = what moment t is read as;  h_t = stack(m_1 … m_t)
        c_i = chain(c_{i-1}, x_{i-1} + W_h h_{t-1});  p(x_i) = softmax(W [c_i; h_{t-1}] + relative)

    x_i are the symbols of moment t. A moment is read as the sum of the embeddings of its symbols, of the intervals within it and to
    the keys before it, of its place in the bar and its bar in the phrase. `relative` adds to each key a weight of its interval to
    each of the keys before it, so that what is learned in one key holds in all.

    Args: grammar: of the symbols. places, bars: how many are told apart. cell, layers, hidden_size: of the stack. chain_size: C.
        embedding_size: E. dropout: on what the stack gives; half of it on what is read and on what writes. window: where given, a
        Transformer of as many parameters, that sees so many moments back, stands in the place of the stack.
    """

    follow: Tensor
    restarts: Tensor
    notes: Tensor

    def __init__(
        self,
        grammar: Grammar,
        places: int,
        bars: int,
        *,
        cell: str,
        hidden_size: int,
        chain_size: int,
        embedding_size: int,
        layers: int = 1,
        dropout: float = 0.0,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.symbols = grammar.follow.shape[-1]
        size = embedding_size
        self.symbol, self.written = (nn.Embedding(self.symbols + 1, size, self.symbols) for _ in range(2))
        self.chord, self.motion, self.chain_chord, self.chain_motion = (
            nn.Embedding(2 * KEYS, size, 0) for _ in range(4)
        )
        self.degree, self.chain_degree = (nn.Embedding(13, size, 0) for _ in range(2))
        self.place, self.bar = nn.Embedding(places, size), nn.Embedding(bars, size)
        tables = (self.symbol, self.written, self.chord, self.motion, self.chain_chord, self.chain_motion)
        for table in (*tables, self.degree, self.chain_degree):
            nn.init.normal_(table.weight, std=0.3)
            with torch.no_grad():
                table.weight[table.padding_idx] = 0
        for table in (self.place, self.bar):
            nn.init.normal_(table.weight, std=0.3)
        self.stack = _stack(cell, size, hidden_size, layers, dropout, window)
        width = self.stack.output_size
        self.given = nn.Linear(width, size)
        self.chain = recurrent("gru", size, chain_size)
        self.output = nn.Linear(width + chain_size, self.symbols)
        self.intervals = nn.Linear(width + chain_size, 4 * KEYS + 12)
        self.read_dropout, self.write_dropout = Dropout(dropout / 2), Dropout(dropout / 2)
        self.dropout = Dropout(dropout)
        for name, table in grammar._asdict().items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    # -- what is read

    def read(self, batch: Moments) -> Tensor:
        """What each moment is read as, [T, B, E]."""
        keys = self._keys(batch.symbols)
        found = _sum(self.symbol, batch.symbols)
        found = found + _sum(self.chord, _intervals(keys, keys).flatten(-2)) / 4
        found = found + _sum(self.motion, _intervals(keys, batch.before[..., :-1]).flatten(-2)) / 4
        found = found + _sum(self.degree, _degrees(keys, batch.before[..., -1:])) / 2
        found = found + self.place(batch.places) + self.bar(batch.bars)
        noisy: Tensor = self.read_dropout(found)
        return noisy

    def _keys(self, symbols: Tensor) -> Tensor:
        """Symbols that are keys; 0 for others."""
        return torch.where(symbols <= KEYS, symbols, 0)

    def forward(self, batch: Moments, state: None) -> tuple[Tensor, Tensor, None]:
        """-log p of all moments that are written, summed, and how many notes are in them."""
        return self.nats(batch).sum(), self.notes_in(batch).sum(), None

    def notes_in(self, batch: Moments) -> Tensor:
        """How many notes are in each moment that is written, [T, B]."""
        return F.pad(self.notes, (0, 1))[batch.symbols].sum(-1) * batch.written

    def nats(self, batch: Moments, after: Moments | None = None) -> Tensor:
        """-log p of each moment that is written, else 0, [T, B]. after: what is heard in place of the moments themselves."""
        return self.symbol_nats(batch, after).sum(-1)

    def symbol_nats(self, batch: Moments, after: Moments | None = None) -> Tensor:
        """-log p of each symbol that is written and of the end of its moment, else 0, [T, B, L + 1]. after: as of `nats`."""
        after = batch if after is None else after
        batch = batch._replace(before=after.before)
        heard, flat = self.heard_before(after).flatten(0, 1), [x.flatten(0, 1) for x in batch[:-1]]
        rows = batch.written.flatten().nonzero().squeeze(1)
        parts = []
        for some in torch.split(rows, max(rows.shape[0], 1) if self.training else ROWS):
            moments = Moments._make([*(x[some] for x in flat), batch.lengths])
            parts.append(self.chain_nats(heard[some], moments))
        found = widened(heard[:0]).new_zeros(batch.written.numel(), batch.symbols.shape[-1] + 1)
        found = found.index_put((rows,), torch.cat(parts) if rows.shape[0] else found[:0])
        return found.view(*batch.written.shape, -1)

    def heard_before(self, batch: Moments) -> Tensor:
        """What the stack gives before each moment, [T, B, N]: zeros before the first."""
        given = self.read(batch)
        if isinstance(self.stack, TransformerWindow):
            hidden = self.stack(given)[0]
        else:
            hidden = self.stack(given, lengths=batch.lengths)[0]
        before: Tensor = self.dropout(torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]]))
        return before

    def heard(self, given: Tensor, state: Any) -> tuple[Tensor, Any]:
        """What the stack gives after moments as they are read, [T, B, E], from a state on, None at the beginning. Returns: [B, N],
        and the state to go on from."""
        if isinstance(self.stack, Memoryless):
            return self.stack(given, lengths=torch.full(given.shape[1:2], given.shape[0]))[0][-1], None
        if isinstance(self.stack, TransformerWindow):
            return self._heard_in_window(self.stack, given, state)
        hidden, state = self.stack(given, state)
        return hidden[-1], state

    def _heard_in_window(self, stack: TransformerWindow, given: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same of a Transformer, which is carried on from what was before its window and the moments in it so far: so each
        stands at the place where training met it, not at the end of a window that slides."""
        before, read = (None, given[:0]) if state is None else state
        read = torch.cat([read, given])
        while read.shape[0] > stack.window:
            before, read = stack(read[: stack.window], before)[1], read[stack.window :]
        return stack(read, before)[0][-1], (before, read)

    # -- what is written

    def chain_nats(self, heard: Tensor, moments: Moments) -> Tensor:
        """-log p of the symbols of moments [R, L], and of their ends, after what was heard before each, [R, N]. Returns: [R,
        L + 1], 0 past a moment's end."""
        symbols, counts = moments.symbols, moments.counts
        width, longest = symbols.shape[1], int(counts.max())
        symbols = symbols[:, :longest]
        read = F.pad(symbols, (1, 0), value=self.symbols)  # what has been read before each that is written, [R, L + 1]
        now = self._now(symbols)
        given = self.chain_input(read.t(), moments.before, now) + self.given(heard)
        chain, _ = self.chain(given, lengths=counts + 1)
        real = torch.arange(longest + 1, device=counts.device).unsqueeze(1) <= counts  # [L + 1, R]
        row = torch.arange(symbols.shape[0], device=counts.device).expand(longest + 1, -1)[real]
        log_p = self.log_p(
            torch.cat([self.write_dropout(chain[real]), heard[row]], -1),
            torch.cat([moments.before[row], now[real]], -1),
            read.t()[real],
            self._under(symbols)[real],
            moments.first[row],
        )
        goals = F.pad(symbols, (0, 1), value=self.symbols).t()[real]
        goals = torch.where(goals == self.symbols, END, goals)
        nats = -log_p.gather(1, goals.unsqueeze(1)).squeeze(1)
        found = nats.new_zeros(longest + 1, symbols.shape[0]).masked_scatter(real, nats)
        return F.pad(found.t(), (0, width - longest))

    def _now(self, symbols: Tensor) -> Tensor:
        """The last keys of each moment before each symbol that is written, the last first, [L + 1, R, NOW]."""
        last = symbols.new_zeros(symbols.shape[0], NOW)
        found = [last]
        for symbol in symbols.t():
            key = self._keys(symbol).unsqueeze(1)
            last = torch.where(key > 0, torch.cat([key, last[:, :-1]], 1), last)
            found.append(last)
        return torch.stack(found)

    def _under(self, symbols: Tensor) -> Tensor:
        """The key that the next has to be higher than, before each symbol that is written, [L + 1, R]; 0: any."""
        under = symbols.new_zeros(symbols.shape[0])
        found = [under]
        for symbol in symbols.t():
            key = self._keys(symbol)
            under = torch.where(self.restarts[symbol], 0, torch.where(key > 0, key, under))
            found.append(under)
        return torch.stack(found)

    def chain_input(self, read: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """What the chain reads at symbols [L, R], V before the first: themselves, and their intervals to the keys before, [R, K],
        and to those of the moment so far, [L, R, NOW], the first of which they are where they are keys. Returns: [L, R, E]."""
        key = self._keys(read).unsqueeze(-1)
        found: Tensor = self.written(read)
        found = found + _sum(
            self.chain_motion, _intervals(key, before[:, :-1].expand(read.shape[0], -1, -1)).flatten(-2)
        )
        found = found + _sum(self.chain_degree, _degrees(key, before[:, -1:]))
        found = found + _sum(self.chain_chord, _intervals(key, now[..., 1:]).flatten(-2))
        return found

    def log_p(self, written: Tensor, slots: Tensor, read: Tensor, under: Tensor, first: Tensor) -> Tensor:
        """log p of the next symbol, [R, V].

        Args: written: of the chain and of the stack, [R, C + N]. slots: what was before, K, and NOW keys of the moment, [R,
            K + NOW]. read: the symbol before, V for none, [R]. under: the key that the next has to be higher than, [R]. first:
            whether the moment is the first of its piece, [R].
        """
        symbol = torch.arange(self.symbols, device=slots.device)
        allowed = self.follow[1 - first.long(), read]
        allowed = allowed & ((symbol > under.unsqueeze(1)) | (symbol == END) | (symbol > KEYS))
        logits = widened(self.output(written))
        keyed = allowed[:, 1 : KEYS + 1].any(1).nonzero().squeeze(1)  # where a key may come
        relative = F.pad(widened(self._relative(written[keyed], slots[keyed])), (1, self.symbols - KEYS - 1))
        logits = logits.index_add(0, keyed, relative)
        log_p: Tensor = logits.masked_fill(~allowed, -torch.inf).log_softmax(-1)
        return log_p

    def _relative(self, written: Tensor, slots: Tensor) -> Tensor:
        """What is added to each key, [R, KEYS], by its interval to each of those that are looked back at, and by its place in the
        scale of the piece."""
        before, now, scale = self.intervals(written).split((2 * KEYS, 2 * KEYS, 12), 1)
        keys = torch.arange(1, KEYS + 1, device=slots.device)
        home = slots.shape[1] - NOW - 1
        degrees = _degrees(keys, slots[:, home : home + 1])
        added: Tensor = torch.where(degrees > 0, scale.gather(1, (degrees - 1).clamp(min=0)), 0.0)
        for of, others in ((before, slots[:, :home]), (now, slots[:, home + 1 :])):
            if of.requires_grad:
                starts = torch.where(others > 0, KEYS + 1 - others, -1)
                added = added + _Windows.apply(of, starts, KEYS)  # type: ignore[no-untyped-call]
                continue
            for at in others.t().unsqueeze(-1):
                added = added + torch.where(at > 0, of.gather(1, torch.where(at > 0, keys - at + KEYS, 0)), 0.0)
        return added


def _stack(
    cell: str, inputs: int, size: int, layers: int, dropout: float, window: int | None
) -> Recurrent | Memoryless | TransformerWindow:
    if cell == "none":
        return Memoryless(inputs, size, layers, dropout)
    if window is None:
        return recurrent(cell, inputs, size, layers, dropout=dropout if layers > 1 else 0.0, residual=layers > 1)
    with torch.random.fork_rng(devices=[]):  # made to be counted
        like = parameters_of(recurrent(cell, inputs, size, layers))
    found = matched(lambda width: TransformerWindow(inputs, width, max(layers, 2), dropout, window), like)
    assert isinstance(found, TransformerWindow)
    return found


class _Windows(torch.autograd.Function):
    """Of each row [R, n] the sum of some windows, [R, width]: those that begin at `starts`, [R, S], of which -1 is none. What
    `gather` gives, in less than half of the time, since the numbers of a window lie side by side."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, starts: Tensor, width: int) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(starts)
        ctx.shape, ctx.dtype, wide = rows.shape, rows.dtype, widened(rows[:0]).dtype
        found = rows.new_zeros(rows.shape[0], width, dtype=wide)
        for row, windows, at in _each(rows, starts, width):
            found.index_add_(0, row, windows.index_select(0, at).to(wide))
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        found = g.new_zeros(ctx.shape)
        for row, windows, at in _each(found, ctx.saved_tensors[0], g.shape[1]):
            windows.index_add_(0, at, g.index_select(0, row))
        return found.to(ctx.dtype), None, None


def _each(rows: Tensor, starts: Tensor, width: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each column of starts [R, S] the rows that have one, and all windows of all rows and the numbers of those."""
    step = rows.stride(0)
    every = rows.as_strided(((rows.shape[0] - 1) * step + rows.shape[1] - width + 1, width), (1, 1))
    for start in starts.t():
        row = (start >= 0).nonzero().squeeze(1)
        if len(row):
            yield row, every, row * step + start[row]


def _sum(table: nn.Embedding, numbers: Tensor) -> Tensor:
    """The sum of the entries of a table, [..., E], of numbers [..., n]."""
    flat = F.embedding_bag(
        numbers.reshape(-1, numbers.shape[-1]), table.weight, mode="sum", padding_idx=table.padding_idx
    )
    return flat.view(*numbers.shape[:-1], -1)


def _intervals(keys: Tensor, others: Tensor) -> Tensor:
    """How far keys [..., n] lie above others [..., m], [..., n, m], from 1 to 2 · KEYS - 1; 0 where one of the two is none."""
    there = (keys > 0).unsqueeze(-1) & (others > 0).unsqueeze(-2)
    return torch.where(there, keys.unsqueeze(-1) - others.unsqueeze(-2) + KEYS, 0)


def _degrees(keys: Tensor, home: Tensor) -> Tensor:
    """The semitones of keys [..., n] above where a scale begins, [..., 1] from 1 to 12, octaves apart, from 1 to 12; 0 where one of
    the two is none. Key 1 is A0."""
    return torch.where((keys > 0) & (home > 0), (keys + LOWEST_CLASS - home) % 12 + 1, 0)
