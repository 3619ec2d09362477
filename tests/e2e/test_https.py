"""Through a real Envoy: http that only sends callers to https, and certificates that are renewed while it serves."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from authority import Authority
from cryptography import x509
from gatebench import wait_until

from publisher.envoy.listener.tls import certificate_file
from tests.e2e import http2
from tests.e2e.proxy import (
    HOST,
    PATIENCE_S,
    Envoy,
    Gate,
    Reply,
    Upstream,
    head,
    openai,
    options_for,
    publication,
    short_folder,
)

OTHER_HOST = "api.mycompany.test"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
PATHS = ("/models/iris", "/models/iris?a=b&c=%20", "//models//iris", "/models/%2e%2e/iris", "/", "/v1/chat/completions")
BIG = b"x" * 300_000


@dataclass
class Site:
    """An Envoy with https for two names, its gate and its one server."""

    folder: Path
    authority: Authority
    envoy: Envoy
    gate: Gate
    upstream: Upstream

    def give(self, name: str, *, by: str = "") -> x509.Certificate:
        """Bring a new certificate for ``name`` to Envoy, in one step; ``by``: with the key of this other name's."""
        chain, key = self.authority.give(name)
        if by:
            _, key = self.authority.give(by)
        bring(self.folder, name, chain.read_text(), key.read_text())
        return x509.load_pem_x509_certificate(chain.read_bytes())

    def shown(self, name: str | None, **versions: ssl.TLSVersion) -> x509.Certificate:
        """The certificate that a caller is shown who asks for this name; raises ``ssl.SSLError`` if there is none."""
        with self.connect(name, **versions) as connection:
            der = connection.getpeercert(binary_form=True)
            assert der
            return x509.load_der_x509_certificate(der)

    def connect(self, name: str | None, **versions: ssl.TLSVersion) -> ssl.SSLSocket:
        """Connect as who asks for this name; raises ``ssl.SSLError`` where no certificate is good for it."""
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        context.check_hostname = name is not None
        for bound, version in versions.items():
            setattr(context, bound, version)
            context.set_ciphers("DEFAULT@SECLEVEL=0")
        plain = socket.create_connection(("127.0.0.1", self.envoy.ports["https"]), timeout=PATIENCE_S)
        try:
            return context.wrap_socket(plain, server_hostname=name)
        except OSError:
            plain.close()
            raise

    def on_http(self, request: bytes) -> Reply:
        """Send it to the http listener."""
        return self.envoy.send(request)

    @property
    def heard(self) -> tuple[int, int]:
        """How often the gate was asked, and the server called."""
        return len(self.gate.payloads), self.upstream.seen


def bring(folder: Path, name: str, chain: str, key: str) -> str:
    """Write the file of a certificate by rename; its path."""
    draft, file = folder / f".{name}.json", folder / f"{name}.json"
    draft.write_text(certificate_file(name, chain=chain, key=key).text())
    draft.replace(file)
    return str(file)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Https for two names by two certificates; http sends callers to port 8443."""
    with short_folder() as folder, Gate(folder) as gate, Upstream("up") as upstream:
        gate.models = {(HOST, "llm"): "llm"}
        authority, certificates = Authority(folder, "ours"), folder / "certificates"
        certificates.mkdir()
        files = []
        for name in (HOST, OTHER_HOST):
            chain, key = authority.give(name)
            files.append(bring(certificates, name, chain.read_text(), key.read_text()))
        options = options_for(folder, gate.target, https_port=0, certificates=files, redirect_port=8443)
        envoy = Envoy(options)
        envoy.publish(
            [publication("iris", "/models/iris", upstream.url), openai("llm", "/v1/models/llm", upstream.url)]
        )
        with envoy:
            yield Site(certificates, authority, envoy, gate, upstream)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_sent_on_with_its_path(site: Site, method: str) -> None:
    """308, so that a POST stays one; to the very same place over https, by the port that belongs to the caller's."""
    before = site.heard
    for path in PATHS:
        for host, there in ((HOST, HOST), (f"{HOST}:8080", f"{HOST}:8443"), ("[::1]:80", "[::1]:8443")):
            length = ("content-length: 2",) if method in {"POST", "PUT", "PATCH"} else ()
            request = head(method, path, f"host: {host}", "x-api-key: tk_any", *length) + (b"{}" if length else b"")
            with site.envoy.connect() as connection:
                connection.sendall(request)
                reply = Reply.read(connection, method)
            assert (reply.status, reply.headers["location"]) == (308, f"https://{there}{path}")
    assert site.heard == before


@pytest.mark.parametrize(
    "headers",
    [
        ("x-api-key: tk_any",),
        ("authorization: Bearer tk_any",),
        ("x-forwarded-proto: https", "x-api-key: tk_any"),
        ("x-envoy-original-path: /models/iris", "x-api-key: tk_any"),
        ("x-tollkeeper-publication: iris",),
    ],
)
def test_nothing_gets_through_on_http(site: Site, headers: tuple[str, ...]) -> None:
    """No call, no key, whatever a caller says of himself: neither the gate nor the server hears of it."""
    before = site.heard
    for path in ("/models/iris", "/models/iris/predict", "/v1/chat/completions"):
        body = b'{"model": "llm"}'
        kind = ("content-type: application/json", f"content-length: {len(body)}")
        reply = site.on_http(head("POST", path, f"host: {HOST}", *kind, *headers) + body)
        assert (reply.status, reply.body) == (308, "")
    assert site.heard == before


