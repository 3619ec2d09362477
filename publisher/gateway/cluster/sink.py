"""Puts a plan into a cluster as resources of Envoy Gateway, and says of each publication whether they are in force.

Owns the order: what closes the gateway first, and no route before it does; servers before the routes to them; removal
the other way round. Takes nothing from anybody: a field that another manager holds, or an object of our name that is
not ours, is told and left alone. Objects that others change or remove are applied again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from publisher.gateway.cluster.blame import blamed
from publisher.gateway.cluster.conditions import Standing, judged
from publisher.gateway.cluster.objects import KINDS, OF_AI_GATEWAY, Cluster, Place, Unfit
from publisher.gateway.cluster.ownership import (
    CLOSES,
    Key,
    imprint,
    is_foreign,
    is_ours,
    managers,
    references,
    unwanted,
)
from publisher.gateway.cluster.telling import Told, fault, told
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.manifests import base, carried, fitting, published
from publisher.gateway.resources.naming import Json, digest, identity
from publisher.metrics import ClusterMetrics
from publisher.plan import Plan
from publisher.workshop import Workshop
from runtime.in_step import RESYNC_S
from runtime.kube.watch import KubeWatch
from runtime.lifecycle import going_on

PATIENCE_S: Final = 10.0
"""Longest wait for the gateway's controller to judge what was applied, in seconds; then it is told as not live."""

MOST: Final = 1_000
"""Publications of an Envoy Gateway in a cluster: one more is live within some three seconds then (decision 40)."""

LOOK_S: Final = 0.25
"""Between two looks at what it has judged, in seconds."""

_Live = dict[Key, Json]


@dataclass(frozen=True, slots=True)
class _Left:
    """An object as we left it."""

    asked: str  # digest of what was applied
    imprint: str  # of what it was then, with all that the API and others add


