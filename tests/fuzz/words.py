"""Files and words an operator may get wrong: the secrets file, settings, URLs, addresses.

Each is taken or refused in the one way its reader promises; nothing else comes out, and no secret in the refusal.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from admin.models.addresses import AddressRules, parse_target
from catalog.keys.secrets import Secrets, SecretsError, create_secrets, load_secrets
from runtime.addresses import parse_address, site_of
from runtime.settings import BadSettings, read
from tests.fuzz.found import Found, Tally
from tests.fuzz.texts import mutated, odd_text, twisted
from tollkeeper.admin.app import AdminSettings
from tollkeeper.gate.app import GateSettings

_VALUES: Final[tuple[Any, ...]] = (
    None, True, 0, -1, 1, 10**400, 1.5, "", "1", [], {}, {"1": ""}, {"1": None}, {"01": "x"}, {"9" * 5_000: "x"},
    {"\u0661": "x"}, [[[[]]]],
)  # fmt: skip
_URLS: Final = (
    "redis://127.0.0.1:6379/0", "unix:///run/v.sock?db=1", "rediss://user:hunter2hunter2@store.example:6380/2",
    "redis+sentinel://a:1,b:2/primary", "http://10.0.0.7:9001", "https://[fd00::7]:8443", "unix:/run/gate.sock",
    "[::1]:0", "127.0.0.1:80", "localhost:65535", "10.0.0.0/8", "::ffff:10.0.0.1",
)  # fmt: skip


class SecretsTarget:
    """Feeds the reader of the secrets file."""

    name = "secrets"

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._path = folder / "fuzzed.json"
        self._tally = tally
        create_secrets(self._path)
        self._good = self._path.read_bytes()

    def run(self, rng: random.Random, count: int) -> None:
        """Read this many files; raises ``Found``."""
        for _ in range(count):
            content = self._content(rng)
            self._path.write_bytes(content)
            self._tally.add(self.name, self._outcome(content))

    def _content(self, rng: random.Random) -> bytes:
        kind = rng.randrange(10)
        if kind == 0:
            return rng.choice((b"", b"null", b"[" * 100_000, b"{" * 9, rng.randbytes(200), b'{"a":' * 90_000))
        if kind < 5:
            return mutated(rng, self._good, rng.randbytes(40))
        document = json.loads(self._good)
        for _ in range(rng.randrange(1, 3)):
            name = rng.choice((*document, odd_text(rng)[:40])) if document else "peppers"
            document[name] = rng.choice((*_VALUES, base64.b64encode(rng.randbytes(rng.choice((0, 31, 32)))).decode()))
        return json.dumps(document).encode()

    def _outcome(self, content: bytes) -> str:
        try:
            secrets = load_secrets(self._path)
        except SecretsError:
            return "refused"
        except Exception as error:
            raise Found(f"{error!r} for {content[:300]!r}") from error
        _judge(secrets)
        return "read"


def _judge(secrets: Secrets) -> None:
    good = secrets.current_pepper in secrets.peppers and secrets.current_mac_key in secrets.mac_keys
    every = (*secrets.peppers.values(), *secrets.mac_keys.values(), secrets.jwt_key, secrets.recovery_key)
    if not good or min(map(len, every)) < 32:
        raise Found("a file was read whose secrets are none")


class SettingsTarget:
    """Feeds the settings of gate and admin, a few options an input."""

    name = "settings"

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def run(self, rng: random.Random, count: int) -> None:
        """Read settings this often; raises ``Found``."""
        for _ in range(count):
            settings = rng.choice((GateSettings, AdminSettings))
            fields = rng.sample(sorted(settings.model_fields), k=rng.randrange(1, 5))
            given = {"secrets_file": "s.json"} | {name: _word(rng) for name in fields}
            self._tally.add(self.name, self._outcome(settings, given))

    @staticmethod
    def _outcome(settings: Any, given: dict[str, str]) -> str:
        try:
            read(settings, given)
        except BadSettings as refused:
            if "hunter2hunter2" in str(refused):
                raise Found(f"a refusal shows a password: {given}") from None
            return "refused"
        except Exception as error:
            raise Found(f"{error!r} for {given}") from error
        return "read"


class WordsTarget:
    """Feeds the readers of single words: URLs of models, addresses to listen at, networks, callers' addresses."""

    name = "words"

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def run(self, rng: random.Random, count: int) -> None:
        """Read this many words; raises ``Found``."""
        readers: tuple[Callable[[str], Any], ...] = (parse_target, parse_address, _networks, site_of)
        for _ in range(count):
            self._tally.add(self.name, self._outcome(rng.choice(readers), _word(rng)))

    @staticmethod
    def _outcome(reader: Callable[[str], Any], word: str) -> str:
        try:
            reader(word)
        except ValueError:
            if reader is site_of:
                raise Found(f"a caller's address made a fault: {word[:300]!r}") from None
            return "refused"
        except Exception as error:
            raise Found(f"{error!r} for {word[:300]!r}") from error
        return "read"


def _networks(word: str) -> AddressRules:
    return AddressRules.of(tuple(word.split(",")), ())


def _word(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return odd_text(rng)[:5_000]
    if kind == 1:
        return rng.choice(("true", "0", "-1", "1e9", "9" * 5_000, "null", "/etc/passwd", "a,b,,c", "nan", "inf"))
    return twisted(rng, rng.choice(_URLS)) if kind == 2 else rng.choice(_URLS)
