"""Requests made of the API's own document: a call that is added there is asked here without anybody writing it down.

Whoever adds a variable of a path or a parameter of a query must say what it stands for, or no request can be made.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HARMLESS = frozenset({"limit", "cursor", "action", "since", "until", "usage", "name", "labelSelector"})
"""Parameters that name nothing of anybody's."""


@dataclass(frozen=True)
class Operation:
    """A call of the document."""

    method: str
    path: str  # with variables
    roles: frozenset[str]  # none: anybody
    query: tuple[str, ...]
    body: Any = field(hash=False)  # a good one; None: it takes none

    @property
    def variables(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    @property
    def is_open(self) -> bool:
        return not self.roles

    def filled(self, values: Mapping[str, str]) -> str:
        """The path with its variables' values; a variable without one is a fault of who added it."""
        missing = [name for name in self.variables if name not in values]
        assert not missing, f"{self.method} {self.path}: say in this test what {missing} stands for"
        return self.path.format(**values)


def operations(document: Any, fields: Mapping[str, Any]) -> list[Operation]:
    """Every call of a document; ``fields`` are values of a body's fields that its schema alone does not tell."""
    return [
        _operation(document, path, method, told, fields)
        for path, calls in document["paths"].items()
        for method, told in calls.items()
    ]


def _operation(document: Any, path: str, method: str, told: Any, fields: Mapping[str, Any]) -> Operation:
    body = None
    if "requestBody" in told:
        body = _example(told["requestBody"]["content"]["application/json"]["schema"], document, fields)
    query = tuple(one["name"] for one in told.get("parameters", ()) if one["in"] == "query")
    assert bool(told["security"]) == ("x-roles" in told), f"{method} {path}: who may call it is not told"
    return Operation(method.upper(), path, frozenset(told.get("x-roles", ())), query, body)


def _example(schema: Any, document: Any, fields: Mapping[str, Any]) -> Any:
    """A value that the schema allows: the required fields, and those whose value is known."""
    schema = _resolved(schema, document)
    if schema.get("type") == "object" or "properties" in schema:
        inner = schema.get("properties", {})
        wanted = [name for name in inner if name in schema.get("required", ()) or name in fields]
        return {name: fields[name] if name in fields else _example(inner[name], document, fields) for name in wanted}
    if schema.get("type") == "array":
        return [_example(schema["items"], document, fields)]
    for known in ("examples", "enum"):
        if known in schema:
            return schema[known][0]
    if schema.get("type") in {"integer", "number"}:
        return schema.get("minimum", 1)
    return {"boolean": False, "null": None}.get(schema.get("type"), "x" * schema.get("minLength", 1))


def _resolved(schema: Any, document: Any) -> Any:
    if "$ref" in schema:
        return document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for combined in ("allOf", "anyOf", "oneOf"):
        if combined in schema:
            return _resolved(schema[combined][0], document)
    return schema


def with_tenant(operation: Operation, document: Any, name: str) -> Iterator[Any]:
    """The operation's body once for each field that can name a tenant, that field naming ``name``."""
    told = document["paths"][operation.path][operation.method.lower()]
    if operation.body is None:
        return
    schema = told["requestBody"]["content"]["application/json"]["schema"]
    for path, is_list in _tenant_fields(schema, document):
        body = copy.deepcopy(operation.body)
        inner = body
        for step in path[:-1]:
            inner = inner.setdefault(step, {})
        inner[path[-1]] = [name] if is_list else name
        yield body


def _tenant_fields(schema: Any, document: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], bool]]:
    schema = _resolved(schema, document)
    for name, inner in schema.get("properties", {}).items():
        if "tenant" in name.lower():
            yield (*above, name), _resolved(inner, document).get("type") == "array"
        else:
            yield from _tenant_fields(inner, document, (*above, name))


def plain(text: str) -> Any:
    """An answer's body to show where it is not as it should be."""
    return json.loads(text) if text.startswith("{") else text
