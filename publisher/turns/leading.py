"""Publishing by turns: of several processes one publishes, and all of them tell the same of every publication."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.status import Status
from publisher.metrics import PublisherMetrics
from publisher.publisher import Publisher
from publisher.troubles import BEHIND
from publisher.turns.board import Board
from publisher.turns.lease import Lease
from publisher.turns.turns import Turns
from runtime.readiness import Trouble


class Leading:
    """Runs a publisher while this process holds the lease, and not a moment longer. ``run`` is its one task."""

    def __init__(self, lease: Lease, publisher: Publisher, metrics: PublisherMetrics) -> None:
        self._lease = lease
        self._publisher = publisher
        self._metrics = metrics
        self._leads = False
        self._turns = Turns(
            lease,
            self._lead,
            name="publisher",
            failed=metrics.errors.labels("lease").inc,
            says=lambda: publisher.board if self._leads else None,
            news=publisher.news,
        )

    @property
    def most(self) -> int:
        """How many publications the proxy takes, whoever publishes."""
        return self._publisher.most

    @property
    def rewrites(self) -> bool:
        """Whether the proxy writes the name that a model's server knows into bodies that say another."""
        return self._publisher.rewrites

    @property
    def speaks_grpc(self) -> bool:
        """Whether the proxy serves models by gRPC."""
        return self._publisher.speaks_grpc

    @property
    def injects_values(self) -> bool:
        """Whether the proxy gives servers a header whose value was sent to the API."""
        return self._publisher.injects_values

    @property
    def injects_secrets(self) -> bool:
        """Whether the proxy gives servers a header whose value a Secret has."""
        return self._publisher.injects_secrets

    def status(self, uid: str, version: int) -> Status:
        """Where this version of a publication stands, whoever publishes."""
        return self._board().status(uid, version)

    def poke(self) -> None:
        """Say that something was committed; another process that publishes hears it from the feed."""
        self._publisher.poke()

    def troubles(self) -> Sequence[Trouble]:
        """Tell what keeps publications from being served, whoever publishes."""
        if self._leads:
            return self._publisher.troubles()
        trouble = self._lease.board.trouble
        return (BEHIND.found(f"publications are not brought into force: {trouble}"),) if trouble else ()

    async def run(self) -> None:
        """Publish whenever it is this process's turn, until cancelled; then let the next one begin at once."""
        await self._turns.run()

    def _board(self) -> Board:
        return self._publisher.board if self._leads else self._lease.board

    async def _lead(self) -> None:
        """Publish until the lease is lost; the publisher is stopped before another process could begin."""
        self._publisher.begin(self._lease.board)
        self._leads = True
        self._metrics.leader.set(1)
        try:
            await self._publisher.run()
        finally:
            self._leads = False
            self._metrics.leader.set(0)
