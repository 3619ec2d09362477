"""A second proved link to the store, ready for whoever's link breaks: nobody waits for a new one.

Its keeper's thread puts it here and looks at it; the thread that sends takes it over. Whoever holds the lock owns the
link, so the two never send on it at once. Knows nothing of what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from redis.exceptions import RedisError

from runtime.store.link import Link

KeptLink = TypeVar("KeptLink", bound=Link)

TakeUp = Callable[[], None]
"""What is to be done when a proved link comes into use; by the thread that brings it into use."""


@dataclass(frozen=True, slots=True)
class Proved(Generic[KeptLink]):
    """A link that was proved, and what its proof has taught."""

    link: KeptLink
    take_up: TakeUp


class Spare(Generic[KeptLink]):
    """At most one link, proved and not in use."""

    def __init__(self) -> None:
        self._held: Proved[KeptLink] | None = None
        self._own = threading.Lock()
        self._doubted = False

    @property
    def ready(self) -> bool:
        """Whether a link is here that can be taken over."""
        held = self._held
        return held is not None and held.link.connected and not self._doubted

    @property
    def whole(self) -> bool:
        """Whether it reaches every server that it should."""
        held = self._held
        return held is not None and held.link.whole and not self._doubted

    def put(self, proved: Proved[KeptLink] | None) -> None:
        """Hold this link instead of the one before, which is closed; by the keeper's thread."""
        with self._own:
            before, self._held = self._held, proved
        if before is not None:
            before.link.close()

    def take(self, wait_s: float) -> Proved[KeptLink] | None:
        """Hand the link over for good; waits at most so long for a look that is under way.

        ``None`` where there is none, or the store has closed it: a store that was restarted is to be proved again.
        """
        if not self.ready or not self._own.acquire(timeout=max(0.0, wait_s)):
            return None
        try:
            taken = self._held if self.ready else None
            self._held = None if taken else self._held
        finally:
            self._own.release()
        if taken is not None and taken.link.any_closed_by_store():
            taken.link.close()
            return None
        return taken

    def look(self, look: Callable[[KeptLink], TakeUp]) -> Exception | None:
        """Prove the link again, in bounded time; one that fails is closed. Returns what it failed of."""
        with self._own:
            held = self._held
            if held is None:
                return None
            try:
                self._held = Proved(held.link, look(held.link))
            except (RedisError, OSError) as error:
                self._held = None
                held.link.close()
                return error
        return None

    def doubt(self) -> None:
        """Have it used no more: its server refuses what it is asked. By any thread, at once."""
        self._doubted = True

    def drop_if_useless(self) -> None:
        """Close what is doubted or was closed by the store; by the keeper's thread."""
        held = self._held
        if self._doubted or (held is not None and held.link.closed_by_store()):
            self.put(None)
            self._doubted = False
