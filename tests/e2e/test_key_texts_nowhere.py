"""After a busy run key texts are nowhere: not in the store, on the disk, in logs, metrics, Envoy or any error."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
import requests
from upclient import EnvoyAdmin, Operator
from upmachine import UpMachine, up_machine

from tests.e2e.proxy import short_folder

HOST = "api.router.inference-in-a-box"
SECRET_FROM = len("tk_") + 19 + 1
SECRET_CHARACTERS = 43
PIECE = 16
"""A piece of a secret this long is a find: 95 of its 256 bits."""

pytestmark = pytest.mark.timeout(180)


# What is looked for


def pieces_of(text: str) -> list[bytes]:
    """All that would betray a key: every 16 characters of its secret in a row; the secret in hex and base64."""
    secret = text[SECRET_FROM : SECRET_FROM + SECRET_CHARACTERS]
    assert len(secret) == SECRET_CHARACTERS
    plain = [secret[at : at + PIECE].encode() for at in range(SECRET_CHARACTERS - PIECE + 1)]
    return [*plain, secret.encode().hex().encode(), *_base64_of(secret)]


def _base64_of(secret: str) -> Iterator[bytes]:
    """What base64 makes of the secret wherever it stands, without the characters that its neighbours change."""
    for shift in range(3):
        yield base64.b64encode(b"\0" * shift + secret.encode())[4:-4]


def finds(places: Mapping[str, bytes], texts: list[str]) -> list[str]:
    """The places where a piece of any text is."""
    pieces = [piece for text in texts for piece in pieces_of(text)]
    return [place for place, content in places.items() if any(piece in content for piece in pieces)]


# Where it is looked for


def stored(store: redis.Redis) -> dict[str, bytes]:
    """Every key of the store with its value, as written in a dump; uncompressed, so that texts stand as they are."""
    store.config_set("rdbcompression", "no")
    return {f"store {name.decode()}": name + b" " + (store.dump(name) or b"") for name in store.scan_iter(count=1000)}


def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {f"file {path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def told(machine: UpMachine) -> dict[str, bytes]:
    """What the processes tell whoever asks: metrics, Envoy's configuration and counters, command lines."""
    envoy = EnvoyAdmin(machine)
    paths = ("/config_dump?include_eds", "/clusters", "/listeners", "/stats", "/server_info", "/certs", "/runtime")
    urls = (machine.up["metrics_url"], machine.up["admin_metrics_url"], machine.up["admin_url"] + "/openapi.json")
    return (
        {f"envoy {path}": envoy.text(path).encode() for path in paths}
        | {url: requests.get(url, timeout=20).content for url in urls}
        | {f"process {pid}": process_tells(pid) for pid in machine.children}
    )


def process_tells(pid: int) -> bytes:
    """What the system shows of a process: how it was started."""
    return b" ".join((Path("/proc") / str(pid) / name).read_bytes() for name in ("cmdline", "environ"))


# The busy run


@dataclass
class Busy:
    """A machine after a busy run: the key texts there were, and every answer but those that show a key."""

    machine: UpMachine
    operator: Operator
    texts: list[str] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def gets_key(self, answer: requests.Response) -> str:
        """Note the key of an answer that shows one."""
        assert answer.ok, answer.text
        self.texts.append(answer.json()["apiKey"])
        return self.texts[-1]

    def notes(self, answer: requests.Response) -> int:
        """Note an answer that must show none; returns its status."""
        request = answer.request
        headers = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        name = f"answer {len(self.answers)} to {request.method} {request.path_url}: {answer.status_code}"
        self.answers[name] = f"{headers}\n{answer.text}".encode()
        return answer.status_code

    def calls(self, path: str, body: Any, headers: Mapping[str, str], **options: Any) -> int:
        """Call a model; returns the status."""
        url = self.machine.up["gateway_url"] + path
        return self.notes(requests.post(url, json=body, headers={"Host": HOST, **headers}, timeout=20, **options))

    def asks(self, method: str, path: str, body: Any = None, **options: Any) -> int:
        """Ask the admin API; returns the status."""
        return self.notes(self.operator.ask(method, path, body, **options))

    def predicts(self, **headers: str) -> int:
        """Call my-model; ``x_api_key`` is the header X-API-Key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.calls("/models/my-model/predict", {"instances": [[1.0]]}, named)


@pytest.fixture(scope="module")
def busy() -> Iterator[Busy]:
    """A machine of this file's own, which writes as many logs as it can, after the busy run."""
    options = {"TOLLKEEPER_ADMIN_PASSWORD": "password", "TOLLKEEPER_LOG_LEVEL": "debug"}
    with short_folder() as folder, up_machine(folder / "state", **options) as machine:
        run = Busy(machine, Operator(machine))
        run.texts += [sample["api_key"] for sample in machine.up["sample"].values()]
        publish_and_call(run)
        rotate_and_call(run)
        misplace(run)
        unpublish_and_call(run)
        yield run


