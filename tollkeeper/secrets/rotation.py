"""``tollkeeper secrets rotate-… | retire-…``: new peppers and MAC keys for a deployment that runs; the end of old ones.

Every step leaves the secrets file and the store so that each process can go on with the file it read before or with
the new one. A command that was broken off is run again and goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial, wraps
from pathlib import Path
from typing import Final, TypeVar

import click
from pydantic import Field

from catalog.actors import Recordless
from catalog.changes import Audit
from catalog.ids import is_id
from catalog.keys.hashing import needs_wrap
from catalog.keys.keytext import mask
from catalog.keys.secrets import Secrets, SecretsError, change_secrets, load_secrets
from catalog.keys.versions import Family, NoSuchVersion, added, current, made_current, newest, retired
from catalog.store.announcing import Announcer
from catalog.store.key_changes import (
    Holder,
    KeyChange,
    KeysChangingError,
    Progress,
    change_keys,
    credentials,
    keys,
    without_ended,
    wrapped,
)
from catalog.store.lifting import records_epoch
from catalog.store.store import CatalogStore, StoreUnavailable
from runtime.lifecycle import CannotStart
from runtime.settings import Settings
from tollkeeper.admin.stores import store_client
from tollkeeper.agreeing import agree_on_cells
from tollkeeper.store_settings import StoreSettings

_SHOWN: Final = 5  # keys named in a refusal
_TOLD_EVERY: Final = 1_000  # keys between two lines of progress
S = TypeVar("S", bound="RotateMacSettings")


class RotateMacSettings(Settings):
    """Have new key texts checked by a new MAC key. Texts of older MAC keys go on working."""

    secrets_file: Path
    """The file of peppers and MAC keys that gate and admin share; it is replaced in one step."""

    wait_s: float = Field(default=5, ge=0, le=86_400)
    """Seconds that a new version stays in the file before it is used: long enough that all processes have read it."""


class RotatePepperSettings(RotateMacSettings, StoreSettings):
    """Put every stored credential under a new pepper. No key's text changes and no call fails."""


class RetirePepperSettings(RotatePepperSettings):
    """Take a pepper out of the secrets file, once no stored credential is under it."""

    pepper: int
    """The version to retire; never the current one."""


class RetireMacKeySettings(RotatePepperSettings):
    """Take a MAC key out of the secrets file. Texts that it checks die with it."""

    mac_key: int
    """The version to retire; never the current one."""

    kill_keys: bool = False
    """Retire it though keys have texts of it, or may have: those are refused from then on."""


def _in_sentences(serve: Callable[[S], Awaitable[None]]) -> Callable[[S], Awaitable[None]]:
    """Tell what the operator can mend as one sentence."""

    @wraps(serve)
    async def told(settings: S) -> None:
        try:
            await serve(settings)
        except StoreUnavailable as error:
            raise CannotStart(f"--redis-url: {error}; nothing is lost: run it again") from error
        except (SecretsError, NoSuchVersion, KeysChangingError) as error:
            raise CannotStart(str(error)) from error

    return told


@_in_sentences
async def rotate_mac(settings: RotateMacSettings) -> None:
    """Add a MAC key unless a new one waits already, and make it current."""
    version = _newer(settings.secrets_file, Family.MAC_KEY)
    await _make_current(settings, Family.MAC_KEY, version)
    click.echo(f"New key texts are checked by MAC key {version}; `secrets retire-mac-key` ends older ones.")


@_in_sentences
async def rotate_pepper(settings: RotatePepperSettings) -> None:
    """Add a pepper unless a new one waits already or a rotation was broken off; make it current and wrap all keys."""
    async with _store(settings) as store:
        secrets = load_secrets(settings.secrets_file)
        if _has_newer(secrets, Family.PEPPER) or not await _is_behind(store, secrets):
            await _make_current(settings, Family.PEPPER, _newer(settings.secrets_file, Family.PEPPER))
        else:
            click.echo(f"Going on with pepper {secrets.current_pepper}.")
        await _await_known(settings, "made current")
        secrets = load_secrets(settings.secrets_file)
        change = partial(wrapped, secrets=secrets)
        done = await _change(store, change, f"pepper {secrets.current_pepper}")
    click.echo(
        f"All {done.seen} keys and tokens are under pepper {secrets.current_pepper}; {done.changed} were wrapped."
    )


@_in_sentences
async def retire_pepper(settings: RetirePepperSettings) -> None:
    """Prove that nothing is under the pepper, and forget it."""
    version = settings.pepper
    retired(load_secrets(settings.secrets_file), Family.PEPPER, version)  # refuses before anything is done
    await _await_known(settings, "changed last")
    async with _store(settings) as store:
        now_ms = await store.now_ms()
        await _change(store, partial(without_ended, now_ms=now_ms), f"before retiring pepper {version}")
        found = await _keys_where(store, lambda key: any(version in one.peppers for one in credentials(key)))
    if found:
        raise CannotStart(
            f"pepper {version} is under {_named(found)}: wrapping does not remove it, giving a key a new text does. "
            "Rotate these keys, then run it again"
        )
    change_secrets(settings.secrets_file, lambda secrets: retired(secrets, Family.PEPPER, version))
    click.echo(f"Pepper {version} is out of {settings.secrets_file}; give the file to every gate and admin.")


@_in_sentences
async def retire_mac_key(settings: RetireMacKeySettings) -> None:
    """Tell which keys' texts would die, and forget the MAC key where none or where that is wanted."""
    version = settings.mac_key
    retired(load_secrets(settings.secrets_file), Family.MAC_KEY, version)
    async with _store(settings) as store:
        found = await _keys_where(store, lambda key: any(one.mac_key in {0, version} for one in credentials(key)))
    if found and not settings.kill_keys:
        raise CannotStart(
            f"MAC key {version} made, or may have made, the texts of {_named(found)}: rotate these keys first, "
            "or let them die with --kill-keys"
        )
    change_secrets(settings.secrets_file, lambda secrets: retired(secrets, Family.MAC_KEY, version))
    click.echo(f"MAC key {version} is out of {settings.secrets_file}; {len(found)} keys and tokens died with it.")


# The secrets file


def _has_newer(secrets: Secrets, family: Family) -> bool:
    return newest(secrets, family) != current(secrets, family)


def _newer(path: Path, family: Family) -> int:
    """Return the version to rotate to; makes one unless it was added before."""
    secrets = load_secrets(path)
    if not _has_newer(secrets, family):
        secrets = change_secrets(path, lambda known: added(known, family, os.urandom))
        click.echo(f"Added {family.words} {newest(secrets, family)} to {path}.")
    return newest(secrets, family)


async def _make_current(settings: RotateMacSettings, family: Family, version: int) -> None:
    await _await_known(settings, f"given {family.words} {version}")
    change_secrets(settings.secrets_file, lambda secrets: made_current(secrets, family, version))
    click.echo(f"{family.words} {version} is current.")


async def _await_known(settings: RotateMacSettings, change: str) -> None:
    """Wait until the file has been as it is for ``wait_s``: processes look at it every second."""
    age_s = max(0.0, time.time() - settings.secrets_file.stat().st_mtime)
    if (left_s := settings.wait_s - age_s) > 0:
        click.echo(
            f"Waiting {left_s:.0f} s: every gate and admin has to read the file that was {change}. "
            "Where they have copies of it, give them the new one now."
        )
        await asyncio.sleep(left_s)


# The keys


@contextlib.asynccontextmanager
async def _store(settings: StoreSettings) -> AsyncIterator[CatalogStore]:
    await agree_on_cells(settings)
    async with store_client(settings.records) as records, store_client(settings.budgets) as budgets:
        apart = settings.budgets != settings.records
        announcer = Announcer(budgets, settings.cells, records_epoch=partial(records_epoch, records))
        yield CatalogStore(records, announcer=announcer if apart else None)


async def _change(store: CatalogStore, change: KeyChange, target: str) -> Progress:
    """Change every key, telling how far it is."""
    audit = Audit(Recordless.KEYS_COMMAND, "key.wrap", target, tenant="", request_id="")
    progress, told = Progress(), 0
    async for progress in change_keys(store, change, audit):
        if progress.seen - told >= _TOLD_EVERY:
            told = progress.seen
            click.echo(f"{progress.seen} keys and tokens seen, {progress.changed} changed")
    return progress


async def _is_behind(store: CatalogStore, secrets: Secrets) -> bool:
    """Whether a credential is under another pepper than the current one: a rotation was broken off."""
    return bool(await _keys_where(store, lambda key: any(needs_wrap(one, secrets) for one in credentials(key))))


async def _keys_where(store: CatalogStore, is_meant: Callable[[Holder], bool]) -> list[str]:
    """Return the ids of all keys, and the names of all service accounts, that are meant."""
    return [key.id async for page in keys(store) for key in page if is_meant(key)]


def _named(ids: list[str]) -> str:
    shown = ", ".join(mask(one) if is_id(one) else f"service account {one}" for one in ids[:_SHOWN])
    return f"{len(ids)} keys and tokens ({shown}{', …' if len(ids) > _SHOWN else ''})"
