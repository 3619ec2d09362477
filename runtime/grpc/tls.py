"""A server's certificate, key and client authorities as files: read, held against each other, read again when changed.

Knows no transport. What cannot be used at the start is one sentence; what cannot be used later is counted and told
once, and what was good stays in force.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from runtime.files import Mark, mark_of
from runtime.lifecycle import CannotStart

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the three are, as PEM."""

    certificate: Path
    """The server's certificate, followed by those that lead to its authority."""
    key: Path
    """Its private key, without a passphrase."""
    client_ca: Path | None
    """Authorities whose clients may connect; ``None``: whoever reaches the address."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the files held at one moment."""

    key: bytes = field(repr=False)
    chain: bytes
    client_ca: bytes | None
    ends: dt.datetime
    """When the server's certificate ends."""


class UnusableFilesError(ValueError):
    """Why the files cannot be used; names the file, never what is in it."""


class Certificates:
    """The identity in force; ``changed`` follows the files. Safe from any thread."""

    def __init__(self, files: TlsFiles, on_reload: Callable[[str], object]) -> None:
        """Read the files, or raise ``CannotStart``; each later reading is told as ``reloaded`` or ``failed``."""
        self._files = files
        self._on_reload = on_reload
        self._lock = threading.Lock()
        self._stamp = _stamp(files)
        try:
            self.identity = read_identity(files)
        except UnusableFilesError as error:
            raise CannotStart(str(error)) from error

    def changed(self) -> Identity | None:
        """Return the new identity if the files have changed and can be used; ``None`` otherwise. Never raises."""
        with self._lock:
            stamp = _stamp(self._files)
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            return self._reload()

    def _reload(self) -> Identity | None:
        try:
            self.identity = read_identity(self._files)
        except UnusableFilesError as error:
            _log.error("the certificate was not changed: %s", error)
            self._on_reload("failed")
            return None
        _log.info("the certificate was changed; it ends at %s", self.identity.ends.isoformat())
        self._on_reload("reloaded")
        return self.identity


_Stamp = tuple[Mark | None, ...]


def _stamp(files: TlsFiles) -> _Stamp:
    """What changes when a file is written, or replaced under its name (through links too)."""
    return tuple(mark_of(path) for path in (files.certificate, files.key, files.client_ca) if path is not None)


def read_identity(files: TlsFiles) -> Identity:
    """Read the files; raises ``UnusableFilesError`` where one cannot be read or they do not belong together."""
    chain, key = _read(files.certificate), _read(files.key)
    client_ca = None if files.client_ca is None else _read(files.client_ca)
    certificate = _certificates(files.certificate, chain)[0]
    if _public_half(files.key, key) != _public(certificate.public_key()):
        raise UnusableFilesError(f"{files.key}: is not the key of the certificate in {files.certificate}")
    if files.client_ca is not None and client_ca is not None:
        _certificates(files.client_ca, client_ca)
    return Identity(key, chain, client_ca, certificate.not_valid_after_utc)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableFilesError(f"{path}: cannot be read: {error.strerror}") from error


def _certificates(path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise UnusableFilesError(f"{path}: holds no PEM certificate that can be read") from error


def _public_half(path: Path, pem: bytes) -> bytes:
    try:
        return _public(load_pem_private_key(pem, None).public_key())
    except TypeError as error:
        raise UnusableFilesError(f"{path}: has a passphrase; the key must be without one") from error
    except ValueError as error:
        raise UnusableFilesError(f"{path}: holds no PEM private key that can be read") from error


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded
