"""The parts that handlers work with, and the facts of this deployment they need."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import redis.asyncio

from admin.acts.keys import Mint
from admin.committing import Committer
from admin.http.proxies import TrustedProxies
from admin.kserve.report import Report
from admin.metrics import AdminMetrics
from admin.models.addresses import parse_target
from admin.models.metering import MeteringWatch
from admin.models.probing import Prober
from admin.models.resolving import HostNames
from admin.people.last_used import LastUsed
from admin.people.logins import Logins
from admin.people.pace import Paces, TenantWrites, UserCalls
from admin.people.passwords import Passwords
from admin.people.throttle import Throttler
from admin.ports import Publisher
from admin.quotas import DEFAULT_QUOTAS, Quotas
from admin.watching import ReadinessWatch
from catalog import inference
from catalog.ids import cell_of
from catalog.keys.live_secrets import LiveSecrets
from catalog.records import Protocol, PublicationRecord
from catalog.store.store import CatalogStore
from ratelimit.tokens.learning import Lessons
from ratelimit.usage.facts import Series, Usage
from ratelimit.windows.budgets import BudgetState, Subject
from runtime.clock import Clock

UsageReader = Callable[[Sequence[str], int], Awaitable[Mapping[str, Usage | None]]]
"""Reads the usage of subjects (``p:<uid>``) as of a time in ms by the store's clock; ``None`` where it is damaged."""

SeriesReader = Callable[[str, int], Awaitable[Series]]
"""Reads a subject's calls and tokens over time, up to a time in ms by the store's clock."""

PastOwnerReader = Callable[[str], Awaitable[str | None]]
"""Says whose a subject was that is no more and whose usage is still kept; "" where that is lost."""

LessonsReader = Callable[[str, int], Awaitable[Lessons]]
"""Says what a subject's calls turned out to cost; by its tenant's shard."""

BudgetsReader = Callable[[Subject, int], Awaitable[tuple[BudgetState, ...]]]
"""Looks at a subject's budgets as they stand now; by its tenant's shard."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What is read and written."""

    records: redis.asyncio.Redis
    budgets: redis.asyncio.Redis  # of budgets and usage; the same where one store keeps both
    catalog: CatalogStore


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where callers find the gateway."""

    default_host: str  # api.router.inference-in-a-box
    scheme: str = "https"
    port: int | None = None  # shown in URLs; None: the scheme's own
    default_urls: tuple[str, ...] = ()  # origins that lead to the default host too: http://localhost:8080

    @property
    def default_names(self) -> tuple[str, ...]:
        """Further names of the default host, each once: an Envoy that is given one twice takes no routes at all."""
        names = dict.fromkeys(parse_target(one).host for one in self.default_urls)
        return tuple(name for name in names if name != self.default_host)

    def names_default(self, host: str) -> bool:
        """Whether a host is another name of the default one."""
        return host in self.default_names

    def external_url(self, published: PublicationRecord) -> str:
        """Where callers find a publication: by the host that was named, else as the default host is reached here."""
        if self.default_urls and published.host_unnamed and published.host == self.default_host:
            return self.default_urls[0] + called_at(published)
        return self.url(published.host, called_at(published))

    def reachable_url(self, published: PublicationRecord, path: str) -> str:
        """A URL on a publication's host that works from here, whatever names are known here."""
        if self.default_urls and published.host == self.default_host:
            return self.default_urls[0] + path
        return self.url(published.host, path)

    def url(self, host: str, path: str) -> str:
        """``https://api.router.inference-in-a-box/models/my-model``."""
        return f"{self.scheme}://{host}{'' if self.port is None else f':{self.port}'}{path}"


def called_at(published: PublicationRecord) -> str:
    """The path at which callers find a publication; by gRPC they name it besides (``catalog.inference``)."""
    return inference.ROOT if published.protocol is Protocol.GRPC else published.path


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a handler may use."""

    store: CatalogStore
    committer: Committer
    logins: Logins
    passwords: Passwords
    throttler: Throttler
    prober: Prober
    publisher: Publisher
    usages: UsageReader
    series: SeriesReader
    past_owner: PastOwnerReader
    budgets: BudgetsReader
    lessons: LessonsReader
    metering: MeteringWatch
    mint: Mint
    gateway: Gateway
    clock: Clock
    metrics: AdminMetrics
    proxies: TrustedProxies
    secrets: LiveSecrets
    models: Report  # of following a cluster's models; says nothing where none is
    readiness: ReadinessWatch
    calls: UserCalls
    writes: TenantWrites
    paces: Paces
    last_used: LastUsed
    allow_anonymous: bool = False  # whether a publication may ask for no key
    host_names: HostNames = field(default_factory=HostNames)  # says which have an address
    quotas: Quotas = DEFAULT_QUOTAS  # how much a tenant may have
    cells: int = 1  # into how many the budgets are split: a key and what it calls must be in one

    def cell(self, record_id: str) -> str:
        """The cell in which a key's or a publication's usage is kept; its budgets are in its tenant's."""
        return str(cell_of(record_id, self.cells))
