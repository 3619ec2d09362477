"""Whether this process runs and can do its job: yes or no. What is wrong is told where only its operators ask."""

from __future__ import annotations

from admin.http.calls import ApiCall, Reply
from admin.schemas.schemas import Alive, Ready


async def healthz(call: ApiCall) -> Reply:
    """Say that the process runs."""
    del call
    return Reply(200, Alive(status="alive"))


async def readyz(call: ApiCall) -> Reply:
    """Say whether requests can be answered, as it was found last; asks nobody."""
    ready = call.services.readiness.readiness().ready
    return Reply(200 if ready else 503, Ready(ready=ready))
