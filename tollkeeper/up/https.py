"""The certificates of https, brought to Envoy and kept in step with the files they come from.

However a file is renewed (in place, by rename, by a link, key before certificate): Envoy gets each pair in one step,
and only pairs that can be used. Nothing is restarted for it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click
from cryptography import x509

from publisher.envoy.listener.tls import certificate_file
from runtime.files import Mark, mark_of
from runtime.grpc.tls import Identity, TlsFiles, UnusableFilesError, read_identity
from runtime.lifecycle import CannotStart
from runtime.settings import option_of
from tollkeeper.up.state import write_private

LOOK_S: Final = 1.0
"""How often the files are looked at: one stat each."""
ENSURE_EVERY: Final = dt.timedelta(days=1)
"""How often the machine's own certificate is seen to: it is made anew long before it ends."""
_WILDCARD: Final = "*"

Ensure = Callable[[dt.datetime], object]
"""Keeps the files of the machine's own certificate good at a time, as ``ensure_certificate`` does."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def certificate_files(folder: Path, sources: Sequence[TlsFiles]) -> list[Path]:
    """Where Envoy finds the certificate of each source, in their order."""
    return [folder / f"certificate-{number}.json" for number in range(len(sources))]


class HttpsCertificates:
    """What https shows. ``bring`` at the start, then ``keep`` as a task."""

    def __init__(
        self,
        sources: Sequence[TlsFiles],
        folder: Path,
        host: str,
        *,
        ensure: Ensure | None = None,
        clock: Callable[[], dt.datetime] = _now,
    ) -> None:
        """One of the certificates must be good for ``host``; those that ``ensure`` makes are seen to each day."""
        self._host = host
        files = zip(sources, certificate_files(folder, sources), strict=True)
        self._sources = tuple(_Source(source, target, clock) for source, target in files)
        self._ensure, self._clock = ensure, clock
        self._ensured: dt.datetime | None = None
        self._told: set[str] = set()  # faults of the disk since something was written last

    def bring(self) -> None:
        """Bring all to Envoy; raises ``CannotStart`` that names the option where they cannot be used."""
        self._see_to_own()
        try:
            identities = [source.bring() for source in self._sources]
        except UnusableFilesError as error:
            raise CannotStart(str(error)) from error
        if not any(is_good_for(identity, self._host) for identity in identities):
            given = ", ".join(str(source.files.certificate) for source in self._sources)
            raise CannotStart(f"{option_of('tls_certificate')} {given}: is not good for the default host {self._host}")

    async def keep(self) -> None:
        """Follow the files until cancelled. What cannot be used is told once; what was good stays in force.

        What cannot be written, because the disk is full, is told once and tried again at each look.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            self._try_own()
            for source in self._sources:
                if source.has_changed():
                    self._renew(source)

    def _try_own(self) -> None:
        try:
            self._see_to_own()
        except OSError as error:
            self._tell_once(f"the machine's own cannot be renewed: {error.strerror}")

    def _see_to_own(self) -> None:
        now = self._clock()
        if self._ensure is None or (self._ensured and abs(now - self._ensured) < ENSURE_EVERY):
            return
        self._ensure(now)
        self._ensured = now

    def _renew(self, source: _Source) -> None:
        try:
            identity = source.bring()
        except UnusableFilesError as error:
            click.echo(f"warning: https shows the certificate it had: {error}", err=True)
        except OSError as error:
            self._tell_once(f"{source.target}: cannot be written: {error.strerror}")
        else:
            self._told.clear()
            click.echo(f"https shows {source.files.certificate} anew; it ends at {identity.ends:%Y-%m-%d %H:%M} UTC")

    def _tell_once(self, fault: str) -> None:
        if fault not in self._told:
            self._told.add(fault)
            click.echo(f"warning: https shows the certificate it had: {fault}; this is tried again", err=True)


class _Source:
    """One certificate and its key, and the file in which Envoy gets them."""

    def __init__(self, files: TlsFiles, target: Path, clock: Callable[[], dt.datetime]) -> None:
        self.files = files
        self.target = target
        self._clock = clock
        self._marks: tuple[Mark | None, ...] = ()

    def has_changed(self) -> bool:
        """Whether the files are others than at the last ``bring``."""
        return self._look() != self._marks

    def bring(self) -> Identity:
        """Read both and write them for Envoy in one step; raises ``UnusableFilesError`` that names the option.

        After an ``OSError`` of writing they count as changed still.
        """
        self._marks = self._look()
        try:
            identity = read_identity(self.files)
        except UnusableFilesError as error:
            option = "tls_key" if str(error).startswith(f"{self.files.key}:") else "tls_certificate"
            raise UnusableFilesError(f"{option_of(option)} {error}") from error
        self._require_time(identity, self._clock())
        content = certificate_file(
            self.target.stem, chain=identity.chain.decode(errors="replace"), key=identity.key.decode(errors="replace")
        )
        try:
            write_private(self.target, content.text().encode())
        except OSError:
            self._marks = ()
            raise
        return identity

    def _look(self) -> tuple[Mark | None, ...]:
        return mark_of(self.files.certificate), mark_of(self.files.key)

    def _require_time(self, identity: Identity, now: dt.datetime) -> None:
        begins = _certificate(identity).not_valid_before_utc
        if begins <= now < identity.ends:
            return
        fault = f"ended at {identity.ends:%Y-%m-%d %H:%M} UTC"
        if now < begins:
            fault = f"is not good before {begins:%Y-%m-%d %H:%M} UTC"
        raise UnusableFilesError(f"{option_of('tls_certificate')} {self.files.certificate}: {fault}")


def is_good_for(identity: Identity, host: str) -> bool:
    """Whether the certificate has the host's name, or a wildcard in place of its first label."""
    try:
        names = _certificate(identity).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    good = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    return host in good or f"{_WILDCARD}.{host.partition('.')[2]}" in good


def _certificate(identity: Identity) -> x509.Certificate:
    return x509.load_pem_x509_certificates(identity.chain)[0]
