"""Which models may this key call? The question, whose records it needs, and what it costs. Pure: no I/O, no clock.

The gate answers it itself, and no model server is asked: a server knows its own names and nothing of keys. How the
answer is written is ``extauth.answers.model_cards``' business.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from catalog.ids import cell_of
from catalog.records import Limits, ModelType, PublicationRecord
from extauth.reasons import Reason
from extauth.records.entries import HostEntry, KeyEntry, PublicationEntry, TenantEntry, subject_of
from extauth.request.call import Call
from ratelimit.windows.budgets import Charge, Subject
from ratelimit.windows.levels import Level

MODELS_ROOT: Final = "/v1/models"
"""Where a host's models are asked for; one of them as ``/v1/models/NAME``."""

BELOW_PUBLICATION: Final = "/models"
"""The same for clients whose base URL is one publication's path."""

QUESTIONS_PER_MINUTE: Final = 60
"""How often one key may ask in any minute, whatever it may do else: most keys have no budget of their own, and an
answer names many records."""

_METHODS: Final = frozenset({"GET", "HEAD"})
_LIMITS: Final = Limits(per_minute=QUESTIONS_PER_MINUTE)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about models."""

    name: str | None  # "llm", "tenant-b/shared"; None: about all of them


ALL_MODELS: Final = Asked(None)


@dataclass(frozen=True, slots=True, eq=False)
class Telling:
    """The models that a key may call, to be told if the question fits its budgets."""

    key: KeyEntry | None  # None: a publication that asks for no key
    tenant: TenantEntry | None
    publication: PublicationEntry | None  # whose path was asked; None: the host's table
    models: tuple[PublicationEntry, ...]
    is_list: bool  # a list, though it be of one; else the one model alone
    charge: Charge
    cell: int = 0  # in which all of the charge is counted


def models_asked(call: Call, publication: PublicationRecord | None) -> Asked | None:
    """Tell whether a call asks for models; ``publication``: the one its route names.

    On a publication's own path it asks for that one model, by the path itself too.
    """
    if call.method not in _METHODS:
        return None
    if not call.publication:
        return _asked_below(call.path, MODELS_ROOT) if call.openai_host else None
    if publication is None or publication.type is not ModelType.OPENAI:
        return None
    if call.path == publication.path:
        return Asked(publication.model)
    return _asked_below(call.path, publication.path + BELOW_PUBLICATION)


def _asked_below(path: str, root: str) -> Asked | None:
    if path == root:
        return ALL_MODELS
    return Asked(path.removeprefix(root + "/")) if path.startswith(root + "/") else None


def model_named(call: Call) -> str | None:
    """The name by which a host's table is to be searched: the body's model, or the one that is asked for."""
    asked = models_asked(call, None)
    return asked.name if asked else call.body_model


def listed_uids(call: Call, host: HostEntry | None, key: KeyEntry | None) -> tuple[str, ...]:
    """Name the publications that a list of the host's models may hold for this key, in order."""
    if host is None or key is None or models_asked(call, None) != ALL_MODELS:
        return ()
    served = set(host.record.models.values())
    return tuple(uid for uid in key.publications if uid in served)


def tell_anybody(asked: Asked, publication: PublicationEntry, address: Subject) -> Telling | Reason:
    """Answer who has no key on the path of a publication that asks for none; held by the address's budget."""
    if not _is_of(publication, asked):
        return Reason.MODEL_NOT_FOUND
    charge = Charge(subjects=(address,), refs=publication.refs)
    return Telling(None, None, publication, (publication,), asked == ALL_MODELS, charge)


def tell_key(
    asked: Asked,
    key: KeyEntry,
    tenant: TenantEntry,
    models: tuple[PublicationEntry, ...],
    *,
    closed: Collection[str],
    by_path: PublicationEntry | None,
    host: HostEntry | None,
    valid_until_ms: int,
) -> Telling | Reason:
    """Answer a key. ``models``: what it asks about; ``by_path``: on whose path, which serves no other model.

    ``closed``: uids of those that serve nobody at present.

    It costs one request of the key and its tenant, one question of the key, nothing of any publication.
    """
    if by_path is not None and not _is_of(by_path, asked):
        return Reason.MODEL_NOT_FOUND
    told = tuple(one for one in models if key.tenant in one.record.allowed_tenants and one.id not in closed)
    questions = subject_of(Level.MODEL_LIST, key.id, _LIMITS)
    counted = (entry.subject for entry in (key, tenant) if entry.budgets)
    held = (entry.ref for entry in (key, tenant, host) if entry is not None)
    charge = Charge(
        subjects=(*counted, questions),
        valid_until_ms=valid_until_ms,
        refs=tuple(dict.fromkeys([*held, *(name for one in models for name in one.refs)])),
        usage=(key.subject.name,),
    )
    return Telling(key, tenant, by_path, told, asked == ALL_MODELS, charge)


def placed(telling: Telling, cells: int) -> Telling:
    """Name the cell in which a question is counted: its key's."""
    of = telling.key.id if telling.key else telling.models[0].record.uid
    return replace(telling, cell=cell_of(of, cells))


def _is_of(publication: PublicationEntry, asked: Asked) -> bool:
    return asked.name in {None, publication.record.model}
