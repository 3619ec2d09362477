"""The API's document (OpenAPI 3.1), made of the table of calls and the models that check bodies. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from admin.http import problems
from admin.http.problems import Code
from admin.http.routes import Parameter, Route
from admin.people.permissions import Access
from admin.schemas.fields import Input, Output
from admin.schemas.schemas import ProblemAnswer
from runtime.version import VERSION

_REF: Final = "#/components/schemas/{model}"
_EVERY_CALL: Final = (Code.STORE_UNAVAILABLE, Code.INTERNAL, Code.CORRUPT_RECORD)
_OF_ACCESS: Final = {
    Access.OPEN: (),
    Access.READ: (Code.UNAUTHENTICATED, Code.TOO_MANY_REQUESTS),
    Access.OPERATE: (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.TOO_MANY_REQUESTS),
    Access.ADMIN: (Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.TOO_MANY_REQUESTS),
}
_DOCUMENT: Final = "/openapi.json"
_OWN_OPERATION: Final = {
    "operationId": "openapi",
    "summary": "This document.",
    "responses": {"200": {"description": "As the summary says."}},
    "security": [],
}
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "Do it only if the ETag is still one of these; * is any.",
    "schema": {"type": "string"},
}
_ETAG: Final = {
    "ETag": {"description": "Names this state of the record, for If-Match.", "schema": {"type": "string"}},
}
_PACE: Final = {
    "RateLimit-Policy": {
        "description": "How many calls of a user and writes in a tenant fit into a minute "
        "(draft-ietf-httpapi-ratelimit-headers-10).",
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": "How many calls are left now, and in how many seconds all are again.",
        "schema": {"type": "string"},
    },
}
_VARIABLES: Final = {
    "m": "Name of a model.",
    "t": "Name of a tenant.",
    "u": "Name of a user.",
    "s": "Name of a service account.",
    "k": "Id of a key.",
    "p": "Uid of a publication.",
    "h": "Name of a host.",
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """Describe the API."""
    table = tuple(routes)
    paths: dict[str, Any] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    paths[_DOCUMENT] = {"get": _OWN_OPERATION}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tollkeeper admin API", "version": VERSION},
        "paths": paths,
        "components": {
            "schemas": _schemas(table),
            "securitySchemes": {"login": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": [
            *map(_variable, _names_in(route.path)),
            *map(_query, route.query),
            *([_IF_MATCH] if route.conditional else []),
        ],
        "responses": _responses(route),
        "security": [] if route.access is Access.OPEN else [{"login": []}],
    }
    if route.access is not Access.OPEN:
        described["description"] = f"Roles: {', '.join(route.access.roles)}."
        described["x-roles"] = list(route.access.roles)
    if route.body:
        described["requestBody"] = {"required": not route.body_optional, "content": _json(route.body)}
    return described


def _names_in(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _variable(name: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": name, "in": "path", "required": True, "description": _VARIABLES[name], "schema": schema}


def _query(parameter: Parameter) -> dict[str, Any]:
    schema = {"type": "string"}
    return {"name": parameter.name, "in": "query", "description": parameter.description, "schema": schema}


def _json(model: type[Input | Output], content_type: str = "application/json") -> dict[str, Any]:
    return {content_type: {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _responses(route: Route) -> dict[str, Any]:
    answers = {str(status): _answer(model, tagged=route.tagged) for status, model in route.answers.items()}
    conditional = (Code.PRECONDITION_FAILED,) if route.conditional else ()
    codes = (*route.refusals, *_OF_ACCESS[route.access], *_EVERY_CALL, *conditional)
    by_status: dict[str, list[Code]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(str(problems.meaning(code).status.value), []).append(code)
    refusals = {status: _refusal(told) for status, told in by_status.items() if status not in answers}
    responses = answers | refusals
    return responses if route.access is Access.OPEN else {status: _paced(one) for status, one in responses.items()}


def _paced(response: dict[str, Any]) -> dict[str, Any]:
    return {**response, "headers": {**response.get("headers", {}), **_PACE}}


def _answer(model: type[Output] | None, *, tagged: bool) -> dict[str, Any]:
    if model is None:
        return {"description": "Done."}
    described = {"description": (model.__doc__ or "").strip(), "content": _json(model)}
    return described | ({"headers": _ETAG} if tagged else {})


def _refusal(codes: Iterable[Code]) -> dict[str, Any]:
    told = "; ".join(f"{code.value}: {problems.meaning(code).title}" for code in codes)
    return {"description": told, "content": _json(ProblemAnswer, problems.CONTENT_TYPE)}


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    taken = {route.body for route in routes if route.body}
    given = {model for route in routes for model in route.answers.values() if model} | {ProblemAnswer}
    pairs: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in sorted(taken, key=lambda one: one.__name__)),
        *((model, "serialization") for model in sorted(given, key=lambda one: one.__name__)),
    ]
    _, definitions = models_json_schema(pairs, by_alias=True, ref_template=_REF)
    found: dict[str, Any] = definitions["$defs"]
    return found
