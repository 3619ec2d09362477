"""Requests forged through the server: which URLs are taken, which addresses are asked, what is read of an answer."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from authority import Authority

from admin.models.addresses import AddressRules, parse_target
from admin.models.probing import MAX_ANSWER_BYTES, Auth, Prober
from catalog.keys.keytext import KeyText
from catalog.records import Protocol

URLS: list[tuple[str, str | None]] = [
    ("http://models.example", "http://models.example"),
    ("http://Models.Example:80/", "http://models.example"),
    ("https://models.example:443", "https://models.example"),
    ("https://models.example:8443", "https://models.example:8443"),
    ("http://10.0.0.7:9001", "http://10.0.0.7:9001"),
    ("http://[fd00::7]:9001", "http://[fd00::7]:9001"),
    ("http://[FD00:0::7]", "http://[fd00::7]"),
    ("ftp://models.example", None),
    ("file:///etc/passwd", None),
    ("gopher://models.example", None),
    ("unix:///run/gate.sock", None),
    ("models.example", None),
    ("//models.example", None),
    ("http://", None),
    ("http://:80", None),
    ("http://user@models.example", None),
    ("http://user:pass@models.example", None),
    ("http://@models.example", None),
    ("http://models.example/path", None),
    ("http://models.example?x", None),
    ("http://models.example?", None),
    ("http://models.example#x", None),
    ("http://models.example:0", None),
    ("http://models.example:65536", None),
    ("http://models.example:http", None),
    ("http://127.1", None),
    ("http://2130706433", None),
    ("http://0x7f000001", None),
    ("http://0177.0.0.1", None),
    ("http://127.0.0.1.", None),
    ("http://127.0.0.1.:80", None),
    ("http://127.000.000.001", None),
    ("http://0", None),
    ("http://0x7f.1", None),
    ("http://017700000001", None),
    ("http://127.0.0.1%00.models.example", None),
    ("http://127.0.0.1%2f@models.example", None),
    ("http://models.example:80@127.0.0.1", None),
    ("http://models.example:80:8080", None),
    ("http://models.example:-1", None),
    ("http://models.example:８０", None),  # noqa: RUF001  digits of another alphabet
    ("http://①②⑦.0.0.1", None),
    ("http://127。0。0。1", None),
    ("http://localhost.", None),
    ("http://metadata.google.internal.", None),
    ("http://[::1%25lo]", None),
    ("http://[::1]:", None),
    ("http://[0:0:0:0:0:0:0:1]:9001", "http://[::1]:9001"),
    ("HTTP://MODELS.EXAMPLE", "http://models.example"),
    ("http://[::1", None),
    ("http://[fd00::7]x", None),
    ("http://[v1.a]", None),
    ("http://[fe80::1%25eth0]", None),
    ("http://a_b.example", None),
    ("http://models.example\r\nX: y", None),
    ("http://models example", None),
    ("http://mödels.example", None),
    ("http://models.example\\@evil.example", None),
    ("http://" + "a" * 300, None),
]


@pytest.mark.parametrize(("url", "stored"), URLS, ids=[row[0][:30] for row in URLS])
def test_urls_are_origins_in_one_spelling(url: str, stored: str | None) -> None:
    """A URL is http or https, a plain host and a port, and nothing else; it is stored in one spelling."""
    if stored is not None:
        assert parse_target(url).url == stored
        return
    with pytest.raises(ValueError, match=r"^must"):
        parse_target(url)


async def test_no_other_url_is_registered(api: Any) -> None:
    """Each is refused by name of its field, and its password is not shown."""
    for url in (url for url, stored in URLS if stored is None):
        refused = await api.ask("POST", "/api/models", {"name": "m", "tenantId": "tenant-a", "url": url})
        assert (refused.status, refused.faults) == (400, {"url": "format"}), url
        assert "pass@" not in refused.text


ADDRESSES: list[tuple[str, str | None]] = [
    ("10.0.0.7", None),
    ("192.168.1.1", None),
    ("8.8.8.8", None),
    ("fd00::7", None),
    ("127.0.0.1", "loopback"),
    ("127.8.8.8", "loopback"),
    ("::1", "loopback"),
    ("::ffff:127.0.0.1", "loopback"),
    ("64:ff9b::7f00:1", "loopback"),
    ("2002:7f00:1::", "loopback"),
    ("0.0.0.0", "not a server"),  # noqa: S104  refused, not bound
    ("::", "not a server"),
    ("169.254.169.254", "metadata"),
    ("169.254.1.1", "metadata"),
    ("::ffff:169.254.169.254", "metadata"),
    ("64:ff9b::a9fe:a9fe", "metadata"),
    ("fe80::1", "metadata"),
    ("fd00:ec2::254", "metadata"),
    ("100.100.100.200", "metadata"),
    ("192.0.0.192", "metadata"),
    ("224.0.0.1", "not a server"),
    ("ff02::1", "not a server"),
    ("255.255.255.255", "not a server"),
    ("240.0.0.1", "not a server"),
    ("0.0.0.1", "not a server"),
    ("fec0::1", "not a server"),
    ("168.63.129.16", "metadata"),
    ("fd00:ec2::23", "metadata"),
    ("169.254.170.2", "metadata"),  # credentials of AWS's tasks
    ("fd20:ce::254", "metadata"),
    ("fe80::a9fe:a9fe", "metadata"),
    ("::ffff:100.100.100.200", "metadata"),
    ("64:ff9b::6464:64c8", "metadata"),
    ("2002:a9fe:a9fe::1", "metadata"),
    ("2002:a83f:8110::", "metadata"),
    ("::ffff:0.0.0.0", "not a server"),
    ("::127.0.0.1", "not a server"),  # IPv4-compatible, RFC 4291
    ("::ffff:0:127.0.0.1", "not a server"),  # IPv4-translated, RFC 2765
    ("64:ff9b:1::7f00:1", "not a server"),  # NAT64 of local use, RFC 8215
    ("64:ff9b::", "not a server"),
    ("2002:0:1::", "not a server"),
    ("127.255.255.254", "loopback"),
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"),  # Teredo around 127.0.0.1
]


@pytest.mark.parametrize(("address", "reason"), ADDRESSES, ids=[row[0] for row in ADDRESSES])
def test_special_addresses_are_refused_unless_listed(address: str, reason: str | None) -> None:
    """Loopback, link-local, metadata and what is no server's, also inside IPv6, are refused; listing lets them be."""
    parsed = ipaddress.ip_address(address)
    target = parse_target("http://models.example:9001")
    told = AddressRules().refusal(target, parsed)
    assert (told is None) if reason is None else (told is not None and reason in told)
    everything = AddressRules.of(("0.0.0.0/0", "::/0"), ())
    assert everything.refusal(target, parsed) is None
    assert AddressRules.of(("Models.example",), ()).refusal(target, parsed) is None
    if reason:
        assert AddressRules.of(("other.example", "192.0.2.0/24"), ()).refusal(target, parsed) == told


