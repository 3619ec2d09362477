"""Entity tags of what the gate itself answers (RFC 9110, 8.8.3 and 13.1.2). Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

TAG_BYTES: Final = 16
"""Of SHA-256: that two answers of one caller have one tag by chance is out of the question."""
_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def entity_tag(body: str) -> str:
    """Give the tag of a body, a strong one: another byte, another tag."""
    return f'"{hashlib.sha256(body.encode()).hexdigest()[: 2 * TAG_BYTES]}"'


def matches(if_none_match: str, tag: str) -> bool:
    """Whether a caller has this already, by its If-None-Match: some tags, compared weakly, or ``*`` for any."""
    return if_none_match.strip() == "*" or tag in _TAG.findall(if_none_match)
