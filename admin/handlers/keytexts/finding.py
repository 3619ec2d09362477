"""Whose a key is: found by its text, which stands in a body alone, or by the beginning of one as it is shown masked.

Of other tenants' keys nothing is told, not even that there are any. Every question is in the audit stream, with the
masked form of what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from admin import lookups
from admin.acts.tenants import is_of
from admin.http.calls import ApiCall, Reply
from admin.http.paging import read_records
from admin.http.problems import Code, Problem
from admin.people.throttle import find_throttles
from admin.schemas.keys import FindInput, FoundKey, FoundKeys, KeyTextState
from admin.schemas.schemas import Damaged
from admin.views.keys import show, show_deleted
from admin.views.listing import told_damaged
from catalog.damage import CorruptRecord
from catalog.ids import is_id
from catalog.keys.hashing import matches
from catalog.keys.keytext import MASK_CHARACTERS, TEXT_CHARACTERS, KeyText, ParsedKey, mask, parse
from catalog.keys.secrets import Secrets
from catalog.records import KeyRecord, Kind, Role, TenantRecord
from catalog.tombstones import Tombstone

MOST_FOUND: Final = 20
"""Keys shown for one masked text; a thousand keys of a tenant share none by chance more often than one in sixty."""
MOST_READ: Final = 100
"""Records looked at for one masked text, whosever they are."""

Found = tuple[KeyRecord | Tombstone, KeyTextState]
"""A key, or what stays of it, and what the given text is to it."""

_BEGINNING: Final = re.compile(rf"tk_(?P<id>[0-9a-z]{{{MASK_CHARACTERS},19}})(_[0-9A-Za-z]*)?(…|\.\.\.)?")


async def find_keys(call: ApiCall) -> Reply:
    """Say whose a key is."""
    await call.services.throttler.attempt(find_throttles(call.caller.user))
    text = call.body(FindInput).api_key.get_secret_value().strip()
    parsed = parse(text, call.services.mint.secrets)
    found: Sequence[Found]
    damaged: list[Damaged] = []
    if isinstance(parsed, ParsedKey):
        found, asked = await _of_text(call, parsed), mask(parsed.id)
    else:
        (found, damaged), asked = await _beginning_so(call, text), _shown(text)
    await _note(call, asked, found)
    if not found and not damaged:
        raise Problem(Code.KEY_NOT_FOUND, "it is the text of no key of your tenants, nor the beginning of one")
    items = [await _answer(call, key, state) for key, state in found]
    return Reply(200, FoundKeys(items=items, damaged=damaged), {"Cache-Control": "no-store"})


async def _answer(call: ApiCall, key: KeyRecord | Tombstone, state: KeyTextState) -> FoundKey:
    if isinstance(key, KeyRecord):
        return FoundKey(key=await show(call.services, key), deleted=None, text=state)
    (deleted,) = await show_deleted(call.services, [key], with_usage=True)
    return FoundKey(key=None, deleted=deleted, text=state)


async def _deleted(call: ApiCall, key_id: str, state: KeyTextState) -> Sequence[Found]:
    """What stays of a key that was deleted, where the caller may know of it."""
    stone = await call.services.store.tombstone(key_id)
    if stone is None or not call.caller.sees(stone.tenant):
        return []
    owner = await lookups.record(call.services.store, Kind.TENANT, stone.tenant, TenantRecord)
    if call.caller.role is not Role.ADMIN and not is_of(owner, stone.deleted_at_ms):
        return []
    return [(stone, state)]


async def _of_text(call: ApiCall, parsed: ParsedKey) -> Sequence[Found]:
    """The key whose text this is or was: its check is of our making, and names the key."""
    try:
        key = await lookups.record(call.services.store, Kind.KEY, parsed.id, KeyRecord)
    except CorruptRecord:
        if call.caller.role is Role.ADMIN:  # whose it was cannot be told, so it is nobody else's
            await _note(call, mask(parsed.id), [])
            raise
        return []
    if key is None:
        return await _deleted(call, parsed.id, KeyTextState.FORMER)
    if not call.caller.sees(key.tenant):
        return []
    return [(key, _state(key, parsed.text, call.services.mint.secrets, await call.services.store.now_ms()))]


def _state(key: KeyRecord, text: KeyText, secrets: Secrets, now_ms: int) -> KeyTextState:
    if matches(key.current, text, secrets):
        return KeyTextState.CURRENT
    previous = key.previous
    lasts = previous is not None and now_ms < (previous.valid_until_ms or 0)
    return KeyTextState.PREVIOUS if previous and lasts and matches(previous, text, secrets) else KeyTextState.FORMER


async def _beginning_so(call: ApiCall, text: str) -> tuple[Sequence[Found], list[Damaged]]:
    """The caller's keys whose ids begin so: ids are sorted, so it is a look at a few however many keys there are.

    With those that cannot be read: whose they are cannot be told, so only admins hear of them.
    """
    form = _BEGINNING.fullmatch(text)
    if form is None or len(text) >= TEXT_CHARACTERS:  # a whole text that nobody minted is no beginning of one
        return [], []
    ids = await call.services.store.ids(Kind.KEY, prefix=form["id"], limit=MOST_READ)
    if not ids and is_id(form["id"]):
        return await _deleted(call, form["id"], KeyTextState.MASKED), []
    records = (await read_records(call.services.store, Kind.KEY, ids)).values()
    mine = [one for one in records if isinstance(one, KeyRecord) and call.caller.sees(one.tenant)]
    broken = [one for one in records if isinstance(one, CorruptRecord) and call.caller.role is Role.ADMIN]
    found = [(key, KeyTextState.MASKED) for key in mine[:MOST_FOUND]]
    return found, told_damaged(call.services.metrics, broken[:MOST_FOUND])


def _shown(text: str) -> str:
    """What is not a whole text of ours, as far as it may be written down."""
    form = _BEGINNING.fullmatch(text)
    return f"tk_{form['id'][:MASK_CHARACTERS]}…" if form else "tk_…"


async def _note(call: ApiCall, asked: str, found: Sequence[Found]) -> None:
    """Write down who asked for what; under the tenant whose it is, where it is one's."""
    owners = {key.tenant for key, _ in found}
    target = found[0][0].id if len(found) == 1 else asked
    detail = {"apiKey": asked, "found": str(len(found)), **({"text": found[0][1].value} if found else {})}
    note = call.audit("key.find", target, owners.pop() if len(owners) == 1 else "", detail).note
    await call.services.store.note(note)
