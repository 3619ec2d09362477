"""Where thousands of publications are laid out and rendered: a thread of its own, so that no event loop waits for it.

What is asked for is done one after the other, so whoever leaves all use of a value to the workshop needs no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar

NAME: Final = "publication-files"
"""Of the thread."""

T = TypeVar("T")


class Workshop:
    """One thread, which begins with its first piece of work."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=NAME)

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Have the thread do this. Who is cancelled meanwhile goes when it is done: nothing works on behind them."""
        future = self._thread.submit(work, *arguments)
        waited = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait((waited,))
            raise

    def close(self) -> None:
        """Let the thread end, after what it is doing."""
        self._thread.shutdown(cancel_futures=True)


@contextmanager
def workshop() -> Iterator[Workshop]:
    """A workshop while the body runs."""
    made = Workshop()
    try:
        yield made
    finally:
        made.close()
