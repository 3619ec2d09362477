"""One call of the API as handlers see it: free of HTTP's library, with the caller in it from the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel

from admin.http import preconditions
from admin.http.bodies import Body, read_body
from admin.http.problems import Code, invalid
from admin.people.callers import Caller
from admin.schemas.fields import Input
from admin.services import Services
from catalog.changes import Audit

T = TypeVar("T", bound=Input)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """What was asked, by whom."""

    services: Services
    caller: Caller
    path: Mapping[str, str]  # the route's variables: {"m": "my-model"}
    query: Mapping[str, str]  # checked: only what the route knows
    raw_body: bytes
    address: str  # of the client
    request_id: str
    if_match: str = ""  # the header as it was sent; "" without it

    def body(self, kind: type[T]) -> T:
        """Return the whole body; raises ``Problem`` naming every fault."""
        body = self.partial_body(kind)
        if body.faults or body.model is None:
            raise invalid(Code.INVALID_REQUEST, body.faults)
        return body.model

    def partial_body(self, kind: type[T]) -> Body[T]:
        """Return the body as far as it is good, and its faults; raises ``Problem`` where it is no JSON."""
        return read_body(kind, self.raw_body)

    def require_match(self, *records: preconditions.Tagged) -> None:
        """Raise ``Problem`` PRECONDITION_FAILED where the call was meant for another state of what it changes."""
        preconditions.require_match(self.if_match, *records)

    def audit(self, action: str, target: str, tenant: str, detail: Mapping[str, str]) -> Audit:
        """Describe an act of this call: whose it is, and what the audit stream is to say."""
        return Audit(self.caller.acting, action, target, tenant, self.request_id, detail)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers."""

    status: int
    body: BaseModel | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
