"""What is published and who may call it while the fuzzer runs: in the store for the gate, in plain sets for the oracle.

Everything is made of one seed. The sets here are kept by hand, next to each change, and by nothing of the product.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

from gatebench import HOST, Catalog
from msgspec import structs

from catalog.changes import Put
from catalog.ids import new_id, shard_of
from catalog.keys.hashing import hash_key
from catalog.keys.keytext import mint
from catalog.keys.secrets import Secrets
from catalog.records import UNLIMITED, Credential, KeyRecord, Limits, ModelType, Protocol

FAR_MS: Final = 4_000_000_000_000  # in the year 2096
LLM: Final[dict[str, Any]] = {"type": ModelType.OPENAI, "protocol": Protocol.OPENAI}


@dataclass(frozen=True, slots=True)
class Place:
    """A publication, as far as it decides who passes."""

    uid: str
    tenant: str
    model: str
    is_openai: bool = False
    allowed: frozenset[str] = frozenset()
    is_open: bool = False  # to callers without a key
    is_closed: bool = False  # to everybody: its tenant is disabled

    @property
    def path(self) -> str:
        """Where it is published."""
        return f"/models/{self.model}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose a valid text is, and what it may call."""

    key_id: str
    tenant: str
    uids: frozenset[str]
    is_limited: bool = False  # may be told 429


