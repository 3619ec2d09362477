"""How Envoy reads an answer's usage, and writes a request's model: the Lua filters of openai routes. Pure.

``lua/meter.lua`` looks through an answer's pieces as they pass; it holds nothing back and tells dynamic metadata, which
the settlement reads (docs/decisions/0029). ``lua/rewrite.lua`` puts the name that the model's server knows into a body,
where Check says so (docs/decisions/0048). Which routes turn what on is said elsewhere (``routes``,
``publisher.gateway``).
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from publisher.envoy.files import METER_FILTER, REWRITE_FILTER, Json

_METER: Final = files("publisher.envoy").joinpath("lua/meter.lua").read_text(encoding="utf-8")
_REWRITE: Final = files("publisher.envoy").joinpath("lua/rewrite.lua").read_text(encoding="utf-8")


def meter() -> str:
    """The script as Envoy's Lua filter takes it; what it tells and keeps stands at its top."""
    return _METER


def rewrite() -> str:
    """The script that puts the name which a server knows into a request's body; what it reads stands at its top."""
    return _REWRITE


def rewriting_meter() -> str:
    """Both in one, for a filter that does both."""
    return f"{rewrite()}\n{meter()}"


def answer_filter() -> Json:
    """Read the usage of answers, on routes that turn it on. It knows no request, so those pass it untouched."""
    return _filter(METER_FILTER, meter())


def rewrite_filter() -> Json:
    """Write the model's name into bodies, on routes that turn it on. It knows no answer."""
    return _filter(REWRITE_FILTER, rewrite())


def _filter(name: str, script: str) -> Json:
    return {
        "name": name,
        "disabled": True,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
            "default_source_code": {"inline_string": script},
        },
    }
