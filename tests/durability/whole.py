"""Whether what the store holds is whole: every commit left all of its traces or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from catalog.records import HostRecord, KeyRecord, Kind, ModelRecord, PlaceRecord, PublicationRecord, Record, decode
from catalog.store import names

Ask = Callable[..., Any]
"""Sends one command and returns redis-py's reading of the reply."""

FEED_LENGTH: Final = 10_000
_OWNED: Final = (Kind.MODEL, Kind.PUBLICATION, Kind.KEY)


class Lost(AssertionError):  # noqa: N818  it is what happened
    """Something that was answered is gone, or only half of it is there, or what was dead came back."""


def require(condition: object, told: str) -> None:
    """Raise ``Lost`` unless the condition holds."""
    if not condition:
        raise Lost(told)


@dataclass(slots=True)
class Audited:
    """How far the audit was read, and how many commits it told of."""

    entry: str = "-"
    commits: int = 0  # that gates have to hear of

    def read_on(self, ask: Ask) -> list[str]:
        """Return the request ids of the commits that are new in it; logins are noted there too, and change nothing."""
        start = self.entry if self.entry == "-" else f"({self.entry}"
        entries = ask("XRANGE", names.AUDIT, start, "+")
        self.entry = entries[-1][0].decode() if entries else self.entry
        new = [told for _, told in entries if not told[b"action"].startswith(b"login")]
        self.commits += sum(not told[b"action"].startswith((b"user.", b"model.", b"host.places")) for told in new)
        if start == "-" and new:  # the first of all is a user's, with whom a tenant comes
            require(new[0][b"action"] == b"user.create", f"the first commit is {new[0][b'action']!r}")
            self.commits += 1
        return [told[b"request_id"].decode() for told in new]


def require_same_count(ask: Ask, commits: int, cell: str = "0") -> None:
    """Hold epoch and feed to each other and to the number of commits that the audit tells of."""
    epoch = (ask("GET", names.epoch(cell)) or b"").decode()
    counter = int(epoch.partition("-")[0])
    feed = ask("XRANGE", names.feed(cell), "-", "+")
    counters = [int(one.partition(b"-")[0]) for one, _ in feed]
    least = max(1, counter + 1 - FEED_LENGTH)
    require(counters == list(range(least, counter + 1)), f"at epoch {epoch} the feed is {counters[:1]}…{counters[-1:]}")
    require(feed[-1][1][b"epoch"].decode() == epoch, f"the feed ends with another epoch than {epoch}")
    require(commits == counter, f"{commits} commits in the audit, {counter} by the epoch")


def require_epoch_known(ask: Ask, epoch: str, cell: str = "0") -> None:
    """Hold the store to an epoch that somebody was told: it must be in its history."""
    entries = ask("XRANGE", names.feed(cell), f"{epoch.partition('-')[0]}-0", "+", "COUNT", 1)
    told = [fields[b"epoch"].decode() for _, fields in entries]
    require(told == [epoch], f"the epoch {epoch} was read before the cut and is in no history after it: {told}")


def require_whole_records(ask: Ask) -> None:
    """Hold records, indexes and the references between records to each other."""
    found = {kind: _records(ask, kind) for kind in Kind}
    models: Mapping[str, ModelRecord] = found[Kind.MODEL]
    publications: Mapping[str, PublicationRecord] = found[Kind.PUBLICATION]
    keys: Mapping[str, KeyRecord] = found[Kind.KEY]
    hosts: Mapping[str, HostRecord] = found[Kind.HOST]
    known = {
        "models": {one.publication for one in models.values() if one.publication},
        "hosts": _standing(hosts, found[Kind.PLACE]),
    }
    for which, uids in known.items():
        require(uids == set(publications), f"the {which} know {sorted(uids)}, published is {sorted(publications)}")
    for one in publications.values():
        own = keys.get(one.key_id)
        require(own is not None and own.publications == (one.uid,), f"the key of {one.id} is {own}")
        require(models[f"{one.tenant}/{one.model}"].publication == one.uid, f"the model of {one.id} has another")
    for kind in _OWNED:
        _require_groups(ask, kind, found[kind])


def _standing(hosts: Mapping[str, HostRecord], places: Mapping[str, PlaceRecord]) -> set[str]:
    """The uids of what stands on hosts, by their tables and, where these are closed, by places."""
    closed = {name for name, host in hosts.items() if host.is_closed}
    by_place = {one.publication for name, one in places.items() if name.partition("/")[0] in closed}
    return by_place | {uid for host in hosts.values() for uid in (host.paths or {}).values()}


def _records(ask: Ask, kind: Kind) -> dict[str, Any]:
    """All records of a kind by id; the index must name these and no others."""
    stored = dict(_stored(ask, kind))
    indexed = {one.decode() for one in ask("ZRANGE", names.index(kind), 0, -1)}
    require(set(stored) == indexed, f"index and records of {kind.value} differ: {sorted(set(stored) ^ indexed)}")
    return stored


def _stored(ask: Ask, kind: Kind) -> Iterator[tuple[str, Record]]:
    prefix = names.record(f"{kind.value}:")
    for name in ask("KEYS", f"{prefix}*"):
        yield name.decode().removeprefix(prefix), decode(kind, ask("GET", name))


def _require_groups(ask: Ask, kind: Kind, records: Mapping[str, Any]) -> None:
    """Hold the index of each tenant's records to the records."""
    for tenant in (one.decode() for one in ask("ZRANGE", names.index(Kind.TENANT), 0, -1)):
        own = {record_id for record_id, record in records.items() if record.tenant == tenant}
        group = {one.decode() for one in ask("ZRANGE", names.group(kind, tenant, allowed=False), 0, -1)}
        require(own == group, f"the {kind.value}s of {tenant} are {sorted(own)}, its index names {sorted(group)}")
