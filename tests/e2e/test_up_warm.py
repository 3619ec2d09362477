"""Once ``tollkeeper up`` says that it is up, the first calls are decided, on a busy machine too."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import requests
from upclient import Operator
from upmachine import UpMachine, until, up_machine

from tests.e2e.proxy import short_folder
from tollkeeper.up.warming import IN_A_ROW

BURNERS = 2
CALLS = 100
IRIS = "/models/iris-sample/predict"
CHAT = "/v1/chat/completions"
BODIES = {
    IRIS: {"instances": [{"feature1": 1.0, "feature2": 2.0}]},
    CHAT: {"model": "chat-sample", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1},
}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def up() -> Iterator[UpMachine]:
    """A machine of its own, started and used beside two processes that take all the CPU they can get."""
    with ExitStack() as stack:
        for _ in range(BURNERS):
            burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        folder = stack.enter_context(short_folder())
        yield stack.enter_context(up_machine(folder / "state"))


def test_every_sample_was_called_before(up: UpMachine) -> None:
    """The whole way, through gate, store and model: the publications have counted it."""
    operator = Operator(up)
    for model in ("iris-sample", "chat-sample"):
        path = f"/api/models/{model}/publish?tenantId=sample"
        assert until(lambda path=path: operator.must("GET", path)["usage"]["totalRequests"] >= IN_A_ROW)


def test_the_chat_sample_has_the_context_that_its_server_tells(up: UpMachine) -> None:
    """Nothing said it when the sample was published."""
    shown = Operator(up).must("GET", "/api/models/chat-sample/publish?tenantId=sample")["tokens"]
    assert (shown["contextTokens"], shown["contextTokensFrom"]) == (shown["serverContextTokens"], "server")


def test_the_first_calls_are_decided(up: UpMachine) -> None:
    """Admitted or refused by a limit, none is 503; the burst of the very first second is whole."""
    statuses = [call(up, path) for _ in range(CALLS // 2) for path in (IRIS, CHAT)]
    assert statuses[:2] == [200, 200]
    assert set(Counter(statuses)) <= {200, 429}, Counter(statuses)


def call(up: UpMachine, path: str) -> int:
    """Call a sample with its printed key."""
    sample = up.up["sample"]["traditional" if path == IRIS else "openai"]
    headers = {"Host": sample["host"], "X-API-Key": sample["api_key"]}
    return requests.post(up.up["gateway_url"] + path, json=BODIES[path], headers=headers, timeout=30).status_code


def test_the_keys_of_the_first_calls_are_gone(up: UpMachine) -> None:
    """What ``up`` called with opens nothing any more; the samples have the keys that are printed and no other."""
    keys = Operator(up).must("GET", "/api/keys?tenantId=sample")["items"]
    assert sorted(name for one in keys for name in one["publications"]) == ["chat-sample", "iris-sample"]
    assert "warning: " not in up.printed.replace("easy to guess", "")
