"""Who passes, said a second time: from a question's plain fields and the plain picture of the world.

Shares nothing with ``extauth`` but the reading of protobuf.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from catalog.keys.keytext import TEXT_CHARACTERS
from extauth.credentials.carriers import MOST_COMMAS
from protos.external_auth_pb2 import AttributeContext, CheckRequest
from tests.fuzz.world import HOST, Holder, Place, World

_BEARER: Final = re.compile(r"(?i:bearer) (?P<text>.*)", re.DOTALL)
_OPEN: Final = re.compile(
    r"/+(chat/+completions|completions|embeddings|responses|messages|tokenize|rerank)/*", re.IGNORECASE | re.ASCII
)
_STORED: Final = re.compile(r"/+(chat/+completions|responses)/+[^/].*", re.IGNORECASE | re.ASCII)
_TWO_WAYS: Final = re.compile(r"(^|/)\.\.?(/|$)|[\\;?#%]")


@dataclass(frozen=True, slots=True)
class Pass:
    """A question that must be let through, as whom and where to."""

    holder: Holder | None  # None: without a key
    place: Place


def presented_text(attributes: AttributeContext) -> str:
    """The text that a caller shows, "" where it shows none; of several in one header what is surely no key."""
    headers, instead = attributes.request.http.headers, ""
    for name in ("x-api-key", "authorization", "api-key", "x-goog-api-key"):
        value = headers.get(name, "")
        if value.count(",") > MOST_COMMAS and "tk_" in value:
            return value  # no more of it is read, and it may hold a key
        texts = [part.strip(" \t") for part in value.split(",")]
        if name == "authorization":
            texts = [bearer["text"].strip(" ") if (bearer := _BEARER.fullmatch(text)) else "" for text in texts]
        if name != "authorization" and _has_form(value):
            return value  # whatever stands in it
        ours = [text for text in texts if _has_form(text)]
        if ours:
            return ours[0] if len({*texts}) == 1 else value
        instead = instead or (texts[0] if len({*texts}) == 1 else value)
    return instead


def _has_form(text: str) -> bool:
    return text.startswith("tk_") and len(text) == TEXT_CHARACTERS


def has_a_key_in_url(attributes: AttributeContext) -> bool:
    """Whether a key's text stands where the URL is told: in its path, its host, or the method before it."""
    http = attributes.request.http
    return any(map(shows_a_key, (http.path, http.host, http.method)))


def shows_a_key(text: str) -> bool:
    """Whether a key's text stands in this one."""
    return _KEY.search(text) is not None


_KEY: Final = re.compile(r"tk_[0-9a-f]{3}[a-z2-7]{16}_[0-9A-Za-z]{52}")


def read(payload: bytes) -> AttributeContext | None:
    """The question, None where the bytes are none."""
    try:
        return CheckRequest.FromString(payload).attributes
    except DecodeError:
        return None


def must_tell(attributes: AttributeContext | None, world: World) -> list[str] | None:
    """The names of the models that this must be answered with by the gate itself; None: it must not be.

    One name stands for one model, told alone or in a list.
    """
    if attributes is None or attributes.request.http.method not in {"GET", "HEAD"}:
        return None
    if has_a_key_in_url(attributes):
        return None
    text = presented_text(attributes)
    holder = world.valid.get(text)
    if text and holder is None:
        return None
    path, _, _ = attributes.request.http.path.partition("?")
    route = attributes.route_metadata_context.filter_metadata
    uid = _text(route, "tollkeeper", "publication")
    if uid:
        return _told_of(path, world.places.get(uid), holder)
    if _text(route, "tollkeeper", "openai_host") != HOST or holder is None:
        return None
    return _told_by_host(path, world, holder)


def _told_of(path: str, place: Place | None, holder: Holder | None) -> list[str] | None:
    if place is None or not place.is_openai or not _may_enter(place, holder):
        return None
    good = (place.path, f"{place.path}/models", f"{place.path}/models/", f"{place.path}/models/{place.model}")
    return [place.model] if path in good else None


def _told_by_host(path: str, world: World, holder: Holder) -> list[str] | None:
    if path != "/v1/models" and not path.startswith("/v1/models/"):
        return None
    names = {name: world.places[uid] for name, uid in world.models.items() if _may_enter(world.places[uid], holder)}
    own = f"{holder.tenant}/"
    if path in {"/v1/models", "/v1/models/"}:
        return sorted(name.removeprefix(own) for name in names)
    name = path.removeprefix("/v1/models/")
    found = f"{own}{name}" if f"{own}{name}" in world.models else name
    return [found.removeprefix(own)] if found in names else None


def is_question(attributes: AttributeContext, world: World) -> bool:
    """Whether it asks about models, be it answered or refused: such a call reaches no model."""
    if attributes.request.http.method not in {"GET", "HEAD"}:
        return False
    path, _, _ = attributes.request.http.path.partition("?")
    route = attributes.route_metadata_context.filter_metadata
    uid = _text(route, "tollkeeper", "publication")
    place = world.places.get(uid)
    if uid:
        below = f"{place.path}/models" if place else ""
        return bool(place and place.is_openai and (path in {place.path, below} or path.startswith(f"{below}/")))
    return path == "/v1/models" or path.startswith("/v1/models/")


