"""Whether this process runs and can do its job."""

from __future__ import annotations

import dataclasses

from admin.calls import ApiCall, Reply
from admin.schemas import Alive, Ready
from catalog.store import Health, StoreUnavailable


async def healthz(call: ApiCall) -> Reply:
    """Say that the process runs."""
    del call
    return Reply(200, Alive(status="alive"))


async def readyz(call: ApiCall) -> Reply:
    """Say whether the store can be reached, and how it keeps what it answered."""
    try:
        health = await call.services.store.health()
    except StoreUnavailable:
        return Reply(503, Ready(ready=False, problems=["the store cannot be reached"], store={}))
    return Reply(200, Ready(ready=True, problems=_doubts(health), store=dataclasses.asdict(health)))


def _doubts(health: Health) -> list[str]:
    doubts = []
    if health.durable is False:
        doubts.append("the store may lose answered changes in a power cut: appendonly yes, appendfsync always")
    if health.evicts:
        doubts.append("the store may drop records when it is full: set maxmemory-policy noeviction")
    return doubts
