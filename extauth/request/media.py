"""Images, sounds and documents that stand in a body itself: how many, and how many of its bytes they are. Pure.

Known are the parts of OpenAI's chat (``image_url``, ``input_audio``, ``file``), of its Responses (``input_image``,
``input_file``), of vLLM's chat (``audio_url``, ``video_url``) and of Anthropic's Messages (``source``, also within a
tool's result). What cannot be read as such a part, or is no base64 of such a kind, is text: its bytes count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

MAX_NESTED: Final = 20_000
"""Of a body with more objects and lists (or text that looks so) no part is looked for: all its bytes count. They take
half a microsecond each, in which nothing else is decided."""
MAX_VALUES: Final = 200_000
"""The same for all its values, a tenth of a microsecond each."""

_DATA: Final = re.compile(r"data:(?:image|audio|video)/|data:application/(?:pdf|octet-stream)[;,]", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_=\r\n-]*")
_URL_PARTS: Final = ("image_url", "audio_url", "video_url")


class Media(msgspec.Struct, gc=False):
    """What was found; is added to while it is looked for."""

    parts: int = 0
    size: int = 0  # bytes of the body, base64 as it stands there


def media_of(raw: msgspec.Raw | None) -> Media:
    """Look through ``messages`` or a Responses ``input``."""
    found = Media()
    text = bytes(raw) if raw is not None else b""
    if text.count(b"{") + text.count(b"[") > MAX_NESTED or text.count(b",") > MAX_VALUES:
        return found
    try:
        messages = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):  # it holds what only the slow way reads: its bytes count
        return found
    for part in _parts(messages):
        _count(part, found)
    return found


def _parts(messages: object) -> Iterator[dict[str, Any]]:
    """Every object that stands where a part of a message may."""
    for message in _objects(messages):
        yield message  # an item of the Responses API may be a part itself
        for part in (*_objects(message.get("content")), *_objects(message.get("output"))):
            yield part
            yield from _objects(part.get("content"))  # of a tool's result


def _objects(value: object) -> Iterator[dict[str, Any]]:
    listed = value if isinstance(value, list) else [value]
    return (one for one in listed if isinstance(one, dict))


def _count(part: dict[str, Any], found: Media) -> None:
    sizes = [size for size in _inline(part) if size is not None]
    found.parts += bool(sizes)
    found.size += sum(sizes)


def _inline(part: dict[str, Any]) -> Iterator[int | None]:
    """Of each medium of a part the bytes that stand here: 0 of one by its URL or id, None where there is none."""
    for name in _URL_PARTS:
        held = part.get(name)
        yield _of_url(held.get("url") if isinstance(held, dict) else held)
    audio = part.get("input_audio")
    yield _of_base64(audio.get("data")) if isinstance(audio, dict) else None
    file = part.get("file")
    for holder in (part, file if isinstance(file, dict) else {}):
        yield _of_url(holder.get("file_data"))
        yield 0 if isinstance(holder.get("file_id") or holder.get("file_url"), str) else None
    source = part.get("source")
    yield _of_source(source) if isinstance(source, dict) else None


def _of_url(url: object) -> int | None:
    if not isinstance(url, str):
        return None
    return len(url) if _DATA.match(url) and _is_base64(url.partition(",")[2]) else 0


def _of_base64(data: object) -> int | None:
    return len(data) if isinstance(data, str) and _is_base64(data) else None


def _of_source(source: dict[str, Any]) -> int | None:
    """Anthropic's: base64, a URL, a file; or text, which counts as text."""
    if source.get("type") == "base64":
        return _of_base64(source.get("data"))
    return 0 if isinstance(source.get("url") or source.get("file_id"), str) else None


def _is_base64(data: str) -> bool:
    return _BASE64.fullmatch(data) is not None
