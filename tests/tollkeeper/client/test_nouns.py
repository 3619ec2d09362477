"""The command line and the API are the same: every verb's call, field and column is one that the API has."""

from __future__ import annotations

import re
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from admin.http.routes import ROUTES, Route
from tollkeeper.client.fields import Field
from tollkeeper.client.nouns.table import NOUNS
from tollkeeper.client.nouns.verbs import Noun, Verb

BY_CALL = {(route.method, re.sub(r"\{\w+\}", "{}", route.path)): route for route in ROUTES}
VERBS = [pytest.param(noun, verb, id=f"{noun.name}-{name}") for noun in NOUNS for name, verb in noun.verbs.items()]
ELSEWHERE = {
    *(("POST", "/api/admin/login"), ("POST", "/api/admin/logout"), ("GET", "/api/users/me")),  # login, logout, whoami
    ("POST", "/api/keys/find"),  # keys find
    ("POST", "/api/users/me/password"),  # password
    ("POST", "/api/validate-api-key"),  # keys find says more
    *(("GET", "/api/hosts"), ("DELETE", "/api/hosts/{}"), ("DELETE", "/api/published-models/{}")),  # repairs, by curl
    ("GET", "/api/published-models/{}/usage"),  # of what is no more
    *(("GET", "/healthz"), ("GET", "/readyz")),  # tollkeeper probe
}


def route_of(verb: Verb) -> Route:
    """The API's call of a verb."""
    return BY_CALL[verb.method, re.sub(r"\{\w+\}", "{}", verb.path)]


def models_of(annotation: Any) -> list[type[BaseModel]]:
    """All models that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for one in get_args(annotation) for model in models_of(one)] if get_origin(annotation) else []


def has(model: type[BaseModel], path: tuple[str, ...]) -> bool:
    """Whether a model has a field, by the names of the API."""
    name, *rest = path
    for known, info in model.model_fields.items():
        if name == (info.alias or known):
            inner = models_of(info.annotation)
            return not rest or not inner or any(has(one, tuple(rest)) for one in inner)
    return False


@pytest.mark.parametrize(("noun", "verb"), VERBS)
def test_every_verb_is_a_call_of_the_api(noun: Noun, verb: Verb) -> None:
    """With its body's fields, its query's parameters, and the columns of what it lists."""
    route = route_of(verb)
    fields = [(*verb.below, *field.path) for field in verb.fields]
    fields += [(verb.argument_field,)] if verb.argument_field else []
    fields += [(*verb.below, name) for name in verb.constant]
    assert route.body is not None or not fields
    assert [path for path in fields if route.body and not has(route.body, path)] == []
    assert set(verb.query.values()) <= {one.name for one in route.query}
    assert verb.has_usage == ("usage" in {one.name for one in route.query})
    assert bool(verb.done) == (None in route.answers.values())
    if verb.is_list:
        (page,) = (one for one in route.answers.values() if one)
        (item,) = models_of(page.model_fields["items"].annotation)
        columns = verb.columns or noun.columns
        assert [one.path for one in columns if not has(item, tuple(one.path.split(".")))] == []


def test_every_call_of_the_api_has_a_verb() -> None:
    """Or is known to be another command's."""
    covered = {(verb.method, re.sub(r"\{\w+\}", "{}", verb.path)) for noun in NOUNS for verb in noun.verbs.values()}
    assert covered.isdisjoint(ELSEWHERE)
    assert covered | ELSEWHERE == BY_CALL.keys()


UNSAID = {
    *(f"tokens.{name}" for name in ("missingUsage", "reservationTimeoutSeconds", "clampUsage", "mediaPartTokens")),
    *(f"tokens.{name}" for name in ("bytesPerToken", "streamBytesPerToken")),
    *("allowedEndpoints", "allowBackground", "authentication.anonymousRequestsPerMinute"),
    "tenantId",  # `--tenant` says it in the query
}
"""Fields of publications that are for files (`-f`): seldom changed, and never in a hurry."""


def leaves(model: type[BaseModel], before: str = "") -> set[str]:
    """The fields of a body, by the names of the API; of lists of objects, the list."""
    found = set()
    for known, info in model.model_fields.items():
        name = f"{before}{info.alias or known}"
        inner = [] if "tuple" in str(info.annotation) else models_of(info.annotation)
        found |= leaves(inner[0], f"{name}.") if inner else {name}
    return found


@pytest.mark.parametrize(("noun", "verb"), VERBS)
def test_every_field_of_the_api_has_an_option(noun: Noun, verb: Verb) -> None:
    """But for a few of publications, and for disabling a key, which has verbs of its own."""
    body = route_of(verb).body
    if body is None or verb.constant:
        return
    below = ".".join((*verb.below, ""))
    said = {f"{below}{field.dotted}" for field in verb.fields} | {verb.argument_field}
    assert leaves(body) - said == {
        f"{below}{name}" for name in UNSAID if noun.name == "publications" and verb.fields[1:]
    }


def test_no_option_stands_for_two_things() -> None:
    """Of one verb: options of its fields and of its query, and those that every verb may have."""
    for noun in NOUNS:
        for verb in noun.verbs.values():
            names = [field.name for field in verb.fields] + [one.removeprefix("--") for one in verb.query]
            names += ["target", "file", "secret_file", "yes", "limit", "usage", "output"]
            assert len(names) == len(set(names)), (noun.name, verb.path)


def test_whoever_destroys_is_asked() -> None:
    """Every DELETE has a question, and says what it did."""
    verbs = [verb for noun in NOUNS for verb in noun.verbs.values() if verb.method == "DELETE"]
    assert verbs
    assert all(verb.asks and verb.done for verb in verbs)


def test_whatever_answers_a_key_can_write_it_to_a_file() -> None:
    """Creating and rotating."""
    told = {f"{noun.name} {name}" for noun in NOUNS for name, verb in noun.verbs.items() if verb.shown_once}
    publications = {"publications create", "publications rotate-key"}
    assert told == {"keys create", "keys rotate", "service-accounts create", "service-accounts rotate", *publications}


def test_required_fields_are_those_of_the_api() -> None:
    """An option is required where the API's field is, but for what the argument gives."""
    for noun in NOUNS:
        for verb in noun.verbs.values():
            body = route_of(verb).body
            required = (
                {info.alias or name for name, info in body.model_fields.items() if info.is_required()}
                if body
                else set()
            )
            required -= {verb.argument_field, *verb.below, *verb.constant}
            ours = {field.path[0] for field in verb.fields if field.required}
            assert ours == required - {"publications"}, (noun.name, verb.path)


def test_a_name_is_read_as_click_names_it() -> None:
    """Of a switch, the first half."""
    from tollkeeper.client.fields import Kind  # noqa: PLC0415

    assert Field("--disabled/--enabled", ("disabled",), Kind.SWITCH, "").name == "disabled"
    assert Field("--key-file", ("x",), Kind.TEXT, "").name == "key_file"
