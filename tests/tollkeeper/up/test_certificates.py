"""The machine's certificate is one that TLS clients accept, and stays as long as it is good."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from tollkeeper.up.certificates import RENEW_DAYS, SERVER_DAYS, ensure_certificate

NOW = dt.datetime.now(dt.UTC)
NAMES = ("api.router.inference-in-a-box", "api.mycompany.com", "localhost", "127.0.0.1", "::1")


def shake_hands(folder: Path, name: str) -> None:
    """Make a TLS connection as a strict client does; raises ``ssl.SSLError`` when it is refused."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "server.pem", folder / "server.key")
    client = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def accept() -> None:
        try:
            server.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        with client.wrap_socket(ours, server_hostname=name):
            pass
    finally:
        ours.close()
        accepting.join()


@pytest.mark.parametrize("name", NAMES)
def test_the_certificate_is_good_for_each_name(tmp_path: Path, name: str) -> None:
    """Host names and addresses, by the strict rules of RFC 5280."""
    ensure_certificate(tmp_path, NAMES, NOW)
    shake_hands(tmp_path, name)


def test_the_certificate_is_good_for_no_other_name(tmp_path: Path) -> None:
    """What was not asked for is refused."""
    ensure_certificate(tmp_path, NAMES, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, "elsewhere.example")


def test_a_restart_keeps_authority_and_certificate(tmp_path: Path) -> None:
    """Clients that trust the authority go on doing so; keys are private."""
    ensure_certificate(tmp_path, NAMES, NOW)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ensure_certificate(tmp_path, NAMES, NOW + dt.timedelta(days=1))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_new_name_gets_a_new_certificate_of_the_same_authority(tmp_path: Path) -> None:
    """Adding a host needs no new trust."""
    ensure_certificate(tmp_path, NAMES, NOW)
    authority = (tmp_path / "ca.pem").read_bytes()
    ensure_certificate(tmp_path, (*NAMES, "more.example"), NOW)
    shake_hands(tmp_path, "more.example")
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_a_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    """A machine that is started once a month never serves an expired one."""
    ensure_certificate(tmp_path, NAMES, NOW)
    before = (tmp_path / "server.pem").read_bytes()
    ensure_certificate(tmp_path, NAMES, NOW + dt.timedelta(days=SERVER_DAYS - RENEW_DAYS + 1))
    assert (tmp_path / "server.pem").read_bytes() != before


def test_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    """Losing a file is no reason not to start."""
    ensure_certificate(tmp_path, NAMES, NOW)
    (tmp_path / "server.pem").write_text("?")
    (tmp_path / "ca.key").unlink()
    ensure_certificate(tmp_path, NAMES, NOW)
    shake_hands(tmp_path, "localhost")
