"""What the API says when it cannot do as asked: RFC 9457 problem documents with a stable ``code``.

Owns the closed list of codes with their statuses, and the faults of an input. Knows no request and no store.
No message holds a value of a body unless a record has it too: it may be a secret. Names out of a path are told
where they have the form of a name, which no key text has.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

CONTENT_TYPE: Final = "application/problem+json"
MAX_FAULTS: Final = 50
"""Most faults named in one answer; a body of a megabyte can hold a hundred thousand."""


class Code(enum.StrEnum):
    """Why a request was not done. Clients may rely on these names."""

    MALFORMED_JSON = "MALFORMED_JSON"
    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_CONFIG = "INVALID_CONFIG"
    INVALID_TENANT = "INVALID_TENANT"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    LOGIN_FAILED = "LOGIN_FAILED"
    FORBIDDEN = "FORBIDDEN"
    WRONG_PASSWORD = "WRONG_PASSWORD"  # noqa: S105  a code, not a password  # nosec B105
    NOT_FOUND = "NOT_FOUND"
    TENANT_NOT_FOUND = "TENANT_NOT_FOUND"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    NOT_PUBLISHED = "NOT_PUBLISHED"
    KEY_NOT_FOUND = "KEY_NOT_FOUND"
    METHOD_NOT_ALLOWED = "METHOD_NOT_ALLOWED"
    USER_NOT_FOUND = "USER_NOT_FOUND"
    SERVICE_ACCOUNT_NOT_FOUND = "SERVICE_ACCOUNT_NOT_FOUND"
    HOST_NOT_FOUND = "HOST_NOT_FOUND"
    HOST_IN_USE = "HOST_IN_USE"
    TENANT_EXISTS = "TENANT_EXISTS"
    TENANT_IN_USE = "TENANT_IN_USE"
    USER_EXISTS = "USER_EXISTS"
    LAST_ADMIN = "LAST_ADMIN"
    MODEL_EXISTS = "MODEL_EXISTS"
    MODEL_NOT_READY = "MODEL_NOT_READY"
    MODEL_PUBLISHED = "MODEL_PUBLISHED"
    AMBIGUOUS_MODEL = "AMBIGUOUS_MODEL"
    ALREADY_PUBLISHED = "ALREADY_PUBLISHED"
    PATH_TAKEN = "PATH_TAKEN"
    NAME_TAKEN = "NAME_TAKEN"
    QUOTA_REACHED = "QUOTA_REACHED"
    PUBLICATION_KEY = "PUBLICATION_KEY"
    CONFLICT = "CONFLICT"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    BODY_TOO_LARGE = "BODY_TOO_LARGE"
    BODY_TOO_SLOW = "BODY_TOO_SLOW"
    UNSUPPORTED_MEDIA_TYPE = "UNSUPPORTED_MEDIA_TYPE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"
    INTERNAL = "INTERNAL"
    CORRUPT_RECORD = "CORRUPT_RECORD"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    OVERLOADED = "OVERLOADED"


@dataclass(frozen=True, slots=True)
class Meaning:
    """A code's HTTP status and its title for people."""

    status: HTTPStatus
    title: str


