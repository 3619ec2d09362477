"""May this key call this model, and what must be taken for it? Pure: no I/O, no clock.

``present`` reads the key off the call, ``resolve_model`` finds the publication of a body-routed call, ``decide``
answers with a refusal or with the charge that the limiter must admit. The last word on expiry is the taking script's:
the charge carries ``valid_until_ms`` and the script compares it with the store's clock.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from catalog.ids import cell_of
from catalog.keys.hashing import Match, compare
from catalog.keys.keytext import Malformed, ParsedKey, parse
from catalog.keys.probetext import is_probe
from catalog.keys.secrets import Secrets
from catalog.records import Credential, ModelType
from extauth.listing import ALL_MODELS, Asked, Telling, models_asked, placed, tell_anybody, tell_key
from extauth.reasons import Reason
from extauth.records.entries import HostEntry, KeyEntry, PublicationEntry, TenantEntry
from extauth.request.call import Call
from ratelimit.windows.budgets import Charge

BEARER = "bearer "
IDENTITY = frozenset({"", "identity"})
"""Content encodings that change nothing."""
BODILESS_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What the catalog says about the names in a call; ``None`` where there is no such record."""

    key: KeyEntry | None
    tenant: TenantEntry | None  # the key's
    publication: PublicationEntry | None
    host: HostEntry | None  # of a body-routed call
    listed: tuple[PublicationEntry, ...] = ()  # of a question about all models: those of the host that the key names
    closed: frozenset[str] = frozenset()  # uids out of all these: their owner is disabled, and they serve nobody


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """A call that may pass if its charge fits."""

    key: KeyEntry | None  # None: the call has no key and its publication asks for none
    tenant: TenantEntry | None
    publication: PublicationEntry
    charge: Charge
    cell: int = 0  # in which all of the charge is counted


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A call that may not pass, whatever its budgets; with what is known of it, for the metrics."""

    reason: Reason
    publication: PublicationEntry | None = None
    tenant: TenantEntry | None = None


Decision = Admission | Telling | Refusal


def needs_records(call: Call, presented: ParsedKey | Reason, publication: PublicationEntry | None) -> bool:
    """Tell whether any record could still admit the call, or is asked about; if not, the store need not be asked.

    ``publication``: the one the route names, where it is at hand; it says whether a call without a key may pass.
    """
    if presented is Reason.PROBED:
        return bool(call.publication)
    if presented is Reason.KEY_MISSING:
        return bool(call.publication) and (publication is None or not publication.record.require_api_key)
    return not isinstance(presented, Reason) and bool(call.publication or call.openai_host)


def present(call: Call, secrets: Secrets, *, now_ms: int) -> ParsedKey | Reason:
    """Read the one key a call presents: ``X-API-Key``, else ``Authorization: Bearer``.

    ``now_ms`` is this machine's clock: a probe's text is good for a minute.
    """
    if "," in call.api_key:
        return Reason.KEY_REPEATED
    text = call.api_key or _bearer(call.authorization)
    if not text:
        return Reason.KEY_MISSING
    parsed = parse(text, secrets)
    if not isinstance(parsed, Malformed):
        return parsed
    return Reason.PROBED if is_probe(call.api_key, secrets, now_ms=now_ms) else Reason.KEY_MALFORMED


def _bearer(authorization: str) -> str:
    if authorization[: len(BEARER)].lower() != BEARER:
        return ""
    return authorization[len(BEARER) :].strip(" ")


def resolve_model(host: HostEntry | None, key: KeyEntry | None, body_model: str | None) -> str:
    """Find what a body's ``model`` means to this key: its own tenant's by name, another's as ``tenant/name``.

    Returns the publication's uid, or "" where the host serves no such model.
    """
    if host is None or key is None or not body_model:
        return ""
    models = host.record.models
    return models.get(f"{key.tenant}/{body_model}") or models.get(body_model, "")


def decide(
    call: Call, presented: ParsedKey | Reason, facts: Facts, secrets: Secrets, *, now_ms: int, cells: int = 1
) -> Decision:
    """Answer a call from its facts alone. The order is the order in which a caller may learn things.

    ``now_ms`` is a lower bound of the store's clock, 0 where it is not known: what has ended by it has surely ended.
    ``cells``: into how many the budgets are split.
    """
    decision = _decide(call, presented, facts, secrets, now_ms)
    if cells == 1 or isinstance(decision, Refusal):
        return decision
    return _placed(decision, cells) if isinstance(decision, Admission) else placed(decision, cells)


def _placed(admission: Admission, cells: int) -> Admission | Refusal:
    """Name the cell in which a call is counted: its publication's, which must be its key's."""
    publication, key = admission.publication, admission.key
    cell = cell_of(publication.record.uid, cells)
    if key is not None and cell_of(key.id, cells) != cell:
        return Refusal(Reason.CROSS_CELL, publication, admission.tenant)
    return dataclasses.replace(admission, cell=cell)


def _decide(call: Call, presented: ParsedKey | Reason, facts: Facts, secrets: Secrets, now_ms: int) -> Decision:
    if not call.publication and not call.openai_host:
        return Refusal(Reason.NO_PUBLICATION)
    if isinstance(presented, Reason):
        return _probed(call, facts) if presented is Reason.PROBED else _without_key(call, presented, facts)
    if call.publication and facts.publication is None:
        return Refusal(Reason.NO_PUBLICATION)
    credential = _accepted(presented, facts, secrets, now_ms)
    if isinstance(credential, Reason):
        return Refusal(credential, facts.publication)
    if facts.key is None or facts.tenant is None:  # _accepted has refused these; said again for the types
        return Refusal(Reason.KEY_UNKNOWN, facts.publication)
    return _authorise(call, facts, facts.key, facts.tenant, credential)


def _probed(call: Call, facts: Facts) -> Refusal:
    """Tell what the route leads to, if it is there."""
    is_gone = bool(call.publication) and facts.publication is None
    return Refusal(Reason.NO_PUBLICATION if is_gone else Reason.PROBED, facts.publication)


def _without_key(call: Call, reason: Reason, facts: Facts) -> Decision:
    """Answer a call without a good key: one that has none at all may pass where none is required.

    It is held by its address's budget and the publication's.
    """
    publication = facts.publication
    anonymous = reason is Reason.KEY_MISSING and call.publication
    if not anonymous or publication is None or publication.record.require_api_key:
        return Refusal(reason, publication)
    if publication.id in facts.closed:
        return Refusal(Reason.NO_PUBLICATION, publication)
    address = publication.address_subject(call.address)
    asked = models_asked(call, publication.record)
    if asked is not None:
        return _told(tell_anybody(asked, publication, address), publication, None)
    body_fault = _body_fault(call, facts)
    if body_fault is not None:
        return Refusal(body_fault, publication)
    subjects = (address, publication.subject) if publication.budgets else (address,)
    charge = Charge(subjects=subjects, refs=publication.refs, usage=(publication.subject.name,))
    return Admission(None, None, publication, charge)


def _accepted(presented: ParsedKey, facts: Facts, secrets: Secrets, now_ms: int) -> Credential | Reason:
    """Find the stored credential that the presented text matches."""
    if facts.key is None:
        return Reason.KEY_UNKNOWN
    key = facts.key
    credential = _matching(key, presented, secrets)
    if isinstance(credential, Reason):
        return credential
    if 0 < _valid_until_ms(key, credential) <= now_ms:
        return Reason.KEY_EXPIRED
    if key.disabled:
        return Reason.KEY_DISABLED
    if facts.tenant is None or facts.tenant.record.disabled:
        return Reason.TENANT_DISABLED
    return credential


def _matching(key: KeyEntry, presented: ParsedKey, secrets: Secrets) -> Credential | Reason:
    credentials = [credential for credential in (key.current, key.previous) if credential is not None]
    found = [compare(credential, presented.text, secrets) for credential in credentials]
    if Match.YES in found:
        return credentials[found.index(Match.YES)]
    return Reason.PEPPER_UNKNOWN if Match.UNKNOWN_PEPPER in found else Reason.KEY_UNKNOWN


def _authorise(call: Call, facts: Facts, key: KeyEntry, tenant: TenantEntry, credential: Credential) -> Decision:
    publication = facts.publication
    asked = models_asked(call, publication.record if publication else None)
    if asked == ALL_MODELS and facts.host is not None:
        return _tell(asked, facts, key, tenant, credential)
    authorised = _authorised(call, facts, key, reads_body=asked is None)
    if isinstance(authorised, Reason):
        return Refusal(authorised, publication, tenant)
    if asked is not None:
        return _tell(asked, facts, key, tenant, credential)
    return Admission(key, tenant, authorised, _charge(facts, key, tenant, authorised, credential))


def _authorised(call: Call, facts: Facts, key: KeyEntry, *, reads_body: bool) -> PublicationEntry | Reason:
    """Find the publication that the key may call, or why it may not."""
    publication = facts.publication
    visible = publication is not None and _is_visible(publication, facts, key)
    if not visible and not call.openai_host:
        return Reason.NO_PUBLICATION
    body_fault = _body_fault(call, facts) if reads_body else None
    if body_fault is not None:
        return body_fault
    if publication is None or not visible:
        return Reason.MODEL_NOT_FOUND
    return publication if publication.record.uid in key.publications else Reason.NOT_ALLOWED


def _is_visible(publication: PublicationEntry, facts: Facts, key: KeyEntry) -> bool:
    """Whether there is such a publication, as far as the key's tenant may know."""
    return key.tenant in publication.record.allowed_tenants and publication.id not in facts.closed


