"""Logging in and out, who is logged in, and whose a key is: their calls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import click

from tollkeeper.client import session as sessions
from tollkeeper.client.calling import Api, ApiError, needed
from tollkeeper.client.columns import Column
from tollkeeper.client.problems import sentences
from tollkeeper.client.running import asking, fail
from tollkeeper.client.secret_files import can_be_asked, read_secret
from tollkeeper.client.session import Session, SessionEnded, SessionError
from tollkeeper.client.showing import Form, show_list, show_one
from tollkeeper.client.waiting import telling_of_a_wait

_ME: Final = (Column("name"), Column("role"), Column("tenants"), Column("url"), Column("expiresAt"))
_FOUND: Final = tuple(
    Column(path, title)
    for path, title in (
        ("text", "THIS TEXT IS"),
        ("id", "ID"),
        ("name", "NAME"),
        ("tenantId", "TENANT"),
        ("owner", "OWNER"),
        ("apiKey", "KEY"),
        ("deletedAt", "DELETED"),
    )
)


def log_in(url: str, username: str | None, password_file: str | None, ca: str, *, is_plaintext_meant: bool) -> None:
    """Log in and keep the session; ends with 1 where that is refused."""
    try:
        url = sessions.address(url)
    except SessionError as error:
        fail(str(error))
    if sessions.is_exposed(url) and not is_plaintext_meant:
        fail(f"{url} would get the password unencrypted over the network: use https, or say --insecure-plaintext")
    if username is None and not can_be_asked():
        raise click.UsageError("missing --username, which is asked for at a terminal only")
    name = username if username is not None else str(click.prompt("Username", err=True))
    password = read_secret(password_file, "Password")
    try:
        with Api(url, ca=ca) as api, telling_of_a_wait():
            told = api.ask("POST", "/api/admin/login", body={"username": name, "password": password})
        made = Session(url, needed(told, "token", str), name, needed(told, "expiresAt", str), ca)
        role = needed(needed(told, "user", dict), "role", str)
        sessions.store(made, sessions.path_of(os.environ))
    except ApiError as error:
        fail(sentences(error, {"username": "--username"}))
    except SessionError as error:
        fail(str(error))
    click.echo(f"logged in at {url} as {name} ({role}) until {made.expires_at}")


def log_out() -> None:
    """End every token of the user's, and forget the session, whatever the API says.

    A session that is not the one that was used, because the environment names another, is left as it is.
    """
    path = sessions.path_of(os.environ)
    try:
        session = _running_session()
        refusal = _ended(session)
        if session is None or session.username:  # one of the environment is not ours to forget
            sessions.forget(path)
    except SessionError as error:
        fail(str(error))
    if refusal:
        is_kept = session is not None and not session.username
        fail(refusal if is_kept else f"the session is forgotten here, but its token may live on: {refusal}")
    click.echo("logged out")


def _running_session() -> Session | None:
    """The session that is there; None: its time is over."""
    try:
        return sessions.current(os.environ, datetime.now(UTC))
    except SessionEnded:
        return None


def _ended(session: Session | None) -> str:
    """End a session's tokens; return why they may not have ended, "" where they have."""
    if session is None:
        return ""
    try:
        with Api.of(session) as api, telling_of_a_wait():
            api.ask("POST", "/api/admin/logout")
    except ApiError as error:
        has_ended = error.code == "UNAUTHENTICATED" and session.username
        return "" if has_ended else sentences(error, {})
    return ""


def change_password(current_file: str | None, new_file: str | None) -> None:
    """Change the password and go on with the token that the answer has."""
    session = _session()
    body = {
        "currentPassword": read_secret(current_file, "Current password"),
        "newPassword": read_secret(new_file, "New password", confirm=True),
    }
    with asking({"currentPassword": "the current password", "newPassword": "the new password"}) as api:
        told = api.ask("POST", "/api/users/me/password", body=body)
        token, expires_at = needed(told, "token", str), needed(told, "expiresAt", str)
    if not session.username:  # one of the environment is not ours to change
        click.echo(f"the password is changed; all sessions of yours have ended, that of {sessions.TOKEN} too")
        return
    try:
        sessions.store(replace(session, token=token, expires_at=expires_at), sessions.path_of(os.environ))
    except SessionError as error:
        fail(f"the password is changed, and all sessions of yours have ended: {error}")
    click.echo("the password is changed; all other sessions of yours have ended")


def show_me(output: str) -> None:
    """Show the user as the API knows them now."""
    session = _session()
    with asking({}) as api:
        me = api.ask("GET", "/api/users/me")
    show_one({**me, "url": session.url, "expiresAt": session.expires_at or None}, Form(output), _ME)


def find_key(text_file: str | None, output: str) -> None:
    """Ask whose a text is, in the body of the call alone."""
    text = read_secret(text_file, "Key")
    with asking({"apiKey": "the key"}) as api:
        found = api.ask("POST", "/api/keys/find", body={"apiKey": text})
        items, damaged = needed(found, "items", list), found.get("damaged") or []
    form = Form(output)
    shown = items if form in {Form.JSON, Form.YAML} else [_flat(one) for one in items]
    show_list([*shown, *damaged], _FOUND, form, "no such key")


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    return {**(found.get("key") or found.get("deleted") or {}), "text": found.get("text")}


def _session() -> Session:
    try:
        return sessions.current(os.environ, datetime.now(UTC))
    except SessionError as error:
        fail(str(error))
