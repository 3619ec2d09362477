"""Certificate authorities for tests, and the certificates they give."""

from __future__ import annotations

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """Signs certificates; ``ca`` is its own, as a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        own = self._certificate(name, self._key, DAY, is_authority=True)
        self.ca.write_bytes(own.public_bytes(Encoding.PEM))

    def give(self, name: str, *, ends_in: dt.timedelta = DAY, alone: bool = False) -> tuple[Path, Path]:
        """Make a certificate for ``name``, unless ``alone`` for localhost and 127.0.0.1 too; its file and its key's."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(name, key, ends_in, is_authority=False, alone=alone)
        files = self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(_pem(key))
        return files

    def _certificate(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        ends_in: dt.timedelta,
        *,
        is_authority: bool,
        alone: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        near = [] if alone else [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        names = [x509.DNSName(name), *near]
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self._name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * DAY)
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(self._key, hashes.SHA256())
        )