def publish_and_call(run: Busy) -> None:
    """Publish both kinds of models; call them rightly, wrongly and too often."""
    config = {"config": {"tenantId": "tenant-a"}}
    key = run.gets_key(run.operator.ask("POST", "/api/models/my-model/publish", config))
    llm = run.gets_key(run.operator.ask("POST", "/api/models/my-llm/publish", config))
    for model in ("my-model", "my-llm"):
        await_live(run, model)
    assert run.predicts(x_api_key=key) == 200
    assert run.predicts(authorization=f"Bearer {key}") == 200
    assert run.predicts(x_api_key=llm) == 403
    assert run.predicts(x_api_key=key[:-1]) == 401
    assert run.predicts(x_api_key=f"{key}, {llm}") == 401
    chat = {"model": "my-llm", "messages": [{"role": "user", "content": "Hello!"}]}
    assert run.calls("/v1/chat/completions", chat, {"x-api-key": llm}) == 200
    assert run.calls("/v1/chat/completions", chat | {"model": key}, {"x-api-key": llm}) == 404
    assert 429 in {run.predicts(x_api_key=key) for _ in range(40)}
    for method, path in (("POST", "publish"), ("PUT", "publish"), ("GET", "publish")):
        run.asks(method, f"/api/models/my-model/{path}", config if method != "GET" else None)
    assert run.asks("GET", "/api/published-models") == 200


def await_live(run: Busy, model: str) -> None:
    """Wait until a model is served."""
    while run.operator.must("GET", f"/api/models/{model}/publish")["status"] != "live":
        time.sleep(0.01)  # bounded by the test's timeout; the API tells only when asked


def rotate_and_call(run: Busy) -> None:
    """Rotate with grace and without, and use, validate and mistake what there is."""
    path = "/api/models/my-model/publish/rotate-key"
    first = run.texts[-2]
    second = run.gets_key(run.operator.ask("POST", path, {"gracePeriodSeconds": 600}))
    third = run.gets_key(run.operator.ask("POST", path))
    assert {run.predicts(x_api_key=first), run.predicts(x_api_key=second)} == {401}
    assert run.predicts(x_api_key=third) in {200, 429}
    for text in (first, third, third[:-1], "x" * 75):
        assert run.asks("POST", "/api/validate-api-key", {"apiKey": text}) == 200


