"""How a gate learns with whom it shares the stores: its heartbeat, with a link to each store."""

from __future__ import annotations

from collections.abc import Callable

from gate.formats import WrittenFormat
from gate.heartbeat import Heartbeat, OldTraces
from gate.links import StoreLinks, StoreUrls
from ratelimit.names import old_rest_key


def heartbeat_of(
    links: StoreLinks,
    stores: StoreUrls,
    formats: WrittenFormat,
    *,
    least: int,
    on_error: Callable[[Exception], None],
    on_fault: Callable[[], object],
    now_ms: Callable[[], float],
) -> Heartbeat:
    """Make it, not started; gates of the release before settle in every cell of a Cluster, and else in cell 0."""
    settled_in = range(stores.cells) if stores.budgets_are_a_cluster else (0,)
    keys = [old_rest_key(str(cell)) for cell in settled_in]
    return Heartbeat(
        make=links.new_records_link,
        traces=OldTraces(links.new_budgets_link, keys, now_ms),
        formats=formats,
        least=least,
        on_error=on_error,
        on_fault=on_fault,
        now_ms=now_ms,
    )
