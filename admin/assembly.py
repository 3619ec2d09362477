"""The parts of the API put together, bottom up."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import redis.asyncio
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from admin.acts.keys import Mint
from admin.committing import Committer
from admin.http.proxies import NO_PROXIES, TrustedProxies
from admin.kserve.report import Report
from admin.metrics import AdminMetrics
from admin.models.addresses import AddressRules
from admin.models.metering import MeteringReader, MeteringWatch
from admin.models.probing import Prober
from admin.models.resolving import HostNames
from admin.people.last_used import LastUsed
from admin.people.logins import Logins
from admin.people.pace import DEFAULT_PACES, Paces, TenantWrites, UserCalls
from admin.people.passwords import Passwords
from admin.people.throttle import Throttler
from admin.ports import Publisher
from admin.quotas import DEFAULT_QUOTAS, Quotas
from admin.services import BudgetsReader, Gateway, LessonsReader, PastOwnerReader, Services, Stores, UsageReader
from admin.watching import ReadinessWatch
from catalog.ids import cell_of
from catalog.keys.live_secrets import LiveSecrets
from catalog.store import names
from catalog.store.store import StoreUnavailable
from ratelimit.tokens.learning import Lessons, read_learned
from ratelimit.usage.facts import Signs, Usage
from ratelimit.usage.reading import read_metering, read_past_owner, read_usages
from ratelimit.usage.series import read_series
from ratelimit.windows.budgets import BudgetState, Subject
from ratelimit.windows.limiter import Limiter
from ratelimit.windows.looking import look
from runtime.clock import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the operator decided."""

    gateway: Gateway
    rules: AddressRules  # which model servers may be asked
    upstream_ca: Path | None = None  # PEM file of the authorities of model servers; None: the system's
    key_recovery: bool = False
    allow_anonymous: bool = False  # whether a publication may ask for no key
    cells: int = 1  # into how many the budgets are split
    proxies: TrustedProxies = NO_PROXIES  # whose X-Forwarded-For is believed
    paces: Paces = DEFAULT_PACES  # how fast the API may be used
    quotas: Quotas = DEFAULT_QUOTAS  # how much a tenant may have
    host_names: HostNames = field(default_factory=HostNames)  # says which have an address


def assemble(
    stores: Stores,
    passwords: Passwords,
    publisher: Publisher,
    *,
    secrets: LiveSecrets,
    facts: Facts,
    clock: Clock,
    registry: CollectorRegistry,
) -> Services:
    """Build what handlers work with; nothing runs before it is asked."""
    store = stores.catalog
    metrics, throttler, models = AdminMetrics(registry), Throttler(stores.records), Report()
    reading = _metering_reader(stores.budgets, facts.cells, clock)
    metering = MeteringWatch(store, reading, metrics.metering, metrics.above_hold, failed=metrics.metering_errors.inc)
    return Services(
        store=store,
        committer=Committer(store, publisher, metrics),
        logins=Logins(store, passwords, throttler),
        passwords=passwords,
        throttler=throttler,
        prober=Prober(facts.rules, upstream_ca=facts.upstream_ca),
        publisher=publisher,
        usages=_usage_reader(stores.budgets, facts.cells),
        series=_reader(read_series, stores.budgets, facts.cells),
        past_owner=_past_owner_reader(stores.budgets, facts.cells),
        budgets=_looker(stores.budgets, facts.cells),
        lessons=_lessons_reader(stores.budgets, facts.cells),
        metering=metering,
        mint=Mint(secrets.current, os.urandom, recovery=facts.key_recovery),
        gateway=facts.gateway,
        clock=clock,
        metrics=metrics,
        secrets=secrets,
        models=models,
        calls=UserCalls(facts.paces.user_calls),
        writes=TenantWrites(throttler, facts.paces.tenant_writes),
        paces=facts.paces,
        last_used=LastUsed(stores.records, metrics.unnoted_uses.inc),
        readiness=ReadinessWatch(store, (publisher, models, secrets, metering)),
        allow_anonymous=facts.allow_anonymous,
        quotas=facts.quotas,
        host_names=facts.host_names,
        cells=facts.cells,
        proxies=facts.proxies,
    )


def _reader(
    read: Callable[[redis.asyncio.Redis, str, str, int], Awaitable[T]], client: redis.asyncio.Redis, cells: int
) -> Callable[[str, int], Awaitable[T]]:
    """Make a reader of usage that finds a subject's cell and says it where the store is away."""

    async def read_of(subject: str, now_ms: int) -> T:
        return await _answered(read(client, _cell(subject, cells), subject, now_ms))

    return read_of


def _usage_reader(client: redis.asyncio.Redis, cells: int) -> UsageReader:
    """Make a reader of many subjects' usage likewise."""

    async def usages_of(subjects: Sequence[str], now_ms: int) -> dict[str, Usage | None]:
        asked = [(_cell(subject, cells), subject) for subject in subjects]
        return dict(zip(subjects, await _answered(read_usages(client, asked, now_ms)), strict=True))

    return usages_of


def _past_owner_reader(client: redis.asyncio.Redis, cells: int) -> PastOwnerReader:
    """Make a reader of whose something was likewise."""

    async def past_owner_of(subject: str) -> str | None:
        return await _answered(read_past_owner(client, _cell(subject, cells), subject))

    return past_owner_of


def _looker(client: redis.asyncio.Redis, cells: int) -> BudgetsReader:
    """Make a reader of budgets likewise."""

    async def look_at(subject: Subject, shard: int) -> tuple[BudgetState, ...]:
        cell = str(cell_of(shard, cells))
        limiter = Limiter(cell=cell, epoch_key=names.epoch(cell), feed_key=names.feed(cell))
        return await _answered(look(client, limiter, subject))

    return look_at


def _lessons_reader(client: redis.asyncio.Redis, cells: int) -> LessonsReader:
    """Make a reader of what was learnt likewise."""

    async def lessons_of(subject: str, shard: int) -> Lessons:
        return await _answered(read_learned(client, str(cell_of(shard, cells)), subject))

    return lessons_of


def _metering_reader(client: redis.asyncio.Redis, cells: int, clock: Clock) -> MeteringReader:
    """Make a reader of what is told of many publications likewise."""

    async def metering_of(subjects: Sequence[str]) -> list[Signs | None]:
        asked = [(_cell(subject, cells), subject) for subject in subjects]
        return await _answered(read_metering(client, asked, clock.wall_ms()))

    return metering_of


def _cell(subject: str, cells: int) -> str:
    return str(cell_of(subject[2:], cells))


async def _answered(reading: Awaitable[T]) -> T:
    try:
        return await reading
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store cannot be reached: {error}") from error
