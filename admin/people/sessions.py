"""Login tokens: made at login, checked at each request against the user's record as it is now.

A token names its user and the version their tokens had; a password change or a logout counts that version up, so
every older token is refused from then on. Service accounts prove themselves by a token of their own
(``catalog.keys.servicetext``), whose hash their record has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import jwt

from admin.http.problems import Code, Problem
from admin.people.callers import Caller
from catalog.keys.hashing import matches
from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets
from catalog.keys.servicetext import is_token, parse_token
from catalog.records import Kind, ServiceAccess, UserRecord
from catalog.store.store import CatalogStore

LIFETIME_S: Final = 12 * 3600
LEEWAY_S: Final = 10  # clocks of several admin processes differ a little
ALGORITHM: Final = "HS256"
ISSUER: Final = "tollkeeper"
_CLAIMS: Final = ("sub", "ver", "iat", "exp", "iss")
_WWW_AUTHENTICATE: Final = {"WWW-Authenticate": "Bearer"}


MayCall = Callable[[UserRecord, int], bool]
"""Whether a token of a version is good enough, by its user's record."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A login token and when it ends. Never printed."""

    text: str
    expires_at_ms: int

    def __repr__(self) -> str:
        return "Token(***)"


def make_token(user: UserRecord, jwt_key: bytes, now_ms: int) -> Token:
    """Make a token for a user who has just proved who he is; ``now_ms`` by this machine's clock."""
    issued_s = now_ms // 1000
    ends_s = issued_s + LIFETIME_S
    claims = {"sub": user.id, "ver": user.token_version, "iat": issued_s, "exp": ends_s, "iss": ISSUER}
    return Token(jwt.encode(claims, jwt_key, algorithm=ALGORITHM), ends_s * 1000)


def may_begin(user: UserRecord, token_version: int) -> bool:
    """Whether a call may begin with a token of this version."""
    return token_version == user.token_version


def may_finish(user: UserRecord, token_version: int) -> bool:
    """Whether a call that began with a token of this version may be finished: not after a logout, as nothing may.

    A new password that the user gave themselves does not stop what they are doing; one that they were given does.
    """
    first = user.token_version if user.calls_from is None else user.calls_from
    return first <= token_version <= user.token_version


def _unauthenticated() -> Problem:
    """One answer for every way of not being logged in."""
    return Problem(Code.UNAUTHENTICATED, "send a valid token as Authorization: Bearer", headers=_WWW_AUTHENTICATE)


async def caller_of(
    authorization: str, secrets: Secrets, store: CatalogStore, now_ms: int, *, may_call: MayCall = may_begin
) -> Caller:
    """Return who sent this Authorization header; raises ``Problem`` UNAUTHENTICATED, ``StoreUnavailable``.

    ``now_ms``: by this machine's clock.
    """
    scheme, _, text = authorization.partition(" ")
    if scheme.lower() != "bearer" or not text.isascii():
        raise _unauthenticated()
    if is_token(text.strip()):
        return await _service_of(text.strip(), secrets, store, now_ms)
    name, version = _claims_of(text.strip(), secrets.jwt_key)
    user = await store.get(Kind.USER, name)
    if not isinstance(user, UserRecord) or user.service or user.disabled or not may_call(user, version):
        raise _unauthenticated()
    return Caller.of(user)


async def _service_of(text: str, secrets: Secrets, store: CatalogStore, now_ms: int) -> Caller:
    """Return the service account that a token is of; one that was never made here is refused without the store."""
    parsed = parse_token(text, secrets)
    account = None if parsed is None else await store.get(Kind.USER, parsed.name)
    if parsed is None or not isinstance(account, UserRecord) or account.disabled:
        raise _unauthenticated()
    if account.service is None or not is_proved(account.service, parsed.text, secrets, now_ms):
        raise _unauthenticated()
    return Caller.of(account)


def is_proved(access: ServiceAccess, text: KeyText, secrets: Secrets, now_ms: int) -> bool:
    """Whether a token opens a service account now."""
    if access.expires_at_ms is not None and access.expires_at_ms <= now_ms:
        return False
    if matches(access.current, text, secrets):
        return True
    before = access.previous
    is_in_grace = before is not None and (before.valid_until_ms or 0) > now_ms
    return before is not None and is_in_grace and matches(before, text, secrets)


def _claims_of(text: str, jwt_key: bytes) -> tuple[str, int]:
    """Return user and token version of a token that is ours and has not ended."""
    try:
        claims = jwt.decode(
            text,
            jwt_key,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            leeway=LEEWAY_S,
            options={"require": list(_CLAIMS)},
        )
    except jwt.InvalidTokenError:
        raise _unauthenticated() from None
    if not isinstance(claims["ver"], int):
        raise _unauthenticated()
    return claims["sub"], claims["ver"]
