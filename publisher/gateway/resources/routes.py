"""HTTPRoutes: the rules of publications, a few objects a host or one a publication. Pure.

Envoy Gateway's file provider takes about a tenth of a second per object, whatever has changed, so a host's rules fill
as few routes as Gateway API allows. In a cluster, where an object's conditions tell how it fares and objects change one
at a time, each publication has its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Final, TypeVar

from extauth.answers.answers import denial
from extauth.reasons import Reason
from extauth.request.route_names import ROUTE_PREFIX, read_rule
from publisher.gateway.gate import gate_name
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import NO_LABELS, Json, content_name, made
from publisher.gateway.resources.rules import (
    HostRules,
    Rule,
    closed,
    credential_name,
    entry,
    entry_by_path,
    host_rules,
    no_model_name,
    own_host_name,
)
from publisher.gateway.resources.security import bodies_name
from publisher.gateway.resources.targets import READS
from publisher.plan import Injection, Plan

_T = TypeVar("_T")

NEVER: Final = "/:"
"""No publication's path can begin so."""
MAX_RULES: Final = 16
"""Most rules of an HTTPRoute (Gateway API)."""
MAX_MATCHES: Final = 60
"""Most matches that are written in one rule: 64 are allowed, 128 in a whole route."""


def routes(plan: Plan, options: GatewayOptions) -> list[Json]:
    """All HTTPRoutes, in a stable order; of a plan that fits (``fitting``)."""
    upstreams = {upstream.publication: upstream for upstream in plan.upstreams}
    hosts = [host_rules(host, upstreams, options) for host in plan.hosts]
    laid = [route for host in hosts for route in (*_published(host, options), *_own(host, options))]
    return [*laid, *_standing_routes(options)]


def _standing_routes(options: GatewayOptions) -> list[Json]:
    """Routes of every host that take no call, one for each policy that asks Check.

    With them their filters, and the meter's, are on every listener from the start on. A publication changes no
    listener, and where Envoy refuses one later it goes on with one that asks.
    """
    return [_standing_route(gate_name(options), options), _standing_route(bodies_name(options), options, is_read=True)]


def _standing_route(name: str, options: GatewayOptions, *, is_read: bool = False) -> Json:
    rules = [closed([{"path": {"type": "Exact", "value": f"{NEVER}{name}"}}], options)]
    spec = {"parentRefs": [{"name": options.gateway}], "rules": rules}
    return _made(name, spec, options, is_read=is_read)


def no_model_filter(options: GatewayOptions) -> Json:
    """What answers a call that stays where the body decides: no model of that name is served here."""
    answer = denial(Reason.MODEL_NOT_FOUND)
    spec = {
        "directResponse": {
            "statusCode": answer.status,
            "contentType": "application/json",
            "body": {"type": "Inline", "inline": answer.body},
        }
    }
    return made("HTTPRouteFilter", no_model_name(options), spec, namespace=options.namespace, gateway=options.gateway)


def own_host_filter(options: GatewayOptions) -> Json:
    """What tells each of several servers its own name as Host."""
    spec = {"urlRewrite": {"hostname": {"type": "Backend"}}}
    return made("HTTPRouteFilter", own_host_name(options), spec, namespace=options.namespace, gateway=options.gateway)


def credential_filters(plan: Plan, options: GatewayOptions) -> list[Json]:
    """What gives servers the headers that they want, one for each header and Secret; by name."""
    wanted = {credential_name(one.injection, options): one.injection for one in plan.upstreams if one.injection}
    return [_credential_filter(name, wanted[name], options) for name in sorted(wanted)]


def _credential_filter(name: str, injection: Injection, options: GatewayOptions) -> Json:
    credential = {"valueRef": {"group": "", "kind": "Secret", "name": injection.secret}}
    spec = {"credentialInjection": {"header": injection.header, "overwrite": True, "credential": credential}}
    return made("HTTPRouteFilter", name, spec, namespace=options.namespace, gateway=options.gateway)


