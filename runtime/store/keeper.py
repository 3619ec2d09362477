"""Keeps one good link to the store and a spare. Whoever uses the link never waits for a new one to be made.

A link that breaks is followed by the spare at once; without one, calls are refused at once. A thread of its own makes
and prepares links; one is handed out only once ``prepare`` has proved it. The spare is proved again every ``LOOK_S``
and made again every ``SPARE_S``, so it leads where a new link would lead.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Generic

from redis.exceptions import RedisError

from runtime.clock import Clock
from runtime.lifecycle import fault_told
from runtime.store.faults import StoreFault, fault_of
from runtime.store.spare import KeptLink, Proved, Spare, TakeUp

LOOK_S: Final = 1.0
"""How often links are looked at: a store that went away is noticed before the next call."""
SPARE_S: Final = 30.0
"""Oldest age of a spare: a name or a Sentinel may lead elsewhere by then."""
FIRST_BACKOFF_S: Final = 0.05
LAST_BACKOFF_S: Final = 1.0

_log = logging.getLogger(__name__)


class StoreKeeper(Generic[KeptLink]):
    """Owns a thread called ``name``, the current link and the spare."""

    def __init__(
        self,
        make: Callable[[], KeptLink],
        prepare: Callable[[KeptLink], TakeUp],
        *,
        look: Callable[[KeptLink], TakeUp],
        clock: Clock,
        name: str,
        on_proved: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_fault: Callable[[], object],
    ) -> None:
        """``look`` proves a link again, within the time that a call would wait. ``on_proved``: one came into use."""
        self._make = make
        self._prepare = prepare
        self._look = look
        self._clock = clock
        self._on_proved = on_proved
        self._on_error = on_error
        self._on_fault = on_fault
        self._link: KeptLink | None = None
        self._spare: Spare[KeptLink] = Spare()
        self._switch = threading.Lock()  # held to put another link in the current one's place
        self._look_at_ms = self._renew_spare_at_ms = 0.0
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
        """Ask for a new link if one is broken; returns at once."""
        self._wanted.set()

    def discard(self) -> None:
        """Give up the current link, whose server refuses what it is asked, and ask for a new one.

        The spare leads to the same server, so it goes too. By the link's own thread.
        """
        self._spare.doubt()
        if self._link is not None:
            self._link.close()
        self.renew()

    def current(self, deadline_ms: float) -> KeptLink | None:
        """Return the link if it is good, otherwise the spare; without either ask for a new link and return ``None``.

        Waits only for a look at the spare that is under way, and never beyond ``deadline_ms``.
        """
        link = self._link
        if link is not None and link.whole:
            return link
        return self._other_than(link, deadline_ms)

    @property
    def ready(self) -> bool:
        """Whether a proved link is there."""
        link = self._link
        return (link is not None and link.connected) or self._spare.ready

    # Switching

    def _other_than(self, broken: KeptLink | None, deadline_ms: float) -> KeptLink | None:
        """Bring the spare into use where it is better; a link of which a part is good stays where it is not."""
        with self._switch:
            link = self._link
            if link is broken and (self._spare.whole or not _is_good(link)):
                link = self._take_over((deadline_ms - self._clock.monotonic_ms()) / 1000)
        if link is broken:
            return link if _is_good(link) else None
        self.renew()
        return link

    def _take_over(self, wait_s: float) -> KeptLink | None:
        """Bring the spare into use, if there is one; the current link. Within ``_switch``."""
        spare = self._spare.take(wait_s)
        if spare is not None:
            self._use(spare)
        else:
            self.renew()
        return self._link

    def _use(self, proved: Proved[KeptLink]) -> None:
        """Put a link in the current one's place. Within ``_switch``."""
        before, self._link = self._link, proved.link
        if before is not None:
            before.close()
        proved.take_up()
        self._on_proved()
        _log.info("connected to the store")

    # The keeper's thread

    def _run(self) -> None:
        with fault_told(_log, "the store's keeper", self._on_fault):
            self._keep()

    def _keep(self) -> None:
        """Renew at once a link that lasted; one that died young, like one that could not be had, after a pause.

        So calls wait for a store that hangs again and again no more than about once a second.
        """
        pause_s = 0.0
        while not self._stopping.is_set():
            asked = self._wanted.wait(LOOK_S)
            self._wanted.clear()
            self._drop_if_dead()
            self._mend()
            if _is_good(self._link) and self._spare.ready:
                self._freshen()
                pause_s = pause_s if asked else 0.0
            elif not self._stopping.wait(pause_s):
                pause_s = min(max(2 * pause_s, FIRST_BACKOFF_S), LAST_BACKOFF_S)
                self._fill()

    def _drop_if_dead(self) -> None:
        """Hand out no link that the store has closed: its next call would be lost on it."""
        self._spare.drop_if_useless()
        link = self._link
        if link is None or not link.connected or link.closed_by_store():
            with self._switch:
                if self._link is link:
                    self._link = None
                    self._take_over(0.0)

    def _mend(self) -> None:
        """See to what is missing of a link that is good for the rest."""
        link = self._link
        if link is None:
            return
        try:
            heir, trouble = link.mended()
        except (RedisError, OSError) as error:
            heir, trouble = link, error
        if trouble is not None:
            self._on_error(trouble)
        if heir is not link:
            self._put_heir(link, heir)

    def _put_heir(self, link: KeptLink, heir: KeptLink) -> None:
        with self._switch:
            if self._link is link:
                self._link = heir
                return
        heir.close()  # the spare was faster; what the two share was closed with the link

    def _freshen(self) -> None:
        """See that the spare still leads to a store that can be used; in time, to where a new link would lead."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._look_at_ms:
            return
        self._look_at_ms = now_ms + LOOK_S * 1000
        link = self._link
        is_worse = link is not None and link.whole and not self._spare.whole
        if now_ms >= self._renew_spare_at_ms or is_worse:
            self._fill()
            return
        trouble = self._spare.look(self._look)
        if trouble is not None:
            self._on_error(trouble)
            self.renew()

    def _fill(self) -> None:
        """Make a link: the current one where there is none, otherwise the spare. If it cannot be had, ask again."""
        proved = self._proved()
        if proved is None:
            self.renew()
            return
        with self._switch:
            first = not _is_good(self._link) and not self._spare.ready
            if first:
                self._use(proved)
        if first:
            self.renew()  # for the spare
        else:
            self._spare.put(proved)
            self._renew_spare_at_ms = self._clock.monotonic_ms() + SPARE_S * 1000

    def _proved(self) -> Proved[KeptLink] | None:
        link = self._make()
        try:
            link.connect()
            proved = Proved(link, self._prepare(link))
        except (RedisError, OSError, UnicodeError) as error:  # a host that cannot be a name is a UnicodeError
            self._fail(link, error)
            return None
        self.trouble, self.fault = "", StoreFault.BROKEN
        return proved

    def _fail(self, link: KeptLink, error: Exception) -> None:
        link.close()
        self._on_error(error)
        trouble = f"the store cannot be used: {error}"
        if trouble != self.trouble:
            _log.warning("%s", trouble)
        self.trouble, self.fault = trouble, fault_of(error)

    def stop(self, timeout_s: float) -> None:
        """End the thread and close the links."""
        self._stopping.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._spare.put(None)
        if self._link is not None:
            self._link.close()


def _is_good(link: KeptLink | None) -> bool:
    return link is not None and link.connected
