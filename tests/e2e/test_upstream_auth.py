"""What a server wants with each call, on a real Envoy: put in behind everything that callers and dumps can see."""

from __future__ import annotations

import asyncio
import ssl
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from authority import Authority
from msgspec import structs

from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets, create_secrets
from catalog.keys.upstream import sealed
from catalog.records import PublicationRecord, Server, UpstreamAuth
from publisher.envoy.admin import EnvoyAdmin
from publisher.envoy.credentials import CREDENTIAL
from publisher.envoy.sink import FilesSink
from publisher.plan import plan
from tests.e2e.proxy import PATIENCE_S, Envoy, Gate, Upstream, openai, options_for, short_folder, stripped
from tests.e2e.test_servers import traffic

TEXT = "Bearer sk-find-me-in-one-file"
PATH = "/models/m/x"


@dataclass
class Bench:
    """A running Envoy with an access log, the sink that writes its files, and two servers."""

    envoy: Envoy
    sink: FilesSink
    old: Upstream
    new: Upstream
    secrets: list[Secrets] = field(default_factory=list)  # the last is in force

    def publication(self, *urls: str, value: str = TEXT, header: str = "authorization") -> PublicationRecord:
        """A publication of these servers, which want this."""
        several = tuple(map(Server, urls)) if len(urls) > 1 else ()
        made = structs.replace(stripped("m", "/models/m", urls[0]), servers=several)
        return structs.replace(made, upstream_auth=sealed(KeyText(value), header, made, self.secrets[-1]))

    async def serve(self, *publications: PublicationRecord) -> dict[str, str]:
        """Bring them into force; why any is not live."""
        return dict(await self.sink.apply(plan(publications)))

    async def got(self, *headers: str, name: str = "authorization") -> list[str]:
        """What the server got of a header with a call."""
        reply = await asyncio.to_thread(self.envoy.get, PATH, *headers)
        assert reply.status == 200, reply
        return reply.upstream_headers(name)

    def files(self) -> list[Path]:
        """The files of values."""
        return sorted((self.envoy.folder / CREDENTIAL).glob("*"))


@asynccontextmanager
async def _bench(ca: str = "/etc/ssl/certs/ca-certificates.crt") -> AsyncIterator[Bench]:
    with short_folder() as folder, Gate(folder) as gate, Upstream("old") as old, Upstream("new") as new:
        log = str(folder / "access.log")
        envoy = Envoy(replace(options_for(folder, gate.target), access_log=log), threads=2)
        secrets = [create_secrets(folder / "secrets.json")]
        async with EnvoyAdmin(envoy.options.admin_socket) as admin:
            sink = FilesSink(folder, admin, upstream_ca=ca, timeout_s=PATIENCE_S, secrets=lambda: secrets[-1])
            sink.prepare()
            with envoy:
                yield Bench(envoy, sink, old, new, secrets)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """An Envoy of the test's own."""
    async with _bench() as made:
        yield made


