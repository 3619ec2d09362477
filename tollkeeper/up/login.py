"""The machine's own login to its admin API, and the admin's password as far as it is known here.

The password can be changed over the API; then nobody told us, ``up.json`` says nothing of it, and the machine, which
holds the store and the secrets anyway, goes on as an admin with a token that it makes itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import redis.asyncio

from admin.people.sessions import make_token
from admin.people.users import acting_admins
from catalog.keys.secrets import load_secrets
from catalog.store.store import CatalogStore
from runtime.clock import SystemClock
from runtime.lifecycle import CannotStart
from tollkeeper.up.machine import Machine
from tollkeeper.up.seed import AdminClient


@dataclass(frozen=True, slots=True)
class Password:
    """The admin's password."""

    text: str = field(repr=False)  # "" where only the operator can know it
    is_set: bool  # by this start


async def log_in(client: AdminClient, machine: Machine, password: Password) -> str:
    """Log in somehow; return the admin's password, "" where it is another than the one that was known."""
    if password.text and await client.login(machine.admin_username, password.text):
        return password.text
    client.use(await _own_token(machine))
    return ""


async def _own_token(machine: Machine) -> str:
    async with redis.asyncio.Redis.from_url(machine.redis_url) as store:
        admins = {one.id: one for one in await acting_admins(CatalogStore(store))}
    if not admins:
        raise CannotStart(f"the store has no admin who can act; delete {machine.layout.up_json} to have one made")
    user = admins.get(machine.admin_username) or next(iter(admins.values()))
    return make_token(user, load_secrets(machine.layout.secrets).jwt_key, SystemClock().wall_ms()).text