def must_pass(attributes: AttributeContext | None, world: World) -> Pass | None:
    """Say whether the gate must let this through; everything else it must refuse."""
    if attributes is None or is_question(attributes, world) or has_a_key_in_url(attributes):
        return None
    text = presented_text(attributes)
    holder = world.valid.get(text)
    if text and holder is None:
        return None
    route = attributes.route_metadata_context.filter_metadata
    uid = _text(route, "tollkeeper", "publication")
    if uid:
        return _by_path(attributes, world.places.get(uid), holder)
    if _text(route, "tollkeeper", "openai_host") == HOST and holder:
        return _by_body(attributes, world, holder)
    return None


def _by_path(attributes: AttributeContext, place: Place | None, holder: Holder | None) -> Pass | None:
    if place is None or not _may_enter(place, holder):
        return None
    if place.is_openai and not _may_ask(attributes, place):
        return None
    return Pass(holder, place)


def _by_body(attributes: AttributeContext, world: World, holder: Holder) -> Pass | None:
    _, model = _told(attributes)
    if not model:
        return None
    uid = world.models.get(f"{holder.tenant}/{model}") or world.models.get(model)
    if uid is None or not _may_enter(world.places[uid], holder) or not _kind(attributes, world.places[uid], "/v1"):
        return None
    return Pass(holder, world.places[uid])


def _may_enter(place: Place, holder: Holder | None) -> bool:
    if place.is_closed:
        return False
    if holder is None:
        return place.is_open
    return holder.tenant in place.allowed and place.uid in holder.uids


def _may_ask(attributes: AttributeContext, place: Place) -> bool:
    kind = _kind(attributes, place, place.path, "/v1")
    is_there, model = _told(attributes)
    if not is_there:
        return kind == "stored"
    return bool(kind) and model in {"", place.model}


def _kind(attributes: AttributeContext, place: Place, *below: str) -> str:
    """How a path below one of these is open to callers of an openai place: "model", "stored", or "": it is not."""
    http = attributes.request.http
    path, _, _ = http.path.partition("?")
    roots = [root for root in below if path.startswith(f"{root}/")]
    rest = unquote(path.removeprefix(roots[0])) if roots else ""
    if not rest.isascii() or not rest.isprintable() or _TWO_WAYS.search(rest):
        return ""
    if _OPEN.fullmatch(rest):
        return "model" if http.method == "POST" else ""
    is_alone = place.allowed == {place.tenant} and not place.is_open
    return "stored" if is_alone and _STORED.fullmatch(rest) else ""


def _told(attributes: AttributeContext) -> tuple[bool, str | None]:
    """Whether there is a body, and the model that it names: "" for none, None where it must be refused."""
    http = attributes.request.http
    if http.raw_body or http.body:
        return True, _model_of(http.raw_body or http.body.encode(), http.headers.get("content-type", ""))
    if "tollkeeper.request" not in attributes.metadata_context.filter_metadata:
        return False, ""
    return True, _body_model(attributes) if _is_name_or_none(attributes) else None


_OURS: Final = frozenset(
    (
        *(
            "model",
            "options",
            "messages",
            "stream",
            "background",
            "n",
            "best_of",
            "prompt",
            "input",
            "documents",
            "texts",
        ),
        *(
            "max_tokens",
            "max_completion_tokens",
            "max_output_tokens",
            "n_predict",
            "max_new_tokens",
            "text_1",
            "text_2",
        ),
        *("previous_response_id", "conversation", "input_file_id", "batch", "batch_id"),
    )
)
_JSON: Final = re.compile(r'[ \t]*application/json[ \t]*(;[ \t]*charset="?utf-8"?[ \t]*)?', re.IGNORECASE)


class _Pairs(list[tuple[str, object]]):
    """An object's members."""


def _model_of(raw: bytes, content_type: str) -> str | None:
    """What a body names, by the standard library alone. Made for the bodies that are sent here: of few kinds."""
    try:
        body = json.loads(raw.removeprefix(b"\xef\xbb\xbf").decode(), object_pairs_hook=_Pairs)
    except ValueError:
        return None
    if not isinstance(body, _Pairs) or not _JSON.fullmatch(content_type):
        return None
    names = [name for name, _ in body]
    if any(name not in _OURS and name.casefold() in _OURS for name in names):
        return None
    if any(name in _OURS and names.count(name) > 1 for name in names):
        return None
    given = {name: value for name, value in body if value is not None}
    most, model = given.get("max_tokens", 0), given.get("model", "")
    if isinstance(most, bool) or not isinstance(most, int | float) or most < -2 or most % 1 != 0:
        return None
    return model if isinstance(model, str) and "n" not in given else None


def _is_name_or_none(attributes: AttributeContext) -> bool:
    fields = attributes.metadata_context.filter_metadata["tollkeeper.request"].fields
    return "model" not in fields or fields["model"].WhichOneof("kind") in {"string_value", "null_value", None}


def _body_model(attributes: AttributeContext) -> str:
    return _text(attributes.metadata_context.filter_metadata, "tollkeeper.request", "model")


def _text(namespaces: object, namespace: str, name: str) -> str:
    found = dict(namespaces).get(namespace)  # type: ignore[call-overload]
    if not isinstance(found, Struct) or name not in found.fields:
        return ""
    return found.fields[name].string_value
