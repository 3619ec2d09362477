"""A gate over TLS: who is let in to ask, with which versions, and how its certificate is changed while it runs."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from authority import DAY, Authority
from gatebench import GRPCIO_TCP, Asker, make_gate, question, status
from prometheus_client import CollectorRegistry

from catalog.keys.secrets import Secrets
from gate.assembly import Gate
from runtime.grpc.tls import Certificates, TlsFiles
from runtime.lifecycle import CannotStart

Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the authorities keep their files."""
    return tmp_path_factory.mktemp("authorities")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Authority:
    """The authority that gate and clients know."""
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Authority:
    """An authority that the gate does not know."""
    return Authority(folder, "foreign")


@pytest.fixture
def files(ours: Authority, tmp_path: Path) -> TlsFiles:
    """The gate's own copies of its certificate, key and client authorities."""
    certificate, key = ours.give("gate")
    own = TlsFiles(tmp_path / "gate.pem", tmp_path / "gate.key", tmp_path / "clients.pem")
    for source, target in ((certificate, own.certificate), (key, own.key), (ours.ca, tmp_path / "clients.pem")):
        shutil.copy(source, target)
    return own


@pytest.fixture
def reloads() -> list[str]:
    """What was told of each reading of changed files."""
    return []


@pytest.fixture
def tls_gate(redis_url: str, secrets: Secrets, files: TlsFiles, reloads: list[str]) -> Iterator[Gate]:
    """A gate that wants client certificates."""
    certificates = Certificates(files, reloads.append)
    registry = CollectorRegistry()
    gate = make_gate("127.0.0.1:0", redis_url, secrets, registry, wire=GRPCIO_TCP, certificates=certificates)
    gate.start()
    yield gate
    gate.stop()


@contextmanager
def asking(gate: Gate, known: Authority, pair: Pair | None) -> Iterator[Asker]:
    """A client that knows one authority and shows a certificate, or none."""
    shown = (pair[1].read_bytes(), pair[0].read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(known.ca.read_bytes(), *shown)
    asker = Asker(gate.address, credentials)
    yield asker
    asker.close()


def answers(gate: Gate, known: Authority, pair: Pair | None) -> bool:
    """Whether such a client gets an answer; if not, its connection must have failed."""
    with asking(gate, known, pair) as asker:
        try:
            return status(asker.ask(question(), timeout_s=10)) == 404
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017  any other would be an answer
            return False


def test_only_clients_of_our_authority_are_answered(tls_gate: Gate, ours: Authority, foreign: Authority) -> None:
    """A good certificate is let in; none, one of another authority, one that has ended and plaintext are not."""
    assert answers(tls_gate, ours, ours.give("envoy"))
    assert not answers(tls_gate, ours, None)
    assert not answers(tls_gate, ours, foreign.give("envoy"))
    assert not answers(tls_gate, ours, ours.give("late", ends_in=-DAY))
    assert answers(tls_gate, ours, ours.give("envoy"))
    plain = Asker(tls_gate.address)
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        plain.ask(question(), timeout_s=10)
    plain.close()


def test_a_client_knows_whom_it_asks(tls_gate: Gate, ours: Authority, foreign: Authority) -> None:
    """The gate shows the certificate it was given: a client that trusts another authority does not ask."""
    assert not answers(tls_gate, foreign, ours.give("envoy"))


HUNG_UP = {"SSLEOFError", "SSLZeroReturnError"}
"""What OpenSSL calls it in one version or another when the server ends a handshake."""


def handshake(gate: Gate, newest: ssl.TLSVersion, pair: Pair) -> str:
    """Shake hands with at most this version; the version agreed, or the kind of error where there is none."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*pair)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    host, port = gate.address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as secure:
            return str(secure.version())
    except ssl.SSLError as error:
        return type(error).__name__


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(tls_gate: Gate, ours: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    """The gate itself says that the version is too old; 1.2 and 1.3 are agreed on."""
    pair = ours.give("envoy")
    assert handshake(tls_gate, ssl.TLSVersion.TLSv1_1, pair) in HUNG_UP
    assert "UNSUPPORTED_PROTOCOL" in capfd.readouterr().err
    assert handshake(tls_gate, ssl.TLSVersion.TLSv1_2, pair) == "TLSv1.2"
    assert handshake(tls_gate, ssl.TLSVersion.TLSv1_3, pair) == "TLSv1.3"


def test_new_files_are_used_by_the_next_connection(
    tls_gate: Gate, ours: Authority, foreign: Authority, files: TlsFiles, reloads: list[str]
) -> None:
    """Certificate, key and client authorities change while connections that are open go on."""
    assert files.client_ca is not None
    with asking(tls_gate, ours, ours.give("envoy")) as open_before:
        assert status(open_before.ask(question())) == 404
        certificate, key = foreign.give("gate")
        replace((certificate, files.certificate), (key, files.key), (foreign.ca, files.client_ca))
        assert answers(tls_gate, foreign, foreign.give("envoy"))
        assert not answers(tls_gate, foreign, ours.give("envoy"))
        assert reloads == ["reloaded"]
        assert status(open_before.ask(question())) == 404


def test_files_that_do_not_fit_leave_the_old_ones_in_force(
    tls_gate: Gate, ours: Authority, files: TlsFiles, reloads: list[str]
) -> None:
    """A rotation that is half done, or wrong, closes nothing: it is counted, and done once the files fit."""
    certificate, key = ours.give("gate-2")
    replace((certificate, files.certificate))
    assert answers(tls_gate, ours, ours.give("envoy"))
    assert answers(tls_gate, ours, ours.give("envoy"))
    assert reloads == ["failed"]
    replace((key, files.key))
    assert answers(tls_gate, ours, ours.give("envoy"))
    assert reloads == ["failed", "reloaded"]


def replace(*copies: tuple[Path, Path]) -> None:
    """Put files under other names by rename, as those who rotate certificates do."""
    for source, target in copies:
        fresh = target.with_suffix(".new")
        shutil.copy(source, fresh)
        fresh.replace(target)


UNUSABLE: Sequence[tuple[str, bytes | None, str]] = [
    ("gate.pem", None, "gate.pem: cannot be read: No such file or directory"),
    (
        "gate.pem",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "gate.pem: holds no PEM certificate",
    ),
    ("gate.key", b"nothing", "gate.key: holds no PEM private key"),
    ("clients.pem", b"", "clients.pem: holds no PEM certificate"),
]


@pytest.mark.parametrize(("name", "content", "sentence"), UNUSABLE)
def test_files_that_cannot_be_used_are_one_sentence(
    files: TlsFiles, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    """At the start the operator is told which file is wrong and why."""
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CannotStart, match=sentence):
        Certificates(files, print)


def test_a_key_of_another_certificate_is_one_sentence(files: TlsFiles, ours: Authority) -> None:
    """Certificate and key must belong together."""
    replace((ours.give("other")[1], files.key))
    with pytest.raises(CannotStart, match=r"gate.key: is not the key of the certificate in .*gate.pem"):
        Certificates(files, print)
