"""The secrets shared by gate and admin: peppers, MAC keys, the login key and the recovery key.

Owns the secrets file: its form, its mode, how it is made and read. Knows nothing of what the secrets are used for.

The file is JSON of mode 0600, or a file of somebody else's that our group may read, as a Kubernetes Secret gives it;
every secret is base64 of at least 32 bytes::

    {"peppers": {"1": "…"}, "current_pepper": 1, "mac_keys": {"1": "…"}, "current_mac_key": 1,
     "jwt_key": "…", "recovery_key": "…"}

A new pepper or MAC key is added to the file of every process first, and made current afterwards.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SECRET_BYTES: Final = 32  # 256 bits from the OS: as strong as the HMAC-SHA256 and AES-256 they feed
MAX_FILE_BYTES: Final = 64 * 1024  # a secrets file is under 1 KiB; a wrong path must not fill the memory
MAX_FIELD_SHOWN: Final = 64
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")  # a later one than this nobody rotates to
_FIELDS: Final = frozenset({"peppers", "current_pepper", "mac_keys", "current_mac_key", "jwt_key", "recovery_key"})
_OTHERS_MAY: Final = stat.S_IRWXG | stat.S_IRWXO
OWN_MODE: Final = 0o600  # our own file: we read it as its owner, so no group has to
GIVEN_MODE: Final = 0o640  # somebody else's (root's, in a Secret's volume): we can read it only as its group


class SecretsError(Exception):
    """The secrets file cannot be used; the message names the file, the field and the rule, never a value."""

    def __init__(self, path: Path, rule: str, *, field: str = "") -> None:
        where = f"secrets file {path}: {field}" if field else f"secrets file {path}"
        super().__init__(f"{where}: {rule}")
        self.path = path
        self.field = field
        self.rule = rule


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """All secrets of a deployment. Never printed."""

    peppers: Mapping[int, bytes]  # pepper of each version; see catalog.keys.hashing
    current_pepper: int  # version that new credentials get
    mac_keys: Mapping[int, bytes]  # key of each version; texts checked by any of them are read
    current_mac_key: int  # version that new key texts get
    jwt_key: bytes  # signs login tokens
    recovery_key: bytes  # AES-256: encrypts key texts where key recovery is on

    def __repr__(self) -> str:
        """Say that there are secrets, not which."""
        return "Secrets(***)"


def load_secrets(path: Path) -> Secrets:
    """Read the secrets file; raises ``SecretsError`` naming the first thing wrong with it."""
    return _Parser(path, _read_private(path)).secrets()


def create_secrets(path: Path, entropy: Callable[[int], bytes] = os.urandom) -> Secrets:
    """Make a new secrets file of mode 0600 and return its content.

    The file appears whole or not at all and is on the disk when this returns.
    Raises ``SecretsError`` when the path exists (nothing is ever overwritten) or cannot be written.
    """
    secrets = Secrets(
        peppers={1: entropy(SECRET_BYTES)},
        current_pepper=1,
        mac_keys={1: entropy(SECRET_BYTES)},
        current_mac_key=1,
        jwt_key=entropy(SECRET_BYTES),
        recovery_key=entropy(SECRET_BYTES),
    )
    _write_new(path, json.dumps(_as_json(secrets), indent=2).encode() + b"\n")
    return secrets


def change_secrets(path: Path, change: Callable[[Secrets], Secrets]) -> Secrets:
    """Replace the file by ``change`` of what it holds, and return that.

    The file is the old or the new one at every moment, of the same owner and mode, and on the disk when this returns.
    Raises ``SecretsError`` when it cannot be read or written, or while another process changes it.
    """
    real = path.resolve()  # a link stays a link
    try:
        with _locked(real):
            changed = change(load_secrets(real))
            _replace(real, json.dumps(_as_json(changed), indent=2).encode() + b"\n")
    except OSError as error:
        raise SecretsError(path, f"cannot be changed: {error.strerror}") from None
    return changed


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes from changing the file; the lock is on its folder, because the file is replaced."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SecretsError(path, "is being changed by another process; try again") from None
    finally:
        os.close(descriptor)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    owner = path.stat()
    try:
        _write_durably(draft, content)
        if os.geteuid() == 0:  # else whoever may write here owns both
            os.chown(draft, owner.st_uid, owner.st_gid)
            draft.chmod(stat.S_IMODE(owner.st_mode))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _as_json(secrets: Secrets) -> dict[str, Any]:
    return {
        "peppers": {str(version): _encoded(pepper) for version, pepper in secrets.peppers.items()},
        "current_pepper": secrets.current_pepper,
        "mac_keys": {str(version): _encoded(key) for version, key in secrets.mac_keys.items()},
        "current_mac_key": secrets.current_mac_key,
        "jwt_key": _encoded(secrets.jwt_key),
        "recovery_key": _encoded(secrets.recovery_key),
    }


def _encoded(secret: bytes) -> str:
    return base64.b64encode(secret).decode()


def _write_new(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        try:
            _write_durably(draft, content)
            os.link(draft, path)  # unlike a rename, refuses to replace
        finally:
            draft.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise SecretsError(path, "exists already and is not overwritten") from None
    except OSError as error:
        raise SecretsError(path, f"cannot be written: {error.strerror}") from None


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_private(path: Path) -> bytes:
    """Read a file that nobody but its owner may touch, and its group read; the mode is that of the very file read."""
    try:
        with path.open("rb") as file:
            _refuse_open_mode(path, os.fstat(file.fileno()))
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SecretsError(path, f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise SecretsError(path, f"is longer than {MAX_FILE_BYTES} bytes")
    return content


def _refuse_open_mode(path: Path, found: os.stat_result) -> None:
    most = OWN_MODE if found.st_uid == os.geteuid() else GIVEN_MODE
    mode = stat.S_IMODE(found.st_mode)
    if mode & _OTHERS_MAY & ~most:
        raise SecretsError(path, f"mode is {mode:04o}, must be {most:04o} or less: others must not read it")


class _Parser:
    """Turns the file's bytes into secrets, naming the field that breaks a rule."""

    def __init__(self, path: Path, content: bytes) -> None:
        self._path = path
        self._document = self._object(content)

    def secrets(self) -> Secrets:
        self._refuse_unknown_fields()
        peppers = self._versions("peppers")
        mac_keys = self._versions("mac_keys")
        return Secrets(
            peppers=peppers,
            current_pepper=self._current("current_pepper", "peppers", peppers),
            mac_keys=mac_keys,
            current_mac_key=self._current("current_mac_key", "mac_keys", mac_keys),
            jwt_key=self._secret("jwt_key", self._field("jwt_key")),
            recovery_key=self._recovery_key(),
        )

    def _object(self, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):  # no JSON, or nested as no file of ours is
            raise SecretsError(self._path, "is not JSON") from None
        if not isinstance(document, dict):
            raise SecretsError(self._path, "must be a JSON object")
        return document

    def _refuse_unknown_fields(self) -> None:
        for field in sorted(self._document.keys() - _FIELDS):
            raise self._error(field, f"is not a field; the fields are {', '.join(sorted(_FIELDS))}")

    def _field(self, field: str) -> Any:
        if field not in self._document:
            raise self._error(field, "is missing")
        return self._document[field]

    def _versions(self, field: str) -> dict[int, bytes]:
        given = self._field(field)
        if not isinstance(given, dict) or not given:
            raise self._error(field, 'must be an object of version -> secret with at least one: {"1": "…"}')
        return {
            self._version(field, version): self._secret(f"{field}.{version}", secret)
            for version, secret in given.items()
        }

    def _version(self, field: str, version: str) -> int:
        if not _VERSION.fullmatch(version):
            raise self._error(f"{field}.{version}", "version must be a whole number from 1 on")
        return int(version)

    def _current(self, field: str, versions_field: str, versions: Mapping[int, bytes]) -> int:
        current = self._field(field)
        if type(current) is not int or current not in versions:
            raise self._error(field, f"must be one of the versions in {versions_field}")
        return current

    def _secret(self, field: str, value: Any) -> bytes:
        if not isinstance(value, str):
            raise self._error(field, "must be a base64 string")
        try:
            secret = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise self._error(field, "must be base64") from None
        if len(secret) < SECRET_BYTES:
            raise self._error(field, f"must be at least {SECRET_BYTES} bytes, is {len(secret)}")
        return secret

    def _recovery_key(self) -> bytes:
        key = self._secret("recovery_key", self._field("recovery_key"))
        if len(key) != SECRET_BYTES:
            raise self._error("recovery_key", f"must be exactly {SECRET_BYTES} bytes, is {len(key)}")
        return key

    def _error(self, field: str, rule: str) -> SecretsError:
        return SecretsError(self._path, rule, field=field[:MAX_FIELD_SHOWN])
