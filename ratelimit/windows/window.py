"""The mathematics of a trailing window cut into buckets. Pure: knows no store, no limit and no subject.

A window of ``n`` buckets counts the current bucket and the ``n`` before it: a unit is held for at least the
window and at most one bucket longer. Counting only ``n`` buckets would let almost twice the limit through
where two buckets meet.
"""

from __future__ import annotations

from ratelimit.windows.budgets import WindowShape


def bucket_of(now_ms: int, shape: WindowShape) -> int:
    """The bucket that is current at ``now_ms``."""
    return now_ms // shape.bucket_ms


def release_ms(bucket: int, shape: WindowShape) -> int:
    """The instant from which units counted in ``bucket`` are free again."""
    return (bucket + shape.n + 1) * shape.bucket_ms
