"""The limits that an admitted call's answer shows, as bytes: prepared pieces with the call's own numbers between them.

Says the same as ``answers.limit_headers``, which is the plain form of it: what is shown of which budget, and under
which name, follows from a charge's budgets and the API that is spoken, and is worked out once. Pure.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

from extauth.answers.answers import SHOWN
from extauth.answers.wire import Slot, field, header, header_slot
from extauth.dialects.anthropic import limit_names, whole_at
from ratelimit.windows.budgets import Budget, Charge, planned

OK_RESPONSE: Final = 3
"""CheckResponse.ok_response."""
_TO_CALLER: Final = 6
"""OkHttpResponse.response_headers_to_add."""
MAX_SHOWN: Final = 4_096
"""Ways of limits kept ready: all keys, tenants and publications of equal limits share one, some 3 KiB each."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One budget that is shown."""

    window_s: int
    counts_tokens: bool
    of_limit: bytes  # the header that names its limit, where it is the tightest
    of_requests: bytes  # OpenAI's, likewise


class Shown:
    """What is shown of the budgets of a charge."""

    __slots__ = ("_calls", "_is_openai", "_places", "_policy", "_rows", "_text", "_tokens")

    def __init__(self, named: Sequence[tuple[int, str, Budget]], *, is_openai: bool) -> None:
        """``named``: what is shown, by the place of its numbers, with the name that it has in headers."""
        rows = self._rows = [_row(budget) for _, _, budget in named]
        self._is_openai = is_openai
        self._places = [(place, budget.limit) for place, _, budget in named]
        self._calls = _tightest_first([index for index, row in enumerate(rows) if not row.counts_tokens], rows)
        self._tokens = _tightest_first([index for index, row in enumerate(rows) if row.counts_tokens], rows)
        policy = ", ".join(
            f"{name};q={budget.limit};w={row.window_s}" for (_, name, budget), row in zip(named, rows, strict=True)
        )
        self._policy = header(_TO_CALLER, b"ratelimit-policy", policy.encode()) if named else b""
        self._text = ", ".join(f"{name};r=%d;t=%d" for _, name, _ in named).encode()

    def told(self, numbers: Sequence[int], now_ms: int) -> bytes:
        """The headers for the caller, as a field of CheckResponse; none where nothing is shown.

        ``numbers``: of each budget of the charge the units that it counts and when it is whole (``Grant.numbers``).
        """
        if not self._rows:
            return b""
        values: list[int] = []
        for place, limit in self._places:
            left, wait_ms = limit - numbers[place], numbers[place + 1] - now_ms
            values += (max(0, left), -(-wait_ms // 1000) if wait_ms > 0 else 0)
        headers = self._policy + _LIMITS.of(self._text % tuple(values))
        if self._calls:
            tightest = self._calls[0] if len(self._calls) == 1 else _tightest(self._calls, values)
            row, units, seconds = self._rows[tightest], b"%d" % values[2 * tightest], b"%d" % values[2 * tightest + 1]
            headers += row.of_limit + _REMAINING.of(units) + _RESET.of(seconds)
            if self._is_openai:
                headers += row.of_requests + _REMAINING_REQUESTS.of(units) + _RESET_REQUESTS.of(seconds)
        if self._tokens:
            tightest = self._tokens[0] if len(self._tokens) == 1 else _tightest(self._tokens, values)
            units, seconds = b"%d" % values[2 * tightest], b"%d" % values[2 * tightest + 1]
            headers += self._rows[tightest].of_limit + _REMAINING_TOKENS.of(units) + _RESET_TOKENS.of(seconds)
        return field(OK_RESPONSE, headers)


class AnthropicShown(Shown):
    """The same in the words of Anthropic's API: its own headers stand in the place of OpenAI's."""

    __slots__ = ("_named",)

    def __init__(self, named: Sequence[tuple[int, str, Budget]]) -> None:
        """``named``: as of ``Shown``."""
        super().__init__(named, is_openai=False)
        kinds = (self._calls, _REQUESTS), (self._tokens, _TOKENS)
        self._named = [([self._places[row] for row in rows], slots) for rows, slots in kinds if rows]
        self._tokens = []

    def told(self, numbers: Sequence[int], now_ms: int) -> bytes:
        """The headers for the caller, as fields of CheckResponse, which are merged."""
        headers = b""
        for places, (of_limit, of_left, of_reset) in self._named:
            left, limit, reset_ms = min(
                [(max(0, limit - numbers[place]), limit, numbers[place + 1]) for place, limit in places],
                key=itemgetter(0),
            )
            headers += of_limit.of(b"%d" % limit) + of_left.of(b"%d" % left)
            headers += of_reset.of(whole_at(reset_ms, now_ms).encode())
        return super().told(numbers, now_ms) + (field(OK_RESPONSE, headers) if headers else b"")


def _tightest_first(among: list[int], rows: list[_Row]) -> list[int]:
    """In the order in which they are told where equally much is left: the longer window first."""
    return sorted(among, key=lambda index: -rows[index].window_s)


def _tightest(among: list[int], values: list[int]) -> int:
    """The one of which least is left, the first of these where that is equal."""
    best, least = among[0], values[2 * among[0]]
    for index in among:
        if values[2 * index] < least:
            best, least = index, values[2 * index]
    return best


_LIMITS: Final = header_slot(_TO_CALLER, b"ratelimit")
_REMAINING: Final = header_slot(_TO_CALLER, b"x-ratelimit-remaining")
_RESET: Final = header_slot(_TO_CALLER, b"x-ratelimit-reset")
_REMAINING_REQUESTS: Final = header_slot(_TO_CALLER, b"x-ratelimit-remaining-requests")
_RESET_REQUESTS: Final = header_slot(_TO_CALLER, b"x-ratelimit-reset-requests", b"s")
_REMAINING_TOKENS: Final = header_slot(_TO_CALLER, b"x-ratelimit-remaining-tokens")
_RESET_TOKENS: Final = header_slot(_TO_CALLER, b"x-ratelimit-reset-tokens", b"s")


def _slots(what: str) -> tuple[Slot, Slot, Slot]:
    limit, left, reset = (header_slot(_TO_CALLER, name.encode()) for name in limit_names(what))
    return limit, left, reset


_REQUESTS: Final = _slots("requests")
_TOKENS: Final = _slots("tokens")


def _row(budget: Budget) -> _Row:
    shape, limit = budget.shape, b"%d" % budget.limit
    name = b"x-ratelimit-limit-tokens" if shape.counts_tokens else b"x-ratelimit-limit"
    return _Row(
        shape.window_ms // 1000,
        shape.counts_tokens,
        header(_TO_CALLER, name, limit),
        header(_TO_CALLER, b"x-ratelimit-limit-requests", limit),
    )


def shown_of(charge: Charge, *, is_openai: bool, is_anthropic: bool = False) -> Shown:
    """What is shown of a charge; the same object for charges of equal limits.

    ``is_anthropic``: of an openai publication, in the words of Anthropic's API.
    """
    return _shown(tuple([(subject.name[:2], subject.plan) for subject in charge.limited]), is_openai, is_anthropic)


@functools.lru_cache(maxsize=MAX_SHOWN)
def _shown(
    plans: tuple[tuple[str, bytes], ...],
    is_openai: bool,  # noqa: FBT001  cached by place
    is_anthropic: bool,  # noqa: FBT001
) -> Shown:
    """What is shown of these; by plans, which are compared as bytes, where each budget would be hashed by itself."""
    budgets = [(prefix, budget) for prefix, plan in plans for budget in planned(plan)]
    named = [
        (2 * number, SHOWN[prefix, budget.window].name, budget)
        for number, (prefix, budget) in enumerate(budgets)
        if (prefix, budget.window) in SHOWN and (is_openai or not budget.shape.counts_tokens)
    ]
    return AnthropicShown(named) if is_anthropic else Shown(named, is_openai=is_openai)