async def test_the_server_gets_it_and_nobody_else_sees_it(bench: Bench) -> None:
    """In place of whatever the caller sent; it is in one file of mode 0600, and in no dump, log or other file."""
    assert await bench.serve(bench.publication(bench.old.url)) == {}
    assert await bench.got("authorization: Bearer mine", "x-api-key: mine") == [TEXT]
    reply = await asyncio.to_thread(bench.envoy.get, PATH)
    assert TEXT not in str(reply.headers)
    for page in ("/config_dump?include_eds", "/clusters", "/certs", "/stats", "/init_dump", "/server_info"):
        said = await asyncio.to_thread(bench.envoy.admin, page)
        assert said
        assert TEXT not in said
        assert "sk-find-me" not in said
    await asyncio.sleep(0.3)  # Envoy writes its log down every 0.1 s
    found = [file for file in bench.envoy.folder.rglob("*") if file.is_file() and b"sk-find-me" in file.read_bytes()]
    assert found == bench.files()
    assert len(found) == 1
    assert stat.S_IMODE(found[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(found[0].parent.stat().st_mode) == 0o700
    assert (bench.envoy.folder / "access.log").read_text()


async def test_a_value_is_rotated_without_a_lost_call(bench: Bench) -> None:
    """From ``apply`` on every call has the new one; before, each has the old or the new one, none has none."""
    await bench.serve(bench.publication(bench.old.url, value="Bearer 0"))
    with traffic(bench.envoy, PATH) as replies:
        for number in range(1, 11):
            assert await bench.serve(bench.publication(bench.old.url, value=f"Bearer {number}")) == {}
            assert await bench.got() == [f"Bearer {number}"]
            assert len(bench.files()) == 1
    assert [reply for reply in replies if reply.status != 200] == []
    assert {len(reply.upstream_headers("authorization")) for reply in replies} == {1}


async def test_no_server_gets_what_is_meant_for_another(bench: Bench) -> None:
    """While server and value change together under calls, each server only ever gets its own."""
    values = {bench.old.url: "Bearer old", bench.new.url: "Bearer new"}
    await bench.serve(bench.publication(bench.old.url, value="Bearer old"))
    with traffic(bench.envoy, PATH) as replies:
        for url in (bench.new.url, bench.old.url) * 5:
            assert await bench.serve(bench.publication(url, value=values[url])) == {}
    assert [reply for reply in replies if reply.status != 200] == []
    assert {(reply.upstream, *reply.upstream_headers("authorization")) for reply in replies} == {
        ("old", "Bearer old"),
        ("new", "Bearer new"),
    }


async def test_it_goes_with_its_publication(bench: Bench) -> None:
    """Its file too, and with the header's end; what others want stays."""
    other = structs.replace(bench.publication(bench.new.url), uid="other", model="m", path="/models/other")
    await bench.serve(bench.publication(bench.old.url), other)
    assert len(bench.files()) == 2
    await bench.serve(structs.replace(bench.publication(bench.old.url), upstream_auth=None), other)
    assert await bench.got() == []
    assert len(bench.files()) == 1
    await bench.serve()
    assert bench.files() == []


async def test_several_servers_get_it_and_so_does_each_path(bench: Bench) -> None:
    """By any header, an openai call with a body as well."""
    made = bench.publication(bench.old.url, bench.new.url, value="k", header="x-api-key")
    await bench.serve(made)
    assert [await bench.got("x-api-key: mine", name="x-api-key") for _ in range(4)] == [["k"]] * 4
    await bench.serve(bench.publication(bench.old.url, value="k", header="x-model-token"))
    assert await bench.got("x-model-token: forged", "x-model-token: twice", name="x-model-token") == ["k"]
    llm = openai("m", "/models/m", bench.old.url)
    await bench.serve(structs.replace(llm, upstream_auth=sealed(KeyText("k"), "api-key", llm, bench.secrets[-1])))
    reply = await asyncio.to_thread(bench.envoy.post, "/models/m/chat/completions", b'{"model": "m"}', "api-key: mine")
    assert reply.upstream_headers("api-key") == ["k"]


async def test_what_cannot_be_opened_lets_no_call_through(bench: Bench) -> None:
    """By another secrets file, or a Secret that only an Envoy Gateway has: 503, the reason is told, others go on."""
    good = bench.publication(bench.old.url)
    await bench.serve(good)
    right = bench.secrets[-1]
    bench.secrets.append(create_secrets(bench.envoy.folder / "other.json"))
    other = stripped("other", "/models/other", bench.new.url)
    failed = await bench.serve(structs.replace(good, url=bench.new.url), other)
    assert "send it again" in failed["m"]
    assert failed.keys() == {"m"}
    seen = bench.new.seen
    reply = await asyncio.to_thread(bench.envoy.get, PATH)
    assert (reply.status, reply.json["error"]["code"]) == (503, "upstream_unavailable")
    assert bench.new.seen == seen
    assert (await asyncio.to_thread(bench.envoy.get, "/models/other/x")).upstream == "new"
    named = structs.replace(good, upstream_auth=UpstreamAuth("authorization", secret="one"))
    assert "Envoy Gateway" in (await bench.serve(named))["m"]
    assert (await asyncio.to_thread(bench.envoy.get, PATH)).status == 503
    bench.secrets.append(right)
    assert await bench.serve(good) == {}
    assert await bench.got() == [TEXT]


async def test_a_restarted_envoy_has_it(bench: Bench) -> None:
    """The file outlives every process."""
    await bench.serve(bench.publication(bench.old.url))
    bench.envoy.stop()
    with bench.envoy:
        assert await bench.got() == [TEXT]


async def test_over_tls_only_to_a_server_of_that_name(tmp_path: Path) -> None:
    """By an authority of one's own; to one whose certificate has another name nothing is sent."""
    ours, foreign = Authority(tmp_path, "ours"), Authority(tmp_path, "foreign")
    heard: list[str] = []
    async with _bench(str(ours.ca)) as bench:
        for authority, status in ((ours, 200), (foreign, 503)):
            server = await _tls_server(authority.give("llm.test"), heard)
            port = server.sockets[0].getsockname()[1]
            await bench.serve(bench.publication(f"https://localhost:{port}"))
            reply = await asyncio.to_thread(bench.envoy.get, PATH)
            assert reply.status == status
            server.close()
    assert [line for line in heard if line.startswith("authorization")] == [f"authorization: {TEXT}"]


async def _tls_server(certificate: Sequence[Path], heard: list[str]) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return await asyncio.start_server(serve, "localhost", 0, ssl=context)