def _tell(asked: Asked, facts: Facts, key: KeyEntry, tenant: TenantEntry, credential: Credential) -> Telling | Refusal:
    publication = facts.publication
    answer = tell_key(
        asked,
        key,
        tenant,
        facts.listed if publication is None else (publication,),
        closed=facts.closed,
        by_path=publication if facts.host is None else None,
        host=facts.host,
        valid_until_ms=_valid_until_ms(key, credential),
    )
    return _told(answer, publication, tenant)


def _told(
    answer: Telling | Reason, publication: PublicationEntry | None, tenant: TenantEntry | None
) -> Telling | Refusal:
    return Refusal(answer, publication, tenant) if isinstance(answer, Reason) else answer


def _body_fault(call: Call, facts: Facts) -> Reason | None:
    """Check what an openai call says in its body: a JSON object whose model is the one its route publishes."""
    publication = facts.publication
    is_openai = publication is not None and publication.record.type is ModelType.OPENAI
    if not call.openai_host and (not is_openai or call.body_unread):  # unread: one model, whatever the body says
        return None
    if call.method in BODILESS_METHODS and not call.body_parsed:
        return Reason.MODEL_NOT_FOUND if call.openai_host else None
    if not call.body_parsed or call.content_encoding not in IDENTITY:
        return _unparsed(call)
    if call.body_model is None:
        return Reason.MODEL_MISSING
    if publication is not None and not call.openai_host and call.body_model != publication.record.model:
        return Reason.MODEL_NOT_FOUND
    return _count_fault(call)


