"""Which endpoints of a model's server callers reach, through a real Envoy and a gate: by path, by field, by form."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from ownvalkey import own_valkey

from catalog.records import HostRecord, Limits, TokenPolicy, sole_caller
from tests.e2e.metered import MODEL, PATH, Answer, Metered, document, metered, whole
from tests.e2e.proxy import HOST, Reply, head

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
ROOTS = pytest.mark.parametrize("root", [PATH, "/v1"], ids=["own", "shared"])

pytestmark = pytest.mark.timeout(120)


class AnyAnswer(dict[str, Answer]):
    """A server that has everything, and tells usage of all of it."""

    def __missing__(self, name: str) -> Answer:
        return document({"id": name, "text": "said", "data": [], "created": 1, "usage": USAGE})


def listed(rig: Metered) -> None:
    """Write what an admin would of the model's server, and of its host."""
    uid = rig.publication.uid
    rig.catalog.server(rig.publication)
    rig.catalog.add(HostRecord(HOST, {PATH: uid}, {f"{rig.publication.tenant}/{MODEL}": uid}))


@pytest.fixture(scope="module")
def own(valkey_binary: str) -> Iterator[Metered]:
    """A model whose server is one tenant's alone; files may be uploaded and work left behind."""
    opened: dict[str, Any] = {"allowed_endpoints": ("files", "audio/voices"), "allow_background": True}
    with own_valkey(valkey_binary) as valkey, metered(valkey.url, AnyAnswer(), **opened) as rig:
        listed(rig)
        yield rig


@pytest.fixture(scope="module")
def shared(valkey_binary: str) -> Iterator[Metered]:
    """A model that another tenant may call too; nothing is opened."""
    with (
        own_valkey(valkey_binary) as valkey,
        metered(valkey.url, AnyAnswer(), allowed_tenants=("tenant-a", "tenant-b")) as rig,
    ):
        listed(rig)
        assert not sole_caller(rig.publication)
        yield rig


SILENT = document({"results": [], "data": [], "object": "list"})
SPOKEN = whole(b"ID3\x03" * 125_000, "content-type: audio/mpeg")


@pytest.fixture(scope="module")
def small(valkey_binary: str) -> Iterator[Metered]:
    """A model whose context is more than its budget of an hour; its server tells no usage."""
    answers = {"speech": SPOKEN, "": SILENT} | dict.fromkeys([*READING, *COUNTING], SILENT)
    limits, tokens = Limits(tokens_per_hour=30_000), TokenPolicy(context_tokens=32_000)
    with own_valkey(valkey_binary) as valkey:
        answers = {name.rpartition("/")[2]: answer for name, answer in answers.items()}
        with metered(valkey.url, answers, limits=limits, tokens=tokens) as rig:
            listed(rig)
            yield rig


READING = ["embeddings", "rerank", "score", "moderations", "pooling", "classify"]
COUNTING = ["tokenize", "detokenize", "messages/count_tokens", "responses/input_tokens"]


def ask(rig: Metered, method: str, path: str, fields: dict[str, Any] | None = None) -> Reply:
    """Call with the model's key; with a JSON body where there are fields."""
    body = b"" if fields is None else json.dumps({"model": MODEL, "max_tokens": 100} | fields).encode()
    lines = [f"host: {HOST}", f"x-api-key: {rig.key}"]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return rig.envoy.send(head(method, path, *lines) + body)


def refused(reply: Reply) -> tuple[int, str]:
    """Status and code, in OpenAI's shape."""
    return reply.status, reply.json["error"]["code"]


