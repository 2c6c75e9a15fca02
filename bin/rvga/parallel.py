"""Independent pieces of work on several threads, with results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
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
    the same instructions whatever ``workers`` is, so results are equal byte for byte.
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
