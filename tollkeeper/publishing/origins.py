"""The setting that names pages of browsers: each one's origin, in the one spelling that browsers send."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from admin.models.addresses import parse_target
from runtime.settings import Metavar, Words


def _spelled(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(parse_target(origin).url for origin in value))


Origins = Annotated[Words, AfterValidator(_spelled), Metavar("ORIGINS")]
"""``https://app.example,http://localhost:3000``: scheme, host and, unless it is the scheme's own, port."""
