"""Fixtures of the Check service's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from extauth.stores import Execute
from runtime.clock import SystemClock
from runtime.store.link import StoreLink


@pytest.fixture
def execute(redis_url: str) -> Iterator[Execute]:
    """One command to the store and its reply, as the gate's own link gives it."""
    link = StoreLink(redis_url, SystemClock())
    link.connect()
    yield lambda *command: link.execute(SystemClock().monotonic_ms() + 5_000, *command)
    link.close()
