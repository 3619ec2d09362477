"""What every admitted call of a key and publication is answered alike, as bytes. Pure."""

from __future__ import annotations

from typing import Final

from extauth.answers.shown import OK_RESPONSE
from extauth.answers.wire import Slot, field, header_slot, text_entry

KEY_HEADERS: Final = ("x-api-key", "authorization")
RESERVATION: Final = "reservation"
"""The dynamic metadata by which the proxy tells how an admitted call ended: the reservation's id."""
_TO_UPSTREAM: Final = 2
"""OkHttpResponse.headers."""
_REMOVED: Final = 5
"""OkHttpResponse.headers_to_remove."""
_METADATA: Final = 4
"""CheckResponse.dynamic_metadata, a Struct, whose map is field 1."""
_REMOVES_KEY: Final = b"".join(field(_REMOVED, name.encode()) for name in KEY_HEADERS)


def shared_answer(publication: str, key: str, tenant: str, *, is_openai: bool) -> bytes:
    """What Envoy must do for every call of this key ("": none) to this publication, named by its uid."""
    uid = publication.encode()
    headers, metadata = _REMOVES_KEY, _PUBLICATION.of(uid)
    if is_openai:  # its route is chosen again by this header; other routes add it for the upstream themselves
        headers = _TO_PUBLICATION.of(uid) + headers
    if key:
        whose, which = tenant.encode(), key.encode()
        headers = _OF_TENANT.of(whose) + _OF_KEY.of(which) + headers
        metadata = _KEY.of(which) + _TENANT.of(whose) + metadata
    return field(OK_RESPONSE, headers) + field(_METADATA, metadata)


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
