"""Keeps one good link to the store. Whoever uses the link never waits for a new one: without a link it refuses at once.

A thread of its own makes and prepares links; a link is handed out only once ``prepare`` has proved it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from redis.exceptions import RedisError

from runtime.link import Link
from runtime.store_faults import StoreFault, fault_of

LOOK_S: Final = 1.0
"""How often an idle link is looked at: a store that went away is noticed before the next call."""
FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 1.0

AnyLink = TypeVar("AnyLink", bound=Link)

_log = logging.getLogger(__name__)


class StoreKeeper(Generic[AnyLink]):
    """Owns a thread called ``name`` and the current link."""

    def __init__(
        self,
        make: Callable[[], AnyLink],
        prepare: Callable[[AnyLink], None],
        *,
        name: str,
        on_proved: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_fault: Callable[[], object],
    ) -> None:
        self._make = make
        self._prepare = prepare
        self._on_proved = on_proved
        self._on_error = on_error
        self._on_fault = on_fault
        self._link: AnyLink | None = None
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.trouble = "no connection to the store yet"
        self.fault = StoreFault.NO_LINK

    def start(self) -> None:
        """Begin to connect."""
        self._wanted.set()
        self._thread.start()

    def renew(self) -> None:
        """Ask for a new link if the current one is broken; returns at once."""
        self._wanted.set()

    def discard(self) -> None:
        """Give up the current link, which no longer does its job, and ask for a new one. By the link's own thread."""
        if self._link is not None:
            self._link.close()
        self.renew()

    def current(self) -> AnyLink | None:
        """Return the link if it is good; otherwise ask for a new one and return ``None``."""
        link = self._link
        if link is not None and link.connected:
            return link
        self.renew()
        return None

    @property
    def ready(self) -> bool:
        """Whether a proved link is there."""
        link = self._link
        return link is not None and link.connected

    def _run(self) -> None:
        try:
            self._keep()
        except Exception:  # noqa: BLE001  whatever it was: the owner must learn that nobody connects any more
            _log.exception("the store's keeper ended by a fault of its own")
            self._on_fault()

    def _keep(self) -> None:
        """Renew at once a link that lasted; one that died young, like one that could not be had, after a pause.

        So calls wait for a store that hangs again and again no more than about once a second.
        """
        pause_s = 0.0
        while not self._stopping.is_set():
            asked = self._wanted.wait(LOOK_S)
            self._wanted.clear()
            self._drop_if_dead()
            if self.ready:
                self._mend()
                pause_s = pause_s if asked else 0.0
            elif not self._stopping.wait(pause_s):
                pause_s = min(max(2 * pause_s, FIRST_BACKOFF_S), LAST_BACKOFF_S)
                if not self._renew():
                    self._wanted.set()

    def _drop_if_dead(self) -> None:
        """Hand out no link that the store has closed: its next call would be lost on it."""
        link = self._link
        if link is not None and link.connected and link.closed_by_store():
            self._link = None

    def _mend(self) -> None:
        """See to what is missing of a link that is good for the rest."""
        link = self._link
        if link is None:
            return
        try:
            self._link, trouble = link.mended()
        except (RedisError, OSError) as error:
            trouble = error
        if trouble is not None:
            self._on_error(trouble)

    def _renew(self) -> bool:
        link = self._make()
        try:
            link.connect()
            self._prepare(link)
        except (RedisError, OSError, UnicodeError) as error:  # a host that cannot be a name is a UnicodeError
            self._fail(link, error)
            return False
        self._link = link
        self.trouble, self.fault = "", StoreFault.BROKEN
        self._on_proved()
        _log.info("connected to the store")
        return True

    def _fail(self, link: AnyLink, error: Exception) -> None:
        link.close()
        self._on_error(error)
        trouble = f"the store cannot be used: {error}"
        if trouble != self.trouble:
            _log.warning("%s", trouble)
        self.trouble, self.fault = trouble, fault_of(error)

    def stop(self, timeout_s: float) -> None:
        """End the thread and close the link."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._link is not None:
            self._link.close()
