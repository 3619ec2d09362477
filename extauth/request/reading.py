"""From a body's bytes to what decides whom its call is for and what it may cost. Pure, and strict where it decides.

A name that is one of ours in another case, one that stands there twice and a value of the wrong kind are refused by
the field's name and the rule: which of two readings the model's server would choose is not for us to say. Everything
else passes as it came.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
from msgspec import Raw

from extauth.reasons import Reason
from extauth.request.body import MAX_CHOICES, Body, BodyFault
from extauth.request.form import NoFormError, is_form, read_form
from extauth.request.media import Media, media_of
from extauth.request.members import ALTERED, SLOW_BYTES, Members, UnreadableError, members, shape_of
from extauth.request.mentions import NOTHING, REFERENCE, mentions, refers
from ratelimit.tokens.terms import MAX_TOKENS

MOST_FIELDS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_new_tokens")
"""Spellings of the most tokens of one answer; OLLAMA_MOST stands below ``options``."""
OLLAMA_MOST: Final = "num_predict"
_OLLAMA: Final = frozenset({OLLAMA_MOST})
CHOICE_FIELDS: Final = ("n", "best_of")
PROMPT_FIELDS: Final = ("prompt", "input")
INPUT_FIELDS: Final = ("documents", "texts", "text_1", "text_2")
"""Many inputs in one call; beside ``messages``, ``documents`` are one prompt's."""
ID_FIELDS: Final = ("previous_response_id", "conversation", "input_file_id", "batch", "batch_id")
"""Names of what an earlier call made."""
DECIDING: Final = frozenset(
    {
        *("model", "options", "messages", "stream", "background"),
        *(*MOST_FIELDS, *CHOICE_FIELDS, *PROMPT_FIELDS, *INPUT_FIELDS, *ID_FIELDS),
    }
)
_MOSTS: Final = frozenset({*MOST_FIELDS, "options"})
_UNUSUAL: Final = DECIDING - _MOSTS - {"model", "messages", "stream"}
"""What few calls name."""
_NO_MEDIA: Final = Media()
UNBOUNDED: Final = frozenset({-1, -2})
"""Instead of a bound: llama.cpp's and Ollama's "until it ends" and "until the context is full"."""

_JSON: Final = "application/json"
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_WHOLE: Final = re.compile(rb"-?[0-9]{1,15}")
_Values = Mapping[str, Raw]


