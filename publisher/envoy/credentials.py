"""Files of the values that model servers want with each call: mode 0600, and nobody but Envoy reads them.

Each is Envoy's word for a secret (SDS), which no dump of its configuration shows. A file is named after what is stored
of its value, so a cluster that is replaced never reads the value that is meant for the next one's servers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from catalog.keys.keytext import KeyText
from catalog.keys.sealing import UnsealError
from catalog.keys.secrets import Secrets
from catalog.keys.upstream import unsealed
from publisher.drafts import text_of
from publisher.envoy.files import compact
from publisher.plan import Injection, Plan

CREDENTIAL: Final = "upstream-auth"
"""The name of the one secret in each file, and of the folder that they lie in."""

_SECRET: Final = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  a type  # nosec B105
_DIGITS: Final = 32


def credential_file(injection: Injection) -> str:
    """The name of a value's file. What is stored of a value tells nothing of it, and is another at each writing."""
    told = injection.sealed or f"secret {injection.secret}"
    return f"{hashlib.sha256(told.encode()).hexdigest()[:_DIGITS]}.json"


@dataclass(frozen=True, slots=True)
class Opened:
    """The values that a plan's servers want."""

    values: Mapping[str, KeyText | None]  # by the name of the file; None: it cannot be opened
    faults: Mapping[str, str]  # uid -> why its servers do not get what they want


def opened_of(plan: Plan, secrets: Secrets | None) -> Opened:
    """Open all values of a plan. Calls of those that cannot be opened are refused by Envoy."""
    values: dict[str, KeyText | None] = {}
    faults: dict[str, str] = {}
    for upstream in plan.upstreams:
        if upstream.injection is not None:
            value = _opened(upstream.injection, secrets)
            values[credential_file(upstream.injection)] = value if isinstance(value, KeyText) else None
            if isinstance(value, str):
                faults[upstream.publication] = value
    return Opened(values, faults)


def _opened(injection: Injection, secrets: Secrets | None) -> KeyText | str:
    """The value, or why it cannot be had."""
    if injection.secret:
        return "upstreamAuth: names a Secret, which only an Envoy Gateway has; send its value"
    if secrets is None:
        return "upstreamAuth: this process has no secrets file"
    try:
        return unsealed(injection.sealed, injection.owner, secrets)
    except UnsealError:
        return "upstreamAuth: cannot be opened by this process's secrets file; send it again"


class CredentialFiles:
    """The folder of one Envoy's values. All of it does I/O and raises ``OSError``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, values: Mapping[str, KeyText | None]) -> None:
        """Write the files of these names that do not say so, each whole or not at all."""
        if values:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        for name, value in values.items():
            text = _text(name, value)
            if text_of(self.folder / name) != text:
                _write(self.folder / name, text)

    def keep(self, names: Iterable[str]) -> None:
        """Remove all files but these."""
        kept = set(names)
        for file in self._files():
            if file.name not in kept:
                file.unlink(missing_ok=True)

    def _files(self) -> Iterator[Path]:
        return self.folder.iterdir() if self.folder.is_dir() else iter(())


def _text(name: str, value: KeyText | None) -> str:
    generic = {"secret": {"inline_string": value.reveal() if value else ""}}
    secret = {"@type": _SECRET, "name": CREDENTIAL, "generic_secret": generic}
    return compact({"version_info": name, "resources": [secret]}) + "\n"


def _write(path: Path, text: str) -> None:
    """By a rename of what the disk has: after a crash the file is whole or not there."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