_MEANINGS: Final[Mapping[Code, Meaning]] = {
    Code.MALFORMED_JSON: Meaning(HTTPStatus.BAD_REQUEST, "The body is not JSON"),
    Code.INVALID_REQUEST: Meaning(HTTPStatus.BAD_REQUEST, "The request is not valid"),
    Code.INVALID_CONFIG: Meaning(HTTPStatus.BAD_REQUEST, "The configuration is not valid"),
    Code.INVALID_TENANT: Meaning(HTTPStatus.BAD_REQUEST, "The tenant is not valid"),
    Code.UNAUTHENTICATED: Meaning(HTTPStatus.UNAUTHORIZED, "Log in first"),
    Code.LOGIN_FAILED: Meaning(HTTPStatus.UNAUTHORIZED, "Wrong user name or password"),
    Code.FORBIDDEN: Meaning(HTTPStatus.FORBIDDEN, "Not allowed"),
    Code.WRONG_PASSWORD: Meaning(HTTPStatus.FORBIDDEN, "The current password is another"),
    Code.NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "No such resource"),
    Code.TENANT_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "Tenant not found"),
    Code.MODEL_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "Model not found"),
    Code.NOT_PUBLISHED: Meaning(HTTPStatus.NOT_FOUND, "Model is not published"),
    Code.KEY_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "Key not found"),
    Code.METHOD_NOT_ALLOWED: Meaning(HTTPStatus.METHOD_NOT_ALLOWED, "Method not allowed"),
    Code.USER_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "User not found"),
    Code.SERVICE_ACCOUNT_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "Service account not found"),
    Code.HOST_NOT_FOUND: Meaning(HTTPStatus.NOT_FOUND, "Host not found"),
    Code.HOST_IN_USE: Meaning(HTTPStatus.CONFLICT, "The host's table can be read"),
    Code.TENANT_EXISTS: Meaning(HTTPStatus.CONFLICT, "Tenant exists already"),
    Code.TENANT_IN_USE: Meaning(HTTPStatus.CONFLICT, "The tenant still has something"),
    Code.USER_EXISTS: Meaning(HTTPStatus.CONFLICT, "User exists already"),
    Code.LAST_ADMIN: Meaning(HTTPStatus.CONFLICT, "The last admin must stay"),
    Code.MODEL_EXISTS: Meaning(HTTPStatus.CONFLICT, "Model exists already"),
    Code.MODEL_NOT_READY: Meaning(HTTPStatus.CONFLICT, "Model is not ready"),
    Code.MODEL_PUBLISHED: Meaning(HTTPStatus.CONFLICT, "Model is published"),
    Code.AMBIGUOUS_MODEL: Meaning(HTTPStatus.CONFLICT, "Several tenants have a model of this name"),
    Code.ALREADY_PUBLISHED: Meaning(HTTPStatus.CONFLICT, "Model is already published"),
    Code.PATH_TAKEN: Meaning(HTTPStatus.CONFLICT, "The path is taken"),
    Code.NAME_TAKEN: Meaning(HTTPStatus.CONFLICT, "The name is taken"),
    Code.QUOTA_REACHED: Meaning(HTTPStatus.CONFLICT, "The tenant has as many as it may have"),
    Code.PUBLICATION_KEY: Meaning(HTTPStatus.CONFLICT, "The key belongs to a publication"),
    Code.CONFLICT: Meaning(HTTPStatus.CONFLICT, "Changed by someone else meanwhile"),
    Code.PRECONDITION_FAILED: Meaning(HTTPStatus.PRECONDITION_FAILED, "Changed since it was read"),
    Code.BODY_TOO_LARGE: Meaning(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large"),
    Code.BODY_TOO_SLOW: Meaning(HTTPStatus.REQUEST_TIMEOUT, "The body did not come in time"),
    Code.UNSUPPORTED_MEDIA_TYPE: Meaning(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be application/json"),
    Code.TOO_MANY_REQUESTS: Meaning(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    Code.INTERNAL: Meaning(HTTPStatus.INTERNAL_SERVER_ERROR, "A fault of this server"),
    Code.CORRUPT_RECORD: Meaning(HTTPStatus.INTERNAL_SERVER_ERROR, "A stored record cannot be read"),
    Code.OUTCOME_UNKNOWN: Meaning(HTTPStatus.SERVICE_UNAVAILABLE, "Whether it was done is not known"),
    Code.STORE_UNAVAILABLE: Meaning(HTTPStatus.SERVICE_UNAVAILABLE, "The store cannot be reached"),
    Code.OVERLOADED: Meaning(HTTPStatus.SERVICE_UNAVAILABLE, "Too busy"),
}


def meaning(code: Code) -> Meaning:
    """Status and title of a code."""
    return _MEANINGS[code]


class Rule(enum.StrEnum):
    """The kinds of rules an input can break."""

    REQUIRED = "required"
    UNKNOWN_FIELD = "unknown_field"
    TYPE = "type"
    RANGE = "range"
    LENGTH = "length"
    FORMAT = "format"
    CHOICE = "choice"
    EXISTS = "exists"
    FIXED = "fixed"
    RESERVED = "reserved"
    NOT_ENABLED = "not_enabled"
    CROSS_CELL = "cross_cell"


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken rule of an input: ``Fault("config.externalPath", Rule.FORMAT, "must start with /")``."""

    field: str  # dotted, as sent: config.rateLimiting.burstLimit
    rule: Rule
    message: str

    @property
    def about_tenants(self) -> bool:
        """Whether the fault is that a named tenant is not one."""
        return self.rule is Rule.EXISTS and "tenant" in self.field.lower()


@dataclass(eq=False)
class Problem(Exception):  # noqa: N818  RFC 9457 calls it a problem
    """Ends a request with a problem document."""

    code: Code
    detail: str = ""
    faults: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> HTTPStatus:
        """The HTTP status of the answer."""
        return meaning(self.code).status

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        told = meaning(self.code)
        body: dict[str, Any] = {
            "type": f"urn:tollkeeper:problem:{self.code.value}",
            "title": told.title,
            "status": told.status.value,
            "detail": self.detail or told.title,
            "code": self.code.value,
        }
        if self.faults:
            shown = self.faults[:MAX_FAULTS]
            body["errors"] = [{"field": f.field, "rule": f.rule.value, "message": f.message} for f in shown]
        return body


def invalid(code: Code, faults: Sequence[Fault]) -> Problem:
    """Refuse an input for all its faults at once; faults that are only about tenants make it ``INVALID_TENANT``."""
    if all(fault.about_tenants for fault in faults):
        code = Code.INVALID_TENANT
    return Problem(code, "; ".join(f"{fault.field}: {fault.message}" for fault in faults[:MAX_FAULTS]), faults)


def too_many_requests(retry_after_ms: int) -> Problem:
    """Refuse for now; ``Retry-After`` is the ceiling in seconds."""
    seconds = -(-retry_after_ms // 1000)
    return Problem(Code.TOO_MANY_REQUESTS, f"retry in {seconds} s", headers={"Retry-After": str(seconds)})