@dataclass(slots=True)
class World:
    """The catalog and its plain picture."""

    catalog: Catalog
    rng: random.Random
    places: dict[str, Place] = field(default_factory=dict)  # by uid
    models: dict[str, str] = field(default_factory=dict)  # of HOST: tenant/name -> uid
    valid: dict[str, Holder] = field(default_factory=dict)  # by text: accepted now
    dead: list[str] = field(default_factory=list)  # texts that were minted and must never pass
    _records: dict[str, KeyRecord] = field(default_factory=dict)  # of keys that change
    _texts: dict[str, str] = field(default_factory=dict)

    def build(self) -> World:
        """Write the catalog."""
        for tenant in ("tenant-a", "tenant-b"):
            self.catalog.tenant(tenant)
        self.catalog.tenant("tenant-off", disabled=True)
        self._publish("tenant-a", "plain")
        self._publish("tenant-a", "open", is_open=True)
        self._publish("tenant-a", "llm", is_openai=True)
        self._publish("tenant-b", "shared", is_openai=True, allowed=("tenant-a", "tenant-off"))
        self._publish("tenant-b", "hidden", is_openai=True)
        self._publish("tenant-b", "plain")
        self._publish("tenant-b", "free", is_openai=True, is_open=True)
        self._publish("tenant-off", "asleep", allowed=("tenant-a",), is_closed=True)
        self._publish("tenant-off", "dozing", is_openai=True, allowed=("tenant-a",), is_closed=True)
        self._publish("tenant-off", "ajar", is_open=True, is_closed=True)
        self._host()
        self._keys()
        return self

    def _publish(self, tenant: str, model: str, *, allowed: tuple[str, ...] = (), **more: bool) -> None:
        place = Place(self._id(tenant), tenant, model, allowed=frozenset({tenant, *allowed}), **more)
        published = self.catalog.publication(
            tenant,
            model,
            uid=place.uid,
            url=f"http://{tenant}-{model}:8000",
            allowed_tenants=tuple(sorted(place.allowed)),
            require_api_key=not place.is_open,
            anonymous_per_minute=10**6,
            **(LLM if place.is_openai else {}),
        )
        self.catalog.server(published)  # of its own, so it is one tenant's alone where the publication is
        self.places[place.uid] = place

    def _host(self) -> None:
        openai = [place for place in self.places.values() if place.is_openai]
        self.models = {f"{place.tenant}/{place.model}": place.uid for place in openai}
        self.catalog.host(*(_Named(place.tenant, place.model, place.uid) for place in openai))  # type: ignore[arg-type]

    def _keys(self) -> None:
        everything = tuple(self.places)
        for _ in range(12):
            self._changing_key("tenant-a", everything)
        for _ in range(4):
            self._changing_key("tenant-b", everything)
        for uid in everything:
            self._changing_key("tenant-a", (uid,))
        self._changing_key("tenant-a", ())
        self._accept("tenant-a", everything, limits=Limits(per_minute=5))
        self._accept("tenant-a", everything, expires_at_ms=FAR_MS)
        self._refuse("tenant-a", everything, expires_at_ms=1)
        self._refuse("tenant-a", everything, disabled=True)
        self._refuse("tenant-off", everything)
        self._in_grace(everything)

    # One key

    def _id(self, tenant: str) -> str:
        return new_id(shard_of(tenant), self.rng.randbytes)

    def _key(self, tenant: str, uids: tuple[str, ...], **fields: Any) -> tuple[KeyRecord, str]:
        key_id = self._id(tenant)
        text = mint(key_id, self.secrets, self.rng.randbytes)
        facts = {"current": hash_key(text, self.secrets), "created_at_ms": 0, "updated_at_ms": 0}
        record = KeyRecord(key_id, tenant, "fuzzed", uids, **(facts | fields))
        self.catalog.add(record)
        return record, text.reveal()

    def _accept(self, tenant: str, uids: tuple[str, ...], **fields: Any) -> KeyRecord:
        record, text = self._key(tenant, uids, **fields)
        self.valid[text] = Holder(record.id, tenant, frozenset(uids), record.limits != UNLIMITED)
        self._texts[record.id] = text
        return record

    def _changing_key(self, tenant: str, uids: tuple[str, ...]) -> None:
        record = self._accept(tenant, uids)
        self._records[record.id] = record

    def _refuse(self, tenant: str, uids: tuple[str, ...], **fields: Any) -> None:
        _, text = self._key(tenant, uids, **fields)
        self.dead.append(text)

    def _in_grace(self, uids: tuple[str, ...]) -> None:
        """One key whose former text is still good, one whose former text is not."""
        for ends_ms in (FAR_MS, 1):
            record = self._accept("tenant-a", uids)
            former = mint(record.id, self.secrets, self.rng.randbytes)
            hashed = hash_key(former, self.secrets)
            self.catalog.change(record, previous=Credential(hashed.hash, hashed.peppers, valid_until_ms=ends_ms))
            if ends_ms == FAR_MS:
                self.valid[former.reveal()] = Holder(record.id, "tenant-a", frozenset(uids))
            else:
                self.dead.append(former.reveal())

    # Changes while calls go on

    @property
    def secrets(self) -> Secrets:
        """Those of gate and catalog."""
        return self.catalog.secrets

    def churn(self, rng: random.Random) -> None:
        """Rotate, disable or enable one key; from the return on the sets here and the store agree again."""
        record = self._records[rng.choice(sorted(self._records))]
        act = rng.choice((self._rotate, self._toggle))
        self._records[record.id] = act(record, rng)

    def _rotate(self, record: KeyRecord, rng: random.Random) -> KeyRecord:
        text = mint(record.id, self.secrets, rng.randbytes)
        changed = self._commit(record, current=hash_key(text, self.secrets))
        self._drop(record.id)
        self._texts[record.id] = text.reveal()
        if not record.disabled:
            self._restore(changed)
        return changed

    def _toggle(self, record: KeyRecord, _rng: random.Random) -> KeyRecord:
        changed = self._commit(record, disabled=not record.disabled)
        if changed.disabled:
            self._drop(record.id)
        else:
            self._restore(changed)
        return changed

    def _commit(self, record: KeyRecord, **fields: Any) -> KeyRecord:
        changed = structs.replace(record, **fields)
        self.catalog.commit(Put(changed, record.version))
        return structs.replace(changed, version=record.version + 1)

    def _drop(self, key_id: str) -> None:
        text = self._texts[key_id]
        if self.valid.pop(text, None):
            self.dead.append(text)

    def _restore(self, record: KeyRecord) -> None:
        text = self._texts[record.id]
        self.valid[text] = Holder(record.id, record.tenant, frozenset(record.publications))
        if text in self.dead:
            self.dead.remove(text)


@dataclass(frozen=True, slots=True)
class _Named:
    """As much of a publication as a host's table needs."""

    tenant: str
    model: str
    uid: str

    @property
    def path(self) -> str:
        return f"/models/{self.tenant}-{self.model}"

    @property
    def names(self) -> tuple[str, ...]:
        """As ``PublicationRecord.names``."""
        return (self.model,)


__all__ = ["HOST", "Holder", "Place", "World"]
