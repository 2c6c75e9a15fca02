"""Independent pieces of work on several threads, with results in order."""

from __future__ import annotations

import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Iterator[Result]:
    """Yield ``function(item)`` in the items' order, working on ``workers`` items at once.

    Items are taken in the caller's thread (so files need no locks) and at most one more than
    ``workers`` of them are held. With BLAS limited to one thread, each result is computed by
    the same instructions whatever ``workers`` is, so results are equal byte for byte. ``items``
    is closed at the end if it is a generator.
    """
    with ThreadPoolExecutor(max_workers=workers) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            if isinstance(items, Generator):
                items.close()


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """Yield the items, which another thread takes from their source up to ``depth`` ahead.

    An error of the source is raised here, after the items before it.
    """
    waiting: queue.Queue = queue.Queue(maxsize=depth)
    stopped = threading.Event()

    def put(entry: tuple) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            item, end = waiting.get()
            if isinstance(end, StopIteration):
                return
            if end is not None:
                raise end
            yield item
    finally:
        stopped.set()
        # At the interpreter's end no other thread runs any more.
        if not sys.is_finalizing():
            thread.join()
