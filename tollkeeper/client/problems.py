"""What people read of an ``ApiError``: what is wrong, by the option that gave it, and the next command. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

from tollkeeper.client.calling import ApiError

NEXT: Final[Mapping[str, str]] = {
    "UNAUTHENTICATED": "tollkeeper login URL",
    "TENANT_NOT_FOUND": "tollkeeper tenants list",
    "INVALID_TENANT": "tollkeeper tenants list",
    "MODEL_NOT_FOUND": "tollkeeper models list",
    "MODEL_NOT_READY": "tollkeeper models show NAME",
    "AMBIGUOUS_MODEL": "the same with --tenant TENANT",
    "NOT_PUBLISHED": "tollkeeper publications list",
    "ALREADY_PUBLISHED": "tollkeeper publications update NAME …",
    "MODEL_PUBLISHED": "tollkeeper publications delete NAME",
    "KEY_NOT_FOUND": "tollkeeper keys list (a key is named by its ID)",
    "PATH_TAKEN": "the same with another --path",
    "PUBLICATION_KEY": "tollkeeper publications delete NAME",
    "USER_NOT_FOUND": "tollkeeper users list",
    "SERVICE_ACCOUNT_NOT_FOUND": "tollkeeper service-accounts list",
    "FORBIDDEN": "tollkeeper whoami",
    "CONFLICT": "the same again",
    "OUTCOME_UNKNOWN": "look whether it was done: … show, or … list",
}
"""By the API's code: what to run next."""


IN_OUR_WORDS: Final[Mapping[str, str]] = {
    "AMBIGUOUS_MODEL": "several tenants of yours have a model of this name",
    "ALREADY_PUBLISHED": "this model is published already",
    "UNAUTHENTICATED": "the API takes this session or token no more",
}
"""By the API's code: what it says in words of HTTP."""


def sentences(error: ApiError, options: Mapping[str, str], target: str = "") -> str:
    """Return what to print.

    ``options``: by the API's name of a field, the option that gives it. ``target``: the name that was given.
    """
    lines = _faults(error, options) or [IN_OUR_WORDS.get(error.code, error.detail)]
    known = ", ".join(filter(None, (error.code, f"request {error.request_id}" if error.request_id else "")))
    if known:
        lines[-1] += f" ({known})"
    if error.retry_after_s is not None:
        lines.append(f"try again in {error.retry_after_s} s")
    if after := NEXT.get(error.code):
        lines.append(f"next: {after.replace('NAME', shlex.quote(target)) if target else after}")
    return "\n".join(lines)


def _faults(error: ApiError, options: Mapping[str, str]) -> list[str]:
    return [f"{_named(fault.field, options)}{fault.message}" for fault in error.faults]


def _named(field: str, options: Mapping[str, str]) -> str:
    if not field:
        return ""
    known = options.get(field) or options.get(_without_place(field))
    return f"{known}: " if known else f"{field}: "


def _without_place(field: str) -> str:
    """``publications.2`` and ``publications[2]`` are of ``publications``."""
    head, dot, last = field.rpartition(".")
    if dot and last.isdecimal():
        return head
    return field.partition("[")[0]
