"""Records as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from catalog.records import (
    KIND_OF,
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
    Source,
    TenantRecord,
    TokenPolicy,
    UserRecord,
    decode,
    encode,
    ref,
)

_TEXTS = st.dictionaries(st.text(), st.text())
_RECORDS = st.one_of(
    [
        st.builds(HostRecord, paths=_TEXTS, models=_TEXTS),
        st.builds(PublicationRecord, metadata=_TEXTS),
        *(st.from_type(record_type) for record_type in KIND_OF if record_type not in (HostRecord, PublicationRecord)),
    ]
)


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
        ),
        ('{"uid":"007u","tenant":"t","name":"m","url":"http://a:1","type":"openai","protocol":"openai","ready":false,'
        '"message":"no “answer”\\n\\u0001 é \U0001f600","checked_at_ms":5,"created_at_ms":1,"updated_at_ms":2,'
        '"publication":"007p","type_given":false,"version":1,"source":"kubernetes","namespace":"ns"}'),
    ),
    Kind.PUBLICATION: (
        PublicationRecord(
            "007p", "t", "m", "http://a:1", ModelType.OPENAI, Protocol.OPENAI, "h.test", "/m", Limits(per_minute=5),
            True, ("t", "u"), "007k", 1, 2, {"team": 'vision "x"\\'}, tokens=TokenPolicy(100, Reservation.ADAPTIVE),
        ),
        ('{"uid":"007p","tenant":"t","model":"m","url":"http://a:1","type":"openai","protocol":"openai",'
        '"host":"h.test","path":"/m","limits":{"burst":null,"per_minute":5,"per_hour":null,"tokens_per_hour":null},'
        '"require_api_key":true,"allowed_tenants":["t","u"],"key_id":"007k","created_at_ms":1,"updated_at_ms":2,'
        '"metadata":{"team":"vision \\"x\\"\\\\"},"anonymous_per_minute":60,"version":1,"tokens":{"context_tokens":100,'
        '"reservation":"adaptive","missing_usage":"estimate","reservation_timeout_s":600}}'),
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
}  # fmt: skip
"""Records of every kind, and the JSON that was written of them when pydantic wrote it."""


@pytest.mark.parametrize("kind", Kind)
def test_records_are_written_and_read_as_by_the_release_before(kind: Kind) -> None:
    """During a rolling update old and new processes read what the others wrote: it is the same to the byte."""
    record, written = WRITTEN_BEFORE[kind]
    assert encode(record).decode() == written
    assert decode(kind, written.encode()) == record


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