class ClusterSink:
    """Keeps the objects of one gateway in step."""

    most = MOST
    speaks_grpc = False
    injects_values = False

    def __init__(
        self,
        cluster: Cluster,
        options: GatewayOptions,
        metrics: ClusterMetrics,
        *,
        patience_s: float = PATIENCE_S,
        resync_s: float = RESYNC_S,
        workshop: Workshop | None = None,
    ) -> None:
        """``workshop``: where objects are made, by default one of its own."""
        self._workshop = workshop or Workshop()
        self._cluster = cluster
        self._options = options
        self.rewrites = options.rewrites
        self.injects_secrets = options.injects_secrets
        self._metrics = metrics
        self._patience_s = patience_s
        self._resync_s = resync_s
        self._places = _places(options)
        self._left: dict[Key, _Left] = {}
        self._wanted: frozenset[Key] = frozenset()
        self._seen: Mapping[Key, Told] = {}  # at the end of the last ``apply``
        self._in_vain: dict[Key, int] = {}  # by object the generation whose judgement was waited for in vain
        self._waiting = ""

    @property
    def waiting(self) -> str:
        """Which judgement ``apply`` waits for."""
        return self._waiting

    async def served(self) -> frozenset[str]:
        """The uids whose routes are in the cluster and ours; raises ``NotServed``."""
        found = await self._cluster.listed([("HTTPRoute", self._options.namespace)])
        return frozenset(uid for route in found if is_ours(route, self._options.gateway) for uid in carried(route))

    async def apply(self, wanted: Plan) -> Mapping[str, str]:
        """Bring a plan into force; tells by uid why one is not live. Raises ``NotServed``."""
        fit = fitting(wanted, self._options)
        lower, upper = await self._workshop.do(_objects, fit, self._options)
        self._wanted = frozenset(identity(obj) for obj in (*lower, *upper))
        live = await self._look()
        faults, held = await self._put_all(lower, live), {}
        if faults or (faults := await self._unsettled([obj for obj in lower if obj["kind"] == CLOSES], live)):
            held = dict.fromkeys(map(identity, upper), next(iter(faults.values())))
        else:
            faults = await self._put_all(upper, live)
        await self._remove(await self._workshop.do(self._needless, live), live)
        self._metrics.unfit.set(sum(key not in self._left for key in faults))
        faults = await self._unsettled((*lower, *upper), live) | held | faults
        self._seen = await self._workshop.do(self._told, live)
        misfits = {uid: why for uid, why in fit.refused.items() if uid not in wanted.refused}
        return blamed(faults, (*lower, *upper), fit) | misfits

    async def follow(self, moved: Callable[[], None]) -> None:
        """Watch every kind that we write: call ``moved`` where it is not what ``apply`` last saw, and now and then."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._watch(place, moved).run(), name=f"watch-{KINDS[place[0]].plural}")
            while going_on():
                await asyncio.sleep(self._resync_s)
                moved()

    def _watch(self, place: Place, moved: Callable[[], None]) -> KubeWatch:
        kind, namespace = place

        def heard() -> None:
            now = {(kind, *name): kept["told"] for name, kept in watch.objects.items()}
            seen = {key: said for key, said in self._seen.items() if key[:2] == place}
            if watch.is_known and self._of_concern(now) != self._of_concern(seen):
                moved()

        watch = KubeWatch(
            self._cluster.api,
            KINDS[kind],
            namespace=namespace,
            moved=heard,
            failed=lambda cause: self._metrics.watch_faults.labels(cause.value).inc(),
            keep=lambda obj: {"told": told({**obj, "kind": kind}, self._options.gateway)},
        )
        return watch

    def _of_concern(self, view: Mapping[Key, Told]) -> Mapping[Key, Told]:
        """Leave out others' objects, but for those that could take the place of what closes the gateway."""
        return {key: said for key, said in view.items() if key in self._wanted or said.is_ours or key[0] == CLOSES}

    async def _look(self) -> _Live:
        return {identity(obj): obj for obj in await self._cluster.listed(self._places)}

    async def _put_all(self, objects: Sequence[Json], live: _Live) -> dict[Key, str]:
        """Apply objects in their order; one that points to an object that could not be applied is left as it is."""
        faults: dict[Key, str] = {}
        as_left = await self._workshop.do(self._as_left, objects, live)
        for obj in objects:
            key = identity(obj)
            try:
                if faults:
                    _require_applied(references(obj), faults)
                if key not in as_left:
                    await self._put(obj, live)
            except Unfit as unfit:
                faults[key] = str(unfit)
                self._left.pop(key, None)
        return faults

    def _as_left(self, objects: Sequence[Json], live: _Live) -> frozenset[Key]:
        """Those that are in the cluster as we left them, and are to be as they were."""
        found = ((identity(obj), obj) for obj in objects)
        return frozenset(
            key
            for key, obj in found
            if key in live
            and not is_foreign(live[key])
            and self._left.get(key) == _Left(digest(obj), imprint(live[key]))
        )

    async def _put(self, obj: Json, live: _Live) -> None:
        """Apply an object that is not as we left it."""
        key, asked = identity(obj), digest(obj)
        found, left = live.get(key), self._left.get(key)
        if found and is_foreign(found):
            owners = ", ".join(sorted(managers(found))) or "nobody known"
            raise Unfit(f"{key[0]} {key[2]} in {key[1]} is not ours, but of {owners}: it is left alone")
        if left and left.asked == asked:
            self._metrics.drift.inc()
        live[key] = await self._cluster.put(obj)
        self._left[key] = _Left(asked, imprint(live[key]))

    def _needless(self, live: _Live) -> list[Json]:
        """What is ours and not wanted; a route that could not be changed keeps what it points to."""
        needed = {key for route in self._wanted & live.keys() for key in references(live[route])}
        return unwanted(live.values(), self._wanted | needed, self._options.gateway)

    async def _remove(self, objects: Iterable[Json], live: _Live) -> None:
        for obj in objects:
            await self._cluster.remove(obj)
            self._left.pop(identity(obj), None)
            self._in_vain.pop(identity(obj), None)
            del live[identity(obj)]

    async def _unsettled(self, objects: Iterable[Json], live: _Live) -> dict[Key, str]:
        """Wait for judgements, but not for ever; why an object is not in force, of those that are not.

        Who was waited for in vain once is not waited for again before it changes: others must not wait with it.
        """
        keys = [identity(obj) for obj in objects]
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._patience_s
        try:
            while (awaited := await self._workshop.do(self._awaited, keys, live)) and loop.time() < until_s:
                self._waiting = judged(awaited[0], self._options.gateway).why
                await asyncio.sleep(LOOK_S)
                now = await self._look()
                live.clear()
                live.update(now)
        finally:
            self._waiting = ""
        self._in_vain |= {identity(obj): _generation(obj) for obj in awaited}
        return await self._workshop.do(self._faults, keys, live)

    def _faults(self, keys: Iterable[Key], live: _Live) -> dict[Key, str]:
        """Why objects are not in force, of those that are not; one that somebody removed meanwhile is not."""
        closing = [obj for obj in live.values() if obj["kind"] == CLOSES]
        found = {
            key: fault(live[key], closing, self._options.gateway)
            if key in live
            else f"{key[0]} {key[2]} is gone; it is applied again"
            for key in keys
        }
        return {key: why for key, why in found.items() if why}

    def _told(self, live: _Live) -> dict[Key, Told]:
        """What matters of all that is there."""
        return {key: told(obj, self._options.gateway) for key, obj in live.items()}

    def _awaited(self, keys: Iterable[Key], live: _Live) -> list[Json]:
        return [
            live[key]
            for key in keys
            if key in live
            and judged(live[key], self._options.gateway).standing is Standing.PENDING
            and self._in_vain.get(key) != _generation(live[key])
        ]


def _objects(fit: Plan, options: GatewayOptions) -> tuple[tuple[Json, ...], tuple[Json, ...]]:
    """What holds for all, and what is published."""
    return base(options), published(fit, options)


def _require_applied(needed: Iterable[Key], faults: Mapping[Key, str]) -> None:
    for key in needed:
        if key in faults:
            raise Unfit(faults[key])


def _generation(obj: Json) -> int:
    return int(obj["metadata"].get("generation", 0))


def _places(options: GatewayOptions) -> tuple[Place, ...]:
    """Where our objects are: in one namespace, but for leave to use what is in another."""
    left_out = {"ReferenceGrant"} if options.ai_gateway else OF_AI_GATEWAY | {"ReferenceGrant"}
    here = [(kind, options.namespace) for kind in KINDS if kind not in left_out]
    elsewhere = [identity(obj)[:2] for obj in base(options) if obj["kind"] == "ReferenceGrant"]
    return (*here, *dict.fromkeys(elsewhere))
