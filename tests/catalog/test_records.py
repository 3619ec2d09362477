"""Records as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from catalog.records import (
    KIND_OF,
    ContextFrom,
    Credential,
    HostRecord,
    KeyRecord,
    Kind,
    Limits,
    MissingUsage,
    ModelRecord,
    ModelType,
    Protocol,
    PublicationRecord,
    Record,
    Reservation,
    Role,
    Server,
    ServerRecord,
    Source,
    TenantRecord,
    TokenPolicy,
    UpstreamAuth,
    UserRecord,
    decode,
    encode,
    ref,
    server_of,
    sole_caller,
)

_TEXTS = st.dictionaries(st.text(), st.text())
_RECORDS = st.one_of(
    [
        st.builds(HostRecord, paths=_TEXTS, models=_TEXTS),
        st.builds(PublicationRecord, metadata=_TEXTS),
        st.builds(ServerRecord, callers=_TEXTS),
        st.builds(KeyRecord, labels=st.none() | st.dictionaries(st.text(), st.text(), min_size=1)),
        *(st.from_type(one) for one in KIND_OF if one not in (HostRecord, KeyRecord, PublicationRecord, ServerRecord)),
    ]
)


def test_what_nobody_said_is_not_written() -> None:
    """A publication that names its host is written as the release before writes it."""
    record = PublicationRecord(
        "u", "t", "m", "http://m", ModelType.OPENAI, Protocol.OPENAI, "h", "/m", Limits(), True, ("t",), "k", 1, 1
    )
    assert b"host_unnamed" not in encode(record)
    assert b'"host_unnamed":true' in encode(structs.replace(record, host_unnamed=True))


@given(_RECORDS)
def test_a_record_reads_back_as_it_was_written(record: Record) -> None:
    """Nothing of any record is lost or changed by storing it."""
    kind = KIND_OF[type(record)]
    assert decode(kind, encode(record)) == record


@given(_RECORDS)
def test_the_version_is_where_the_script_looks(record: Record) -> None:
    """The compare-and-set reads ``version`` at the top of the JSON."""
    assert json.loads(encode(record))["version"] == record.version


def test_every_kind_has_its_record() -> None:
    """No kind is without a record type, and none shares one."""
    assert sorted(KIND_OF.values()) == sorted(Kind)


@given(_RECORDS)
def test_a_record_of_a_later_release_is_still_read(record: Record) -> None:
    """A field that this release does not know is passed over, so a release can be taken back."""
    document = json.loads(encode(record)) | {"field_of_tomorrow": 1}
    assert decode(KIND_OF[type(record)], json.dumps(document).encode()) == record


@given(st.builds(PublicationRecord, metadata=_TEXTS))
def test_a_publication_of_an_earlier_release_holds_tokens_back_strictly(record: PublicationRecord) -> None:
    """A record without ``tokens`` reads with the policy that never lets a budget be passed."""
    document = json.loads(encode(record))
    del document["tokens"]
    read = decode(Kind.PUBLICATION, json.dumps(document).encode())
    assert read == structs.replace(
        record, tokens=TokenPolicy(8_192, Reservation.STRICT, MissingUsage.ESTIMATE, reservation_timeout_s=600)
    )


@given(st.builds(PublicationRecord, metadata=_TEXTS))
def test_a_publication_of_an_earlier_release_opens_nothing_more(record: PublicationRecord) -> None:
    """Nor does one that an admin of that release has written again."""
    document = json.loads(encode(record))
    del document["allowed_endpoints"], document["allow_background"]
    read = decode(Kind.PUBLICATION, json.dumps(document).encode())
    assert read == structs.replace(record, allowed_endpoints=(), allow_background=False)


WRITTEN_BEFORE: dict[Kind, tuple[Record, str]] = {
    Kind.TENANT: (
        TenantRecord("t", 7, 1, 2, limits=Limits(10, 100, 5_000, 100_000), hosts=("a.test",)),
        ('{"id":"t","shard":7,"created_at_ms":1,"updated_at_ms":2,"version":1,"disabled":false,"limits":{"burst":10,'
        '"per_minute":100,"per_hour":5000,"tokens_per_hour":100000},"hosts":["a.test"],"upstream_allow":[]}'),
    ),
    Kind.MODEL: (
        ModelRecord(
            "007u", "t", "m", "http://a:1", ModelType.OPENAI, Protocol.OPENAI, False, "no “answer”\n\x01 é \U0001f600",
            5, 1, 2, publication="007p", source=Source.KUBERNETES, namespace="ns",
            context_tokens=4096,
        ),
        ('{"uid":"007u","tenant":"t","name":"m","url":"http://a:1","type":"openai","protocol":"openai","ready":false,'
        '"message":"no “answer”\\n\\u0001 é \U0001f600","checked_at_ms":5,"created_at_ms":1,"updated_at_ms":2,'
        '"publication":"007p","type_given":false,"version":1,"source":"kubernetes","namespace":"ns","context_tokens":4096}'),
    ),
    Kind.PUBLICATION: (
        PublicationRecord(
            "007p", "t", "m", "http://a:1", ModelType.OPENAI, Protocol.OPENAI, "h.test", "/m", Limits(per_minute=5),
            True, ("t", "u"), "007k", 1, 2, {"team": 'vision "x"\\'}, server_context_tokens=4096,
            tokens=TokenPolicy(100, Reservation.ADAPTIVE, context_tokens_from=ContextFrom.SETTING),
        ),
        ('{"uid":"007p","tenant":"t","model":"m","url":"http://a:1","type":"openai","protocol":"openai",'
        '"host":"h.test","path":"/m","limits":{"burst":null,"per_minute":5,"per_hour":null,"tokens_per_hour":null},'
        '"require_api_key":true,"allowed_tenants":["t","u"],"key_id":"007k","created_at_ms":1,"updated_at_ms":2,'
        '"metadata":{"team":"vision \\"x\\"\\\\"},"anonymous_per_minute":60,"version":1,"tokens":{"context_tokens":100,'
        '"reservation":"adaptive","missing_usage":"estimate","reservation_timeout_s":600,"context_tokens_from":"setting",'
        '"default_completion_tokens":4096,"clamp_usage":false,"media_part_tokens":2048,"bytes_per_token":2.5,"stream_bytes_per_token":null},'
         '"server_context_tokens":4096,"allowed_endpoints":[],"allow_background":false}'),
    ),
    Kind.KEY: (
        KeyRecord(
            "007k", "t", "my key", ("007p",), Credential("h=", (1, 2), None, 3), 1, 1_700_000_000_000,
            previous=Credential("g=", (1,), 5), expires_at_ms=9, disabled=True, recovery="sealed",
        ),
        ('{"id":"007k","tenant":"t","name":"my key","publications":["007p"],"current":{"hash":"h=","peppers":[1,2],'
        '"valid_until_ms":null,"mac_key":3},"created_at_ms":1,"updated_at_ms":1700000000000,"previous":{"hash":"g=",'
        '"peppers":[1],"valid_until_ms":5,"mac_key":0},"expires_at_ms":9,"disabled":true,"limits":{"burst":null,'
        '"per_minute":null,"per_hour":null,"tokens_per_hour":null},"recovery":"sealed","version":1}'),
    ),
    Kind.HOST: (
        HostRecord("h.test", {"/m": "007p"}, {"t/m": "007p"}, 3, 1),
        '{"id":"h.test","paths":{"/m":"007p"},"models":{"t/m":"007p"},"version":3,"created_at_ms":1}',
    ),
    Kind.USER: (
        UserRecord("root", "$argon2id$x", Role.OPERATOR, ("*",), 1, 2, 3, True, 4),
        ('{"id":"root","password_hash":"$argon2id$x","role":"operator","tenants":["*"],"created_at_ms":1,'
        '"updated_at_ms":2,"token_version":3,"disabled":true,"version":4,"calls_from":null}'),
    ),
    Kind.SERVER: (
        ServerRecord("llm:8000", {"007p": "t", "008p": ""}, 3, 1),
        '{"id":"llm:8000","callers":{"007p":"t","008p":""},"version":3,"created_at_ms":1}',
    ),
}  # fmt: skip
"""Records of every kind that the release before has, and the JSON that was written of them when pydantic wrote it."""


def test_a_closed_host_is_none_that_the_release_before_can_read() -> None:
    """Its table is gone: a gate or an admin that goes by tables must refuse, and not find nothing there."""
    closed = HostRecord("h.test", None, None, 3, 1)
    assert encode(closed).decode() == '{"id":"h.test","paths":null,"models":null,"version":3,"created_at_ms":1}'
    assert decode(Kind.HOST, encode(closed)) == closed
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(encode(closed), type=_HostBefore)


class _HostBefore(msgspec.Struct):
    """As the release before reads a host."""

    id: str
    paths: Mapping[str, str]
    models: Mapping[str, str]
    version: int = 1
    created_at_ms: int = 0


@pytest.mark.parametrize("kind", WRITTEN_BEFORE)
def test_records_are_written_and_read_as_by_the_release_before(kind: Kind) -> None:
    """During a rolling update old and new processes read what the others wrote: it is the same to the byte."""
    record, written = WRITTEN_BEFORE[kind]
    assert kind is Kind.KEY or encode(record).decode() == written
    assert decode(kind, written.encode()) == record


def test_a_model_of_several_servers_is_read_by_the_release_before_as_of_its_first() -> None:
    """An admin of that release leads all calls to the first server, without what it wants; one that writes the record
    keeps only that."""  # noqa: D205, D209
    for kind in (Kind.MODEL, Kind.PUBLICATION):
        record, written = WRITTEN_BEFORE[kind]
        several = structs.replace(record, servers=(Server("http://a:1", 9), Server("http://b:1")))
        several = structs.replace(several, upstream_auth=UpstreamAuth("authorization", "v1:sealed"))
        document = json.loads(encode(several))
        assert document.pop("upstream_auth") == {"header": "authorization", "sealed": "v1:sealed", "secret": ""}
        assert document.pop("servers") == [{"url": "http://a:1", "weight": 9}, {"url": "http://b:1", "weight": 1}]
        assert document == json.loads(written)
        assert decode(kind, encode(several)) == several


def test_a_key_is_written_in_few_bytes() -> None:
    """Without what is as nobody said otherwise, which the release before takes for granted; the rest is the same."""
    record, written = WRITTEN_BEFORE[Kind.KEY]
    plain = KeyRecord("007k", "t", "k", ("007p",), Credential("h=", (1,), None, 0), 1, 2)
    assert encode(plain).decode() == (
        '{"id":"007k","tenant":"t","name":"k","publications":["007p"],"current":{"hash":"h=","peppers":[1],"mac_key":0},'
        '"created_at_ms":1,"updated_at_ms":2,"version":1}'
    )
    known = structs.astuple(plain)[: len(structs.fields(_KeyBefore))]
    assert msgspec.json.decode(encode(plain), type=_KeyBefore) == _KeyBefore(*known)
    said = json.loads(written)
    del said["limits"], said["current"]["valid_until_ms"]
    assert json.loads(encode(record)) == said


class _KeyBefore(msgspec.Struct):
    """As the release before reads a key."""

    id: str
    tenant: str
    name: str
    publications: tuple[str, ...]
    current: Credential
    created_at_ms: int
    updated_at_ms: int
    previous: Credential | None = None
    expires_at_ms: int | None = None
    disabled: bool = False
    limits: Limits = Limits()
    recovery: str | None = None
    version: int = 1


@pytest.mark.parametrize(
    "damage",
    [
        ('"version":1', '"version":"1"'),
        ('"version":1', '"version":1.0'),
        ('"version":1', '"version":true'),
        ('"disabled":true', '"disabled":1'),
        ('"disabled":true', '"disabled":null'),
        ('"publications":["007p"]', '"publications":"007p"'),
        ('"publications":["007p"]', '"publications":[7]'),
        ('"name":"my key"', '"name":"\\ud800"'),
        ('"name":"my key"', '"name":null'),
        ('"peppers":[1,2],', ""),
        ('"version":1}', '"version":1}x'),
        ('"recovery":"sealed"', '"recovery":' + "[" * 100_000),
        ('"recovery":"sealed"', '"tomorrow":' + "[" * 100_000),
    ],
)
def test_a_field_of_another_type_is_damage(damage: tuple[str, str]) -> None:
    """Nothing is taken for what it is not, such as a text for a number: that record is corrupt, and only that."""
    written = WRITTEN_BEFORE[Kind.KEY][1]
    assert damage[0] in written
    with pytest.raises(ValueError, match=r"."):
        decode(Kind.KEY, written.replace(*damage).encode())


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"id": "x"}'])
def test_what_is_no_record_is_refused(kind: Kind, raw: bytes) -> None:
    """Damaged JSON, and JSON without the fields, raise ``ValueError``."""
    with pytest.raises(ValueError, match=r"."):
        decode(kind, raw)


def test_a_record_cannot_be_changed_in_place() -> None:
    """A record in a cache is shared by every reader."""
    credential = Credential("hash", (1,))
    with pytest.raises(AttributeError, match="immutable"):
        credential.hash = "other"  # type: ignore[misc]


def test_a_password_hash_is_not_printed() -> None:
    """A user that gets into a log line leaves his hash out."""
    assert "argon" not in repr(UserRecord("admin", "$argon2id$v", Role.ADMIN, ("*",), 0, 0))


def test_references_name_kind_and_id() -> None:
    """The form of a reference is part of the contract between rooms."""
    assert ref(Kind.PUBLICATION, "0a1x") == "pub:0a1x"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://llm:8000", "llm:8000"),
        ("http://LLM.models.svc.:8000/", "llm.models.svc:8000"),
        ("http://llm", "llm:80"),
        ("https://llm", "llm:443"),
        ("http://10.0.0.5:9001", "10.0.0.5:9001"),
        ("http://[FD00::1]:9001", "[fd00::1]:9001"),
        ("https://[fd00::1]", "[fd00::1]:443"),
        ("http://llm:80", "llm:80"),
        ("", ""),
        ("llm:8000", ""),
        ("http://:8000", ""),
        ("http://llm:99999", ""),
        ("http://[llm", ""),
        ("ftp://llm", ""),
    ],
)
def test_a_url_names_its_server(url: str, server: str) -> None:
    """By host and port; a path, the scheme and capitals are no matter."""
    assert server_of(url) == server


OWN, OTHERS = {"007p": "t"}, {"007p": "t", "008p": "u"}


@pytest.mark.parametrize(
    ("callers", "publication", "is_alone"),
    [
        (OWN, {}, True),
        (OWN | {"008p": "t"}, {}, True),
        (OTHERS, {}, False),
        (OWN | {"008p": ""}, {}, False),
        ({}, {}, False),
        ({"008p": "t"}, {}, False),  # it does not stand in the record itself
        ({"007p": "u"}, {}, False),
        ({"007p": ""}, {}, False),
        (OWN, {"allowed_tenants": ("t", "u")}, False),
        (OWN, {"allowed_tenants": ("u",)}, False),
        (OWN, {"allowed_tenants": ()}, False),
        (OWN, {"require_api_key": False}, False),
        ({"007p": ""}, {"require_api_key": False}, False),
        (OWN, {"servers": (Server("http://a:1"), Server("http://b:1"))}, False),
    ],
)
def test_a_server_is_one_tenants_alone(callers: dict[str, str], publication: dict[str, Any], is_alone: bool) -> None:  # noqa: FBT001  a row
    """Every publication that leads there, and this one as it is now, is for the same tenant's keys alone."""
    record, _ = WRITTEN_BEFORE[Kind.PUBLICATION]
    own = structs.replace(record, **({"allowed_tenants": ("t",)} | publication))
    assert isinstance(own, PublicationRecord)
    assert ServerRecord("llm:8000", callers).is_alone(own) == is_alone
    assert bool(sole_caller(own)) == (not publication)
