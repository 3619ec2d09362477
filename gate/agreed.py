"""Before a gate starts, and when it reads a cell, its number of cells is held against what the stores agreed on."""

from __future__ import annotations

from functools import partial

from redis.exceptions import RedisError

from catalog.cell_number import CellsDifferError, require
from catalog.store import names, reader
from catalog.store.announcing import announce
from extauth.stores import Execute
from gate.links import PREPARE_MS, RECORDS_CELL, StoreUrls
from runtime.clock import Clock
from runtime.store.cluster import AnyLink, ClusterLink
from runtime.store.link import StoreLink


def require_cells(urls: StoreUrls, clock: Clock) -> bool:
    """Raise ``CellsDifferError`` where a store has another number; False where one cannot be asked within a second.

    A gate that starts without its stores compares when it proves its links.
    """
    cells = [str(cell) for cell in range(urls.cells)]
    records = _held(StoreLink(urls.records, clock), [RECORDS_CELL], urls.cells, clock)
    if urls.are_one:
        return records
    make = ClusterLink if urls.budgets_are_a_cluster else StoreLink
    return _held(make(urls.budgets, clock), cells, urls.cells, clock) and records


def require_agreed(cells: int, execute: Execute) -> None:
    """See that the records' store has agreed on our number of cells; raises ``CellsDifferError``."""
    require([execute("GET", names.cells(RECORDS_CELL))], cells)


def told_of(cells: int, execute: Execute, cell: int) -> tuple[str, str]:
    """Read a cell's epoch, and the records' epoch that it was told of.

    Sets an epoch where there is none, the store being new or emptied: an absent one would look the same next time.
    """
    epoch, records = reader.told(execute, cell=str(cell), cells=cells)
    return epoch or execute(*announce(cell, ())).decode(), records


def _held(link: AnyLink, cells: list[str], own: int, clock: Clock) -> bool:
    execute_many = partial(link.execute_many, clock.monotonic_ms() + PREPARE_MS)
    try:
        link.connect()
        require(execute_many([("GET", names.cells(cell)) for cell in cells]), own)
    except CellsDifferError:
        raise
    except (RedisError, OSError, UnicodeError):  # counted, and told, by the keeper that will prove a link
        return False
    finally:
        link.close()
    return True
