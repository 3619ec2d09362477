"""What a model's servers want with each call: sealed for the record, opened for the questions that the admin asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from admin.acts import moving
from admin.http.calls import ApiCall
from admin.http.problems import Code, Fault, Rule, invalid
from admin.models.probing import Auth
from admin.schemas.servers import UpstreamAuthInput
from catalog.keys.keytext import KeyText
from catalog.keys.sealing import UnsealError
from catalog.keys.secrets import Secrets
from catalog.keys.upstream import owner_of, sealed, unsealed
from catalog.records import ModelRecord, Role, UpstreamAuth, servers_of

_FIELD: Final = "upstreamAuth"
_SECRET: Final = f"{_FIELD}.secret"
_VALUE: Final = f"{_FIELD}.value"
_ONE: Final = "needs a value, or on Envoy Gateway the name of a secret, not both"
_ADMINS: Final = "is for an admin to name: a Secret is the gateway's, and no tenant's to send to servers"
_NO_SECRETS: Final = "is for an Envoy Gateway; send the value"
_SECRETS_ONLY: Final = "is not taken with an Envoy Gateway, which has it from a Secret: name it (secret)"
_NEITHER: Final = "is not taken with Envoy AI Gateway, whose BackendSecurityPolicy gives servers their keys"


@dataclass(frozen=True, slots=True)
class Credential:
    """What servers want, as it is stored and as it is sent."""

    record: UpstreamAuth
    auth: Auth | None  # None: only the gateway has it, or it cannot be opened


def given(call: ApiCall, body: UpstreamAuthInput, model: ModelRecord) -> Credential:
    """Take what was sent for the servers of a model, as the record is; raises ``Problem`` naming what is wrong."""
    value = body.value.get_secret_value()
    if bool(value) == bool(body.secret):
        raise invalid(Code.INVALID_REQUEST, [Fault(_FIELD, Rule.REQUIRED, _ONE)])
    if fault := _not_for(call, body):
        raise invalid(Code.INVALID_REQUEST, [fault])
    if body.secret:
        return Credential(UpstreamAuth(body.header, secret=body.secret), None)
    text = KeyText(value)
    return Credential(sealed(text, body.header, model, call.services.secrets.current()), Auth(body.header, text))


def _not_for(call: ApiCall, body: UpstreamAuthInput) -> Fault | None:
    """Why this caller, or this gateway, cannot have what was sent; ``None`` where they can.

    A Secret is the gateway's, not a tenant's: who names one has it sent to servers that may be his own.
    """
    proxy = call.services.publisher
    if body.secret and call.caller.role is not Role.ADMIN:
        return Fault(_SECRET, Rule.RESERVED, _ADMINS)
    if body.secret and not proxy.injects_secrets:
        return Fault(_SECRET, Rule.NOT_ENABLED, _NO_SECRETS if proxy.injects_values else _NEITHER)
    if not body.secret and not proxy.injects_values:
        return Fault(_VALUE, Rule.NOT_ENABLED, _SECRETS_ONLY if proxy.injects_secrets else _NEITHER)
    return None


def stored(model: ModelRecord, secrets: Secrets) -> Credential | None:
    """What a model's servers want; ``None`` where they want nothing."""
    if model.upstream_auth is None:
        return None
    return Credential(model.upstream_auth, _opened(model, model.upstream_auth, secrets))


def auth_of(model: ModelRecord, secrets: Secrets) -> Auth | None:
    """What questions to a model's servers carry."""
    credential = stored(model, secrets)
    return credential.auth if credential else None


def kept(old: ModelRecord, new: ModelRecord, secrets: Secrets) -> Credential | None:
    """What stays when a model has other servers: nothing where one of them is new, and did not have it before."""
    credential = stored(old, secrets)
    if credential is None or moving.new_urls(old, servers_of(new)):
        return None
    header = credential.record.header
    if credential.record.secret or owner_of(old, header) == owner_of(new, header):
        return credential
    if credential.auth is None:
        return None
    return Credential(sealed(credential.auth.value, header, new, secrets), credential.auth)


def _opened(model: ModelRecord, auth: UpstreamAuth, secrets: Secrets) -> Auth | None:
    if auth.secret:
        return None
    try:
        return Auth(auth.header, unsealed(auth.sealed, owner_of(model, auth.header), secrets))
    except UnsealError:
        return None