def test_our_own_ports_are_refused_even_when_listed() -> None:
    """A port of the gateway on an address of this machine is never asked; on another machine it is no port of ours."""
    rules = AddressRules.of(("127.0.0.0/8", "::1", "localhost"), (8080,))
    for host, address in (("127.0.0.1", "127.0.0.1"), ("localhost", "::1"), ("x.example", "::ffff:127.0.0.1")):
        target = parse_target(f"http://{host if ':' not in host else f'[{host}]'}:8080")
        assert "own" in (rules.refusal(target, ipaddress.ip_address(address)) or "")
    elsewhere = parse_target("http://192.0.2.7:8080")
    assert rules.refusal(elsewhere, ipaddress.ip_address("192.0.2.7")) is None
    assert rules.refusal(parse_target("http://127.0.0.1:8081"), ipaddress.ip_address("127.0.0.1")) is None


def test_lists_hold_networks_addresses_and_hosts_only() -> None:
    """Anything else in the list is refused when the process starts."""
    for bad in ("10.0.0.0/33", "a b", "http://x", "*"):
        with pytest.raises(ValueError, match="must be networks"):
            AddressRules.of((bad,), ())


async def test_a_refused_address_is_not_connected_to(start_api: Any, start_server: Any) -> None:
    """Nothing is listed: a loopback server is registered as not ready, and never hears of it."""
    heard: list[str] = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(request.path)
        return web.json_response({"ready": True})

    url = await start_server({"/v1/models/{name}": listen, "/v1/models": listen})
    api = await start_api(allowed=())
    await api.tenant("tenant-a")
    for number, host in enumerate(("127.0.0.1", "localhost", "[::ffff:127.0.0.1]")):
        made = await api.model(f"model-{number}", url.replace("127.0.0.1", host))
        assert made.body["ready"] is False
        assert "refused" in made.body["message"]
    assert (await api.publish("model-0")).code == "MODEL_NOT_READY"
    assert heard == []


