"""Plans that are made again and again of nearly the same publications: laid out anew is only what a gateway would see.

A change of limits, of who may call, of a name: none of it is in a plan, and the plan before is returned as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from catalog.records import PublicationRecord
from publisher.memo import Memo
from publisher.plan import Laid, Plan, laid_out, plan


class _Seen:
    """A record, equal to any other of which a gateway would be told the same."""

    __slots__ = ("_fields", "record")

    def __init__(self, record: PublicationRecord) -> None:
        self.record = record
        self._fields: tuple[Any, ...] = (
            record.uid,
            record.host,
            record.host_unnamed,
            record.path,
            record.model,
            record.names,
            record.served_as,
            len(record.allowed_tenants) > 1,
            record.url,
            record.servers,
            record.upstream_auth,
            record.type,
            record.protocol,
            record.tokens.reservation_timeout_s,
        )

    def __hash__(self) -> int:
        return hash(self._fields)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Seen) and self._fields == other._fields


class Planner:
    """Makes plans, one at a time."""

    def __init__(self) -> None:
        self._laid = Memo[_Seen, Laid](lambda seen: laid_out(seen.record))
        self._last: Plan | None = None

    def plan(self, publications: Iterable[PublicationRecord]) -> Plan:
        """As ``publisher.plan.plan``; the very same object where it says the same as the last."""
        self._laid.next_round()
        made = plan(publications, lambda record: self._laid(_Seen(record)))
        if self._last is None or made != self._last:
            self._last = made
        return self._last
