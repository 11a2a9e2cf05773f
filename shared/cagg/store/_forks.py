"""Keeps forked children away from what SQLite of the parent had open.

SQLite notes per process which locks it has on a file. A child inherits the notes, but not the locks: a connection
that it opens to a file which was open at the fork would believe itself locked, read without protection and let others
delete the log under it (https://www.sqlite.org/howtocorrupt.html, section 2.6). So a fork waits until nothing of the
file is open; where that cannot be had, the child is refused the file.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol

__all__ = ["ForkAware", "Readers", "inherited", "leave_to_the_parent", "refuse_in_this_process", "watch_forks"]


class ForkAware(Protocol):
    """What a store does around a fork of its process."""

    url: str

    def before_fork(self) -> None:
        """In the parent, in the thread that forks."""
        ...

    def after_fork_in_parent(self) -> None:
        """In the parent, in the thread that forked."""
        ...

    def after_fork_in_child(self) -> None:
        """In the child, which has this one thread only."""
        ...


class Readers:
    """Counts the snapshots that are open in this process, so that a fork can wait for them and hold new ones back."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = 0
        self._forks = 0
        self._mine = threading.local()

    def enter(self) -> None:
        """A snapshot begins; waits for a fork, unless this thread already has one, for which the fork waits."""
        mine = getattr(self._mine, "open", 0)
        with self._changed:
            while self._forks and not mine:
                self._changed.wait()
            self._open += 1
        self._mine.open = mine + 1

    def leave(self) -> None:
        """A snapshot has ended."""
        self._mine.open -= 1
        with self._changed:
            self._open -= 1
            if self._forks:
                self._changed.notify_all()

    def pause(self, timeout_seconds: float) -> bool:
        """Hold new snapshots back and wait for the others; False if one stays open, or this thread has one itself."""
        mine = getattr(self._mine, "open", 0)
        with self._changed:
            self._forks += 1
            return self._changed.wait_for(lambda: self._open <= mine, timeout_seconds) and not mine

    def resume(self) -> None:
        """Let snapshots begin again."""
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_STORES: weakref.WeakSet[Any] = weakref.WeakSet()
_LEFT_TO_THE_PARENT: list[object] = []
_INHERITED: set[tuple[int, int]] = set()
_watching = threading.Event()


def watch_forks(store: ForkAware) -> None:
    """Tell the store of every fork from now on."""
    _STORES.add(store)
    if not _watching.is_set():
        _watching.set()
        os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def leave_to_the_parent(connection: object) -> None:
    """Keep a connection that was inherited from being closed: that is the parent's business."""
    _LEFT_TO_THE_PARENT.append(connection)


def refuse_in_this_process(identity: tuple[int, int]) -> None:
    """Remember that SQLite had this file (device, number) open when this process was forked."""
    _INHERITED.add(identity)


def inherited(identity: tuple[int, int] | None) -> bool:
    """True for a file that was open when this process, or one it descends from, was forked."""
    return bool(_INHERITED) and identity in _INHERITED


def _stores() -> list[Any]:
    """The stores in one order, so that two threads that fork at once do not wait for each other."""
    return sorted(_STORES, key=lambda store: (store.url, id(store)))


def _before_fork() -> None:
    for store in _stores():
        store.before_fork()


def _after_in_parent() -> None:
    for store in reversed(_stores()):
        store.after_fork_in_parent()


def _after_in_child() -> None:
    for store in _stores():
        store.after_fork_in_child()