CLOSED = [
    ("POST", "load_lora_adapter", "endpoint_not_allowed"),
    ("POST", "unload_lora_adapter", "endpoint_not_allowed"),
    ("POST", "fine_tuning/jobs", "endpoint_not_allowed"),
    ("GET", "files", "endpoint_not_allowed"),
    ("GET", "files/file-1/content", "endpoint_not_allowed"),
    ("GET", "FILES//file-1/content/", "endpoint_not_allowed"),
    ("GET", "%66iles/file-1", "endpoint_not_allowed"),
    ("GET", "chat/completions/../../files", "endpoint_not_allowed"),
    ("GET", "chat/%2e%2e/files", "endpoint_not_allowed"),
    ("GET", "%2566iles", "endpoint_not_allowed"),
    ("POST", "batches", "endpoint_not_allowed"),
    ("GET", "batches/batch_1", "endpoint_not_allowed"),
    ("POST", "vector_stores", "endpoint_not_allowed"),
    ("GET", "metrics", "endpoint_not_allowed"),
    ("POST", "admin/shutdown", "endpoint_not_allowed"),
    ("DELETE", "models/llm", "endpoint_not_allowed"),
    ("GET", "chat/completions", "method_not_allowed"),
    ("DELETE", "completions", "method_not_allowed"),
    ("PUT", "embeddings", "method_not_allowed"),
]


@pytest.mark.parametrize(("method", "name", "code"), CLOSED, ids=[f"{method} {name}" for method, name, _ in CLOSED])
@ROOTS
def test_what_else_a_server_has_is_refused(shared: Metered, root: str, method: str, name: str, code: str) -> None:
    """With a body and without, the server hears of none of it and nothing is held."""
    before, wanted = shared.server.seen, (405 if code == "method_not_allowed" else 403, code)
    is_anybodys = root == "/v1" and code == "endpoint_not_allowed" and name not in {"models/llm", "%2566iles"}
    without = ask(shared, method, f"{root}/{name}")
    assert refused(without) == ((400, "model_required") if is_anybodys else wanted)
    assert without.headers.get("allow") == "POST" or code != "method_not_allowed"
    if method != "GET":
        assert refused(ask(shared, method, f"{root}/{name}", {})) == wanted
    assert (shared.server.seen, shared.held()) == (before, 0)


def test_a_refusal_says_what_is_not_open_and_who_opens_it(shared: Metered) -> None:
    """By the endpoint's name and the setting's."""
    error = ask(shared, "POST", f"{PATH}/load_lora_adapter", {}).json["error"]
    assert "'load_lora_adapter'" in error["message"]
    assert "'allowedEndpoints'" in error["message"]
    assert (error["type"], error["param"]) == ("permission_error", None)


@pytest.mark.parametrize("name", ["chat/completions", "chat//completions/", "Chat/COMPLETIONS", "%63hat/completions"])
@ROOTS
def test_a_listed_endpoint_passes_however_it_is_written(shared: Metered, root: str, name: str) -> None:
    """And is charged what it told."""
    before = shared.settled()
    assert ask(shared, "POST", f"{root}/{name}", {}).status == 200
    assert shared.settled() - before == 12


@pytest.mark.parametrize(("method", "name"), [("GET", "responses/resp_1"), ("POST", "responses/resp_1/cancel")])
def test_what_an_earlier_call_made_is_reached_on_a_server_of_ones_own(own: Metered, method: str, name: str) -> None:
    """The server is asked for that very thing; it costs a call and no tokens."""
    before = own.settled()
    assert ask(own, method, f"{PATH}/{name}").status == 200
    assert own.server.asked[-1] == f"{method} /v1/{name}"
    assert own.settled() == before
    assert refused(ask(own, method, f"/v1/{name}")) == (400, "model_required")


def test_what_an_earlier_call_made_is_refused_where_others_call(shared: Metered) -> None:
    """Whose it is nobody knows."""
    before = shared.server.seen
    assert refused(ask(shared, "GET", f"{PATH}/responses/resp_1")) == (403, "stored_not_allowed")
    assert refused(ask(shared, "GET", f"{PATH}/chat/completions/chatcmpl-1")) == (403, "stored_not_allowed")
    assert shared.server.seen == before


def test_an_endpoint_that_is_opened_passes(own: Metered) -> None:
    """With what lies below it, and nothing else."""
    assert ask(own, "GET", f"{PATH}/audio/voices/1").status == 200
    assert own.server.asked[-1] == "GET /v1/audio/voices/1"
    assert refused(ask(own, "GET", f"{PATH}/audio/voicesx")) == (403, "endpoint_not_allowed")


