"""Cells that cannot be asked: let alone longer and longer, but only while others can be asked."""

from __future__ import annotations

from ratelimit.tokens.settling.cell_troubles import MAX_RETRY_S, CellTroubles


class Clock:
    """A clock that a test moves."""

    now_ms = 0.0

    def __call__(self) -> float:
        """Milliseconds."""
        return self.now_ms


def _waits_ms(troubles: CellTroubles, clock: Clock, cell: int) -> float:
    """How long a cell is let alone from now on."""
    begun_ms = clock.now_ms
    while not troubles.may_be_asked(cell):
        clock.now_ms += 100
    return clock.now_ms - begun_ms


def test_a_cell_that_fails_alone_is_asked_again_later_and_later() -> None:
    """Up to five seconds; one success and it is asked as any other."""
    clock = Clock()
    troubles = CellTroubles(clock)
    waits_ms = []
    for _ in range(8):
        troubles.note([0, 1], {0})
        assert troubles.may_be_asked(1)
        waits_ms.append(_waits_ms(troubles, clock, 0))
    assert waits_ms == [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]
    assert waits_ms[-1] == MAX_RETRY_S * 1_000
    troubles.note([0, 1], set())
    assert troubles.may_be_asked(0)
    troubles.note([0, 1], {0})
    assert _waits_ms(troubles, clock, 0) == 200


def test_where_all_fail_none_is_let_alone() -> None:
    """The store is away: as soon as it is back every cell is asked."""
    clock = Clock()
    troubles = CellTroubles(clock)
    troubles.note([0, 1], {0})
    troubles.note([0, 1], {0, 1})
    assert troubles.may_be_asked(0)
    assert troubles.may_be_asked(1)
