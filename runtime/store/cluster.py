"""Links to all masters of a Cluster as one: each command goes to the server of its key, all at once, by one deadline.

A server that is away fails the commands of its slots and no other. A redirection proves that nothing ran: it is
followed within the deadline. Whoever sends never waits for a connection: those are made by ``connect`` and
``mended``, which a keeper's thread calls. A server that was connected to anew may have lost what it had, so what was
proved by a link must be proved anew: mending makes another link, which takes over the good connections. Knows
nothing of what is asked but where its key stands (``runtime/store/slots.py``).
"""

from __future__ import annotations

import selectors
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as StoreConnectionError

from runtime.addresses import TcpAddress
from runtime.clock import Clock
from runtime.store.link import Command, NotConnectedError, StoreLink
from runtime.store.slots import SLOTS, Owners, key_of, read_owners, slot_of
from runtime.store.urls import parse_cluster

EXCHANGES: Final = 4
"""Most times one command is sent: to the owner we know, and after a MOVED, an ASK, and a MOVED again."""

MEND_PAUSE_MS: Final = 250
"""Least time between two looks at the slots, however often it is asked for."""


class _Route(NamedTuple):
    """Where a command goes."""

    address: TcpAddress | None  # None: nobody serves its slot
    asking: bool = False  # the slot is on its way there


@dataclass(slots=True)
class _View:
    """What is known of the Cluster; the sender corrects single owners."""

    owners: Owners = field(default_factory=lambda: [None] * SLOTS)
    links: dict[TcpAddress, StoreLink] = field(default_factory=dict)


@dataclass(slots=True)
class _Flight:
    """Commands on their way to one server, and what of them has come back."""

    link: StoreLink
    commands: list[Command] = field(default_factory=list)
    places: list[int | None] = field(default_factory=list)  # of each reply among all; None: nobody asked for it
    landed: int = 0

    def add(self, command: Command, place: int | None) -> None:
        """Take a command along."""
        self.commands.append(command)
        self.places.append(place)

    def take_off(self, deadline_ms: float, replies: list[Any]) -> bool:
        """Send; where that fails, say so in the place of each reply."""
        try:
            self.link.send(deadline_ms, self.commands)
        except RedisError as error:
            self.fail(error, replies)
            return False
        return True

    @property
    def over(self) -> bool:
        """Whether every reply is there."""
        return self.landed == len(self.places)

    def take_in(self, replies: list[Any]) -> None:
        """Put the replies that have come in their places; where the link breaks, what it broke of."""
        try:
            came = self.link.take_in()
        except RedisError as error:
            self.fail(error, replies)
            return
        if len(came) > len(self.places) - self.landed:
            self.link.close()
            self.fail(StoreConnectionError("the store answered more than it was asked"), replies)
            return
        for reply in came:
            place = self.places[self.landed]
            self.landed += 1
            if place is not None:
                replies[place] = reply

    def give_up(self, replies: list[Any]) -> None:
        """Wait no longer."""
        self.fail(self.link.give_up(), replies)

    def fail(self, error: RedisError, replies: list[Any]) -> None:
        """Put the error in the place of every reply that has not come."""
        for place in self.places[self.landed :]:
            if place is not None:
                replies[place] = error
        self.landed = len(self.places)


