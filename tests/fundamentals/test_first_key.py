"""A key opens what it was made for, and nothing else does."""

from typing import Any


def test_only_the_key_opens_the_model(operator: Any, caller: Any, model: str) -> None:
    """No key and a wrong key get one answer, 401; the key is shown whole once and masked ever after."""
    key = operator.publish(model)["apiKey"]
    assert caller.predict(model, key).status_code == 200
    other = key[:-1] + ("x" if key[-1] != "x" else "y")
    without, wrong = caller.predict(model, None), caller.predict(model, other)
    assert (without.status_code, wrong.status_code) == (401, 401)
    shown = operator.ask("GET", f"/api/models/{model}/publish")["apiKey"]
    assert shown == key[: len("tk_") + 6] + "…"
