"""Following one kind of Kubernetes objects: listed, then watched, for ever, and listed again now and then.

What is known stays known while the API is away. Owns when to list, watch and wait; ``runtime.kube.api`` owns the wire.
Knows nothing of what the objects mean.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from runtime.kube.api import Cause, Json, Kind, KubeApi, KubeFault
from runtime.lifecycle import going_on, rest

PAGE: Final = 500
"""Most objects asked for at once."""

WATCH_S: Final = 60
"""How long the server lets one watch last; the next goes on from there. A connection that died is found out then."""

SLACK_S: Final = 10
"""How much longer than that a watch is waited for."""

RELIST_S: Final = 600
"""Longest time between two lists. A cluster put back to an earlier state has versions below ours, and a watch from ours
on would hear of nothing until it has caught up."""

FIRST_RETRY_S: Final = 0.2
LAST_RETRY_S: Final = 10.0
"""The wait after a failure doubles from the first to the last, in seconds."""

BRIEF_S: Final = 1.0
"""A watch that ends sooner, well or not, is followed by a pause: no server is asked in circles."""

ObjectName = tuple[str, str]
"""Namespace (empty where the kind has none) and name."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long is waited, in seconds."""

    watch_s: int = WATCH_S
    slack_s: float = SLACK_S
    relist_s: float = RELIST_S
    first_retry_s: float = FIRST_RETRY_S
    last_retry_s: float = LAST_RETRY_S


def as_it_is(found: Json) -> Json:
    """Keep the whole object."""
    return found


class KubeWatch:
    """Knows the objects of one kind. ``run`` is its one task; the rest may be called at any time from the same loop.

    ``moved`` is called when what is known, or the trouble, has changed; ``failed`` at each failure, for a counter.
    ``keep`` cuts an object down to what is kept of it. ``labels`` is a selector: ``app.kubernetes.io/managed-by=me``.
    """

    def __init__(
        self,
        api: KubeApi,
        kind: Kind,
        *,
        moved: Callable[[], None],
        failed: Callable[[Cause], None],
        namespace: str = "",
        labels: str = "",
        keep: Callable[[Json], Json] = as_it_is,
        bounds: Bounds | None = None,
    ) -> None:
        self._api = api
        self._kind = kind
        self._path = kind.path(namespace)
        self._selector = {"labelSelector": labels} if labels else {}
        self._moved = moved
        self._failed = failed
        self._keep = keep
        self._bounds = bounds or Bounds()
        self._objects: dict[ObjectName, Json] = {}
        self._version = ""  # of the list or the last event; empty: list anew
        self._listed_s = 0.0  # when, by the monotonic clock
        self._is_known = False
        self._trouble = ""

    @property
    def objects(self) -> Mapping[ObjectName, Json]:
        """All there is, as it was heard last. A view: it moves."""
        return MappingProxyType(self._objects)

    @property
    def is_known(self) -> bool:
        """Whether all objects were listed once; before, nothing follows from one that is not among them."""
        return self._is_known

    @property
    def trouble(self) -> str:
        """Why changes are not heard of at the moment; empty when they are."""
        return self._trouble

    async def run(self) -> None:
        """Follow until cancelled. Failures are counted, told in ``trouble`` and tried again."""
        retry_s = self._bounds.first_retry_s
        while going_on():
            began_s = time.monotonic()
            is_well = await self._follow_once()
            is_brief = time.monotonic() - began_s < BRIEF_S
            retry_s = min(2 * retry_s, self._bounds.last_retry_s) if is_brief else self._bounds.first_retry_s
            if is_brief or not is_well:
                await rest(retry_s)

    async def _follow_once(self) -> bool:
        """List, where that has to be, and watch until the watch ends; says whether it ended well."""
        try:
            if not self._version or time.monotonic() - self._listed_s >= self._bounds.relist_s:
                await self._list()
            await self._watch()
        except KubeFault as fault:
            self._note(fault)
            return False
        return True

    async def _list(self) -> None:
        found: dict[ObjectName, Json] = {}
        after = ""
        while True:
            asked = {"limit": str(PAGE), "continue": after} | self._selector
            page = await self._api.ask("GET", self._path, params=asked)
            found |= {_name(one): self._keep(one) for one in page.get("items") or ()}
            if not (after := _metadata(page).get("continue", "")):
                break
        has_moved = not self._is_known or found != self._objects
        self._objects.clear()
        self._objects.update(found)
        self._version, self._is_known = _metadata(page).get("resourceVersion", ""), True
        self._listed_s = time.monotonic()
        self._well(has_moved=has_moved)

    async def _watch(self) -> None:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(self._bounds.watch_s),
            **self._selector,
        }
        async with self._api.watch(self._path, params, self._bounds.watch_s + self._bounds.slack_s) as events:
            self._well(has_moved=False)
            async for event in events:
                self._hear(event["type"], event["object"])

    def _hear(self, what: str, found: Json) -> None:
        """Take in one event."""
        self._version = _metadata(found).get("resourceVersion", "")
        if what == "BOOKMARK":
            return
        if what == "DELETED":
            self._objects.pop(_name(found), None)
        else:
            self._objects[_name(found)] = self._keep(found)
        self._moved()

    def _well(self, *, has_moved: bool) -> None:
        has_moved = has_moved or bool(self._trouble)
        self._trouble = ""
        if has_moved:
            self._moved()

    def _note(self, fault: KubeFault) -> None:
        self._failed(fault.cause)
        if fault.cause is not Cause.AWAY:
            self._version = ""  # nothing is built on what this answer came from
        if fault.cause is Cause.EXPIRED:
            _log.info("%s are listed anew: %s", self._kind, fault)
            return
        trouble = f"{self._kind}: {fault}"
        _log.warning("changes are not heard of (%s): %s", fault.cause, trouble)
        if trouble != self._trouble:
            self._trouble = trouble
            self._moved()


def _metadata(found: Json) -> Json:
    metadata = found.get("metadata")
    if not isinstance(metadata, dict):
        raise KubeFault(Cause.UNREADABLE, "the API sent an object without metadata")
    return metadata


def _name(found: Json) -> ObjectName:
    metadata = _metadata(found)
    return metadata.get("namespace", ""), metadata.get("name", "")