class ClusterLink:
    """A bounded link to a Cluster, for one sending thread; ``connect`` and ``mended`` are for its keeper's."""

    def __init__(self, url: str, clock: Clock, *, connect_timeout_ms: float = 1_000) -> None:
        self._url = url
        self._target = parse_cluster(url)
        self._clock = clock
        self._connect_timeout_ms = connect_timeout_ms
        self._view = _View()
        self._nowhere = self._new_link(self._target.seeds[0])  # never connected: for slots whose server we do not reach
        self._retired: list[
            StoreLink
        ] = []  # its forebear's that it has no use for; the sender closes them: it may be using one
        self._stale = False  # a slot has moved, or is nobody's, since the slots were read
        self._mend_from_ms = 0.0

    # Connecting

    def connect(self) -> None:
        """Learn the slots and connect to their servers; raises ``RedisError`` where not even one can be reached."""
        trouble = self._learn({})
        if trouble is not None and not self.connected:
            raise trouble

    def mended(self) -> tuple[ClusterLink, RedisError | OSError | None]:
        """Return another link where a server moved or broke: with the slots as they are now and who was missing.

        With it the last trouble with a server that stays away. The link itself where there is nothing to mend, or
        it was looked at just now; raises ``RedisError`` where no server tells the slots.
        """
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._mend_from_ms or not (self._stale or self.any_closed_by_store()):
            return self, None
        self._mend_from_ms = now_ms + MEND_PAUSE_MS
        heir = ClusterLink(self._url, self._clock, connect_timeout_ms=self._connect_timeout_ms)
        heir._mend_from_ms = self._mend_from_ms
        return heir, heir._learn(self._view.links)

    def _learn(self, before: Mapping[TcpAddress, StoreLink]) -> RedisError | OSError | None:
        """Read the slots and see that there is a link to each of their servers; the last trouble with one."""
        owners = self._read_owners(before)
        links, trouble = {}, None
        for address in dict.fromkeys(filter(None, owners)):
            link = before.get(address)
            if link is None or link.closed_by_store():
                link = self._new_link(address)
                try:
                    link.connect()
                except (RedisError, OSError) as error:
                    trouble = error
            links[address] = link
        self._view = _View(owners, links)
        self._retired = [link for address, link in before.items() if links.get(address) is not link]
        return trouble

    def _read_owners(self, known: Iterable[TcpAddress]) -> Owners:
        """Ask the servers we know, and then those we were told of, until one tells."""
        trouble: Exception = StoreConnectionError("the Cluster has no servers")
        for address in dict.fromkeys((*known, *self._target.seeds)):
            link = self._new_link(address)
            try:
                link.connect()
                reply = link.execute(self._clock.monotonic_ms() + self._connect_timeout_ms, "CLUSTER", "SLOTS")
                return read_owners(reply, address)
            except (RedisError, OSError) as error:
                trouble = error
            finally:
                link.close()
        raise StoreConnectionError(f"no server of the Cluster tells its slots: {trouble}") from trouble

    def _new_link(self, address: TcpAddress) -> StoreLink:
        return StoreLink(self._target.node.at(address), self._clock, connect_timeout_ms=self._connect_timeout_ms)

    @property
    def connected(self) -> bool:
        """Whether commands can be sent to some server."""
        return any(link.connected for link in self._view.links.values())

    @property
    def whole(self) -> bool:
        """Whether every master that we know of can be sent to."""
        links = self._view.links
        return bool(links) and all(link.connected for link in links.values())

    # Sending

    def execute(self, deadline_ms: float, *command: str | bytes | float) -> Any:
        """Send one command to the server of its key, or to every one where it has none, and return the reply.

        Raises as ``StoreLink.execute``; of several servers the first one's reply, or any one's error.
        """
        if key_of(command) is not None:
            replies = self.execute_many(deadline_ms, [command])
        else:
            view = self._view
            routes = {place: _Route(address) for place, address in enumerate(view.links)}
            replies = [NotConnectedError("not connected to the Cluster")] if not routes else [None] * len(routes)
            self._exchange(deadline_ms, [command] * len(routes), routes, replies)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise reply
        return replies[0]

    def execute_many(self, deadline_ms: float, commands: Sequence[Command]) -> list[Any]:
        """Send each command to the server of its key, all before the first reply is read; a reply for each, in order.

        Every command has a key. Errors stand in their places as ``RedisError``, those of broken links too: such a
        command has an unknown outcome, unless it is a ``NotConnectedError``, a ``NotSentError`` or a redirection.
        """
        while self._retired:
            self._retired.pop().close()
        replies: list[Any] = [None] * len(commands)
        routes = {place: self._route(command) for place, command in enumerate(commands)}
        for _ in range(EXCHANGES):
            self._exchange(deadline_ms, commands, routes, replies)
            routes = self._redirected(routes, replies)
            if not routes:
                break
        return replies

    def _route(self, command: Command) -> _Route:
        key = key_of(command)
        if key is None:
            raise ValueError(f"{command[0]!r} has no key, so it is sent by itself")
        return _Route(self._view.owners[slot_of(key)])

    def _exchange(
        self, deadline_ms: float, commands: Sequence[Command], routes: dict[int, _Route], replies: list[Any]
    ) -> None:
        """Send, to each server what goes there, and read until all is there or the deadline has come."""
        by_server: dict[TcpAddress | None, list[int]] = defaultdict(list)
        for place, route in routes.items():
            by_server[route.address].append(place)
        flights = []
        for address, places in by_server.items():
            flight = self._flight(address, places, commands, routes)
            if flight.take_off(deadline_ms, replies):
                flights.append(flight)
        self._land(flights, deadline_ms, replies)
        self._stale |= any(isinstance(replies[place], ReadOnlyError) for place in routes)  # no master any more

    def _flight(
        self, address: TcpAddress | None, places: Iterable[int], commands: Sequence[Command], routes: dict[int, _Route]
    ) -> _Flight:
        link = self._view.links.get(address) if address is not None else None
        self._stale |= link is None
        flight = _Flight(link or self._nowhere)
        for place in places:
            if routes[place].asking:
                flight.add(("ASKING",), None)
            flight.add(commands[place], place)
        return flight

    def _land(self, flights: Iterable[_Flight], deadline_ms: float, replies: list[Any]) -> None:
        """Read whoever has answered first, so that one who hangs keeps nobody's reply from being read."""
        with selectors.DefaultSelector() as selector:
            for flight in flights:
                selector.register(flight.link, selectors.EVENT_READ, flight)
            while selector.get_map():
                left_ms = max(0.0, deadline_ms - self._clock.monotonic_ms())
                for key, _ in selector.select(left_ms / 1000):
                    key.data.take_in(replies)
                    if key.data.over:
                        selector.unregister(key.fd)
                if not left_ms:
                    break
            for key in selector.get_map().values():
                key.data.give_up(replies)

    def _redirected(self, routes: dict[int, _Route], replies: Sequence[Any]) -> dict[int, _Route]:
        """Where to send again what was redirected; who has moved for good is remembered."""
        again = {}
        for place, route in routes.items():
            reply = replies[place]
            if isinstance(reply, AskError):
                host = reply.host or (route.address.host if route.address else "")
                address = TcpAddress(host, reply.port)
                moved = isinstance(reply, MovedError)
                if moved and 0 <= reply.slot_id < SLOTS:
                    self._view.owners[reply.slot_id] = address
                self._stale |= moved
                again[place] = _Route(address, asking=not moved)
        return again

    # Ending

    def closed_by_store(self) -> bool:
        """Whether every server has gone; any thread may ask."""
        return all(link.closed_by_store() for link in self._view.links.values())

    def any_closed_by_store(self) -> bool:
        """Whether some server has gone; any thread may ask."""
        return any(link.closed_by_store() for link in self._view.links.values())

    def interrupt(self) -> None:
        """Wake whoever waits on this link, from another thread; its commands fail as on broken connections."""
        for link in self._view.links.values():
            link.interrupt()

    def close(self) -> None:
        """Close every connection; idempotent."""
        for link in (*self._view.links.values(), *self._retired):
            link.close()


AnyLink = StoreLink | ClusterLink
"""A link to one server, or to all masters of a Cluster."""
