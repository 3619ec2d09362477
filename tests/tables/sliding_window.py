"""The specification of the sliding windows, as rows. The model and the script both run every table.

A row: at ``now`` (milliseconds), a call of ``cost`` under ``limits`` is ``allowed``, leaves ``remaining`` (of each
budget, in order) and, where refused, fits again at ``retry`` (0: allowed; -1: never).
The second is 20 buckets of 50 ms, the minute 60 of 1 s, the hour 60 of 1 min; a unit is held for the window and
for what is left of its bucket.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ratelimit.windows.budgets import Window

Limits = tuple[tuple[str, Window, int], ...]  # subject, window, most units

BURST, MINUTE, HOUR, DAY = Window.SECOND, Window.MINUTE, Window.HOUR, Window.DAY
NEVER: Final = -1


@dataclass(frozen=True, slots=True)
class Row:
    """One call and what it must be told."""

    now: int
    cost: int
    limits: Limits
    allowed: bool
    remaining: tuple[int, ...]
    retry: int = 0


def _one(window: Window, limit: int, *rows: tuple[int, int, bool, int, int]) -> tuple[Row, ...]:
    """Rows under one limit of one subject: (now, cost, allowed, remaining, retry)."""
    limits: Limits = (("p:1", window, limit),)
    return tuple(Row(now, cost, limits, allowed, (left,), retry) for now, cost, allowed, left, retry in rows)


TABLES: Final[dict[str, tuple[Row, ...]]] = {
    "a burst fills and empties": _one(
        BURST,
        3,
        (10_000, 1, True, 2, 0),
        (10_010, 1, True, 1, 0),
        (10_990, 1, True, 0, 0),
        (10_999, 1, False, 0, 11_050),
        (11_000, 1, False, 0, 11_050),  # a second later the first unit still counts: its bucket is not over
        (11_049, 1, False, 0, 11_050),
        (11_050, 1, True, 1, 0),  # both units of the bucket 10_000..10_049 are free at once
        (11_050, 1, True, 0, 0),
        (11_050, 1, False, 0, 12_000),
    ),
    "a burst across a border": _one(
        BURST,
        2,
        (10_049, 2, True, 0, 0),  # the last millisecond of its bucket
        (10_050, 1, False, 0, 11_050),
        (11_049, 1, False, 0, 11_050),  # exactly one second later: the trailing second still holds 2
        (11_050, 2, True, 0, 0),
        (11_051, 1, False, 0, 12_100),
    ),
    "a minute": _one(
        MINUTE,
        100,
        (60_000, 60, True, 40, 0),
        (60_999, 40, True, 0, 0),
        (61_000, 1, False, 0, 121_000),
        (120_999, 1, False, 0, 121_000),
        (121_000, 100, True, 0, 0),
    ),
    "an hour": _one(
        HOUR,
        5_000,
        (3_600_000, 4_999, True, 1, 0),
        (3_659_999, 1, True, 0, 0),
        (3_660_000, 1, False, 0, 7_260_000),
        (7_259_999, 5_000, False, 0, 7_260_000),
        (7_260_000, 5_000, True, 0, 0),
    ),
    "a day": _one(
        DAY,
        2,
        (86_400_000, 1, True, 1, 0),
        (88_200_000, 1, True, 0, 0),
        (88_200_001, 1, False, 0, 174_600_000),
        (174_599_999, 1, False, 0, 174_600_000),
        (174_600_000, 1, True, 0, 0),
        (174_600_001, 1, False, 0, 176_400_000),
    ),
    "the halves of one bucket of a day": _one(
        DAY,
        2,
        (86_400_000, 1, True, 1, 0),
        (88_199_999, 1, True, 0, 0),
        (174_599_999, 1, False, 0, 174_600_000),
        (174_600_000, 2, True, 0, 0),
    ),
    "a week": _one(
        Window.WEEK,
        2,
        (604_800_000, 2, True, 0, 0),
        (1_209_600_000, 1, False, 0, 1_216_800_000),  # a week later its bucket of two hours is not over
        (1_216_799_999, 1, False, 0, 1_216_800_000),
        (1_216_800_000, 2, True, 0, 0),
    ),
    "a calendar day is whole at midnight": _one(
        Window.UTC_DAY,
        3,
        (86_400_000, 1, True, 2, 0),
        (172_700_000, 2, True, 0, 0),
        (172_799_999, 1, False, 0, 172_800_000),
        (172_800_000, 3, True, 0, 0),
        (172_799_998, 1, False, 0, 259_200_000),  # a clock set back into the day before frees nothing
        (172_800_000, 4, False, 0, NEVER),
    ),
    "a calendar month that has 29 days": _one(
        Window.UTC_MONTH,
        2,
        (1_832_972_400_000, 2, True, 0, 0),  # the end of January 2028, and its last millisecond
        (1_832_975_999_999, 1, False, 0, 1_832_976_000_000),
        (1_832_976_000_000, 2, True, 0, 0),
        (1_835_395_200_000, 1, False, 0, 1_835_481_600_000),  # 29 February
        (1_835_481_599_999, 1, False, 0, 1_835_481_600_000),
        (1_835_481_600_000, 2, True, 0, 0),
    ),
    "a February of a century": _one(
        Window.UTC_MONTH,
        1,
        (4_105_123_200_000, 1, True, 0, 0),  # February 2100 has 28 days
        (4_107_542_399_999, 1, False, 0, 4_107_542_400_000),
        (4_107_542_400_000, 1, True, 0, 0),
    ),
    "a year's end": _one(
        Window.UTC_MONTH,
        1,
        (1_830_211_200_000, 1, True, 0, 0),
        (1_830_297_599_999, 1, False, 0, 1_830_297_600_000),
        (1_830_297_600_000, 1, True, 0, 0),
        (1_832_975_999_999, 1, False, 0, 1_832_976_000_000),
    ),
    "the first months there are": _one(
        Window.UTC_MONTH,
        1,
        (0, 1, True, 0, 0),
        (2_678_399_999, 1, False, 0, 2_678_400_000),
        (2_678_400_000, 1, True, 0, 0),
        (2_678_400_000, 1, False, 0, 5_097_600_000),
    ),
    "costs above one": _one(
        BURST,
        10,
        (10_000, 4, True, 6, 0),
        (10_100, 4, True, 2, 0),
        (10_200, 3, False, 2, 11_050),  # 3 fit once the first 4 are free
        (10_200, 7, False, 2, 11_150),  # 7 need both to be free
        (10_200, 2, True, 0, 0),
        (10_200, 10, False, 0, 11_250),
        (10_200, 11, False, 0, NEVER),
    ),
    "a limit of one": _one(
        BURST,
        1,
        (10_025, 1, True, 0, 0),
        (10_025, 1, False, 0, 11_050),
        (10_025, 2, False, 0, NEVER),
    ),
    "the largest limit": _one(
        MINUTE,
        10**9,
        (60_000, 10**9 - 1, True, 1, 0),
        (60_000, 2, False, 1, 121_000),
        (61_000, 1, True, 0, 0),
    ),
    "as much as a budget can have": _one(
        Window.WEEK,  # which is kept in format 2 alone: format 1 has no room for it
        10**12,
        (604_800_000, 10**12 - 1, True, 1, 0),
        (604_800_000, 2, False, 1, 1_216_800_000),
        (612_000_000, 1, True, 0, 0),
        (612_000_001, 1, False, 0, 1_216_800_000),
        (612_000_001, 10**12, False, 0, 1_224_000_000),
        (1_216_800_000, 10**12 - 1, True, 0, 0),
    ),
    "a clock set back frees nothing": _one(
        BURST,
        2,
        (10_000, 1, True, 1, 0),
        (8_000, 1, True, 0, 0),  # counted in the newest bucket, 10_000
        (8_000, 1, False, 0, 11_050),
        (9_049, 1, False, 0, 11_050),
        (11_049, 1, False, 0, 11_050),
        (11_050, 2, True, 0, 0),
    ),
    "a clock set far ahead and back": _one(
        BURST,
        2,
        (10_000, 1, True, 1, 0),
        (99_000, 2, True, 0, 0),
        (10_100, 1, False, 0, 100_050),
        (100_049, 1, False, 0, 100_050),
        (100_050, 1, True, 1, 0),
    ),
    "a look ahead that was refused is forgotten": _one(
        BURST,
        2,
        (10_000, 2, True, 0, 0),
        (90_000, 3, False, 2, NEVER),
        (10_100, 1, False, 0, 11_050),
    ),
    "an idle time empties all": _one(
        MINUTE,
        2,
        (60_000, 2, True, 0, 0),
        (6_000_000, 2, True, 0, 0),
        (6_000_000, 1, False, 0, 6_061_000),
    ),
    "a limit raised counts at once": (
        Row(60_000, 5, (("p:1", MINUTE, 5),), True, (0,)),
        Row(60_001, 1, (("p:1", MINUTE, 5),), False, (0,), 121_000),
        Row(60_002, 1, (("p:1", MINUTE, 8),), True, (2,)),
        Row(60_003, 3, (("p:1", MINUTE, 8),), False, (2,), 121_000),
    ),
    "a limit lowered counts at once, what was counted stays": (
        Row(60_000, 3, (("p:1", MINUTE, 8),), True, (5,)),
        Row(62_000, 4, (("p:1", MINUTE, 8),), True, (1,)),
        Row(62_001, 1, (("p:1", MINUTE, 5),), False, (0,), 121_000),  # 7 of 5: needs the 3 of 60_000 back
        Row(62_001, 2, (("p:1", MINUTE, 5),), False, (0,), 123_000),  # 7 of 5: needs the 4 of 62_000 too
        Row(121_000, 1, (("p:1", MINUTE, 5),), True, (0,)),
    ),
    "unlimited is not counted": (
        Row(60_000, 7, (), True, ()),
        Row(60_000, 10**9, (), True, ()),
        Row(60_001, 5, (("p:1", MINUTE, 5),), True, (0,)),
    ),
    "a limit taken away is forgotten at the next write": (
        Row(60_000, 2, (("p:1", BURST, 9), ("p:1", MINUTE, 2)), True, (7, 0)),
        Row(60_001, 2, (("p:1", BURST, 9),), True, (5,)),
        Row(60_002, 2, (("p:1", BURST, 9), ("p:1", MINUTE, 2)), True, (3, 0)),  # counts from when it was set
    ),
    "a limit taken away and put back before any write": (
        Row(60_000, 9, (("p:1", BURST, 9), ("p:1", MINUTE, 9)), True, (0, 0)),
        Row(60_001, 1, (("p:1", BURST, 9),), False, (0,), 61_050),
        Row(60_002, 1, (("p:1", BURST, 9), ("p:1", MINUTE, 9)), False, (0, 0), 121_000),
    ),
    "a window added starts empty": (
        Row(60_000, 5, (("p:1", BURST, 9),), True, (4,)),
        Row(60_001, 1, (("p:1", BURST, 9), ("p:1", HOUR, 1)), True, (3, 0)),
        Row(60_002, 1, (("p:1", BURST, 9), ("p:1", HOUR, 1)), False, (3, 0), 3_720_000),
    ),
    "several windows: the slowest says when": (
        Row(3_600_000, 2, (("p:1", BURST, 2), ("p:1", MINUTE, 4), ("p:1", HOUR, 9)), True, (0, 2, 7)),
        Row(3_600_001, 1, (("p:1", BURST, 2), ("p:1", MINUTE, 4), ("p:1", HOUR, 9)), False, (0, 2, 7), 3_601_050),
        Row(3_602_000, 2, (("p:1", BURST, 2), ("p:1", MINUTE, 4), ("p:1", HOUR, 9)), True, (0, 0, 5)),
        Row(3_602_001, 1, (("p:1", BURST, 2), ("p:1", MINUTE, 4), ("p:1", HOUR, 9)), False, (0, 0, 5), 3_661_000),
        Row(3_602_001, 5, (("p:1", BURST, 2), ("p:1", MINUTE, 4), ("p:1", HOUR, 9)), False, (0, 0, 5), NEVER),
    ),
    "several subjects: all or none": (
        Row(60_000, 1, (("k:1", MINUTE, 3), ("t:1", MINUTE, 2), ("p:1", MINUTE, 9)), True, (2, 1, 8)),
        Row(60_000, 1, (("k:2", MINUTE, 3), ("t:1", MINUTE, 2), ("p:1", MINUTE, 9)), True, (2, 0, 7)),
        Row(60_000, 1, (("k:1", MINUTE, 3), ("t:1", MINUTE, 2), ("p:1", MINUTE, 9)), False, (2, 0, 7), 121_000),
        # the refusal burnt nothing of the key's and the publication's budgets
        Row(60_000, 2, (("k:1", MINUTE, 3), ("p:1", MINUTE, 9)), True, (0, 5)),
        Row(60_000, 3, (("k:2", MINUTE, 3), ("t:1", MINUTE, 2), ("p:1", MINUTE, 9)), False, (2, 0, 5), NEVER),
    ),
    "several subjects refuse: the latest says when": (
        Row(60_000, 1, (("k:1", MINUTE, 1),), True, (0,)),
        Row(65_000, 1, (("p:1", MINUTE, 1),), True, (0,)),
        Row(65_000, 1, (("k:1", MINUTE, 1), ("p:1", MINUTE, 1)), False, (0, 0), 126_000),
        Row(65_000, 1, (("p:1", MINUTE, 1), ("k:1", MINUTE, 1)), False, (0, 0), 126_000),
        Row(125_999, 1, (("k:1", MINUTE, 1), ("p:1", MINUTE, 1)), False, (1, 0), 126_000),
        Row(126_000, 1, (("k:1", MINUTE, 1), ("p:1", MINUTE, 1)), True, (0, 0)),
    ),
}
