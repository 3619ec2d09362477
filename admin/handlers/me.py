"""What users do about themselves: look, change their password, log out."""

from __future__ import annotations

from typing import Final

from admin import lookups
from admin.acts.people import users
from admin.committing import until_settled
from admin.http.calls import ApiCall, Reply
from admin.http.problems import Code, Fault, Problem, Rule, invalid
from admin.people.sessions import make_token
from admin.schemas.users import PasswordInput
from admin.views import records as views
from catalog.changes import Put
from catalog.records import Kind, UserRecord

_FIELD: Final = "newPassword"
_MEANWHILE: Final = "your password was changed by someone else meanwhile"


async def show_me(call: ApiCall) -> Reply:
    """Show who asks."""
    return Reply(200, views.user(await _me(call)))


async def logout(call: ApiCall) -> Reply:
    """End every token of the user's."""
    _require_person(call)
    await until_settled(lambda: _logout(call))
    return Reply(204)


async def _logout(call: ApiCall) -> None:
    user = await _me(call)
    gone = users.logged_out(user, await call.services.store.now_ms())
    await call.services.committer.commit([Put(gone, user.version)], call.audit("user.logout", user.id, "", {}))


async def change_my_password(call: ApiCall) -> Reply:
    """Change one's own password: every token dies, and the answer has a new one."""
    _require_person(call)
    body = call.body(PasswordInput)
    current, new = body.current_password.get_secret_value(), body.new_password.get_secret_value()
    faults = list(users.password_faults(new, call.caller.user, _FIELD))
    if new == current:
        faults.append(Fault(_FIELD, Rule.RESERVED, "must be another than the current one"))
    if faults:
        raise invalid(Code.INVALID_REQUEST, faults)
    verified = await _verified(call, current)
    hashed = await call.services.passwords.hash(new)
    changed = await until_settled(lambda: _set_password(call, verified, hashed))
    token = make_token(changed, call.services.mint.secrets.jwt_key, call.services.clock.wall_ms())
    return Reply(200, views.session(changed, token), {"Cache-Control": "no-store"})


def _require_person(call: ApiCall) -> None:
    if call.caller.is_service:
        raise Problem(Code.FORBIDDEN, "a service account has no password and no session: an admin rotates its token")


async def _verified(call: ApiCall, current: str) -> UserRecord:
    """Return the user if this is his password: as often as he may try to log in."""
    try:
        return await call.services.logins.login(call.caller.user, current, call.address)
    except Problem as problem:
        if problem.code is Code.LOGIN_FAILED:
            raise Problem(Code.WRONG_PASSWORD) from None
        raise


async def _set_password(call: ApiCall, verified: UserRecord, hashed: str) -> UserRecord:
    user = await _me(call)
    if user.password_hash != verified.password_hash:
        raise Problem(Code.CONFLICT, _MEANWHILE)
    changed = users.with_password(user, hashed, await call.services.store.now_ms())
    audit = call.audit("user.password", user.id, "", {"address": call.address})
    await call.services.committer.commit([Put(changed, user.version)], audit)
    return changed


async def _me(call: ApiCall) -> UserRecord:
    found = await lookups.record(call.services.store, Kind.USER, call.caller.user, UserRecord)
    if found is None:
        raise Problem(Code.USER_NOT_FOUND, "you were deleted meanwhile")
    return found
