"""Rows: an openai call, its publication, and why it may not pass; the specification of ``extauth.request.openai``."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from extauth.reasons import Reason
from extauth.request.body import UNREAD, Body, BodyFault, Unread

OWN: Final = "/models/llm"
CHAT: Final = Body("llm")
FORM: Final = "multipart/form-data; boundary=x"
FAULT: Final = BodyFault(Reason.FIELD_INVALID, "")


class Row(NamedTuple):
    """One call; on the publication's own path unless ``shared``."""

    says: str
    name: str  # of the endpoint, below the path
    reason: Reason | Unread | None
    method: str = "POST"
    body: Body | BodyFault | None = CHAT
    content_type: str = "application/json"
    content_encoding: str = ""
    raw: bytes = b""  # of a body that was not read yet
    shared: bool = False  # by the shared /v1
    unnamed: bool = False  # and no publication is known
    alone: bool = False  # the server is one tenant's alone
    publication: dict[str, Any] = {}  # noqa: RUF012  never written to
    param: str | None = None
    tells: str = ""  # stands in the message


ENDPOINT, STORED = Reason.ENDPOINT_NOT_ALLOWED, Reason.STORED_NOT_ALLOWED
METHOD, MISSING = Reason.METHOD_NOT_ALLOWED, Reason.MODEL_MISSING
BACKGROUND = Reason.BACKGROUND_NOT_ALLOWED
FILES: Final = {"allowed_endpoints": ("files",)}
LATER: Final = {"allow_background": True}

