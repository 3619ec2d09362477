"""Stands for Envoy Gateway and its Envoy: takes up a folder's files as it does, and a listener serves their routes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from listener import Listener, Named

from extauth.answers.probing import OPENAI_HOST, PUBLICATION
from extauth.request.route_names import read_rule
from publisher.gateway.resources.naming import identity

Json = dict[str, Any]


@dataclass
class FolderGateway:
    """Reads all of the folder, merges what changed into what it has, and forgets objects that are gone."""

    folder: Path
    listener: Listener
    reads: bool = True  # whether it looks at the folder
    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    reloads: int = 0
    _seen: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.listener.find = self.find

    def find(self, host: str, path: str) -> Named | None:
        """What the route of a call names, by what is in force now."""
        self.look()
        found = [rule for rule in self._rules(host) if _fits(rule["match"], path)]
        best = max(found, key=lambda rule: _rank(rule["match"]), default=None)
        uid, entry = read_rule(best["name"]) if best else ("", "")
        return (PUBLICATION, uid) if uid else (OPENAI_HOST, entry) if entry else None

    def look(self) -> None:
        """Read the folder, if it has changed and can be read."""
        texts = {path.name: path.read_text() for path in sorted(self.folder.iterdir()) if not path.name.startswith(".")}
        if not self.reads or texts == self._seen:
            return
        try:
            found = [obj for text in texts.values() for obj in yaml.safe_load_all(text)]
            new = {identity(obj): obj for obj in found}
        except (yaml.YAMLError, TypeError, KeyError):
            return
        self._seen = texts
        self.reloads += 1
        self.objects = {key: _merged(self.objects.get(key, {}), obj) for key, obj in new.items()}

    def restart(self) -> None:
        """Begin anew with what the folder has."""
        self.objects, self._seen = {}, {}
        self.look()

    def _rules(self, host: str) -> list[Json]:
        routes = [obj["spec"] for obj in self.objects.values() if obj["kind"] == "HTTPRoute"]
        return [
            {"name": rule["name"], "match": match}
            for route in routes
            if host in route.get("hostnames", [host])
            for rule in route["rules"]
            for match in rule["matches"]
            if "headers" not in match
        ]


def _fits(match: Json, path: str) -> bool:
    value = match["path"]["value"]
    return path == value or (match["path"]["type"] == "PathPrefix" and path.startswith(f"{value}/"))


def _rank(match: Json) -> tuple[bool, int]:
    return match["path"]["type"] == "Exact", len(match["path"]["value"])


def _merged(before: Any, new: Any) -> Any:
    """JSON merge patch, as Envoy Gateway has it: what is not named stays."""
    if not isinstance(before, dict) or not isinstance(new, dict):
        return json.loads(json.dumps(new))
    return before | {name: _merged(before.get(name), value) for name, value in new.items()}
