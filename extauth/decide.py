"""May this key call this model, and what must be taken for it? Pure: no I/O, no clock.

``present`` reads the key off the call, ``resolve_model`` finds the publication of a body-routed call, ``decide``
answers with a refusal or with the draw that the limiter must admit. The last word on expiry is the taking script's:
its charge carries ``valid_until_ms`` and the script compares it with the store's clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from catalog.ids import cell_of
from catalog.keys.hashing import Match, compare
from catalog.keys.keytext import Malformed, ParsedKey, parse
from catalog.keys.probetext import is_probe
from catalog.keys.secrets import Secrets
from catalog.records import Credential, ModelType
from catalog.routes import names_meant
from extauth.dialects.spoken import calls_in_anthropics
from extauth.kserve.paths import Asked
from extauth.kserve.telling import asked_by, is_card, is_question, path_fault, said_of_server
from extauth.listing import (
    ALL_MODELS,
    LIST_PATH,
    Telling,
    models_asked,
    placed,
    price,
    spoken,
    tell_anybody,
    tell_key,
    tell_list,
)
from extauth.listing import Asked as AskedModels
from extauth.reasons import BAD_CALLS, Reason
from extauth.records.allowances import ALLOWED, Allowances
from extauth.records.entries import HostEntry, KeyEntry, PublicationEntry, RouteEntry, ServerEntry, TenantEntry
from extauth.request.body import BodyFault, Unread
from extauth.request.call import Call
from extauth.request.openai import openai_fault
from ratelimit.windows.budgets import Charge, Draw, Subject


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """What the catalog says about the names in a call; ``None`` where there is no such record."""

    key: KeyEntry | None
    tenant: TenantEntry | None  # the key's
    publication: PublicationEntry | None
    host: HostEntry | None  # of a body-routed call
    routes: tuple[
        str, ...
    ] = ()  # refs of what was asked for, there or not, of a body-routed call to one without a table
    server: ServerEntry | None = None  # of the publication; looked for where it matters who else calls it
    owner: TenantEntry | None = None  # the publication's

    @property
    def is_closed(self) -> bool:
        """Whether the publication serves nobody: its owner is disabled, or gone."""
        return self.owner is None or self.owner.record.disabled

    @property
    def by_name(self) -> tuple[str, ...]:
        """The records by which a body's model was found on its host."""
        return (self.host.ref, *self.routes) if self.host is not None else ()


@dataclass(frozen=True, slots=True, eq=False)
class Admission:
    """A call that may pass if its draw fits."""

    key: KeyEntry | None  # None: the call has no key and its publication asks for none
    tenant: TenantEntry | None
    publication: PublicationEntry
    draw: Draw
    cell: int = 0  # in which all of the draw is counted
    shard: int = 0  # which says so: the publication's owner's
    by_path: bool = False  # the call's path names the model


@dataclass(frozen=True, slots=True, eq=False)
class Refusal:
    """A call that may not pass, whatever its budgets; with what is known of it, for the metrics."""

    reason: Reason
    publication: PublicationEntry | None = None
    tenant: TenantEntry | None = None
    fault: BodyFault | None = None  # of a call whose body is what is wrong
    draw: Draw | None = None  # of a bad call of a good key: what counts it as one
    cell: int = 0  # in which that is counted
    is_anthropic: bool = False  # such a call is told in the words of Anthropic's API that it was one too many


