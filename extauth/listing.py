"""Which models may this key call? The question, whose records it needs, and what it costs. Pure: no I/O, no clock.

The gate answers it itself, and no model server is asked: a server knows its own names and nothing of keys. A list of a
host's models is admitted first and read then: the publications of the key alone, however many the host has. How the
answer is written is ``extauth.answers.model_cards``' business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import unquote

from catalog.ids import cell_of
from catalog.records import Kind, ModelType, PublicationRecord, ref
from extauth.dialects.pages import Page, page_of
from extauth.kserve.telling import asked_by
from extauth.reasons import Reason
from extauth.records.entries import Entry, HostEntry, KeyEntry, PublicationEntry, TenantEntry
from extauth.request.body import BodyFault
from extauth.request.call import Call
from ratelimit.windows.budgets import Charge, Draw, Subject

MODELS_ROOT: Final = "/v1/models"
"""Where a host's models are asked for; one of them as ``/v1/models/NAME``."""

LIST_PATH: Final = f"{MODELS_ROOT}/"
"""The list of all of them, where what lies below names one by the path, in KServe's words."""

BELOW_PUBLICATION: Final = "/models"
"""The same for clients whose base URL is one publication's path."""

_METHODS: Final = frozenset({"GET", "HEAD"})


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
    publication: PublicationEntry | None  # whose path was asked; None: the host's
    models: tuple[PublicationEntry, ...]  # none yet, of a host's list
    is_list: bool  # a list, though it be of one; else the one model alone
    draw: Draw
    cell: int = 0  # in which all of the draw is counted
    host: str = ""  # whose models are to be listed; "" where ``models`` has them
    name: str | None = None  # of the one that was asked for, as it was said
    page: Page | None = None  # to be told in the words of Anthropic's API; None: in OpenAI's
    said: str = ""  # the answer itself, where it is about no model (``extauth.kserve.telling``)

    @property
    def is_anthropic(self) -> bool:
        """Whether it is answered in the words of Anthropic's API."""
        return self.page is not None


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
    if path in {root, root + "/"}:
        return ALL_MODELS
    return Asked(unquote(path.removeprefix(root + "/"))) if path.startswith(root + "/") else None


def model_named(call: Call) -> str:
    """The name by which a host's table is to be searched: the body's model, the path's, or the one asked for."""
    if call.by_path:
        named = asked_by(call)
        return named.name if named else ""
    asked = models_asked(call, None)
    return (asked.name or "") if asked else call.model


def tell_anybody(asked: Asked, publication: PublicationEntry, budget: Subject) -> Telling | Reason:
    """Answer who has no key on the path of a publication that asks for none; held by its address's ``budget``."""
    if not _is_of(publication, asked):
        return Reason.MODEL_NOT_FOUND
    charge = Charge(subjects=(budget,), refs=publication.refs)
    return Telling(None, None, publication, (publication,), asked == ALL_MODELS, Draw(charge), name=asked.name)


def tell_key(
    asked: Asked,
    key: KeyEntry,
    tenant: TenantEntry,
    publication: PublicationEntry,
    budget: Subject,
    *,
    by_name: Sequence[str],
    valid_until_ms: int,
) -> Telling | Reason:
    """Answer a key about one model that it may call.

    ``by_name``: the records by which its name was found on a host; none on its own path, which serves no other.
    """
    if not by_name and not _is_of(publication, asked):
        return Reason.MODEL_NOT_FOUND
    charge = price(budget, (key.ref, tenant.ref, *by_name, *publication.refs), valid_until_ms)
    of = None if by_name else publication
    return Telling(key, tenant, of, (publication,), asked == ALL_MODELS, Draw(charge), name=asked.name)


def tell_list(key: KeyEntry, tenant: TenantEntry, host: HostEntry, budget: Subject, *, valid_until_ms: int) -> Telling:
    """Answer a key about all the models of a host: what it costs first, then ``listed``."""
    charge = price(budget, (key.ref, tenant.ref, host.ref), valid_until_ms)
    return Telling(key, tenant, None, (), is_list=True, draw=Draw(charge), host=host.record.id)


def price(budget: Subject, refs: Sequence[str], valid_until_ms: int) -> Charge:
    """One question of its own budget; it is no call: no other budget has less by it, and no usage counts it."""
    return Charge(subjects=(budget,), valid_until_ms=valid_until_ms, refs=tuple(dict.fromkeys(refs)))


def listed_refs(telling: Telling) -> list[str]:
    """Name the publications that a list may hold: those that the key names, in order."""
    return [ref(Kind.PUBLICATION, uid) for uid in telling.key.publications] if telling.key and telling.host else []


def listed(telling: Telling, entries: Mapping[str, Entry]) -> Telling:
    """Answer a question about a host's models from the publications of its key and their owners."""
    return replace(telling, models=tuple(_listed(telling, entries)), host="")


def _listed(telling: Telling, entries: Mapping[str, Entry]) -> Iterator[PublicationEntry]:
    for name in listed_refs(telling):
        one = entries.get(name)
        if isinstance(one, PublicationEntry) and _is_for(one, telling) and not _is_closed(one, entries):
            yield one


def _is_for(publication: PublicationEntry, telling: Telling) -> bool:
    """Whether a host serves a publication by the body's model, and the caller may know of it."""
    record = publication.record
    is_served = record.host == telling.host and record.type is ModelType.OPENAI
    return is_served and telling.key is not None and telling.key.tenant in record.allowed_tenants


def _is_closed(publication: PublicationEntry, entries: Mapping[str, Entry]) -> bool:
    """Whether a publication serves nobody: its owner is disabled, or gone."""
    owner = entries.get(publication.owner_ref)
    return not isinstance(owner, TenantEntry) or owner.record.disabled


def placed(telling: Telling, shard: int, cells: int) -> Telling:
    """Name the cell in which a question is counted: its key's tenant's, or the publication's owner's."""
    return replace(telling, cell=cell_of(shard, cells))


def spoken(telling: Telling, call: Call) -> Telling | BodyFault:
    """Answer in the words of Anthropic's API who speaks it, a page at a time; or say what is wrong with the query."""
    if not call.names_version:
        return telling
    page = page_of(call.query)
    return page if isinstance(page, BodyFault) else replace(telling, page=page)


def _is_of(publication: PublicationEntry, asked: Asked) -> bool:
    return asked.name is None or asked.name in publication.record.names
