"""What a model server's answers mean: rows of both answers, the type that was given, and what is found."""

from __future__ import annotations

from typing import Any

import pytest

from admin.models.discovery import Heard, as_wanted, by_list, by_metadata, by_name
from catalog.records import ModelType, Protocol

T, O = ModelType.TRADITIONAL, ModelType.OPENAI  # noqa: E741  one letter keeps the table narrow
KSERVE, OPENAI, HTTP = Protocol.KSERVE_V1, Protocol.OPENAI, Protocol.HTTP
NOT_FOUND = Heard(404, {"error": "no"})
LISTED = Heard(200, {"object": "list", "data": [{"id": "m"}, {"id": "n"}]})

ROWS: list[tuple[str, Heard, Heard, ModelType | None, tuple[ModelType, Protocol, bool]]] = [
    ("kserve, ready", Heard(200, {"name": "m", "ready": True}), NOT_FOUND, None, (T, KSERVE, True)),
    ("kserve, ready in words", Heard(200, {"name": "m", "ready": "True"}), NOT_FOUND, None, (T, KSERVE, True)),
    ("kserve, loading", Heard(200, {"name": "m", "ready": False}), NOT_FOUND, None, (T, KSERVE, False)),
    ("kserve, unavailable", Heard(503, {"name": "m", "ready": False}), NOT_FOUND, None, (T, KSERVE, False)),
    ("ready is a list", Heard(200, {"ready": []}), NOT_FOUND, None, (T, KSERVE, False)),
    ("kserve without the model", NOT_FOUND, Heard(200, {"models": ["n"]}), None, (T, KSERVE, False)),
    ("openai, one model", Heard(200, {"id": "m", "object": "model"}), NOT_FOUND, None, (O, OPENAI, True)),
    ("openai, listed", NOT_FOUND, LISTED, None, (O, OPENAI, True)),
    ("openai, not listed", NOT_FOUND, Heard(200, {"object": "list", "data": []}), None, (O, OPENAI, False)),
    ("odd entries", NOT_FOUND, Heard(200, {"data": [1, None, {"id": ["m"]}]}), None, (O, OPENAI, False)),
    ("neither", NOT_FOUND, NOT_FOUND, None, (T, HTTP, False)),
    ("neither, said traditional", NOT_FOUND, NOT_FOUND, T, (T, HTTP, True)),
    ("neither, said openai", NOT_FOUND, NOT_FOUND, O, (O, OPENAI, False)),
    ("a web page", Heard(200), Heard(200), None, (T, HTTP, False)),
    ("a web page, said traditional", Heard(200), Heard(200), T, (T, HTTP, True)),
    ("failing", Heard(500), Heard(500), T, (T, HTTP, False)),
    ("closed", Heard(401), Heard(401), T, (T, HTTP, False)),
    ("not there", Heard(0, failure="gone"), NOT_FOUND, T, (T, HTTP, False)),
    ("kserve, said openai", Heard(200, {"ready": True}), NOT_FOUND, O, (O, OPENAI, True)),
    ("openai, said traditional", NOT_FOUND, LISTED, T, (T, HTTP, True)),
    ("kserve, said traditional", Heard(200, {"ready": True}), NOT_FOUND, T, (T, KSERVE, True)),
    ("a list at the top", Heard(200, [1]), Heard(200, [1]), None, (T, HTTP, False)),
]


@pytest.mark.parametrize(
    ("named", "listed", "wanted", "found"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_the_table_of_answers(named: Heard, listed: Heard, wanted: ModelType | None, found: Any) -> None:
    """Type, protocol and readiness follow from the answers and from what was said; not ready always has a reason."""
    finding = as_wanted(by_name(named) or by_list("m", listed), wanted)
    assert (finding.type, finding.protocol, finding.ready) == found
    assert bool(finding.message) is not finding.ready


V2 = Protocol.KSERVE_V2
METADATA = Heard(200, {"name": "m", "versions": ["1"], "platform": "x", "inputs": [], "outputs": []})

V2_ROWS: list[tuple[str, Heard, Heard, tuple[Protocol, bool] | None]] = [
    ("ready, no body", METADATA, Heard(200), (V2, True)),
    ("ready, said", METADATA, Heard(200, {"name": "m", "ready": True}), (V2, True)),
    ("not ready, said", METADATA, Heard(200, {"name": "m", "ready": False}), (V2, False)),
    ("not ready, by status", METADATA, Heard(400, {"error": "no"}), (V2, False)),
    ("readiness not told", METADATA, Heard(0, failure="gone"), (V2, False)),
    ("loading, no metadata yet", Heard(404), Heard(503, {"name": "m", "ready": False}), (V2, False)),
    ("no such model", Heard(404, {"error": "unknown model"}), Heard(404), None),
    ("a web page", Heard(200), Heard(200), None),
    ("some JSON", Heard(200, {"name": "m"}), Heard(200, {"ready": "yes"}), None),
    ("a list", Heard(200, [1]), Heard(200, [1]), None),
]


@pytest.mark.parametrize(("metadata", "ready", "found"), [row[1:] for row in V2_ROWS], ids=[row[0] for row in V2_ROWS])
def test_the_answers_of_the_open_inference_protocol(metadata: Heard, ready: Heard, found: Any) -> None:
    """KServe v2 is known by a model's metadata, or by its saying whether it is ready; ready is what the status says."""
    finding = by_metadata(metadata, ready)
    assert (finding and (finding.protocol, finding.ready)) == found
    assert finding is None or bool(finding.message) is not finding.ready
