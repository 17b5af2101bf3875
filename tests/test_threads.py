"""Threads that come late, or never: the same numbers, and before long without them."""

import ctypes
import threading
import time

import pytest
import torch

import throughtime as tt
from throughtime.scanning.cpu import product, team, threads
from throughtime.scanning.cpu.team import LONGEST, MOST_CREDIT, MOST_DEBT, REST, SHORTEST, Alone, Team
from throughtime.scanning.order import Order

MS = 1e6


class Clock:
    def __init__(self):
        self.ns = 0.0

    def __call__(self):
        return self.ns


class Tireless(Team):
    """A team that never rests, however late its members are."""

    def resting(self):
        return False


@pytest.fixture
def watched(monkeypatch):
    """Two threads of PyTorch's, a team that knows nothing yet, and the regions that are run with helpers."""
    before, regions = torch.get_num_threads(), []
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "team", Team())
    timed = threads.timed

    def counted(run, address, block, count):
        regions.append(address)
        return timed(run, address, block, count)

    monkeypatch.setattr(threads, "timed", counted)
    yield regions
    torch.set_num_threads(before)


def made(inputs=40, hidden=130, steps=30, batch=23, cls=tt.cells.GRU):
    torch.manual_seed(0)
    cell = cls(inputs, hidden)
    x = torch.randn(steps, batch, inputs, requires_grad=True)
    return cell, x


def everything(cell, x, **options):
    """Outputs, and gradients of all that goes in."""
    outputs, state, _ = tt.scan(cell, x, backend="cpu", **options)
    last = state if isinstance(state, tuple) else (state,)
    total = (outputs * torch.linspace(-1, 1, outputs.numel()).view_as(outputs)).sum() + sum(
        s.square().sum() for s in last
    )
    return [outputs.detach(), *torch.autograd.grad(total, [x, *cell.parameters()])]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


# The numbers


@pytest.mark.parametrize("cls", [tt.cells.GRU, tt.cells.LayerNormLSTM])
@pytest.mark.parametrize("ends", [False, True])
def test_outputs_and_gradients_have_the_same_bits_on_any_number_of_threads(watched, cls, ends):
    cell, x = made(cls=cls)
    options = {}
    if ends:
        starts = torch.rand(30, 23, generator=torch.Generator().manual_seed(1)) < 0.1
        options = {"lengths": torch.arange(23) % 31, "resets": starts}
    torch.set_num_threads(1)
    expected = everything(cell, x, **options)
    assert not watched
    for count in (2, 3, 4):
        torch.set_num_threads(count)
        threads.team = Tireless()
        for _ in range(3):  # what one thread takes for a loop is known before the third
            watched.clear()
            assert same(everything(cell, x, **options), expected)
        assert len(set(watched)) >= 5, "helpers were asked, for both loops and for products"
        watched.clear()


@pytest.mark.parametrize("late", [True, False], ids=["late", "never"])
def test_helpers_that_come_late_or_never_change_nothing_and_are_soon_done_without(watched, monkeypatch, late):
    caller = threading.get_ident()
    counted, asked = threads.timed, []

    def held(run, address, block, count):
        """The region of `timed`, where OpenMP's other threads are held before they begin."""
        given = (ctypes.c_int64 * 5)(address, block, *team._clock(), team._NEVER)
        inner = team._library().function("timed")

        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def function(argument):
            if threading.get_ident() != caller:
                time.sleep(0.01)
                if not late:
                    return
            inner(argument)

        run(ctypes.cast(function, ctypes.c_void_p).value, ctypes.addressof(given), count, 0)
        asked.append(given[4])
        return float(given[4])

    cell, x = made()
    torch.set_num_threads(1)
    for _ in range(3):
        expected = everything(cell, x)
    torch.set_num_threads(2)
    monkeypatch.setattr(threads, "timed", held)
    for _ in range(50):
        assert same(everything(cell, x), expected)
        if threads.team.until:
            break
    assert asked and all(0 < alone < team._NEVER for alone in asked)
    assert threads.team.until > 0, "the helpers were sent away"
    threads.team.until = float("inf")
    asked.clear()
    assert same(everything(cell, x), expected)
    assert not asked, "nobody was asked while the team rests"
    threads.team.until = 0.0
    monkeypatch.setattr(threads, "timed", counted)
    assert same(everything(cell, x), expected)
    assert watched, "later they are asked again"


