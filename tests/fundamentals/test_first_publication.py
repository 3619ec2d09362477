"""A model becomes a URL."""

import re
from typing import Any


def test_a_published_model_is_called_with_its_key(operator: Any, caller: Any, model: str) -> None:
    """Publishing gives a URL and a key; with the key the model answers."""
    published = operator.publish(model)
    assert re.fullmatch(r"http://localhost:\d+/models/my-model", published["externalUrl"])
    answer = caller.predict(model, published["apiKey"])
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == 1


def test_an_unpublished_model_is_gone(operator: Any, caller: Any, model: str) -> None:
    """After unpublishing there is nothing at the URL, for anybody."""
    published = operator.publish(model)
    operator.ask("DELETE", f"/api/models/{model}/publish")
    assert caller.predict(model, published["apiKey"]).status_code in {401, 404}