def _unparsed(call: Call) -> Reason:
    """Why a body could not be read as JSON."""
    if call.content_encoding not in IDENTITY:
        return Reason.BODY_ENCODED
    return Reason.BODY_NOT_JSON if call.content_type.startswith("application/json") else Reason.BODY_TYPE


def _count_fault(call: Call) -> Reason | None:
    return _COUNT_FAULTS[call.count_fault] if call.count_fault else None


_COUNT_FAULTS: Final = {
    "max_tokens": Reason.MAX_TOKENS_INVALID,
    "max_completion_tokens": Reason.MAX_COMPLETION_TOKENS_INVALID,
    "max_output_tokens": Reason.MAX_OUTPUT_TOKENS_INVALID,
    "n": Reason.CHOICES_INVALID,
}
"""By the field whose count cannot be meant."""


def _charge(
    facts: Facts, key: KeyEntry, tenant: TenantEntry, publication: PublicationEntry, credential: Credential
) -> Charge:
    subjects = tuple(entry.subject for entry in (key, tenant, publication) if entry.budgets)
    refs = (key.ref, tenant.ref, publication.ref) + ((facts.host.ref,) if facts.host else ())
    if publication.owner_ref != tenant.ref:
        refs += (publication.owner_ref,)
    return Charge(
        subjects=subjects,
        valid_until_ms=_valid_until_ms(key, credential),
        refs=refs,
        usage=(key.subject.name, publication.subject.name),
    )


def _valid_until_ms(key: KeyEntry, credential: Credential) -> int:
    """Give the store time at which this text of the key stops working; 0 when it does not."""
    ends = [end for end in (key.expires_at_ms, credential.valid_until_ms) if end is not None]
    return max(1, min(ends)) if ends else 0
