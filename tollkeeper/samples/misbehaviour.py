"""How the OpenAI sample can be told to misbehave: so that a gateway can be tried against servers that are not honest.

``--misbehave usage=1000000,delay-ms=20`` is for every call; with ``--obey-callers`` the header ``x-sample-misbehave``
says the same for one. Pure: says what is to be done, ``answering`` does it. Without a word of it the sample is honest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

HEADER: Final = "x-sample-misbehave"
_TOTAL: Final = "total_tokens"

Json = dict[str, Any]
T = TypeVar("T")
Ms = Annotated[int, Field(ge=0, le=3_600_000)]


class Misbehaviour(BaseModel):
    """What one call's answer is like; the default is an honest one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=lambda name: name.replace("_", "-"), use_attribute_docstrings=True
    )

    usage: int | Literal["missing", "null", "string", "float", "parts"] | None = None
    """Tokens told instead of the real ones, negative ones too; or how the real ones are told: not at all, as null, as
    text, as a fraction, or without their total."""
    usage_early: Literal["yes"] | None = None
    """The last two events of a stream change places, so that usage is not in the last one."""
    delay_ms: Ms = 0
    """Rest before each event of a stream: a token takes as long."""
    wait_ms: Ms = 0
    """Rest before anything is sent."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """An error, instead of an answer."""
    break_after: Annotated[int, Field(ge=0)] | None = None
    """The connection is broken after so many events of a stream, or bytes of another answer's body."""
    gzip: Literal["yes"] | None = None
    """The answer is compressed, whether the caller can read that or not."""

    def told(self, document: Json) -> Json:
        """Return an answer, or an event of one, as it is told: its usage stands at the top or in ``response``."""
        inner = document.get("response")
        if isinstance(inner, dict):
            document = document | {"response": self._with_usage(inner)}
        return self._with_usage(document)

    def _with_usage(self, document: Json) -> Json:
        usage = document.get("usage")
        if self.usage is None or not isinstance(usage, dict):
            return document
        if self.usage == "missing":
            return {name: value for name, value in document.items() if name != "usage"}
        return document | {"usage": self._lie(usage)}

    def _lie(self, usage: Mapping[str, Any]) -> Json | None:
        counts = {name: value for name, value in usage.items() if isinstance(value, int)}
        match self.usage:
            case int(total):
                parts = [name for name in counts if name != _TOTAL]
                return {**usage, **dict.fromkeys(parts, total // len(parts)), _TOTAL: total}
            case "string":
                return {**usage, **{name: str(count) for name, count in counts.items()}}
            case "float":
                return {**usage, **{name: count + 0.5 for name, count in counts.items()}}
            case "parts":
                return {name: value for name, value in usage.items() if name != _TOTAL}
            case _:
                return None

    def ordered(self, events: Iterable[T]) -> Iterator[T]:
        """Yield a stream's events in the order in which they are sent."""
        before: list[T] = []
        for event in events:
            before.append(event)
            if len(before) > (2 if self.usage_early else 0):
                yield before.pop(0)
        yield from reversed(before)


HONEST: Final = Misbehaviour()


def misbehaviour_of(words: Iterable[str]) -> Misbehaviour:
    """Read ``["usage=-5", "delay-ms=20"]``; raises ``ValueError`` that names what is wrong."""
    pairs = (word.strip().partition("=") for word in words)
    try:
        return Misbehaviour.model_validate({name: value for name, _, value in pairs})
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{first['loc'][0]}: {first['msg']}") from None