async def test_the_checked_address_is_the_one_used(start_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to another address a moment after the check is asked at the address that was checked."""
    good = await start_server({"/v1/models/{name}": (200, {"ready": True})})
    port = int(good.rpartition(":")[2])
    answers = iter(["127.0.0.1"])
    asked: list[str] = []

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = next(answers, "127.0.0.66")  # rebinding: every later look gives another address
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    prober = Prober(AddressRules.of(("127.0.0.1/32",), ()))
    assert (await prober.ask(f"http://models.example:{port}", "m", None)).ready
    assert asked[0] == "models.example"
    assert "models.example" not in asked[1:]
    refused = await prober.ask(f"http://models.example:{port}", "m", None)
    assert (refused.ready, "refused" in refused.message) == (False, True)


async def test_one_bad_address_among_good_ones_refuses_the_name(
    start_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with a mix of addresses is not asked at all."""
    good = await start_server({"/v1/models/{name}": (200, {"ready": True})})
    port = int(good.rpartition(":")[2])

    async def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (ip, port)) for ip in ("127.0.0.1", "169.254.169.254")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    finding = await Prober(AddressRules.of(("127.0.0.1",), ())).ask(f"http://models.example:{port}", "m", None)
    assert (finding.ready, "metadata" in finding.message) == (False, True)


