"""A lane: what every call of one key to one route comes to, decided once. Pure.

A lane is made of an ``Admission``, so of what ``decide`` said, and says the same for as long as the records that it
names are as they were (``extauth.records.marks``) and its credential has not ended. It holds no text of a key. The
script has the last word on every call: a lane takes nothing by itself.
"""

from __future__ import annotations

import zlib
from typing import Final

import msgspec
from msgspec import structs

from catalog.ids import shard_prefix
from catalog.records import ModelType
from extauth.answers.shared import shared_answer
from extauth.answers.shown import Shown, shown_of
from extauth.decide import Admission
from extauth.records.entries import PublicationEntry, TenantEntry
from extauth.records.marks import Mark
from ratelimit.windows.budgets import Draw

LANE_BYTES: Final = 1_500
"""What a lane takes beside its texts, the table's own share included; a test measures it."""


class Lane(msgspec.Struct, eq=False, gc=False):
    """What is decided. The collector does not look at lanes: they hold no one another."""

    publication: PublicationEntry
    tenant: TenantEntry | None
    draw: Draw  # what a call takes that holds no tokens
    cell: int
    shard: str  # how the ids of what is counted in this cell begin
    caller: str  # eight characters that tell keys apart (``ratelimit.tokens.endings.Told.caller``); "": no key
    shared: bytes  # of the answer to an admitted call, all but what changes from call to call
    shown: Shown
    marks: tuple[Mark, ...] = ()  # empty: it is not kept
    turn: int = -1  # of the marks, when they were found to stand last
    used_ms: float = 0.0  # when a call last used it, on the table's clock
    opens: bool = False  # says no more than that a body may be read (``openings``)
    upstream_model: str = ""  # to be written where the body or path says its model; "": it stays as it is
    names_none: bool = False  # its bodies say none: it is added to them
    is_anthropic: bool = False  # its calls are answered in the words of Anthropic's API
    by_path: bool = False  # its calls name the model by the path, which is written anew
    adds: bool = False  # an answer to its calls is more than ``shared`` and ``shown``, by what stands above

    def __post_init__(self) -> None:
        """Look at both once, so that no call has to."""
        self.adds = bool(self.upstream_model) or self.is_anthropic

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return LANE_BYTES + len(self.shared) + sum(map(len, self.draw.charge.refs))

    def as_opening(self) -> Lane:
        """Return the same as what lets the bodies of its calls be read."""
        return structs.replace(self, marks=(), opens=True)

    def has_ended(self, now_ms: int) -> bool:
        """Whether its credential has surely ended; ``now_ms``: a lower bound of the store's clock."""
        return 0 < self.draw.charge.valid_until_ms <= now_ms


def lane_of(admission: Admission, said: str = "", *, names_one: bool = False, is_anthropic: bool = False) -> Lane:
    """Make a lane of what was decided about a call.

    ``said``: the model that its body names; to a traditional publication it says nothing. ``names_one``: its body
    should say one; without it the path alone does, of which the server sees nothing.
    ``is_anthropic``: it is answered in the words of Anthropic's API.
    """
    publication, key = admission.publication, admission.key
    is_openai = publication.record.type is ModelType.OPENAI
    key_id, tenant = (key.id, key.tenant) if key else ("", "")
    return Lane(
        publication,
        admission.tenant,
        admission.draw,
        admission.cell,
        shard_prefix(admission.shard),
        f"{zlib.crc32(key.subject.name.encode()):08x}" if key else "",
        shared_answer(publication.record.uid, key_id, tenant, is_chosen=is_openai or admission.by_path),
        shown_of(admission.draw.charge, is_openai=is_openai, is_anthropic=is_anthropic),
        upstream_model=_upstream_model(admission, said, names_one=names_one),
        names_none=is_openai and names_one and not said,
        is_anthropic=is_anthropic,
        by_path=admission.by_path,
    )


def _upstream_model(admission: Admission, said: str, *, names_one: bool) -> str:
    record = admission.publication.record
    known = record.served_as
    if record.type is not ModelType.OPENAI:
        return known if admission.by_path else ""
    return known if (said or names_one) and said != known else ""
