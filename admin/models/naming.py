"""Names of published models as keys have them: ``my-model`` of the key's own tenant, ``tenant-a/my-model`` of another.

What a key's tenant may not call is answered like what does not exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Final

from admin import lookups
from catalog.records import Kind, ModelRecord, PublicationRecord
from catalog.store.store import CatalogStore

_MAX_NAME: Final = 63
_MOST_OF_A_NAME: Final = 99
_UNNAMED: Final = "model"
_OTHER: Final = re.compile(r"[^A-Za-z0-9._]+")


def not_there(name: str) -> str:
    """What is said of a name that means nothing to a key of the tenant."""
    return f"there is no published model {json.dumps(name)} that the key's tenant may call"


def full_name(name: str, tenant: str) -> str:
    """``my-model`` of tenant-a is ``tenant-a/my-model``; a name with a tenant stays."""
    return name if "/" in name else f"{tenant}/{name}"


def name_for(tenant: str, publication: PublicationRecord) -> str:
    """Return the shortest name that a key of this tenant has for a publication."""
    own = publication.tenant == tenant
    return publication.model if own else f"{publication.tenant}/{publication.model}"


def callable_by(tenant: str, publications: Iterable[PublicationRecord]) -> list[PublicationRecord]:
    """Return those that the tenant's keys may call."""
    return [one for one in publications if tenant in one.allowed_tenants]


async def resolve(store: CatalogStore, tenant: str, names: Collection[str]) -> Mapping[str, PublicationRecord]:
    """Find what names mean to a key of this tenant: by name as given; those that mean nothing are left out."""
    ids = {name: full_name(name, tenant) for name in names}
    models = await store.get_many(Kind.MODEL, sorted(set(ids.values())))
    uids = {one.publication for one in models.values() if isinstance(one, ModelRecord) and one.publication}
    known = await lookups.publications(store, uids)
    by_id = {f"{one.tenant}/{one.model}": one for one in callable_by(tenant, known.values())}
    return {name: by_id[model_id] for name, model_id in ids.items() if model_id in by_id}


def names_for(model_id: str) -> Iterator[str]:
    """What a model may be called whose server calls it so, the first that is free: ``llama3.1-8b``, ``llama3.1-8b-2``.

    Whatever is no letter, digit, dot or underscore is a dash, each run of them one.
    """
    plain = _OTHER.sub("-", model_id).strip("._-")
    yield plain[:_MAX_NAME].rstrip("._-") or _UNNAMED
    for number in range(2, _MOST_OF_A_NAME + 1):
        ending = f"-{number}"
        yield (plain[: _MAX_NAME - len(ending)].rstrip("._-") or _UNNAMED) + ending
