"""A budget holds, says when it has room again, and is right."""

import time
from typing import Any


def test_the_call_after_the_last_one_waits(operator: Any, caller: Any, model: str) -> None:
    """Two calls in any second: the third is told how long to wait, and after that wait it passes."""
    key = operator.publish(model, burstLimit=2)["apiKey"]
    answers = [caller.predict(model, key) for _ in range(3)]
    while answers[-1].status_code != 429:  # a slow machine may have spread the calls over more than a second
        answers.append(caller.predict(model, key))
    error = answers[-1].json()["error"]
    assert (error["level"], error["limit"], error["remaining"]) == ("publication", 2, 0)
    time.sleep(error["retry_after_ms"] / 1000)
    assert caller.predict(model, key).status_code == 200