@pytest.mark.parametrize(
    "field", [{"previous_response_id": "resp_1"}, {"conversation": "conv_1"}, {"background": True}]
)
@ROOTS
def test_a_field_may_be_refused(own: Metered, shared: Metered, root: str, field: dict[str, Any]) -> None:
    """It is named; where the publication may have it, it passes."""
    (name,) = field
    before = shared.server.seen
    reply = ask(shared, "POST", f"{root}/responses", {"input": "x"} | field)
    wanted = (400, "background_not_allowed") if name == "background" else (403, "stored_not_allowed")
    assert (*refused(reply), reply.json["error"]["param"]) == (*wanted, name)
    assert (shared.server.seen, shared.held()) == (before, 0)
    assert ask(own, "POST", f"{root}/responses", {"input": "x"} | field).status == 200


def client(rig: Metered, root: str) -> OpenAI:
    """OpenAI's own client."""
    base = f"http://127.0.0.1:{rig.envoy.ports['http']}{root}"
    return OpenAI(base_url=base, api_key=rig.key, default_headers={"Host": HOST}, max_retries=0)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's own word on variations
@ROOTS
def test_a_form_passes_and_is_charged_what_it_told(own: Metered, root: str) -> None:
    """Sound and pictures by OpenAI's client: on the model's own URL, and by the form's model through the shared one."""
    with client(own, root) as caller:
        before = own.settled()
        assert caller.audio.transcriptions.create(model=MODEL, file=("a.wav", io.BytesIO(b"RIFF" * 5_000))).text
        assert own.settled() - before == 12
        assert caller.audio.translations.create(model=MODEL, file=("a.wav", io.BytesIO(b"RIFF"))).text
        caller.images.edit(model=MODEL, image=("a.png", io.BytesIO(b"\x89PNG\r\n\x1a\n" * 99)), prompt="more")
        caller.images.create_variation(model=MODEL, image=("a.png", io.BytesIO(b"\x89PNG")))
    assert list(own.server.asked)[-4:] == [
        "POST /v1/audio/transcriptions",
        "POST /v1/audio/translations",
        "POST /v1/images/edits",
        "POST /v1/images/variations",
    ]
    assert own.settled() - before == 4 * 12


@ROOTS
def test_a_form_of_another_model_is_refused(own: Metered, root: str) -> None:
    """Before its server hears of it."""
    before = own.server.seen
    with client(own, root) as caller, pytest.raises(openai.NotFoundError) as failed:
        caller.audio.transcriptions.create(model="other", file=("a.wav", io.BytesIO(b"RIFF")))
    assert (failed.value.code, own.server.seen) == ("model_not_found", before)


def test_an_upload_is_refused_unless_it_is_opened(own: Metered, shared: Metered) -> None:
    """As OpenAI's client sees it."""
    upload: Any = {"file": ("a.jsonl", io.BytesIO(b"{}\n")), "purpose": "batch"}
    with client(shared, PATH) as caller, pytest.raises(openai.PermissionDeniedError) as failed:
        caller.files.create(**upload)
    assert failed.value.code == "endpoint_not_allowed"
    with client(own, PATH) as caller:
        assert caller.files.create(**upload)
    assert own.server.asked[-1] == "POST /v1/files"


def charged(rig: Metered, name: str, fields: dict[str, Any]) -> int:
    """What a call costs once it is settled."""
    before = rig.settled()
    assert ask(rig, "POST", f"{PATH}/{name}", fields).status == 200
    return rig.settled() - before


@pytest.mark.parametrize("name", READING)
@pytest.mark.parametrize("written", ["{}", "{}/", "/{}"])
def test_what_generates_nothing_is_held_by_its_bytes(small: Metered, name: str, written: str) -> None:
    """Though a context would not fit; where nobody tells usage it costs what its text probably is."""
    documents = ["a document of some words"] * 40
    spent = charged(small, written.format(name), {"query": "x", "documents": documents})
    assert 200 < spent < len(json.dumps(documents))


@pytest.mark.parametrize("name", COUNTING)
def test_counting_costs_a_call_and_no_tokens(small: Metered, name: str) -> None:
    """No model runs."""
    assert charged(small, name, {"prompt": "x" * 1_000}) == 0


def test_speech_is_charged_by_its_input(small: Metered) -> None:
    """Half a megabyte of sound from forty characters is no half a megabyte of text."""
    assert 0 < charged(small, "audio/speech", {"input": "x" * 40, "voice": "alloy"}) < 200
