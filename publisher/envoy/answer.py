"""How Envoy reads an answer's usage: the Lua filter that looks through its pieces as they pass. Pure.

The script is ``lua/meter.lua``; it holds nothing back and tells dynamic metadata, which the settlement reads
(docs/decisions/0029). Which routes turn it on is said elsewhere (``files``, ``publisher.gateway``).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from publisher.envoy.files import METER_FILTER, Json

_METER: Final = files("publisher.envoy").joinpath("lua/meter.lua").read_text(encoding="utf-8")


def meter() -> str:
    """The script as Envoy's Lua filter takes it; what it tells and keeps stands at its top."""
    return _METER


def answer_filter() -> Json:
    """Read the usage of answers, on routes that turn it on. It knows no request, so those pass it untouched."""
    return {
        "name": METER_FILTER,
        "disabled": True,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": meter()},
        },
    }