ROWS: Final = (
    Row("a listed endpoint", "chat/completions", None),
    Row("a listed endpoint, shared", "chat/completions", None, shared=True),
    Row("a form", "audio/transcriptions", None, body=None, content_type=FORM),
    Row("a form whose model was read", "images/edits", None, body=CHAT, content_type=FORM, shared=True),
    Row("a form of another model", "images/edits", Reason.MODEL_NOT_FOUND, body=Body("x"), content_type=FORM),
    Row("a form that was not read, shared", "images/edits", Reason.FORM_TYPE, body=None, content_type=FORM,
        shared=True, unnamed=True),
    Row("a form sent as text", "audio/translations", Reason.FORM_TYPE, body=None, content_type="text/plain"),
    Row("a form sent where none is taken", "completions", Reason.BODY_TYPE, body=None, content_type=FORM),
    Row("a compressed form", "images/variations", Reason.BODY_ENCODED, body=None, content_type=FORM,
        content_encoding="gzip"),
    # what is not open
    Row("adapters", "load_lora_adapter", ENDPOINT, tells="'load_lora_adapter'"),
    Row("it says how to open it", "metrics", ENDPOINT, tells="'allowedEndpoints'"),
    Row("adapters, shared", "load_lora_adapter", ENDPOINT, shared=True, tells="'load_lora_adapter'"),
    Row("of a model that is not known, which whoever looked for it says", "files", None, shared=True, unnamed=True),
    Row("the same of an answer", "responses/resp_1", None, shared=True, unnamed=True),
    Row("one with dots that names no model", "x/../files", ENDPOINT, shared=True, unnamed=True, method="GET",
        body=None),
    Row("whatever is wrong with its body", "metrics", ENDPOINT, body=FAULT),
    Row("by GET", "files/file-1/content", ENDPOINT, method="GET", body=None),
    Row("a listed endpoint by GET", "chat/completions", METHOD, method="GET", body=None,
        tells="The endpoint 'chat/completions' takes POST only."),
    Row("a listed endpoint by GET, shared", "embeddings", METHOD, method="GET", body=None, shared=True, unnamed=True),
    Row("a listed endpoint by DELETE with a body", "completions", METHOD, method="DELETE"),
    Row("a listed endpoint by OPTIONS", "responses", METHOD, method="OPTIONS", body=None),
    Row("whatever is opened", "chat/completions", METHOD, method="GET", body=None, alone=True,
        publication={"allowed_endpoints": ("chat/completions",)}),
    Row("and whatever the body", "chat/completions", METHOD, method="PUT", alone=True,
        publication={"allowed_endpoints": ("chat/completions",)}),
    Row("files", "files", ENDPOINT, body=None, content_type=FORM, alone=True),
    Row("batches", "batches", ENDPOINT, alone=True),
    Row("dots", "chat/completions/../../files", ENDPOINT, publication=FILES, alone=True),
    Row("models, to be deleted", "models/llm", ENDPOINT, method="DELETE", body=None, alone=True, tells="'models/llm'"),
    Row("the model itself, posted to", "", ENDPOINT, tells="'/'"),
    Row("a very long name is cut", "x" * 5_000, ENDPOINT, tells="x" * 100 + "\\u2026'"),
    Row("a name is quoted", 'a"b%0A', ENDPOINT, tells='a\\"b\\n'),
    # what is opened
    Row("opened", "load_lora_adapter", None, publication={"allowed_endpoints": ("load_lora_adapter",)}),
    Row("opened, shared", "audio/voices", None, shared=True, publication={"allowed_endpoints": ("audio/voices",)}),
    Row("what lies below", "audio/voices/1", None, method="GET", body=None,
        publication={"allowed_endpoints": ("audio/voices",)}),
    Row("what only begins so", "audio/voicesx", ENDPOINT, publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, of whatever type", "audio/voices", None, body=None, content_type="text/plain",
        publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, and what servers take for JSON", "audio/voices", UNREAD, body=None, content_type="text/plain",
        raw=b'\xef\xbb\xbf {"model":"x"}', publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, and sent as nothing", "audio/voices", UNREAD, body=None, content_type="", raw=b"{}",
        publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, and compressed", "audio/voices", Reason.BODY_ENCODED, body=None, content_type="", raw=b"\x1f\x8b",
        content_encoding="gzip", publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, and not JSON", "audio/voices", None, body=None, content_type="audio/wav", raw=b"RIFF{",
        publication={"allowed_endpoints": ("audio/voices",)}),
    Row("opened, and yet of another model", "audio/voices", Reason.MODEL_NOT_FOUND, body=Body("x"),
        publication={"allowed_endpoints": ("audio/voices",)}),
    # what belongs to somebody
    Row("an answer, where others call", "responses/resp_1", STORED, method="GET", body=None,
        tells="'responses/resp_1'"),
    Row("an answer, on a server of one's own", "responses/resp_1", None, method="GET", body=None, alone=True),
    Row("it is stopped", "responses/resp_1/cancel", None, body=None, content_type="", alone=True),
    Row("an answer, by the shared entry", "responses/resp_1", Reason.MODEL_MISSING, method="GET", body=None,
        shared=True, unnamed=True, alone=True, param="model", tells="own URL"),
    Row("files, by the shared entry", "files", MISSING, method="GET", body=None, shared=True, unnamed=True,
        param="model", tells="'files' names no model: ask for it at the model's own URL."),
    Row("a form of them that names no model", "files", MISSING, body=Body(), content_type=FORM, shared=True,
        unnamed=True, param="model", tells="own URL"),
    Row("what may be open at another's URL", "audio/voices", MISSING, method="GET", body=None, shared=True,
        unnamed=True, param="model", tells="own URL"),
    Row("files, opened where others call", "files", STORED, method="GET", body=None, publication=FILES),
    Row("files, opened on a server of one's own", "files", None, body=None, content_type=FORM, publication=FILES,
        alone=True),
    Row("their content", "files/file-1/content", None, method="GET", body=None, publication=FILES, alone=True),
    Row("batches, opened where others call", "batches", STORED, publication={"allowed_endpoints": ("batches",)}),
    # fields
    Row("an answer gone on with", "responses", STORED, body=Body("llm", ids=("previous_response_id",)),
        param="previous_response_id", tells="'previous_response_id'"),
    Row("the same, shared", "responses", STORED, body=Body("llm", ids=("conversation",)), shared=True,
        param="conversation"),
    Row("on a server of one's own", "responses", None, body=Body("llm", ids=("previous_response_id",)), alone=True),
    Row("of another model", "responses", Reason.MODEL_NOT_FOUND, body=Body("x", ids=("conversation",))),
    Row("in the background", "responses", BACKGROUND, body=Body("llm", background=True), param="background",
        tells="'allowBackground'", alone=True),
    Row("in the background, shared", "responses", BACKGROUND, body=Body("llm", background=True), shared=True),
    Row("allowed in the background", "responses", None, body=Body("llm", background=True), publication=LATER),
    # bodies
    Row("no JSON", "responses", Reason.BODY_NOT_JSON, body=None),
    Row("another type", "embeddings", Reason.BODY_TYPE, body=None, content_type="text/plain"),
    Row("a fault", "rerank", Reason.FIELD_INVALID, body=FAULT),
    Row("compressed", "score", Reason.BODY_ENCODED, content_encoding="br"),
    Row("as it is", "score", None, content_encoding="identity"),
    Row("a form without a model by the shared entry", "audio/transcriptions", MISSING, body=Body(), content_type=FORM,
        shared=True, unnamed=True, param="model", tells="The form must name a model by its field 'model'"),
    Row("no model by the shared entry", "score", Reason.MODEL_MISSING, body=Body(), shared=True, unnamed=True),
    Row("no model on its own path", "score", None, body=Body()),
)  # fmt: skip