@pytest.mark.parametrize(
    "request_head",
    [
        head("CONNECT", f"{HOST}:443", f"host: {HOST}"),
        head("GET", "/models/iris", f"host: {HOST}", "upgrade: websocket", "connection: upgrade"),
    ],
)
def test_no_tunnel_is_opened_on_http(site: Site, request_head: bytes) -> None:
    """Neither by CONNECT nor by an upgrade."""
    before = site.heard
    assert site.on_http(request_head).status in {403, 404}
    assert site.heard == before


def test_a_large_body_is_sent_on_too(site: Site) -> None:
    """The answer arrives though nobody reads the body, over HTTP/1.1 and HTTP/2."""
    port, path = site.envoy.ports["http"], "/v1/chat/completions"
    length = f"content-length: {len(BIG)}"
    reply = site.on_http(head("POST", path, f"host: {HOST}", length) + BIG)
    assert (reply.status, reply.headers["location"]) == (308, f"https://{HOST}{path}")
    answer = http2.post(port, HOST, path, BIG, PATIENCE_S)
    assert (answer.status, answer.headers["location"]) == (308, f"https://{HOST}{path}")


def test_a_client_that_follows_is_served(site: Site) -> None:
    """With its method and body; curl keeps the key, since the host stays the same."""
    here, there = site.envoy.ports["http"], site.envoy.ports["https"]
    arguments = ["-s", "-L", "--cacert", str(site.authority.ca), "-H", "x-api-key: tk_any", "-d", "{}"]
    arguments += ["--connect-to", f":80:127.0.0.1:{here}", "--connect-to", f":443:127.0.0.1:{there}"]
    told = subprocess.run(
        ["curl", *arguments, f"http://{HOST}/models/iris/predict"], capture_output=True, check=True, timeout=PATIENCE_S
    )
    assert b'"line": "POST /v1/models/iris:predict HTTP/1.1"' in told.stdout
    assert b'"body_bytes": 2' in told.stdout


def test_the_name_asked_for_picks_the_certificate(site: Site) -> None:
    """Who asks for none, or for one that nobody has, is shown the first."""
    for asked, name in ((HOST, HOST), (OTHER_HOST, OTHER_HOST), (None, HOST)):
        assert name_of(site.shown(asked)) == name
    with pytest.raises(ssl.SSLCertVerificationError):
        site.shown("elsewhere.test")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.*deprecated")
def test_old_versions_of_tls_are_refused(site: Site, version: ssl.TLSVersion) -> None:
    """By the server's own word."""
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        site.shown(HOST, minimum_version=version, maximum_version=version)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_newer_versions_of_tls_are_served(site: Site, version: ssl.TLSVersion) -> None:
    """Both that there are."""
    assert site.shown(HOST, minimum_version=version, maximum_version=version)


def test_a_renewed_certificate_is_shown_and_no_call_fails(site: Site) -> None:
    """From the next handshake on, of that name alone; open connections go on, nothing is restarted or drained."""
    old, other = site.shown(HOST), site.shown(OTHER_HOST)
    with calling(site) as answered:
        for _ in range(3):
            new = site.give(HOST)
            assert new != old
            wait_until(lambda new=new: site.shown(HOST) == new, PATIENCE_S)
            old = new
        before = answered.total()
        wait_until(lambda: answered.total() > before + 50, PATIENCE_S)
    assert answered.keys() == {200}
    assert site.shown(OTHER_HOST) == other
    assert site.envoy.stat("listener_manager.listener_modified") == 0
    assert site.envoy.stat("listener_manager.total_listeners_draining") == 0


def test_a_pair_that_does_not_match_changes_nothing(site: Site) -> None:
    """The one before stays, for that name and the others; the next good one is taken."""
    before = site.shown(HOST)
    site.give(HOST, by="stranger")
    wait_until(lambda: rejected(site) > 0, PATIENCE_S)
    assert site.shown(HOST) == before
    good = site.give(HOST)
    wait_until(lambda: site.shown(HOST) == good, PATIENCE_S)


def rejected(site: Site) -> int:
    """How often Envoy refused a file of a certificate."""
    lines = site.envoy.admin(f"/stats?filter=sds.{HOST}.update_rejected").splitlines()
    return sum(int(line.rpartition(": ")[2]) for line in lines)


class calling:  # noqa: N801  used like a function
    """Callers over https while the body runs: one that keeps its connection, one that makes a new one each time."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stopping = threading.Event()
        self.answered: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._call, args=(keeps,)) for keeps in (True, False)]

    def __enter__(self) -> Counter[int]:
        for thread in self._threads:
            thread.start()
        return self.answered

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def _call(self, keeps: bool) -> None:  # noqa: FBT001  a row of two
        connection = None
        while not self._stopping.is_set():
            try:
                connection = connection or self._connect()
                connection.sendall(head("GET", "/models/iris", f"host: {HOST}", "x-api-key: tk_any"))
                self.answered[Reply.read(connection).status] += 1
            except OSError:
                self.answered[0] += 1
                connection = None
            if not keeps and connection is not None:
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _connect(self) -> ssl.SSLSocket:
        return self._site.connect(HOST)


def name_of(certificate: x509.Certificate) -> str:
    """The first name that a certificate is good for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.DNSName)[0])
