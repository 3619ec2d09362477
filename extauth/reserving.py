"""What an admitted call holds back: its tokens, and the reservation that is settled when it has ended. Pure.

Randomness and what was learned are arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from catalog.records import ModelType, PublicationRecord
from extauth.lanes.lane import Lane
from extauth.request.body import Body
from extauth.request.call import Asking, Call
from extauth.request.endpoints import Endpoint, Kind, endpoint_of, is_result
from ratelimit.tokens.estimates import Framing, framing_of
from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import Asked, Basis, Policy, Work
from ratelimit.windows.budgets import Draw, Hold

NONCE_BYTES: Final = 16
"""Randomness of a reservation's id, 128 bits: who knows the id can settle it."""
MAX_BASES: Final = 4_096
"""Publications of which what all terms have in common is kept, about a kilobyte each; beyond it all is made anew."""
_WORK: Final = {
    Kind.EMBEDS: Work.READS,
    Kind.SPEAKS: Work.READS,
    Kind.PICTURES: Work.DRAWS,
    Kind.FORM: Work.FORM,
}
"""What is held and charged, by the sort of endpoint; all others generate, for all that is known of them."""
_ONE_DOCUMENT, _GENERATES = Framing.JSON, Work.GENERATES
_FREE: Final = frozenset({Kind.COUNTS, Kind.STORED, Kind.BATCHES})
"""Where no model runs while the caller waits: it costs a call and no tokens."""


class Reserver:
    """Makes the reservations of admitted calls.

    ``entropy`` gives that many random bytes (``os.urandom``), ``learned_of`` what was learned of a publication.
    """

    def __init__(
        self, entropy: Callable[[int], bytes], learned_of: Callable[[str], Learned] = lambda _uid: UNLEARNED
    ) -> None:
        self._entropy = entropy
        self._learned_of = learned_of
        self._bases: dict[str, Basis] = {}  # by the publication's uid

    def __call__(self, lane: Lane, call: Asking) -> Draw:
        """What a call of this lane takes: an openai one holds back its tokens, under an id for this one decision."""
        record, policy = lane.publication.record, lane.publication.policy
        if record.type is not ModelType.OPENAI:
            return lane.draw
        asked = _asked_of(call.read(), record)
        if asked is None:
            return lane.draw
        amounts, terms = self._basis(record.uid, policy).held(asked)
        name = f"{lane.shard}{self._entropy(NONCE_BYTES).hex()}{lane.caller}"  # in the call's cell
        hold = Hold(name, amounts.ceiling, amounts.presumed, policy.timeout_ms, terms)
        return Draw(lane.draw.charge, 1, amounts.reserved, hold)

    def _basis(self, uid: str, policy: Policy) -> Basis:
        basis, learned = self._bases.get(uid), self._learned_of(uid)
        if basis is None or not basis.is_of(policy, learned):
            if len(self._bases) >= MAX_BASES:
                self._bases.clear()
            basis = self._bases[uid] = Basis(policy, learned)
        return basis


RESERVE_UNLEARNED: Final = Reserver(os.urandom)
"""Makes reservations by what calls say of themselves alone."""


def _asked_of(call: Call, record: PublicationRecord) -> Asked | None:
    """What a call says of its cost; ``None`` where no model runs for it, and nothing is known by its end."""
    endpoint = endpoint_of(call.path, record.path)
    if isinstance(call.body, Body):
        return None if endpoint.kind in _FREE else _asked(call.body, endpoint)
    if record.allow_background and not call.has_body and is_result(endpoint):
        return Asked(0, work=Work.FETCHES)
    return None


def _asked(body: Body, endpoint: Endpoint) -> Asked:
    return Asked(  # by place, in half the time
        body.prompt_bytes,
        body.max_tokens,
        body.choices,
        body.prompts,
        body.media_parts,
        framing_of(endpoint.name, streams=True) if body.stream else _ONE_DOCUMENT,
        body.says_usage,
        body.background,
        _WORK.get(endpoint.kind, _GENERATES),
    )
