"""From the bytes of a body to a checked model and the list of all its faults. Pure: knows no request.

A body with faults is read as far as it is good, so that rules which need the catalog can name their faults in the
same answer.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NoReturn, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from admin.http.nearest import MAX_NAME_SHOWN, nearest
from admin.http.problems import MAX_FAULTS, Code, Fault, Problem, Rule
from admin.schemas.fields import Input

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 2_000
"""Names and values in one body: far above any good one, and so few that naming their faults holds nobody up."""

T = TypeVar("T", bound=Input)
Location = tuple[int | str, ...]

_RULES: Final[Mapping[str, Rule]] = {
    "missing": Rule.REQUIRED,
    "extra_forbidden": Rule.UNKNOWN_FIELD,
    "greater_than_equal": Rule.RANGE,
    "less_than_equal": Rule.RANGE,
    "too_long": Rule.LENGTH,
    "string_too_long": Rule.LENGTH,
    "string_too_short": Rule.LENGTH,
    "too_short": Rule.LENGTH,
    "enum": Rule.CHOICE,
} | {rule.value: rule for rule in Rule}
"""Pydantic's names of broken rules, and ours; any other is about the type."""


@dataclass(frozen=True, slots=True)
class Body(Generic[T]):
    """A body as far as it is good."""

    model: T | None  # None: nothing can be read of it
    faults: tuple[Fault, ...]


def read_body(kind: type[T], raw: bytes) -> Body[T]:
    """Check ``raw`` against ``kind``; raises ``Problem`` where it is not JSON at all."""
    document = _parse(raw)
    try:
        return Body(kind.model_validate_json(raw), ())
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        told = [one for one in errors if one["type"] != "too_short" or not _has_faults_inside(one, errors)]
        faults = tuple(_fault(kind, one) for one in told[: MAX_FAULTS + 1])
        return Body(_readable_part(kind, document, errors), faults)


def _parse(raw: bytes) -> Any:
    """Parse strictly: UTF-8, no key twice, no NaN, bounded depth and number of values."""
    if not raw.strip():
        raise Problem(Code.MALFORMED_JSON, "the body is empty")
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
        _check_shape(document)
    except json.JSONDecodeError as error:
        raise Problem(Code.MALFORMED_JSON, f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise Problem(Code.MALFORMED_JSON, "must be UTF-8") from None
    except RecursionError:
        raise Problem(Code.MALFORMED_JSON, "is nested too deeply") from None
    except ValueError as error:  # ours, and numbers of thousands of digits
        known = isinstance(error, _StrictnessError)
        raise Problem(Code.MALFORMED_JSON, str(error) if known else "holds a number that is too long") from None
    return document


class _StrictnessError(ValueError):
    """JSON that other readers understand differently."""


def _check_shape(document: Any) -> None:
    """Refuse what is too deep or too much; looks at no more than ``MAX_VALUES``."""
    left, values = [(document, 1)], 0
    while left:
        value, depth = left.pop()
        values += 1
        if depth > MAX_DEPTH:
            raise _StrictnessError(f"is nested too deeply: at most {MAX_DEPTH} levels")
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if values + len(inner) > MAX_VALUES:
            raise _StrictnessError(f"holds too much: at most {MAX_VALUES} values")
        left += [(one, depth + 1) for one in inner]


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _StrictnessError("an object has the same name twice")
    return found


def _refuse_constant(_name: str) -> NoReturn:
    raise _StrictnessError("NaN and Infinity are not JSON")


def _has_faults_inside(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether an array is short only because values in it are wrong, which pydantic leaves out before it counts."""
    depth = len(error["loc"])
    return any(len(one["loc"]) > depth and one["loc"][:depth] == error["loc"] for one in errors)


def _fault(kind: type[Input], error: ErrorDetails) -> Fault:
    rule = _RULES.get(error["type"], Rule.TYPE)
    return Fault(dotted(error["loc"]), rule, _message(kind, rule, error))


def _message(kind: type[Input], rule: Rule, error: ErrorDetails) -> str:
    if rule is Rule.UNKNOWN_FIELD:
        return "is not a field" + nearest(str(error["loc"][-1]), _names_beside(kind, error["loc"]))
    if rule is Rule.REQUIRED:
        return "is required"
    if error["type"].startswith(("datetime_", "timezone_")):
        return "must be a time with its zone, as RFC 3339 has it: 2027-01-31T00:00:00Z"
    if error["type"] == "json_invalid":
        return "must be text of whole Unicode characters"
    if rule is Rule.LENGTH and (bound := _length(error)):
        return bound
    return error["msg"].replace("Input should be", "must be").replace("Input should have", "must have")


def _length(error: ErrorDetails) -> str:
    """Pydantic's word for a wrong length, in ours; "" for one of our own, which says it itself."""
    bounds = error.get("ctx", {})
    what = "character" if error["type"].startswith("string_") or bounds.get("field_type") == "Value" else "item"
    for word, name in (("at least", "min_length"), ("at most", "max_length")):
        if name in bounds:
            return f"must have {word} {bounds[name]} {what}{'' if bounds[name] == 1 else 's'}"
    return ""


def _names_beside(kind: type[BaseModel], location: Location) -> list[str]:
    """Names of the fields that the object around ``location`` may have."""
    for step in location[:-1]:
        inner = _model_at(kind, str(step))
        if inner is None:
            return []
        kind = inner
    return [info.alias or name for name, info in kind.model_fields.items()]


def _model_at(kind: type[BaseModel], alias: str) -> type[BaseModel] | None:
    for info in kind.model_fields.values():
        if info.alias == alias:
            found = [part for part in (info.annotation, *get_args(info.annotation)) if _is_model(part)]
            return found[0] if found else None
    return None


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def dotted(location: Location) -> str:
    """``("config", "authentication", "allowedTenants", 1)`` is ``config.authentication.allowedTenants[1]``."""
    text = ""
    for step in location:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + step[:MAX_NAME_SHOWN]
    return text or "body"


def _readable_part(kind: type[T], document: Any, errors: Sequence[ErrorDetails]) -> T | None:
    """Read what is left of a document without the fields that have faults."""
    rest = copy.deepcopy(document)
    for one in errors:
        _drop(rest, one["loc"])
    try:
        return kind.model_validate_json(json.dumps(rest))
    except ValidationError:
        return None


def _drop(document: Any, location: Location) -> None:
    """Remove the field at ``location``; a faulty element of a list takes the whole list with it."""
    names = []
    for step in location:
        if isinstance(step, int):
            break
        names.append(step)
    *outer, last = names or [""]
    for name in outer:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, dict):
        document.pop(last, None)
