"""Pages of models as Anthropic's API tells them: ``GET /v1/models`` and ``GET /v1/models/NAME``. Pure.

The order of a list is the same for every page of it. What it holds may change in between, as what a key may call does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from extauth.reasons import Reason
from extauth.request.body import BodyFault

MOST: Final = 1_000
"""On one page, as Anthropic's API has it."""
USUALLY: Final = 20

_AFTER: Final = "after_id"
_BEFORE: Final = "before_id"
_LIMIT: Final = "limit"
MOST_FIELDS: Final = 100
"""Of a query that is looked at."""


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is asked for."""

    limit: int = USUALLY
    after: str | None = None  # the model behind which it begins
    before: str | None = None  # the one before which it ends


def page_of(query: str) -> Page | BodyFault:
    """Read a query: ``limit=50&after_id=llm``; what it holds besides is no matter here."""
    try:
        said = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return _fault("query", f"The query must have at most {MOST_FIELDS} fields")
    values = {name: [value for each, value in said if each == name] for name in (_AFTER, _BEFORE, _LIMIT)}
    for name, given in values.items():
        if len(given) > 1:
            return _fault(name, f"'{name}' must be there once")
    after, before = (next(iter(values[name]), None) for name in (_AFTER, _BEFORE))
    if after is not None and before is not None:
        return _fault(_BEFORE, f"'{_BEFORE}' and '{_AFTER}' must not be there together")
    limit = _limit(next(iter(values[_LIMIT]), str(USUALLY)))
    return limit if isinstance(limit, BodyFault) else Page(limit, after, before)


def _limit(text: str) -> int | BodyFault:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MOST))
    return int(text) if is_number and 1 <= int(text) <= MOST else _fault(_LIMIT, f"'{_LIMIT}' must be 1 to {MOST}")


def _fault(param: str, rule: str) -> BodyFault:
    return BodyFault(Reason.FIELD_INVALID, f"{rule}.", param, f"invalid_{param}")


def paged(page: Page, names: Sequence[str]) -> tuple[Sequence[str], bool] | BodyFault:
    """Cut a page out of a list; with whether there is more in the direction in which it is read."""
    begin, end = 0, len(names)
    for field, name in ((_AFTER, page.after), (_BEFORE, page.before)):
        if name is not None and name not in names:
            return _fault(field, f"'{field}' must name a model of this list")
    if page.before is not None:
        end = names.index(page.before)
        begin = max(0, end - page.limit)
        return names[begin:end], begin > 0
    if page.after is not None:
        begin = names.index(page.after) + 1
    return names[begin : begin + page.limit], begin + page.limit < end
