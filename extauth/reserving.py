"""What an admitted call holds back: its tokens, and the reservation that is settled when it has ended. Pure.

Randomness and what was learned are arguments.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable
from typing import Final

from catalog.records import ModelType
from extauth.decide import BODILESS_METHODS, Admission
from extauth.request.call import Call
from ratelimit.tokens.costs import UNLEARNED, Asked, Learned, terms_of
from ratelimit.windows.budgets import Hold

NONCE_BYTES: Final = 16
"""Randomness of a reservation's id, 128 bits: who knows the id can settle it."""
OPENAI_ROOT: Final = "/v1"
EMBEDDINGS: Final = "embeddings"
"""Calls of this name generate nothing, and may ask for many prompts of a context each."""


class Reserver:
    """Makes the reservations of admitted calls.

    ``entropy`` gives that many random bytes (``os.urandom``), ``learned_of`` what was learned of a publication.
    """

    def __init__(
        self, entropy: Callable[[int], bytes], learned_of: Callable[[str], Learned] = lambda _uid: UNLEARNED
    ) -> None:
        self._entropy = entropy
        self._learned_of = learned_of

    def __call__(self, admission: Admission, call: Call) -> Admission:
        """Let an openai call with a body hold back its tokens, under an id that it has for this one decision."""
        record, policy = admission.publication.record, admission.publication.policy
        has_body = call.body_parsed or (call.body_unread and call.method not in BODILESS_METHODS)
        if not has_body or record.type is not ModelType.OPENAI:
            return admission
        terms = terms_of(_asked(call, record.path), policy, self._learned_of(record.uid))
        hold = Hold(
            id=record.uid[:3] + self._entropy(NONCE_BYTES).hex() + _caller(admission),  # in its publication's cell
            ceiling=terms.ceiling,
            presumed=terms.presumed,
            timeout_ms=policy.timeout_ms,
            terms=terms.pack(),
        )
        charge = dataclasses.replace(admission.charge, tokens=terms.reserved, hold=hold)
        return dataclasses.replace(admission, charge=charge)


RESERVE_UNLEARNED: Final = Reserver(os.urandom)
"""Makes reservations by what calls say of themselves alone."""


def _caller(admission: Admission) -> str:
    """Eight characters that tell keys apart (``ratelimit.tokens.endings.Told.caller``)."""
    return f"{zlib.crc32(admission.key.subject.name.encode()):08x}" if admission.key else ""


def _asked(call: Call, path: str) -> Asked:
    if call.path in {f"{path}/{EMBEDDINGS}", f"{OPENAI_ROOT}/{EMBEDDINGS}"}:
        return Asked(call.body_bytes, 0, choices=0)
    return Asked(call.body_bytes, call.max_tokens, call.choices)
