"""What every admitted call of a key and publication is answered alike, as bytes. Pure."""

from __future__ import annotations

import functools
from typing import Final

from extauth.answers.shown import OK_RESPONSE
from extauth.answers.wire import OVERWRITE, Slot, field, header_slot, text_entry

RESERVATION: Final = "reservation"
"""The dynamic metadata by which the proxy tells how an admitted call ended: the reservation's id."""
MAX_AROUND: Final = 4_096
"""Pairs of a publication and a tenant kept ready, some 400 bytes each."""
_TO_UPSTREAM: Final = 2
"""OkHttpResponse.headers."""
_METADATA: Final = 4
"""CheckResponse.dynamic_metadata, a Struct, whose map is field 1."""


def shared_answer(publication: str, key: str, tenant: str, *, is_chosen: bool) -> bytes:
    """What Envoy must do for every call of this key ("": none) to this publication, named by its uid.

    ``is_chosen``: by Check, from what the call's body or path says.
    """
    if not key:
        return _keyless(publication, is_chosen)
    which = key.encode()
    before, between, after = _around(publication, tenant, len(which), is_chosen)
    return before + which + between + which + after


@functools.lru_cache(maxsize=MAX_AROUND)
def _keyless(publication: str, is_chosen: bool) -> bytes:  # noqa: FBT001  cached by place
    uid = publication.encode()
    return field(OK_RESPONSE, _headers(uid, is_chosen=is_chosen)) + field(_METADATA, _PUBLICATION.of(uid))


@functools.lru_cache(maxsize=MAX_AROUND)
def _around(
    publication: str,
    tenant: str,
    key_bytes: int,
    is_chosen: bool,  # noqa: FBT001  cached by place
) -> tuple[bytes, bytes, bytes]:
    """All but the key's id, which stands in it twice: what a tenant's keys of one publication have in common."""
    whose, uid, which = tenant.encode(), publication.encode(), bytes(key_bytes)
    last, metadata = _headers(uid, is_chosen=is_chosen), _TENANT.of(whose) + _PUBLICATION.of(uid)
    to_upstream = field(OK_RESPONSE, _OF_TENANT.of(whose) + _OF_KEY.of(which) + last)
    told = field(_METADATA, _KEY.of(which) + metadata)
    first_end, second_end = len(to_upstream) - len(last) - len(OVERWRITE), len(told) - len(metadata)
    return (
        to_upstream[: first_end - key_bytes],
        to_upstream[first_end:] + told[: second_end - key_bytes],
        told[second_end:],
    )


def _headers(uid: bytes, *, is_chosen: bool) -> bytes:
    """What no key has a part in: the route is chosen by it where Check says the model, others add it themselves."""
    return _TO_PUBLICATION.of(uid) if is_chosen else b""


def _told(name: bytes) -> Slot:
    """One text of the metadata whose value changes."""
    return Slot(lambda value: text_entry(1, name, value))


_OF_TENANT: Final = header_slot(_TO_UPSTREAM, b"x-tenant-id")
_OF_KEY: Final = header_slot(_TO_UPSTREAM, b"x-key-id")
_TO_PUBLICATION: Final = header_slot(_TO_UPSTREAM, b"x-tollkeeper-publication")
_KEY: Final = _told(b"key")
_TENANT: Final = _told(b"tenant")
_PUBLICATION: Final = _told(b"publication")


def reservation_of(hold_id: str) -> bytes:
    """What is added to the shared metadata for a call that holds tokens: messages that are concatenated are merged."""
    return _RESERVATION.of(hold_id.encode())


_RESERVATION: Final = Slot(lambda hold_id: field(_METADATA, text_entry(1, RESERVATION.encode(), hold_id)))


def entry(name: str, value: str) -> bytes:
    """One text of the metadata."""
    return text_entry(1, name.encode(), value.encode())