Decision = Admission | Telling | Refusal | Unread


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Whose call it is, by a credential that was found to be good."""

    key: KeyEntry
    tenant: TenantEntry
    valid_until_ms: int  # by the store's clock; 0: for ever
    allowances: Allowances

    @property
    def lists(self) -> Subject:
        """What its questions about models are counted by."""
        return self.allowances.lists(self.key.id)

    @property
    def errors(self) -> Subject:
        """What its bad calls are counted by."""
        return self.allowances.errors(self.key.id)


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
    """Read the one key that a call presents (``extauth.credentials.carriers``).

    ``now_ms`` is this machine's clock: a probe's text is good for a minute.
    """
    if call.key_fault is not None:
        return call.key_fault
    if not call.api_key:
        return Reason.KEY_MISSING
    parsed = parse(call.api_key, secrets)
    if not isinstance(parsed, Malformed):
        return parsed
    return Reason.PROBED if is_probe(call.api_key, secrets, now_ms=now_ms) else Reason.KEY_MALFORMED


def resolve_model(host: HostEntry | None, route: RouteEntry | None, key: KeyEntry | None, body_model: str) -> str:
    """Find what a body's ``model`` means to this key: its own tenant's by any name, another's as ``tenant/name``.

    Returns the publication's uid, or "" where the host serves no such model. ``route``: the record that the name has,
    which counts where the host has no table.
    """
    if host is None or key is None or not body_model:
        return ""
    models = host.record.models
    if models is None:
        return route.publication if route else ""
    found = (models.get(f"{owner}/{name}", "") for owner, name in names_meant(key.tenant, body_model))
    return next(filter(None, found), "")


def decide(
    call: Call,
    presented: ParsedKey | Reason,
    facts: Facts,
    secrets: Secrets,
    *,
    now_ms: int,
    cells: int = 1,
    allowances: Allowances = ALLOWED,
) -> Decision:
    """Answer a call from its facts alone. The order is the order in which a caller may learn things.

    ``now_ms`` is a lower bound of the store's clock, 0 where it is not known: what has ended by it has surely ended.
    ``cells``: into how many the budgets are split. ``allowances``: what a caller may do beside its calls.
    """
    decision = _decide(call, presented, facts, secrets, now_ms=now_ms, allowances=allowances)
    if isinstance(decision, Unread):
        return decision
    owner = facts.owner or facts.tenant
    shard = owner.record.shard if owner else 0  # of what is admitted there is one
    if isinstance(decision, Admission):
        return _placed(decision, shard, cells)
    shard = facts.tenant.record.shard if facts.tenant else shard
    if isinstance(decision, Telling):
        return placed(decision, shard, cells)
    return decision if decision.draw is None else replace(decision, cell=cell_of(shard, cells))


def _placed(admission: Admission, shard: int, cells: int) -> Admission | Refusal:
    """Name the cell in which a call is counted: its publication's owner's, which must be its key's tenant's."""
    cell, tenant = cell_of(shard, cells), admission.tenant
    if tenant is not None and cell_of(tenant.record.shard, cells) != cell:
        return Refusal(Reason.CROSS_CELL, admission.publication, tenant)
    return Admission(admission.key, tenant, admission.publication, admission.draw, cell, shard, admission.by_path)


def _decide(
    call: Call,
    presented: ParsedKey | Reason,
    facts: Facts,
    secrets: Secrets,
    *,
    now_ms: int,
    allowances: Allowances,
) -> Decision:
    if not call.publication and not call.openai_host:
        return Refusal(Reason.NO_PUBLICATION)
    if isinstance(presented, Reason):
        return _probed(call, facts) if presented is Reason.PROBED else _without_key(call, presented, facts, allowances)
    if call.publication and facts.publication is None:
        return Refusal(Reason.NO_PUBLICATION)
    credential = _accepted(presented, facts, secrets, now_ms)
    if isinstance(credential, Reason):
        return Refusal(credential, facts.publication)
    if facts.key is None or facts.tenant is None:  # _accepted has refused these; said again for the types
        return Refusal(Reason.KEY_UNKNOWN, facts.publication)
    caller = Caller(facts.key, facts.tenant, _valid_until_ms(facts.key, credential), allowances)
    decision = _authorise(call, facts, caller)
    return _counted(call, decision, facts, caller) if isinstance(decision, Refusal) else decision


def _probed(call: Call, facts: Facts) -> Refusal:
    """Tell what the route leads to, if it is there."""
    is_gone = bool(call.publication) and facts.publication is None
    return Refusal(Reason.NO_PUBLICATION if is_gone else Reason.PROBED, facts.publication)


def _without_key(call: Call, reason: Reason, facts: Facts, allowances: Allowances) -> Decision:
    """Answer a call without a good key: one that has none at all may pass where none is required.

    It is held by its address's budget and the publication's.
    """
    publication = facts.publication
    anonymous = reason is Reason.KEY_MISSING and call.publication
    if not anonymous or publication is None or publication.record.require_api_key:
        return Refusal(reason, publication)
    if facts.is_closed:
        return Refusal(Reason.NO_PUBLICATION, publication)
    address = publication.address_subject(call.address)
    if call.by_path:
        return _anybodys_by_path(call, publication, address, allowances)
    asked = models_asked(call, publication.record)
    if asked is not None:
        budget = allowances.lists_without_key(address)
        return _told(call, tell_anybody(asked, publication, budget), publication, None)
    fault = _openai_fault(call, facts, publication)
    if fault is not None:
        return fault if isinstance(fault, Unread) else _refusal(fault, publication, None)
    return Admission(None, None, publication, Draw(_anybodys_charge(publication, address)))


def _anybodys_charge(publication: PublicationEntry, address: Subject) -> Charge:
    subjects = (address, publication.subject) if publication.budgets else (address,)
    return Charge(subjects=subjects, refs=publication.refs, usage=(publication.subject.name,))


def _anybodys_by_path(call: Call, publication: PublicationEntry, address: Subject, allowances: Allowances) -> Decision:
    """Answer who has no key below the path of a publication that asks for none, where the path names the model."""
    asked = asked_by(call)
    fault = Reason.NO_PUBLICATION if asked is None else path_fault(asked, call, publication.record)
    if asked is None or fault is not None:
        return _refusal(fault or Reason.NO_PUBLICATION, publication, None)
    question = Draw(price(allowances.lists_without_key(address), publication.refs, 0))
    if asked.of_server:
        return Telling(None, None, publication, (), is_list=False, draw=question, said=said_of_server(asked))
    draw = question if is_question(asked, call) else Draw(_anybodys_charge(publication, address))
    return Admission(None, None, publication, draw, by_path=True)


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
    """Both texts are compared, whatever comes of the first."""
    current, previous = key.current, key.previous
    is_current = compare(current, presented.text, secrets)
    is_previous = compare(previous, presented.text, secrets) if previous is not None else Match.NO
    if is_current is Match.YES:
        return current
    if previous is not None and is_previous is Match.YES:
        return previous
    is_unknown = Match.UNKNOWN_PEPPER in (is_current, is_previous)
    return Reason.PEPPER_UNKNOWN if is_unknown else Reason.KEY_UNKNOWN


def _authorise(call: Call, facts: Facts, caller: Caller) -> Decision:
    if call.by_path and call.path != LIST_PATH:
        return _by_path(call, facts, caller)
    publication, key, tenant, until_ms = facts.publication, caller.key, caller.tenant, caller.valid_until_ms
    asked = models_asked(call, publication.record if publication else None)
    if asked == ALL_MODELS and facts.host is not None:
        told = tell_list(key, tenant, facts.host, caller.lists, valid_until_ms=until_ms)
        return _told(call, told, publication, tenant)
    authorised = _authorised(call, facts, key, reads_body=asked is None)
    if not isinstance(authorised, PublicationEntry):
        return authorised if isinstance(authorised, Unread) else _refusal(authorised, publication, tenant)
    if asked is not None:
        lists, by_name = caller.lists, facts.by_name
        one = tell_key(asked, key, tenant, authorised, lists, by_name=by_name, valid_until_ms=until_ms)
        return _told(call, one, publication, tenant)
    return Admission(key, tenant, authorised, Draw(_charge(facts, key, tenant, authorised, until_ms)))


def _by_path(call: Call, facts: Facts, caller: Caller) -> Decision:
    """Answer a key whose call names the model by its path; what it learns, it learns in the order of all calls."""
    asked, publication, tenant = asked_by(call), facts.publication, caller.tenant
    if asked is None:
        return Refusal(Reason.NO_PUBLICATION, publication, tenant)
    if asked.of_server and facts.host is not None:
        return _of_server(asked, call, caller, (facts.host.ref,))
    authorised = _authorised(call, facts, caller.key, reads_body=False)
    if not isinstance(authorised, PublicationEntry):
        return authorised if isinstance(authorised, Unread) else _refusal(authorised, publication, tenant)
    if is_card(asked, call, authorised.record):
        one, by_name, until_ms = AskedModels(asked.name), facts.by_name, caller.valid_until_ms
        told = tell_key(one, caller.key, tenant, authorised, caller.lists, by_name=by_name, valid_until_ms=until_ms)
        return _told(call, told, authorised, tenant)
    return _of_model(asked, call, facts, caller, authorised)


def _of_server(asked: Asked, call: Call, caller: Caller, refs: tuple[str, ...]) -> Decision:
    """Answer whether there is a server, to a key that may know."""
    if not is_question(asked, call):
        return Refusal(Reason.NO_PUBLICATION, None, caller.tenant)
    draw = Draw(price(caller.lists, (caller.key.ref, caller.tenant.ref, *refs), caller.valid_until_ms))
    return Telling(caller.key, caller.tenant, None, (), is_list=False, draw=draw, said=said_of_server(asked))


def _of_model(asked: Asked, call: Call, facts: Facts, caller: Caller, publication: PublicationEntry) -> Decision:
    """Answer a key that may call the model which its path means, or whose own path it is."""
    fault = path_fault(asked, call, publication.record)
    if fault is not None:
        return _refusal(fault, publication, caller.tenant)
    refs = (*facts.by_name, *publication.refs)
    if asked.of_server:
        return _of_server(asked, call, caller, refs)
    key, tenant, until_ms = caller.key, caller.tenant, caller.valid_until_ms
    if is_question(asked, call):
        charge = price(caller.lists, (key.ref, tenant.ref, *refs), until_ms)
    else:
        charge = _charge(facts, key, tenant, publication, until_ms)
    return Admission(key, tenant, publication, Draw(charge), by_path=True)


def _counted(call: Call, refusal: Refusal, facts: Facts, caller: Caller) -> Refusal:
    """Have a good key's call that is refused for its own fault counted as a bad one, and as nothing else."""
    if refusal.reason not in BAD_CALLS:
        return refusal
    refs = _rests_on(refusal, facts, caller)
    charge = Charge(subjects=(caller.errors,), valid_until_ms=caller.valid_until_ms, refs=refs)
    record = refusal.publication.record if refusal.publication else None
    return replace(refusal, draw=Draw(charge), is_anthropic=calls_in_anthropics(call, record))