def misplace(run: Busy) -> None:
    """Put a key wherever it does not belong: people do."""
    key = run.texts[-1]
    assert run.calls(f"/models/my-model/predict?api_key={key}", {}, {}) == 400
    assert run.calls(f"/models/{key}/predict", {}, {"x-request-id": key}) == 404
    assert run.calls("/models/my-model/predict", {key: key}, {"authorization": f"Basic {key}", "cookie": key}) == 401
    assert run.calls("/models/my-model/predict", {"instances": key}, {"host": f"{key}.com"}) == 404
    assert run.asks("POST", "/api/validate-api-key", {"apiKey": key, key: key}) == 400
    assert run.asks("POST", "/api/validate-api-key", {"key": key}) == 400
    assert run.asks("POST", "/api/admin/login", {"username": key, "password": key}) == 400
    assert run.asks("POST", "/api/admin/login", {"username": key[SECRET_FROM:], "password": key}) == 401
    assert run.asks("GET", f"/api/models/{key}/publish") == 404
    assert run.asks("GET", f"/api/{key}?tenantId={key}") == 404
    assert run.asks("GET", f"/api/published-models?{key}={key}") == 400
    assert run.asks("GET", "/api/published-models", headers={"Authorization": f"Bearer {key}"}) == 401
    assert run.asks("GET", "/api/published-models", headers={"X-Request-Id": key}) == 200
    bad = {"tenantId": "tenant-a", "publicHostname": key, "externalPath": key, "modelType": key, "apiKey": key}
    assert run.asks("PUT", "/api/models/my-model/publish", {"config": bad | {"rateLimiting": {key: key}}}) == 400
    assert run.asks("POST", "/api/tenants", {"tenantId": key}) == 400
    assert run.asks("POST", "/api/models", {"name": "m", "tenantId": "tenant-a", "url": f"http://{key}"}) == 400
    assert run.asks("POST", "/api/validate-api-key", data=f'{{"apiKey": "{key}"', headers=JSON) == 400


JSON = {"Content-Type": "application/json"}


def unpublish_and_call(run: Busy) -> None:
    """Take the model back and call it once more; the other stays."""
    assert run.asks("DELETE", "/api/models/my-model/publish") == 204
    assert run.predicts(x_api_key=run.texts[-1]) in {401, 404}
    run.gets_key(run.operator.ask("POST", "/api/models/my-model/publish", {"config": {"tenantId": "tenant-a"}}))
    await_live(run, "my-model")


# Nowhere


def test_the_answers_and_what_is_told_have_no_key_text(busy: Busy) -> None:
    """No error, no answer but those that show a key, no metric, no configuration of Envoy, no command line."""
    assert len(busy.texts) == len(set(busy.texts)) == 7
    assert finds(busy.answers, busy.texts) == []
    assert finds(told(busy.machine), busy.texts) == []


def test_the_store_has_no_key_text(busy: Busy) -> None:
    """No value and no name in Valkey, and nothing in its log of slow commands."""
    with redis.Redis.from_url(busy.machine.up["redis_url"]) as store:
        places = stored(store)
        assert any("tk:rec:key:" in place for place in places)
        assert finds(places | {"slow log": str(store.slowlog_get(1000)).encode()}, busy.texts) == []


def test_the_disk_has_no_key_text(busy: Busy) -> None:
    """No file of the state folder, with its logs, append-only file and a dump; ``up.json`` shows the samples' keys."""
    with redis.Redis.from_url(busy.machine.up["redis_url"]) as store:
        store.config_set("rdbcompression", "no")
        store.save()
    files = on_disk(busy.machine.state)
    assert {"file valkey/dump.rdb", "file logs/gate.log", "file logs/admin.log", "file logs/envoy.log"} <= files.keys()
    assert any(name.endswith(".incr.aof") and content for name, content in files.items())
    assert finds(files, busy.texts) == ["file up.json"]
    printed = busy.machine.printed.encode()
    assert finds({"printed": printed}, busy.texts[2:]) == [], "the operator's screen shows the samples' keys only"


EXAMPLE = "tk_000aaaaaaaaaaaaaaaa_" + "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
WAYS_TO_WRITE: dict[str, Callable[[str], str]] = {
    "whole": str,
    "a part": lambda text: text[30:50],
    "hex": lambda text: text.encode().hex(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of a header": lambda text: base64.b64encode(f"X-API-Key: {text}\r\n".encode()).decode(),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
def test_the_search_finds_what_is_there(tmp_path: Path, store: redis.Redis, way: str) -> None:
    """Written in any of these ways into any kind of value or into a file: the tests above would see it."""
    text = WAYS_TO_WRITE[way](EXAMPLE)
    store.set("string", text)
    store.hset("hash", mapping={"field": text})
    store.xadd("stream", {"field": text})
    store.zadd("set", {text: 1})
    store.set(f"name {text}", 1)
    (tmp_path / "log").write_text(f"a line with {text}.")
    places = stored(store) | on_disk(tmp_path)
    assert len(finds(places, [EXAMPLE])) == len(places) == 6