def test_many_python_threads_beside_each_other_while_the_team_comes_and_goes(watched):
    jobs = [made(cls=cls, steps=20) for cls in (tt.cells.GRU, tt.cells.LSTM)]
    expected = [everything(*job) for job in jobs]
    wrong = []

    def work(k):
        for _ in range(10):
            if not same(everything(*jobs[k % 2]), expected[k % 2]):
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for worker in workers:
        worker.start()
    for _ in range(20):
        threads.team.until = float("inf") if threads.team.until == 0 else 0.0
        time.sleep(0.01)
    for worker in workers:
        worker.join()
    assert not wrong


# PyTorch's own number of threads


def test_while_the_team_rests_pytorchs_operations_within_take_one_thread_and_those_without_their_own(watched):
    seen = []

    @threads.as_the_team
    def inside(fail):
        seen.append(torch.get_num_threads())
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        if fail:
            raise KeyError("x")

    inside(False)
    threads.team.until = float("inf")
    inside(False)
    assert torch.get_num_threads() == 2
    with pytest.raises(KeyError):
        inside(True)
    assert torch.get_num_threads() == 2
    assert seen[::2] == [2, 1, 1]
    assert seen[1] == seen[3] == seen[5], "other threads are left alone"


def test_a_rest_that_begins_within_a_call_counts_for_the_rest_of_it(watched, monkeypatch):
    block, library, seen = (ctypes.c_int64 * 2)(0, 0), product.products("float"), []

    def region():
        threads.run(library.function("pack"), library.address("pack"), ctypes.addressof(block), 2)
        return torch.get_num_threads()

    @threads.as_the_team
    def call():
        seen.append(region())
        monkeypatch.setattr(threads, "timed", lambda *args: -2 * MOST_CREDIT)
        seen.append(region())
        monkeypatch.setattr(threads, "timed", None)
        seen.append(region())  # on its two tasks, alone

    threads.team = Team(Clock())
    call()
    assert seen == [2, 1, 1] and torch.get_num_threads() == 2
    threads.team = Team(Clock())
    monkeypatch.setattr(threads, "timed", lambda *args: -2 * MOST_CREDIT)
    assert region() == 2 and threads.team.until > 0, "outside of such a call nothing would put the number back"


def test_one_thread_asks_nobody(watched):
    cell, x = made()
    torch.set_num_threads(1)
    everything(cell, x)
    assert not watched and threads.team.balance == 0


# The judge


def test_what_one_thread_takes_is_found_out_before_others_help(watched):
    cell, x = made(hidden=97)  # of a size that no other test has run
    asked = []
    for _ in range(4):
        watched.clear()
        threads.team = Tireless()
        everything(cell, x)
        asked.append(len(set(watched)))
    assert asked[0] == asked[1] < asked[2] == asked[3], "the first is cold, the second is measured, the third has help"


def test_a_loop_that_threads_share_is_judged_by_what_one_alone_takes(watched, monkeypatch):
    """Each thread that shares a loop reads all of its weights; so two that take as long as one each have won nothing."""
    monkeypatch.setattr(
        threads, "timed", lambda run, address, block, count: (run(address, block, count, 0), 50 * MS)[1]
    )
    threads.team = Tireless(Clock())
    block = (ctypes.c_int64 * 2)(0, 0)  # no task
    library = product.products("float")
    for alone in (float("inf"), 0.0):
        threads.team.balance = 0.0
        threads.run(library.function("pack"), library.address("pack"), ctypes.addressof(block), 2, alone)
        assert (threads.team.balance > 0) == (alone > 0)


def test_the_time_alone_follows_the_machine_and_leaves_out_the_first():
    alone = Alone()
    alone.note(10, 1e9)
    assert alone.ns is None
    alone.note(10, 500)
    assert alone.ns == 50
    for _ in range(50):
        alone.note(5, 500)
    assert alone.ns == pytest.approx(100, rel=1e-3)


