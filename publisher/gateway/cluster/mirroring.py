"""Keeps ``published-model-NAME`` in the tenants' namespaces: a ConfigMap for each publication, and no other.

Owns the I/O and when it is done; ``publisher.gateway.cluster.mirror`` knows what a ConfigMap says, ``ownership`` whose
it is. One goes only where both signs say that it is ours: a copy that somebody applied elsewhere stays. What others
change in ours is put back, labels too; one of the same name that we never applied, or that is another gateway's, is
told of and left. Asks no gateway: a publication is mirrored whether it is live or not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from redis.exceptions import RedisError

from catalog.namespaces import TENANT_LABEL
from catalog.store.store import CatalogStore, StoreUnavailable
from publisher.gateway.cluster.mirror import Front, homes, mirrors, selector
from publisher.gateway.cluster.ownership import is_foreign, is_ours
from publisher.gateway.resources.naming import GATEWAY_LABEL, MANAGER, Json
from publisher.publisher import Feed
from publisher.reading import all_publications
from runtime.in_step import FIRST_RETRY_S, RESYNC_S, keep_in_step
from runtime.kube.api import APPLY, NAMESPACES, Cause, Kind, KubeApi, KubeFault
from runtime.kube.watch import Bounds, KubeWatch
from runtime.lifecycle import going_on, rest

CONFIG_MAPS: Final = Kind("", "v1", "configmaps")

Place = tuple[str, str]
"""Namespace and name of a ConfigMap."""

_log: Final = logging.getLogger(__name__)


class Mirroring:
    """Mirrors the publications of one catalog into one cluster. ``run`` is its one task.

    ``told`` hears what could not be mirrored, and why, whenever it was looked; ``failed`` counts what went wrong.
    """

    def __init__(
        self,
        api: KubeApi,
        store: CatalogStore,
        feed: Feed,
        front: Front,
        *,
        told: Callable[[Sequence[str]], None],
        failed: Callable[[str], None],
        bounds: Bounds | None = None,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._api = api
        self._store = store
        self._feed = feed
        self._front = front
        self._told = told
        self._failed = failed
        self._resync_s = resync_s
        self._due = asyncio.Event()
        self._namespaces = self._watch(NAMESPACES, TENANT_LABEL, bounds)
        self._mirrors = self._watch(CONFIG_MAPS, selector(front.name), bounds)

    def _watch(self, kind: Kind, labels: str, bounds: Bounds | None) -> KubeWatch:
        return KubeWatch(
            self._api, kind, moved=self._due.set, failed=self._failed, labels=labels, keep=_kept, bounds=bounds
        )

    async def run(self) -> None:
        """Mirror until cancelled. Failures are counted, told and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._namespaces.run(), name="mirror-namespaces")
            group.create_task(self._mirrors.run(), name="mirror-configmaps")
            group.create_task(self._follow(), name="mirror-feed")
            looking = keep_in_step(self._due, self._try_to_look, resync_s=self._resync_s)
            group.create_task(looking, name="mirror")

    async def _follow(self) -> None:
        while going_on():
            try:
                if await self._feed.changed():
                    self._due.set()
            except (RedisError, OSError):
                self._failed("store")
                await rest(FIRST_RETRY_S)
                self._due.set()  # what was missed meanwhile is read anew

    async def _try_to_look(self) -> bool:
        """Bring the mirrors in step, where the cluster is known; False when it has to be tried again."""
        watches = (self._namespaces, self._mirrors)
        if not all(watch.is_known and not watch.trouble for watch in watches):
            self._told([watch.trouble for watch in watches if watch.trouble])
            return True  # the watch tells when it is over
        try:
            self._told(await self._look())
        except (StoreUnavailable, KubeFault) as error:
            self._failed(error.cause if isinstance(error, KubeFault) else "store")
            self._told([str(error)])
            _log.warning("publications are not mirrored: %s", error)
            return False
        return True

    async def _look(self) -> list[str]:
        """Bring all mirrors in step; returns what cannot be. Raises ``StoreUnavailable``, ``KubeFault`` AWAY."""
        found, told = homes(self._namespaces.objects.values())
        records = await all_publications(self._store)
        wanted = {_place(one): one for one in mirrors(records, found, self._front)}
        live = {place: one for place, one in self._mirrors.objects.items() if is_ours(one, self._front.name)}
        faults = list(told)
        for place, one in wanted.items():
            if place not in live or not _says(live[place], one):
                await self._try(place, self._put(one, is_new=place not in live), faults)
        for place, one in live.items():
            if place not in wanted:
                await self._try(place, self._remove(place, one), faults)
        return faults

    async def _try(self, place: Place, act: Awaitable[None], faults: list[str]) -> None:
        """Do one thing; one that is refused stands in nobody else's way."""
        try:
            await act
        except KubeFault as fault:
            if fault.cause is Cause.AWAY:
                raise
            self._failed(fault.cause)
            faults.append(f"{'/'.join(place)}: {fault}")

    async def _put(self, one: Json, *, is_new: bool) -> None:
        if is_new and await self._is_taken(_place(one)):
            raise KubeFault(Cause.CONFLICT, "a ConfigMap of this name is somebody else's")
        await self._apply(one)

    async def _is_taken(self, place: Place) -> bool:
        """Whether there is one of this name that is none of ours."""
        namespace, name = place
        found = await self._api.ask(
            "GET", CONFIG_MAPS.path(namespace), params={"fieldSelector": f"metadata.name={name}"}
        )
        items = found.get("items") or ()
        return any(is_foreign(one) or self._is_anothers(one) for one in items)

    def _is_anothers(self, one: Json) -> bool:
        """Whether it is labelled as another gateway's; without that label it is still ours where we applied it."""
        labels = one["metadata"].get("labels") or {}
        return bool(labels.get(GATEWAY_LABEL, self._front.name) != self._front.name)

    async def _apply(self, one: Json) -> None:
        """Write one. It is ours alone, so a field that somebody else took is taken back."""
        params = {"fieldManager": MANAGER, "force": "true"}
        await self._api.ask("PATCH", CONFIG_MAPS.path(*_place(one)), params=params, body=one, content_type=APPLY)

    async def _remove(self, place: Place, live: Json) -> None:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": live["metadata"]["uid"]}}
        try:
            await self._api.ask("DELETE", CONFIG_MAPS.path(*place), body=body)
        except KubeFault as fault:
            if fault.cause not in {Cause.MISSING, Cause.CONFLICT}:  # it is gone, or another by now
                raise


def _kept(found: Json) -> Json:
    """What is compared, what tells one from another, and who applied it; which fields are whose is left out."""
    metadata = {name: found["metadata"].get(name) for name in ("namespace", "name", "labels", "uid")}
    entries = found["metadata"].get("managedFields") or ()
    metadata["managedFields"] = [{word: one.get(word) for word in ("manager", "operation")} for one in entries]
    return {"metadata": metadata, "data": found.get("data")}


def _place(one: Json) -> Place:
    return one["metadata"]["namespace"], one["metadata"]["name"]


def _says(live: Json, wanted: Json) -> bool:
    """Whether a ConfigMap says all that is wanted; what others added stays theirs."""
    labels: Mapping[str, str] = live["metadata"].get("labels") or {}
    data: Mapping[str, str] = live.get("data") or {}
    return bool(wanted["metadata"]["labels"].items() <= labels.items() and wanted["data"].items() <= data.items())