ROUTES: Final = frozenset({"HTTPRoute", "AIGatewayRoute"})
"""The kinds of objects that have rules."""


def carried(obj: Json) -> frozenset[str]:
    """The publications whose rules an object carries."""
    rules = obj["spec"].get("rules", ()) if obj["kind"] in ROUTES else ()
    return frozenset(uid for rule in rules if (uid := read_rule(rule["name"])[0]))


def _published(host: HostRules, options: GatewayOptions) -> Iterator[Json]:
    """Each publication's own routes, or a few for all.

    One whose servers get a credential has its own always: its clusters are named after its route's name and its rules'
    indexes there, and must never come to mean another publication's server.
    """
    by_publication = sorted(host.published, key=lambda rule: rule.publication)
    alone = [rule for rule in by_publication if options.per_publication_routes or rule.has_credential]
    for uid, rules in groupby(alone, key=lambda rule: rule.publication):
        for index, own in enumerate(_pieces(list(rules), MAX_RULES)):
            yield _filled(f"{ROUTE_PREFIX}{uid}{f'-{index}' if index else ''}", host, own, options)
    if options.per_publication_routes:
        return
    for what, is_read in (("routes", False), ("models", True)):
        of_kind = [rule for rule in by_publication if rule.is_read is is_read and not rule.has_credential]
        for index, filled in enumerate(_packed(of_kind)):
            yield _filled(_name(what, host, options, index), host, filled, options)


def _packed(rules: Sequence[Rule]) -> Iterator[Sequence[Rule]]:
    """Fill routes; a publication's rules stay together where they fit."""
    filled: list[Rule] = []
    for _, group in groupby(rules, key=lambda rule: rule.publication):
        for own in _pieces(list(group), MAX_RULES):
            if len(filled) + len(own) > MAX_RULES:
                yield filled
                filled = []
            filled += own
    if filled:
        yield filled


def _own(host: HostRules, options: GatewayOptions) -> Iterator[Json]:
    """The host's entries, and what is closed on it, in as many routes as their matches need."""
    for index, named in enumerate(_pieces(host.by_path, MAX_MATCHES)):
        rules = [entry_by_path(host.host, named, options)]
        yield _route(_name("named", host, options, index), host.host, rules, options, is_read=False)
    parts = zip_longest(_pieces(host.entry, MAX_MATCHES), _pieces(host.closed, MAX_MATCHES), fillvalue=())
    for index, (waiting, shut) in enumerate(parts):
        waits = [entry(host.host, waiting, options)] if waiting else []
        rules = [*waits, *([closed(shut, options)] if shut else [])]
        yield _route(_name("entry", host, options, index), host.host, rules, options, is_read=bool(waiting))


def _pieces(whole: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    return (whole[start : start + most] for start in range(0, len(whole), most))


def _name(what: str, host: HostRules, options: GatewayOptions, index: int) -> str:
    return f"{content_name(what, options.gateway, host.host)}-{index}"


def _filled(name: str, host: HostRules, rules: Sequence[Rule], options: GatewayOptions) -> Json:
    """A route of publications of one kind."""
    return _route(name, host.host, [rule.rendered for rule in rules], options, is_read=rules[0].is_read)


def _route(name: str, host: str, rules: list[Json], options: GatewayOptions, *, is_read: bool) -> Json:
    spec = {"parentRefs": [{"name": options.gateway}], "hostnames": [host], "rules": rules}
    return _made(name, spec, options, is_read=is_read)


def _made(name: str, spec: Json, options: GatewayOptions, *, is_read: bool) -> Json:
    """``is_read``: Check reads the bodies of the calls that it takes."""
    labels = READS if is_read else NO_LABELS
    return made("HTTPRoute", name, spec, namespace=options.namespace, gateway=options.gateway, labels=labels)