def test_a_team_that_wins_never_rests():
    clock = Clock()
    judge = Team(clock)
    for _ in range(1000):
        clock.ns += MS
        judge.judge(1.8 * MS, MS)
        assert not judge.resting()
    assert judge.balance == MOST_CREDIT
    judge.judge(0.1 * MS, 4 * MS)
    assert not judge.resting(), "one late thread is forgiven"


def test_a_team_that_loses_rests_longer_each_time_and_in_proportion_to_what_it_lost():
    clock = Clock()
    judge = Team(clock)
    pauses = []
    for _ in range(10):
        while not judge.resting():
            clock.ns += 2 * MS
            judge.judge(0.5 * MS, 2 * MS)
        pauses.append(judge.until - clock.ns)
        clock.ns = judge.until
    assert pauses[0] >= SHORTEST and pauses == sorted(pauses) and pauses[-1] == LONGEST
    assert not judge.resting()
    clock.ns += 500 * MS
    judge.judge(100 * MS, 500 * MS)
    assert judge.until - clock.ns == REST * 400 * MS


def test_after_a_calm_time_the_first_rest_is_short_again():
    clock = Clock()
    judge = Team(clock)
    for _ in range(8):
        judge.judge(0, MOST_DEBT * 1.5)
        clock.ns = judge.until
    assert judge.pause == LONGEST
    clock.ns += 11 * LONGEST
    judge.judge(0, MOST_DEBT * 1.5)
    assert judge.pause == SHORTEST


# Sequences in order


def test_sequences_in_another_order_and_back_with_gradients_of_gradients():
    lengths = torch.tensor([2, 5, 0, 3])
    order = Order.by_length(lengths, 5, lambda function, *args: function(*args))
    value = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)

    def there(v):
        return order.in_time(v, zeros=True)

    past = torch.arange(5)[:, None, None] >= torch.tensor([5, 3, 2, 0])[:, None]
    expected = torch.where(past, 0.0, value[:, [1, 3, 0, 2]])
    assert torch.equal(there(value), expected)
    assert torch.equal(order.inverse.in_time(there(value)), torch.where(past[:, [2, 0, 3, 1]], 0.0, value))
    assert torch.autograd.gradcheck(there, value) and torch.autograd.gradgradcheck(there, value)
    with_nan = value.detach().clone()
    with_nan[4, 0] = float("nan")
    assert there(with_nan).isfinite().all()


@pytest.mark.parametrize("lengths", [[2, 5, 0, 3], [5, 3, 3, 0], [5, 5, 5, 5]])
def test_each_sequence_from_its_end_with_gradients_of_gradients(lengths):
    order = Order.by_length(torch.tensor(lengths), 5, lambda function, *args: function(*args), reverse=True)
    value = torch.randn(5, 4, 3, dtype=torch.float64, requires_grad=True)
    falling = sorted(range(4), key=lambda i: -lengths[i])
    turned = [torch.cat([value[: lengths[i], i].flip(0), torch.zeros(5 - lengths[i], 3)]) for i in falling]

    def there(v):
        return order.in_time(v, zeros=True)

    assert torch.equal(there(value), torch.stack(turned, 1))
    past = torch.arange(5)[:, None, None] >= torch.tensor(lengths)[:, None]
    assert torch.equal(order.inverse.in_time(there(value)), torch.where(past, 0.0, value))
    assert torch.equal(order.inverse.in_time(order.in_time(value)), value)
    assert torch.autograd.gradcheck(there, value) and torch.autograd.gradgradcheck(there, value)


def test_sequences_that_lie_in_order_are_not_moved():
    order = Order.by_length(torch.tensor([4, 4, 2]), 4, lambda function, *args: function(*args))
    value = torch.randn(4, 3, 2)
    assert order.in_time(value) is value and order.inverse.in_time(value) is value and order.rows(value) is value
    assert order.in_time(value, zeros=True)[:2].equal(value[:2])
