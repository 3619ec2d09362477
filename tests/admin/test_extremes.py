"""What validation accepts can be shown: extremes of every field, written and read back by every list and view."""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from documented import Operation, operations
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalog.ids import shard_of
from catalog.records import (
    ALL_TENANTS,
    KIND_OF,
    MAX_LIMIT,
    Credential,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    ModelRecord,
    ModelType,
    Protocol,
    PublicationRecord,
    Role,
    ServiceAccess,
    TenantRecord,
    UserRecord,
    decode,
    encode,
)

KEYS: Final = "/api/keys"
TENANT: Final = "tenant-a"
SHARD: Final = f"{shard_of(TENANT):03x}"
UID, KEY_ID = SHARD + "u" * 16, SHARD + "k" * 16
HOST: Final = "x.example.com"
CREDENTIAL: Final = Credential("hash", (1,))
PLAIN: Final = (
    TenantRecord(TENANT, shard_of(TENANT), 1, 1),
    ModelRecord("u", TENANT, "m", "http://a", ModelType.OPENAI, Protocol.OPENAI, True, "", 1, 1, 1, publication=UID),
    PublicationRecord(
        UID,
        TENANT,
        "m",
        "http://a",
        ModelType.OPENAI,
        Protocol.OPENAI,
        HOST,
        "/p",
        Limits(),
        True,
        (TENANT,),
        KEY_ID,
        1,
        1,
    ),
    KeyRecord(KEY_ID, TENANT, "n", (UID,), CREDENTIAL, 1, 1, previous=CREDENTIAL),
    HostRecord(HOST, {"/p": UID}, {f"{TENANT}/m": UID}),
    UserRecord("u", "", Role.VIEWER, (TENANT,), 1, 1),
    UserRecord("s", "", Role.VIEWER, (TENANT,), 1, 1, service=ServiceAccess(CREDENTIAL)),
)
NUMBERS: Final = st.sampled_from([0, 1, -1, MAX_LIMIT, 2**31, 2**53, 2**63, -(2**63), 10**40, -(10**40)])
TIMES: Final = st.sampled_from([253_402_300_799_999, 253_402_300_800_000, 253_402_351_199_000, -62_135_596_800_001])
TEXTS: Final = st.one_of(st.sampled_from(["", "\0", "\U0010ffff" * 300, "…\u202e'\"<&\r\n", "%2f{}/.."]), st.text())
NAMED: Final = {"id", "uid", "tenant", "name", "model", "publication", "key_id", "shard", "version", "service"}
"""Fields by which records find each other, what a user is, and the one that decides who wrote last: these stay."""