async def test_redirects_are_not_followed(api: Any, start_server: Any) -> None:
    """A server that sends the asker elsewhere is not ready, and elsewhere hears nothing."""
    heard: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        heard.append(request.path)
        return web.json_response({"ready": True})

    other = await start_server({"/v1/models/{name}": elsewhere, "/latest/meta-data": elsewhere})

    async def redirect(_request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{other}/latest/meta-data")

    url = await start_server({"/v1/models/{name}": redirect, "/v1/models": redirect})
    made = await api.model("my-model", url)
    assert (made.body["ready"], "redirects are not followed" in made.body["message"]) == (False, True)
    assert heard == []


async def test_a_silent_server_is_waited_for_a_bounded_time(start_server: Any) -> None:
    """A server that takes the connection and never answers is given up after the timeout."""
    release = asyncio.Event()

    async def hang(_request: web.Request) -> web.Response:
        await release.wait()
        return web.Response()

    url = await start_server({"/v1/models/{name}": hang})
    prober = Prober(AddressRules.of(("127.0.0.0/8",), ()), timeout_s=0.2)
    finding = await asyncio.wait_for(prober.ask(url, "m", None), 10)
    release.set()
    assert (finding.ready, finding.message) == (False, "no answer within 0.2 s")


@pytest.mark.parametrize("endless", ["/v1/models/{name}", "/v1/models"])
async def test_endless_answers_are_cut(start_server: Any, endless: str) -> None:
    """No more than the bound is read of an answer, however much is sent."""
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(10_000):
            try:
                await response.write(b" " * 65_536)
            except ConnectionError:
                break
            sent += 65_536
        return response

    url = await start_server({"/v1/models/{name}": (404, {}), "/v1/models": (404, {}), endless: flood})
    finding = await Prober(AddressRules.of(("127.0.0.0/8",), ())).ask(url, "m", None)
    assert finding.ready is False
    assert sent < 400 * MAX_ANSWER_BYTES


async def test_a_server_of_very_many_models_is_known(start_server: Any) -> None:
    """One with a thousand adapters, or a reseller's: its list is longer than any other answer may be."""
    card = {"object": "model", "owned_by": "vllm", "permission": [{"id": "p" * 200, "object": "model_permission"}]}
    models = [card | {"id": f"adapter-{number}", "max_model_len": number} for number in range(4_000)]
    assert len(json.dumps(models)) > 1_000_000
    url = await start_server({"/v1/models": (200, {"object": "list", "data": models})})
    prober = Prober(AddressRules.of(("127.0.0.0/8",), ()))
    found = await prober.ask(url, "adapter-3999", None)
    assert (found.ready, found.protocol, found.context_tokens) == (True, Protocol.OPENAI, 3_999)
    assert len(await prober.ask_list(url)) == 4_000


async def test_packed_answers_are_not_unpacked(start_server: Any) -> None:
    """A compressed answer is not JSON to us: nothing grows."""
    seen: dict[str, str] = {}

    async def packed(request: web.Request) -> web.Response:
        seen.update(request.headers)
        response = web.json_response({"ready": True})
        response.enable_compression(web.ContentCoding.gzip)
        return response

    url = await start_server({"/v1/models/{name}": packed, "/v1/models": (404, {})})
    finding = await Prober(AddressRules.of(("127.0.0.0/8",), ())).ask(url, "m", None)
    assert (finding.ready, seen["Accept-Encoding"]) == (False, "identity")
    assert not {"Authorization", "Cookie", "X-API-Key"} & seen.keys()


async def test_what_is_not_there_is_told_in_our_words(unused_tcp_port: int) -> None:
    """No connection, no name, no HTTP: each is a reason, none is an exception."""
    rules = AddressRules.of(("127.0.0.0/8",), ())
    closed = await Prober(rules).ask(f"http://127.0.0.1:{unused_tcp_port}", "m", None)
    assert closed.message == "the connection was refused"
    nameless = await Prober(rules).ask("http://does-not-exist.invalid", "m", None)
    assert nameless.message in {"the host name has no address", "no answer within 3 s"}

    async def gibberish(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-secret\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(gibberish, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        odd = await Prober(rules).ask(f"http://127.0.0.1:{port}", "m", None)
        tls = await Prober(rules).ask(f"https://127.0.0.1:{port}", "m", None)
    assert (odd.message, "secret" in tls.message) == ("the server does not speak HTTP", False)
    assert tls.message == "TLS cannot be established"


CLOUDS = ("metadata.google.internal", "metadata", "instance-data.ec2.internal", "metadata.azure.internal")


@pytest.mark.parametrize("name", CLOUDS)
async def test_the_clouds_own_names_lead_nowhere(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is as good as the addresses it has: those of metadata services lead there and are refused."""

    async def resolve(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("169.254.169.254", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    finding = await Prober(AddressRules.of(("127.0.0.0/8",), ())).ask(f"http://{name}", "m", None)
    assert (finding.ready, "metadata" in finding.message) == (False, True)


async def test_our_own_ports_are_never_asked(start_api: Any, start_server: Any) -> None:
    """A server on a port of ours is not asked, however this machine's address is written, and though it is listed."""
    heard: list[str] = []

    async def listen(request: web.Request) -> web.Response:
        heard.append(request.path)
        return web.json_response({"ready": True})

    url = await start_server({"/v1/models/{name}": listen, "/v1/models": listen})
    port = int(url.rpartition(":")[2])
    api = await start_api(allowed=("127.0.0.0/8", "::/0", "localhost"), own_ports=(port,))
    await api.tenant("tenant-a")
    for number, host in enumerate(("127.0.0.1", "127.0.0.2", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0")):  # noqa: S104
        made = await api.model(f"model-{number}", f"http://{host}:{port}")
        assert (made.body["ready"], "refused" in made.body["message"]) == (False, True), host
    assert heard == []


async def test_an_authority_of_ones_own_is_trusted_where_it_is_named(tmp_path: Path) -> None:
    """As Envoy does by the same file; without it the server gets nothing, its key neither."""
    authority, heard = Authority(tmp_path, "ours"), []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.give("llm.test"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        body = b'{"data": [{"id": "m"}]}'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    rules, auth = AddressRules.of(("127.0.0.0/8",), ()), Auth("authorization", KeyText("Bearer sk"))
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        refused = await Prober(rules).ask(url, "m", None, auth)
        assert (refused.ready, refused.message, heard) == (False, "its TLS certificate is not trusted", [])
        assert (await Prober(rules, upstream_ca=authority.ca).ask(url, "m", None, auth)).ready
    assert all("authorization: bearer sk" in head.lower() for head in heard)
