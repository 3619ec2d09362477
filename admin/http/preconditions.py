"""Entity tags: which state of a record a client has seen, and whether it is still that (RFC 9110 §13). Pure.

A tag names one version of one record. What is shown beside the record (status, usage) changes without it, so no ``GET``
is answered 304; ``If-Match`` protects what can be written, and that is the record.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from admin.http.problems import Code, Problem
from catalog.records import KIND_OF, KeyRecord, ModelRecord, PublicationRecord, TenantRecord, UserRecord, ref

Tagged = TenantRecord | ModelRecord | PublicationRecord | KeyRecord | UserRecord

ANY: Final = "*"
_TAG_BYTES: Final = 12
_TAGS: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def etag(record: Tagged) -> str:
    """The strong tag of a record as it is now: another life of the same name has another one."""
    life = record.uid if isinstance(record, ModelRecord) else str(record.created_at_ms)
    named = f"{ref(KIND_OF[type(record)], record.id)} {life} {record.version}"
    return f'"{hashlib.blake2b(named.encode(), digest_size=_TAG_BYTES).hexdigest()}"'


def tagged(record: Tagged) -> Mapping[str, str]:
    """The header that tells a record's tag."""
    return {"ETag": etag(record)}


def require_match(if_match: str, *records: Tagged) -> None:
    """Raise ``Problem`` PRECONDITION_FAILED unless ``If-Match`` holds for one of the records, which all exist.

    ``if_match`` is the header as it was sent, "" where it was not. Weak tags never match.
    """
    if if_match and if_match.strip() != ANY and {etag(one) for one in records}.isdisjoint(_TAGS.findall(if_match)):
        raise Problem(Code.PRECONDITION_FAILED, "GET it again: it is not as If-Match says")