def extreme_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type as far out as reading a record lets them be."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in {types.UnionType, typing.Union}:
        return st.one_of(*map(extreme_of, inner))
    if origin is tuple:
        return st.lists(extreme_of(inner[0]), max_size=3)
    if origin is Mapping:
        return st.dictionaries(extreme_of(inner[0]), extreme_of(inner[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return st.sampled_from([one.value for one in kind])
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.fixed_dictionaries({name: extreme_of(of) for name, of in typing.get_type_hints(kind).items()})
    floats = st.floats(allow_nan=False, allow_infinity=False)  # JSON has no others
    plain = {int: st.one_of(NUMBERS, TIMES), float: floats, str: TEXTS, bool: st.booleans(), type(None): st.none()}
    return plain[kind]


def extremes(record: Any) -> st.SearchStrategy[dict[str, Any]]:
    """The JSON of a record with any of its fields at an extreme."""
    hints = {name: of for name, of in typing.get_type_hints(type(record)).items() if name not in NAMED}
    optional = {name: extreme_of(of) for name, of in hints.items()}
    if getattr(record, "service", None):
        optional["service"] = extreme_of(ServiceAccess)
    changed = st.fixed_dictionaries({}, optional=optional)
    kind = KIND_OF[type(record)]
    return changed.map(lambda fields: json.loads(encode(record)) | fields).filter(lambda one: _is_read(kind, one))


def _is_read(kind: Kind, fields: dict[str, Any]) -> bool:
    try:
        decode(kind, json.dumps(fields).encode())
    except ValueError:
        return False
    return True


async def read_everything(api: Any, values: Mapping[str, str]) -> None:
    """Every GET that shows records, with usage where a list can say it: 200, and nothing in it is damaged."""
    document = (await api.ask("GET", "/openapi.json")).body
    read = [one for one in operations(document, {}) if one.method == "GET" and not one.is_open]
    assert {"/api/keys", "/api/keys/{k}", "/api/published-models", "/api/tenants", "/api/users", "/api/hosts"} <= {
        one.path for one in read
    }
    for operation in read:
        for path in _asked(operation, values):
            answer = await api.ask("GET", path)
            assert answer.status == 200, f"{path}: {answer.text}"
            assert not answer.body.get("damaged"), f"{path}: {answer.text}"


OF_ONE_TENANT: Final = "/api/deleted-keys"


def _asked(operation: Operation, values: Mapping[str, str]) -> list[str]:
    path = operation.filled(values)
    queries = [""]
    if "tenantId" in operation.query:
        owned = f"tenantId={TENANT}"
        queries = [owned] if "{m}" in operation.path or operation.path == OF_ONE_TENANT else ["", owned]
    more = [f"{one}&usage=true" for one in queries] if "usage" in operation.query else []
    return [f"{path}?{query}" if query else path for query in (*queries, *more)]


@given(st.tuples(*map(extremes, PLAIN)))
@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking reads everything hundreds of times
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_every_record_that_can_be_read_can_be_shown(
    api: Any, store: Any, drawn: tuple[dict[str, Any], ...]
) -> None:
    """Whatever stands in the fields of a record: if it is read as one, all lists and views show it."""
    for record, fields in zip(PLAIN, drawn, strict=True):
        kind: Kind = KIND_OF[type(record)]
        store.set(f"tk:rec:{kind.value}:{record.id}", json.dumps(fields))
        store.zadd(f"tk:index:{kind.value}", {record.id: 0})
        store.zadd(f"tk:index:{kind.value}:{TENANT}", {record.id: 0})
    await read_everything(api, {"t": TENANT, "m": "m", "p": UID, "k": KEY_ID, "u": "u", "s": "s", "h": HOST})


EXPIRIES: Final = [
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59-14:00",
    "9999-12-31T23:59:59-00:01",
    "9999-12-31T00:00:00+14:00",
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "2999-06-30T23:59:60Z",
    253_402_300_799,
    10**18,
]


@pytest.mark.parametrize("expires_at", EXPIRIES)
async def test_an_expiry_that_is_accepted_is_shown(api: Any, kserve: str, expires_at: Any) -> None:
    """Refused with 400 and a reason, or made and shown by every list and view; nothing between, by POST and PATCH."""
    await api.service("cron", "viewer", "tenant-a", expiresAt=None)
    await api.model("m", kserve)
    own = (await api.publish("m")).body
    body = {"tenantId": TENANT, "name": "e", "publications": ["m"], "expiresAt": expires_at}
    made = await api.ask("POST", KEYS, body)
    changed = await api.ask("PATCH", f"{KEYS}/{own['keyId']}", {"expiresAt": expires_at})
    for answer in (made, changed):
        assert answer.status in {200, 201, 400}, answer.text
        if answer.status == 400:
            assert answer.faults.keys() == {"expiresAt"}
        else:  # to the millisecond
            meant = datetime.fromisoformat(expires_at).astimezone(UTC)
            assert abs(datetime.fromisoformat(answer.body["expiresAt"]) - meant) < timedelta(milliseconds=1)
    assert (made.status == 400) is (changed.status == 400)
    values = {
        "t": TENANT,
        "m": "m",
        "p": own["uid"],
        "k": own["keyId"],
        "u": "admin",
        "s": "cron",
        "h": own["publicHostname"],
    }
    await read_everything(api, values)
    validated = await api.ask("POST", "/api/validate-api-key", {"apiKey": own["apiKey"]})
    assert (validated.status, validated.body["valid"]) == (200, True)


async def test_the_largest_inputs_are_shown(api: Any, kserve: str) -> None:
    """The largest of what every body takes, made and then read by every list and view."""
    limits = dict.fromkeys(("requestsPerMinute", "requestsPerHour", "tokensPerHour", "burstLimit"), MAX_LIMIT)
    tenant, name, user = "t" * 63, "m" * 63, "u" * 63
    hosts = [f"h{number}.example.com" for number in range(100)]
    await api.tenant(tenant, rateLimiting=limits, hosts=hosts, upstreamAllow=[f"10.{n}.0.0/16" for n in range(100)])
    await api.user(user, "operator", tenant, password="p" * 128)
    service = "s" * 63
    await api.service(service, "operator", tenant, description="d" * 1024, expiresAt="9999-12-31T23:59:59.999Z")
    await api.model(name, kserve, tenant)
    tokens = {
        "contextTokens": 10**7,
        "reservationTimeoutSeconds": 3600,
        "bytesPerToken": 1000,
        "mediaPartTokens": 10**6,
    }
    published = await api.ask(
        "POST",
        f"/api/models/{name}/publish?tenantId={tenant}",
        {
            "config": {
                "rateLimiting": limits,
                "tokens": tokens,
                "metadata": {"\U0010ffff" * 200: "\0" * 400},
                "externalPath": "/models/" + "p" * 192,
                "authentication": {"allowedTenants": [TENANT], "anonymousRequestsPerMinute": 10**6},
            }
        },
    )
    assert published.status == 201, published.text
    key = {"tenantId": TENANT, "name": "n" * 63, "publications": [f"{tenant}/{name}"], "rateLimiting": limits}
    made = await api.ask("POST", KEYS, {**key, "expiresAt": "9999-12-31T23:59:59.999Z"})
    assert made.status == 201, made.text
    assert (await api.ask("POST", f"{KEYS}/{made.body['id']}/rotate", {"gracePeriodSeconds": 604_800})).status == 200
    values = {"t": tenant, "p": published.body["uid"], "k": made.body["id"], "u": user, "s": service, "h": hosts[0]}
    document = (await api.ask("GET", "/openapi.json")).body
    for operation in operations(document, {}):
        if operation.method == "GET" and not operation.is_open:
            query = f"?tenantId={tenant}" if operation.path == OF_ONE_TENANT else ""
            answer = await api.ask("GET", operation.filled({**values, "m": name}) + query)
            assert answer.status == 200, f"{operation.path}: {answer.text}"
    assert await api.services.store.get(Kind.USER, user)
    assert ALL_TENANTS not in made.text
