"""A new text for a key; the old one dies."""

from typing import Any


def test_the_old_text_dies_with_the_rotation(operator: Any, caller: Any, model: str) -> None:
    """From the answer of the rotation on only the new text works."""
    old = operator.publish(model)["apiKey"]
    new = operator.ask("POST", f"/api/models/{model}/publish/rotate-key")["apiKey"]
    assert caller.predict(model, old).status_code == 401
    assert caller.predict(model, new).status_code == 200


def test_with_grace_both_texts_work(operator: Any, caller: Any, model: str) -> None:
    """Until the grace ends callers may change over at their own pace."""
    old = operator.publish(model)["apiKey"]
    rotated = operator.ask("POST", f"/api/models/{model}/publish/rotate-key", json={"gracePeriodSeconds": 600})
    assert caller.predict(model, old).status_code == 200
    assert caller.predict(model, rotated["apiKey"]).status_code == 200
