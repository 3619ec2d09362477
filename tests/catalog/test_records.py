"""Records as JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.records import (
    KIND_OF,
    Credential,
    HostRecord,
    Kind,
    MissingUsage,
    PublicationRecord,
    Record,
    Reservation,
    Role,
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
    assert read == dataclasses.replace(
        record, tokens=TokenPolicy(8_192, Reservation.STRICT, MissingUsage.ESTIMATE, reservation_timeout_s=600)
    )


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[]", b"{}", b"\xff", b'{"id": "x"}'])
def test_what_is_no_record_is_refused(kind: Kind, raw: bytes) -> None:
    """Damaged JSON, and JSON without the fields, raise ``ValueError``."""
    with pytest.raises(ValueError, match="validation error"):
        decode(kind, raw)


def test_a_record_cannot_be_changed_in_place() -> None:
    """A record in a cache is shared by every reader."""
    credential = Credential("hash", (1,))
    with pytest.raises(dataclasses.FrozenInstanceError):
        credential.hash = "other"  # type: ignore[misc]


def test_a_password_hash_is_not_printed() -> None:
    """A user that gets into a log line leaves his hash out."""
    assert "argon" not in repr(UserRecord("admin", "$argon2id$v", Role.ADMIN, ("*",), 0, 0))


def test_references_name_kind_and_id() -> None:
    """The form of a reference is part of the contract between rooms."""
    assert ref(Kind.PUBLICATION, "0a1x") == "pub:0a1x"
