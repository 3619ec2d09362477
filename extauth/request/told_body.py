"""A body's counts as an Envoy tells them that the release before configured: by metadata, without the body itself.

Kept for one release, so that a gate may be updated before its Envoys are; then it goes. Knows protobuf's Struct only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value

from extauth.reasons import Reason
from extauth.request.body import MAX_CHOICES, Body, BodyFault
from ratelimit.tokens.terms import MAX_TOKENS

REQUEST_NAMESPACE: Final = "tollkeeper.request"
MAX_FIELDS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
CHOICES_FIELD: Final = "n"
COUNT_FIELDS: Final = (*MAX_FIELDS, CHOICES_FIELD)
UNTOLD_BYTES: Final = 10**9
"""Stands for a body whose size the proxy did not tell: its call holds back all that any call can cost."""

_Fields = Mapping[str, Value]


def told_body(namespaces: Mapping[str, Struct], size: int) -> Body | BodyFault | None:
    """What json_to_metadata found in a body of ``size`` bytes; ``None`` where there was no JSON body."""
    if REQUEST_NAMESPACE not in namespaces:
        return None
    fields = namespaces[REQUEST_NAMESPACE].fields
    if "model" in fields and fields["model"].WhichOneof("kind") not in _NAMES:
        return BodyFault(Reason.FIELD_INVALID, "'model' must be a string.", "model", "invalid_model")
    counts = read_counts(_plain(fields))
    if isinstance(counts, BodyFault):
        return counts
    max_tokens, choices = counts
    model = fields["model"].string_value if "model" in fields else ""
    return Body(model, size if size > 0 else UNTOLD_BYTES, max_tokens, choices)


def read_counts(fields: Mapping[str, object]) -> tuple[int | None, int] | BodyFault:
    """Read the most tokens and the choices of a body; ``None`` stands for JSON's null, which says nothing."""
    given = {name: value for name in COUNT_FIELDS if (value := fields.get(name)) is not None}
    for name, value in given.items():
        least, most = (1, MAX_CHOICES) if name == CHOICES_FIELD else (0, MAX_TOKENS)
        if not _is_whole(value, least, most):
            rule = f"'{name}' must be a whole number, {least} to {most}."
            return BodyFault(Reason.FIELD_INVALID, rule, name, f"invalid_{name}")
    bounds = [_whole(given[name]) for name in MAX_FIELDS if name in given]
    return max(bounds, default=None), _whole(given.get(CHOICES_FIELD, 1))


def _plain(fields: _Fields) -> dict[str, object]:
    """The body's counts as Python values; what is no number, text or truth is told as a list, which no count is."""
    kinds = {name: (fields[name], fields[name].WhichOneof("kind")) for name in COUNT_FIELDS if name in fields}
    return {
        name: None if kind in {None, "null_value"} else [] if kind in _NESTED else getattr(value, kind)
        for name, (value, kind) in kinds.items()
    }


_NAMES: Final = frozenset({"string_value", "null_value", None})
_NESTED: Final = frozenset({"list_value", "struct_value"})


def _is_whole(value: object, least: int, most: int) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value <= most and value == int(value)


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) else 0
