"""What an admitted call holds back: its tokens, and the reservation that is settled when it has ended. Pure.

Randomness and what was learned are arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from catalog.records import ModelType
from extauth.lanes.lane import Lane
from extauth.request.body import Body
from extauth.request.call import Call
from extauth.request.endpoints import Endpoint, Kind, endpoint_of, is_result
from ratelimit.tokens.estimates import Framing, framing_of
from ratelimit.tokens.learned import UNLEARNED, Learned
from ratelimit.tokens.terms import Asked, Basis, Policy, Work
from ratelimit.windows.budgets import Draw, Hold

NONCE_BYTES: Final = 16
"""Randomness of a reservation's id, 128 bits: who knows the id can settle it."""
NONCES_AT_ONCE: Final = 32
"""Drawn by one system call."""
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
        self._nonces: list[str] = []  # of reservations to come

    def __call__(self, lane: Lane, call: Call) -> Draw:
        """What a call of this lane takes: an openai one holds back its tokens, under an id for this one decision."""
        record = lane.publication.record
        if record.type is not ModelType.OPENAI:
            return lane.draw
        if isinstance(call.body, Body):
            return self.draw(lane, call.body, call.path)
        is_fetch = record.allow_background and not call.has_body and is_result(endpoint_of(call.path, record.path))
        return self._holding(lane, _FETCH) if is_fetch else lane.draw

    def draw(self, lane: Lane, body: Body, path: str) -> Draw:
        """The same of an openai call whose body was read; ``path``: its own."""
        endpoint = endpoint_of(path, lane.publication.record.path)
        if endpoint.kind in _FREE:
            return lane.draw
        return self._holding(lane, _asked(body, endpoint))

    def _holding(self, lane: Lane, asked: Asked) -> Draw:
        publication = lane.publication
        amounts, terms = self._basis(publication.record.uid, publication.policy).held(asked)
        name = f"{lane.shard}{self._nonce()}{lane.caller}"  # in the call's cell
        hold = Hold(name, amounts.ceiling, amounts.presumed, publication.policy.timeout_ms, terms)
        return _new(Draw, (lane.draw.charge, 1, amounts.reserved, hold, None))

    def _basis(self, uid: str, policy: Policy) -> Basis:
        basis, learned = self._bases.get(uid), self._learned_of(uid)
        if basis is None or not basis.is_of(policy, learned):
            if len(self._bases) >= MAX_BASES:
                self._bases.clear()
            basis = self._bases[uid] = Basis(policy, learned)
        return basis

    def _nonce(self) -> str:
        """Some are drawn at once, and none is given out twice: also where several threads ask."""
        try:
            return self._nonces.pop()
        except IndexError:
            drawn = self._entropy(NONCE_BYTES * NONCES_AT_ONCE).hex()
            nonce, *others = [drawn[at : at + 2 * NONCE_BYTES] for at in range(0, len(drawn), 2 * NONCE_BYTES)]
            self._nonces += others
            return nonce


_new: Final = tuple.__new__
"""Makes a named tuple of all its fields at once, in half the time."""
_FETCH: Final = Asked(0, work=Work.FETCHES)
"""What a call says of its cost that asks for what work in the background came to."""

RESERVE_UNLEARNED: Final = Reserver(os.urandom)
"""Makes reservations by what calls say of themselves alone."""


def _asked(body: Body, endpoint: Endpoint) -> Asked:
    framing = framing_of(endpoint.name, streams=True) if body.stream else _ONE_DOCUMENT
    numbers = (body.prompt_bytes, body.max_tokens, body.choices, body.prompts, body.media_parts)
    return _new(Asked, (*numbers, framing, body.says_usage, body.background, _WORK.get(endpoint.kind, _GENERATES)))