def _rests_on(refusal: Refusal, facts: Facts, caller: Caller) -> tuple[str, ...]:
    """Name the records that a refusal rests on; none where the lack of one decides: then all must be as they were."""
    publication, server = facts.publication, facts.server
    stored = refusal.reason is Reason.STORED_NOT_ALLOWED
    if (publication is None and facts.host is None) or (stored and server is None):
        return ()
    of = publication.refs if publication else ()
    refs = (caller.key.ref, caller.tenant.ref, *facts.by_name, *of)
    return tuple(dict.fromkeys(refs if server is None else (*refs, server.ref)))


def _refusal(why: Reason | BodyFault, publication: PublicationEntry | None, tenant: TenantEntry | None) -> Refusal:
    if isinstance(why, BodyFault):
        return Refusal(why.reason, publication, tenant, why)
    return Refusal(why, publication, tenant)


def _authorised(
    call: Call, facts: Facts, key: KeyEntry, *, reads_body: bool
) -> PublicationEntry | Reason | BodyFault | Unread:
    """Find the publication that the key may call, or why it may not."""
    publication = facts.publication
    visible = publication is not None and _is_visible(publication, facts, key)
    if not visible and not call.openai_host:
        return Reason.NO_PUBLICATION
    if publication is not None and visible and publication.record.uid not in key.publications:
        return Reason.NOT_ALLOWED
    fault = _openai_fault(call, facts, publication if visible else None) if reads_body else None
    if fault is not None:
        return fault
    if publication is None or not visible:
        return Reason.MODEL_NOT_FOUND
    return publication