class _FaultError(Exception):
    """Ends the reading of a body that is refused."""

    def __init__(self, fault: BodyFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def read_body(
    raw: bytes, content_type: str, *, takes_form: bool = False, is_text: bool = False, slow_bytes: int = SLOW_BYTES
) -> Body | BodyFault:
    """Read what a call says. ``content_type``: its header, as it was sent.

    ``takes_form``: the endpoint takes a form too. ``is_text``: Envoy handed the body over as text, in which a byte
    that is not UTF-8 has been replaced by "!" while the model's server is sent the byte itself.
    ``slow_bytes``: as of ``members``.
    """
    try:
        if takes_form and is_form(content_type):
            return _read_form(raw, content_type)
        _require_json(content_type)
        return _read_json(raw, slow_bytes, is_text=is_text)
    except _FaultError as error:
        return error.fault
    except (UnreadableError, NoFormError) as unreadable:
        return BodyFault(Reason.BODY_NOT_JSON, str(unreadable))


def _require_json(content_type: str) -> None:
    if content_type == _JSON:
        return
    kind, _, options = content_type.partition(";")
    if kind.strip(" \t").lower() != _JSON:
        sent = f"not as {content_type[:80]!r}" if content_type else "and no Content-Type was sent"
        raise _refused(Reason.BODY_TYPE, f"The body must be sent as 'Content-Type: application/json', {sent}.")
    for option in options.lower().split(";"):
        name, _, value = option.partition("=")
        if name.strip(" \t") == "charset" and value.strip(' \t"') not in _CHARSETS:
            raise _refused(Reason.BODY_TYPE, f"The body must be encoded in UTF-8, not in {value[:40].strip()!r}.")


def _read_json(raw: bytes, slow_bytes: int, *, is_text: bool) -> Body:
    if not raw:
        raise UnreadableError("The body is empty; it must be a JSON object.")
    found = members(raw, DECIDING, slow_bytes)
    _hold_to_names(found, DECIDING, is_text=is_text)
    values = found.values
    mentioned = mentions(raw)
    media = media_of(values.get("messages", values.get("input"))) if mentioned.media else _NO_MEDIA
    model, max_tokens = _text(values, "model"), None if _MOSTS.isdisjoint(values) else _most(values, slow_bytes)
    if mentioned is NOTHING and _UNUSUAL.isdisjoint(values):  # nothing else stands there that says a call's cost
        return Body(model, len(raw), max_tokens, stream=_flag(values, "stream"))
    return Body(
        model=model,
        prompt_bytes=len(raw) - media.size,
        max_tokens=max_tokens,
        choices=_choices(values),
        prompts=_prompts(values),
        stream=_flag(values, "stream"),
        background=_is_background(values),
        media_parts=media.parts,
        media_bytes=media.size,
        says_usage=mentioned.usage,
        ids=_ids(values, mentioned.file_id),
    )


def _read_form(raw: bytes, content_type: str) -> Body:
    """A form's fields are texts; of files the bytes are no prompt's.

    A file may not be called like a field that decides: with an empty name of its own, some servers take it for one.
    """
    form = read_form(raw, content_type)
    for name in form.file_names:
        if name.casefold() in DECIDING:
            raise _refused(Reason.FIELD_INVALID, f"'{name[:64]}' must be a field, not a file.", name)
    doubled = frozenset(name for name in DECIDING if sum(name == field for field, _ in form.fields) > 1)
    texts = dict(form.fields)
    values = {name: Raw(_as_json(name, text)) for name, text in texts.items()}
    _hold_to_names(Members(values, shape_of(values, DECIDING), doubled), DECIDING, is_text=False)
    return Body(
        model=texts.get("model", ""),
        prompt_bytes=len(raw) - form.file_bytes,
        max_tokens=_most(values),
        choices=_choices(values),
        stream=texts.get("stream", "").lower() in {"true", "1"},
        media_parts=len(form.file_names),
        media_bytes=form.file_bytes,
    )


def _as_json(name: str, text: str) -> bytes:
    """A form's counts as JSON would have them; an empty field says nothing."""
    is_count = name in {*MOST_FIELDS, *CHOICE_FIELDS}
    if is_count and not text:
        return b"null"
    return text.encode() if is_count and _WHOLE.fullmatch(text.encode()) else json.dumps(text).encode()


def _hold_to_names(found: Members, deciding: frozenset[str], *, is_text: bool) -> None:
    """Refuse a deciding name that stands there twice or in another case, or may be one that Envoy has altered."""
    if found.shape.is_plain and not found.doubled:
        return
    for name in found.values:
        if name in deciding:
            if name in found.doubled:
                raise _refused(Reason.FIELD_REPEATED, f"'{name}' is there twice; it must be there once.", name)
            continue
        if (meant := name.casefold()) in deciding:
            raise _refused(Reason.FIELD_MISSPELT, f"'{name}' must be written '{meant}'.", name)
        if is_text and ALTERED in name:
            raise UnreadableError("A field's name holds '!', which may stand for a byte that is not UTF-8.")


def _refused(reason: Reason, message: str, param: str | None = None, code: str = "") -> _FaultError:
    return _FaultError(BodyFault(reason, message, None if param is None else param[:64], code))


MAX_QUOTED: Final = 24
"""So much of a value that is refused is told back: enough to find it, and of a key's text not its secret."""


def _invalid(values: _Values, name: str, rule: str) -> _FaultError:
    came = bytes(values[name])
    quoted = came[:MAX_QUOTED].decode(errors="ignore") + ("…" if len(came) > MAX_QUOTED else "")
    return _refused(Reason.FIELD_INVALID, f"'{name}' must be {rule}, not {quoted}.", name, f"invalid_{name}")


def _value(values: _Values, name: str) -> object:
    """A field's value; ``None`` where it is absent or null. Of a number that no float holds: infinity."""
    raw = values.get(name)
    if raw is None:
        return None
    try:
        return _decoded(raw)
    except (msgspec.DecodeError, RecursionError):
        return _slow_value(bytes(raw))


_decoded: Final = msgspec.json.Decoder().decode


MAX_SLOW_VALUE_BYTES: Final = 32 * 1024
"""Longest name or number that the standard library reads."""


def _slow_value(raw: bytes) -> object:
    if len(raw) > MAX_SLOW_VALUE_BYTES:
        return ()
    try:
        return json.loads(raw.decode(), parse_int=float)
    except (ValueError, RecursionError):
        return ()  # of no kind that is asked for


def _text(values: _Values, name: str) -> str:
    value = _value(values, name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _invalid(values, name, "a string")
    return value


def _flag(values: _Values, name: str) -> bool:
    value = _value(values, name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise _invalid(values, name, "true or false")


BACKGROUNDS: Final = frozenset({"transparent", "opaque", "auto"})
"""What the field says of a picture, where it is one's that is asked for; no server takes these for true."""


def _is_background(values: _Values) -> bool:
    value = _value(values, "background")
    return False if isinstance(value, str) and value in BACKGROUNDS else _flag(values, "background")


def _whole(value: object) -> int | float | None:
    """A whole number, infinity among them; ``None`` where it is none that is whole."""
    if isinstance(value, int | float) and not isinstance(value, bool) and (value == math.inf or value % 1 == 0):
        return value
    return None


def _choices(values: _Values) -> int:
    return max((_count_of_choices(values, name) for name in CHOICE_FIELDS), default=1)


def _count_of_choices(values: _Values, name: str) -> int:
    value = _value(values, name)
    if value is None:
        return 1
    count = _whole(value)
    if count is None or not 1 <= count <= MAX_CHOICES:
        raise _invalid(values, name, f"a whole number, 1 to {MAX_CHOICES}")
    return int(count)


def _bound(values: _Values, name: str) -> int | None:
    """Most tokens as one spelling says: any whole number, above ``MAX_TOKENS`` that; ``None`` where null or absent."""
    value = _value(values, name)
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MAX_TOKENS:  # as most are
        return value
    bound = _whole(value)
    if bound is None or (bound < 0 and bound not in UNBOUNDED):
        raise _invalid(values, name, "a whole number of at least 0, or -1 for no bound")
    return int(min(bound, MAX_TOKENS))


def _most(values: _Values, slow_bytes: int = SLOW_BYTES) -> int | None:
    """The largest bound of an answer's tokens; ``None`` where there is none, or one spelling says so."""
    bounds = [_bound(values, name) for name in MOST_FIELDS if name in values]
    if len(bounds) == 1 and "options" not in values:
        return bounds[0] if bounds[0] is None or bounds[0] >= 0 else None
    options = bytes(values["options"]) if "options" in values else b""
    if options.startswith(b"{"):
        inner = members(options, _OLLAMA, slow_bytes)
        _hold_to_names(inner, _OLLAMA, is_text=False)
        bounds.append(_bound(inner.values, OLLAMA_MOST))
    given = [bound for bound in bounds if bound is not None]
    return max(given) if given and min(given) >= 0 else None


def _prompts(values: _Values) -> int:
    """How many prompts, inputs or documents there are."""
    named: Iterable[str] = PROMPT_FIELDS if "messages" in values else (*PROMPT_FIELDS, *INPUT_FIELDS)
    return max([_listed(values[name]) for name in named if name in values], default=1)


_TEXTS: Final = msgspec.json.Decoder(list[str])
MAX_TEXTS: Final = 20_000
"""So many texts of a list are told from what stands between them, a tenth of a microsecond each."""
_FIRST: Final = re.compile(rb"[ \t\n\r]*\[[ \t\n\r]*(.)")


def _listed(value: Raw) -> int:
    """How many prompts a value is: a list of texts or of token arrays so many, a text or an array of tokens one.

    A list of objects is one conversation (the Responses API's) below ``input``. Any other list, and one of too many
    texts, is taken for as many as it has pairs of quotation marks, and brackets: it has no more.
    """
    text = bytes(value)
    first = _FIRST.match(text)
    if first is None or first[1] == b"{":
        return 1
    pairs = text.count(b'"') // 2
    if first[1] == b'"' and pairs <= MAX_TEXTS:
        with suppress(msgspec.DecodeError, RecursionError):
            return len(_TEXTS.decode(text))
    return max(1, pairs + text.count(b"[") - 1)


def _ids(values: _Values, file_id: str) -> tuple[str, ...]:
    named = [name for name in ID_FIELDS if name in values and bytes(values[name]) != b"null"]
    if not file_id and "input" in values and refers(bytes(values["input"])):
        file_id = REFERENCE
    return tuple(dict.fromkeys([*named, file_id] if file_id else named))
