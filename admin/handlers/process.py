"""Whether this process runs and can do its job."""

from __future__ import annotations

import dataclasses

from admin.calls import ApiCall, Reply
from admin.schemas import Alive, Ready, TroubleShown
from admin.services import Services
from admin.troubles import BUDGETS_UNTOLD, STORE_AWAY
from catalog.health import Health
from catalog.store import StoreUnavailable
from catalog.troubles import doubts
from runtime.readiness import Readiness, Trouble


async def healthz(call: ApiCall) -> Reply:
    """Say that the process runs."""
    del call
    return Reply(200, Alive(status="alive"))


async def readyz(call: ApiCall) -> Reply:
    """Say whether the store can be reached, how it keeps what it answered, and what else is wrong."""
    state = await _readiness(call.services)
    return Reply(200 if state.ready else 503, _shown(state))


async def _readiness(services: Services) -> Readiness:
    try:
        health = await services.store.health()
    except StoreUnavailable as error:
        return Readiness(problems=(STORE_AWAY.found(str(error)),), facts={"store": {}})
    return Readiness(warnings=_warnings(services, health), facts={"store": dataclasses.asdict(health)})


def _warnings(services: Services, health: Health) -> tuple[Trouble, ...]:
    untold = () if services.store.is_told else (BUDGETS_UNTOLD.found("the budgets store misses the latest changes"),)
    parts = (services.publisher, services.models, services.secrets, services.metering)
    return (*untold, *doubts(health), *(trouble for part in parts for trouble in part.troubles()))


def _shown(state: Readiness) -> Ready:
    return Ready(
        ready=state.ready,
        problems=[TroubleShown(**dataclasses.asdict(one)) for one in state.problems],
        warnings=[TroubleShown(**dataclasses.asdict(one)) for one in state.warnings],
        store=state.facts["store"],
    )
