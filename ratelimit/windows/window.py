"""The mathematics of a trailing window cut into buckets. Pure: knows no store, no limit and no subject.

A window of ``n`` buckets counts the current bucket and the ``n`` before it: a unit is held for at least the
window and at most one bucket longer. Counting only ``n`` buckets would let almost twice the limit through
where two buckets meet. A calendar period (UTC) is one bucket and counts none before it: all is free at its end.
"""

from __future__ import annotations

import datetime as dt
from typing import Final

from ratelimit.windows.budgets import Window, WindowShape

_MONTH: Final = Window.UTC_MONTH.value.span
_DAY_MS: Final = 86_400_000
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


def bucket_of(now_ms: int, shape: WindowShape) -> int:
    """The bucket that is current at ``now_ms``."""
    if shape.span is not _MONTH:
        return now_ms // shape.bucket_ms
    day = dt.date.fromordinal(_EPOCH + now_ms // _DAY_MS)
    return (day.year - 1970) * 12 + day.month - 1


def release_ms(bucket: int, shape: WindowShape) -> int:
    """The instant from which units counted in ``bucket`` are free again."""
    if shape.span is not _MONTH:
        return (bucket + shape.n + 1) * shape.bucket_ms
    year, month = divmod(bucket + 1, 12)
    return (dt.date(1970 + year, month + 1, 1).toordinal() - _EPOCH) * _DAY_MS