def _is_visible(publication: PublicationEntry, facts: Facts, key: KeyEntry) -> bool:
    """Whether there is such a publication, as far as the key's tenant may know."""
    return key.tenant in publication.record.allowed_tenants and not facts.is_closed


def _told(
    call: Call, answer: Telling | Reason, publication: PublicationEntry | None, tenant: TenantEntry | None
) -> Telling | Refusal:
    """Answer in the words that the call speaks, or say why not."""
    telling = spoken(answer, call) if isinstance(answer, Telling) else answer
    return telling if isinstance(telling, Telling) else _refusal(telling, publication, tenant)


def _openai_fault(call: Call, facts: Facts, publication: PublicationEntry | None) -> Reason | BodyFault | Unread | None:
    """What is wrong with the call itself, where it is an openai one; ``publication``: as far as the caller may see."""
    is_openai = publication is not None and publication.record.type is ModelType.OPENAI
    if not is_openai and not call.openai_host:
        return None
    if publication is None:
        return openai_fault(call, None, is_alone=False)
    server = facts.server
    return openai_fault(call, publication.record, is_alone=server is not None and server.is_alone(publication.record))


def _charge(
    facts: Facts, key: KeyEntry, tenant: TenantEntry, publication: PublicationEntry, valid_until_ms: int
) -> Charge:
    subjects = tuple([entry.subject for entry in (key, tenant, publication) if entry.budgets])
    refs = (key.ref, tenant.ref, publication.ref, *facts.by_name)
    if publication.owner_ref != tenant.ref:
        refs += (publication.owner_ref,)
    if facts.server is not None:
        refs += (facts.server.ref,)
    return Charge(
        subjects=subjects,
        valid_until_ms=valid_until_ms,
        refs=refs,
        usage=(key.subject.name, publication.subject.name),
    )


def _valid_until_ms(key: KeyEntry, credential: Credential) -> int:
    """Give the store time at which this text of the key stops working; 0 when it does not."""
    ends = [end for end in (key.expires_at_ms, credential.valid_until_ms) if end is not None]
    return max(1, min(ends)) if ends else 0
