"""HTTPRoutes: the rules of publications, a few objects a host or one a publication. Pure.

Envoy Gateway's file provider takes about a tenth of a second per object, whatever has changed, so a host's rules fill
as few routes as Gateway API allows. In a cluster, where an object's conditions tell how it fares and objects change one
at a time, each publication has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, zip_longest
from typing import Final, TypeVar

from extauth.answers.answers import denial
from extauth.reasons import Reason
from extauth.request.route_names import ROUTE_PREFIX, read_rule
from publisher.gateway.options import GatewayOptions
from publisher.gateway.resources.naming import Json, content_name, made
from publisher.gateway.resources.rules import HostRules, Rule, closed, entry, host_rules, no_model_name
from publisher.plan import Plan

_T = TypeVar("_T")

MAX_RULES: Final = 16
"""Most rules of an HTTPRoute (Gateway API)."""
MAX_MATCHES: Final = 60
"""Most matches that are written in one rule: 64 are allowed, 128 in a whole route."""


def routes(plan: Plan, options: GatewayOptions) -> list[Json]:
    """All HTTPRoutes, in a stable order; a plan that fits (``fitting``)."""
    upstreams = {upstream.publication: upstream for upstream in plan.upstreams}
    hosts = [host_rules(host, upstreams, options) for host in plan.hosts]
    return [route for host in hosts for route in (*_published(host, options), *_own(host, options))]


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


ROUTES: Final = frozenset({"HTTPRoute", "AIGatewayRoute"})
"""The kinds of objects that have rules."""


def carried(obj: Json) -> frozenset[str]:
    """The publications whose rules an object carries."""
    rules = obj["spec"].get("rules", ()) if obj["kind"] in ROUTES else ()
    return frozenset(uid for rule in rules if (uid := read_rule(rule["name"])[0]))


def _published(host: HostRules, options: GatewayOptions) -> Iterator[Json]:
    by_publication = sorted(host.published, key=lambda rule: rule.publication)
    if options.per_publication_routes:
        for uid, rules in groupby(by_publication, key=lambda rule: rule.publication):
            for index, own in enumerate(_pieces(list(rules), MAX_RULES)):
                yield _route(f"{ROUTE_PREFIX}{uid}{f'-{index}' if index else ''}", host.host, _rendered(own), options)
    else:
        for index, filled in enumerate(_packed(by_publication)):
            yield _route(_name("routes", host, options, index), host.host, _rendered(filled), options)


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
    """The host's entry, and what is closed on it, in as many routes as their matches need."""
    parts = zip_longest(_pieces(host.entry, MAX_MATCHES), _pieces(host.closed, MAX_MATCHES), fillvalue=())
    for index, (waiting, shut) in enumerate(parts):
        waits = [entry(host.host, waiting, options)] if waiting else []
        rules = [*waits, *([closed(shut, options)] if shut else [])]
        yield _route(_name("entry", host, options, index), host.host, rules, options)


def _pieces(whole: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    return (whole[start : start + most] for start in range(0, len(whole), most))


def _name(what: str, host: HostRules, options: GatewayOptions, index: int) -> str:
    return f"{content_name(what, options.gateway, host.host)}-{index}"


def _rendered(rules: Iterable[Rule]) -> list[Json]:
    return [rule.rendered for rule in rules]


def _route(name: str, host: str, rules: list[Json], options: GatewayOptions) -> Json:
    spec = {"parentRefs": [{"name": options.gateway}], "hostnames": [host], "rules": rules}
    return made("HTTPRoute", name, spec, namespace=options.namespace, gateway=options.gateway)
