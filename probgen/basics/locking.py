"""One public call at a time, since what a call changes belongs to the whole process.

Pyro's handlers and validation, the random generators of torch, NumPy and `random`, and the train and
eval modes of a pair are shared by all threads. So every public function that runs a pair, draws random
numbers or changes one of these holds the one lock of the process while it runs. Calls from several threads
give the same results, to the bit, as calls one after the other. Threads do not make probgen faster;
processes do.

While a function of the user (a callback, an iterable of batches) runs, the lock is lent: if the function
waits for another thread, that thread's calls may run, as if the function had made them itself. A forked
process begins with the lock free and with Pyro's state from outside all calls (torch's threads do not
survive a fork: call `torch.set_num_threads(1)` there first, as torch's DataLoader does).

Turns are nested, so two calls cannot wait for each other more than once: callbacks of two fits that meet at a
barrier after every epoch would wait for ever. Run such fits in processes.

The lock does not protect threads of the user that use Pyro, or seed or draw from the global generators
(`torch.manual_seed`, `torch.randn`), while another thread is in a call of probgen. They need generators of
their own, or `with probgen.basics.locking.LOCK:`.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

POLL = 0.02
"""Seconds between checks whether the thread that holds the lock waits for another one."""

WAITING = ("threading", "queue", "concurrent", "multiprocessing", "selectors", "asyncio")
"""A thread that stays at one instruction in these packages waits for another thread."""

LOOKS, MORE_LOOKS = 3, 50
"""A thread counts as waiting if this many checks find it at the same instruction: in the packages above,
and in all others."""


class _Turn:
    """The time in which one thread holds the lock."""

    __slots__ = ("depth", "lent", "thread")

    def __init__(self, thread: int) -> None:
        self.thread, self.depth, self.lent = thread, 1, False


class CallLock:
    """A re-entrant lock. Within `lent`, a thread that waits for another one lends it the lock.

    Turns are nested as calls are: a thread continues when the turns that it lent the lock to have ended,
    so that what they changed is restored in the reverse order.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turns: list[_Turn] = []
        self._in_child: list[Callable[[], object]] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *error: object) -> None:
        if self._turns and (top := self._turns[-1]).thread == threading.get_ident():
            self.release(top, top.depth - 1)

    @property
    def held(self) -> bool:
        """Whether this thread holds the lock and has not lent it."""
        turn = self._turns[-1:]
        return bool(turn) and turn[0].thread == threading.get_ident() and not turn[0].lent

    def acquire(self) -> tuple[_Turn, int]:
        """Wait for a turn; return it, and how many nested calls it had before this one."""
        if self.held:
            top = self._turns[-1]
            top.depth += 1
            return top, top.depth - 1
        turns, turn, watch = self._turns, _Turn(threading.get_ident()), _Watch()
        try:
            with self._changed:
                while turns and turns[-1].thread != turn.thread and not watch.waits(turns[-1]):
                    self._changed.wait(POLL)
                turns.append(turn)
        except BaseException:  # Ctrl-C, even just after the turn began
            self.release(turn, 0)
            raise
        return turn, 0

    def release(self, turn: _Turn, depth: int) -> None:
        """Return to a depth of a turn; at 0 it ends, with the turns above it that an interrupt left."""
        if depth > 0:
            turn.depth = depth
            return
        with self._changed:
            if turn in self._turns:
                del self._turns[self._turns.index(turn) :]
            self._changed.notify_all()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Surround a function of the user, which may wait for a thread that calls probgen."""
        if not self.held:
            yield
            return
        turn = self._turns[-1]
        turn.lent = True
        try:
            yield
        finally:
            self._take_back(turn)

    def _take_back(self, turn: _Turn) -> None:
        """Wait until the turns that the lock was lent to have ended; Ctrl-C takes effect after that."""
        interrupt = None
        with self._changed:
            while turn in self._turns and self._turns[-1] is not turn:
                if self._turns[-1].thread == turn.thread:
                    self._turns.pop()  # left by an interrupt
                    continue
                try:
                    self._changed.wait(POLL)
                except KeyboardInterrupt as error:
                    interrupt = error
            turn.lent = False
        if interrupt is not None:
            raise interrupt

    def in_child(self, put_back: Callable[[], object]) -> None:
        """Register a function to call in processes that are forked while another thread is in a call."""
        self._in_child.append(put_back)

    def _forked(self) -> None:
        others = bool(self._turns) and self._turns[-1].thread != threading.get_ident()
        self._changed = threading.Condition()  # another thread may have held its lock
        self._turns.clear()
        if others:
            for put_back in self._in_child:
                put_back()


class _Watch:
    """Finds out whether a thread that has lent the lock waits, by repeated checks of its instruction."""

    def __init__(self) -> None:
        self._where: object = None
        self._looks = 0

    def waits(self, turn: _Turn) -> bool:
        frame = sys._current_frames().get(turn.thread) if turn.lent else None
        if frame is None:
            self._where = None
            return False
        where = (id(turn), id(frame), frame.f_lasti)
        self._looks = self._looks + 1 if where == self._where else 1
        self._where = where
        package = str(frame.f_globals.get("__name__")).split(".")[0]
        return self._looks >= (LOOKS if package in WAITING else MORE_LOOKS)


LOCK = CallLock()
"""The lock of this process."""


def one_at_a_time(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function, which then holds the lock while it runs."""

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        turn, depth = LOCK.acquire()
        try:
            return function(*args, **named)
        finally:
            LOCK.release(turn, depth)

    return call
