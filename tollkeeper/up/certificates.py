"""The machine's https certificate: a small authority of its own, kept in the state folder, and what it signs."""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tollkeeper.up.state import write_private

AUTHORITY_DAYS: Final = 3650
SERVER_DAYS: Final = 397
"""The longest that browsers and Apple's TLS accept for a server, in days."""

RENEW_DAYS: Final = 30
_BACKDATED: Final = dt.timedelta(hours=1)  # for clocks that are a little behind


_BUNDLES: Final = (  # where systems keep the authorities they trust
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/cert.pem",  # macOS, BSD
)


def system_authorities() -> str:
    """Return the file of authorities that this system trusts; the usual name where there is none."""
    candidates = (ssl.get_default_verify_paths().cafile or "", *_BUNDLES)
    return next((path for path in candidates if Path(path).is_file()), _BUNDLES[0])


def ensure_certificate(folder: Path, names: Iterable[str], now: dt.datetime) -> None:
    """Keep ``ca.pem``, ``server.pem`` and ``server.key`` in the folder good for ``names``.

    The authority stays for ten years; the server's certificate is made again when names were added or when it
    ends within 30 days.
    """
    ca_key, ca = _authority(folder, now)
    wanted = list(dict.fromkeys(names))
    server = _read(folder / "server.pem")
    if server is None or server.issuer != ca.subject or not _lasts(server, now) or _names(server) != wanted:
        _write_server(folder, wanted, ca_key, ca, now)


def _authority(folder: Path, now: dt.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    certificate = _read(folder / "ca.pem")
    key_file = folder / "ca.key"
    if certificate is not None and key_file.exists() and _lasts(certificate, now):
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
            return key, certificate
    return _new_authority(folder, now)


def _new_authority(folder: Path, now: dt.datetime) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"Tollkeeper of this machine, {now:%Y-%m-%d %H:%M:%S}")
    builder = (
        _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(sign=True), critical=True)
    )
    certificate = builder.sign(key, hashes.SHA256())
    write_private(folder / "ca.key", _private_pem(key))
    write_private(folder / "ca.pem", _pem(certificate))
    return key, certificate


def _write_server(
    folder: Path,
    names: list[str],
    ca_key: ec.EllipticCurvePrivateKey,
    ca: x509.Certificate,
    now: dt.datetime,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _builder(_name(names[0][:64]), ca.subject, key.public_key(), now, SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName(list(map(_alternative, names))), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_authority_identifier(ca), critical=False)
    )
    write_private(folder / "server.key", _private_pem(key))
    write_private(folder / "server.pem", _pem(builder.sign(ca_key, hashes.SHA256())))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=sign,
        crl_sign=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def _lasts(certificate: x509.Certificate, now: dt.datetime) -> bool:
    return certificate.not_valid_after_utc - now > dt.timedelta(days=RENEW_DAYS)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
