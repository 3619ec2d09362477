"""Somebody who follows the publishing guide in a shell, and the guide's commands that are typed more than once."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from upmachine import UpMachine, until

ROUTER = "https://api.router.inference-in-a-box"
PREDICTIONS = {"predictions": [0.450166]}  # sigmoid(-0.2 + 0.8 x 1.0 - 0.4 x 2.0)

# The guide's curl, and the status of its answer on standard error; where the texts go is the guide's business.
TELL_STATUS = """curl() { command curl --no-progress-meter --write-out '%{stderr}%{http_code}' "$@"; }\n"""

LOG_IN = r"""export TOKEN=$(curl -X POST -H "Content-Type: application/json" \
-d '{"username": "admin", "password": "password"}' \
http://localhost:8085/api/admin/login | jq -r '.token')"""

PUBLISH = r"""curl -X POST -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{
"config": {
"tenantId": "tenant-a",
"publicHostname": "api.router.inference-in-a-box",
"externalPath": "/models/my-model",
"rateLimiting": {
"requestsPerMinute": 100,
"requestsPerHour": 5000,
"tokensPerHour": 100000,
"burstLimit": 10
},
"authentication": {
"requireApiKey": true,
"allowedTenants": ["tenant-a"]
}
}
}' \
http://localhost:8085/api/models/my-model/publish"""

ROTATE = r"""curl -X POST -H "Authorization: Bearer $TOKEN" \
http://localhost:8085/api/models/my-model/publish/rotate-key"""

PREDICT = r"""curl -X POST -H "X-API-Key: $API_KEY" \
-H "Content-Type: application/json" \
-d '{"instances": [{"feature1": 1.0, "feature2": 2.0}]}' \
https://api.router.inference-in-a-box/models/my-model/predict"""

VALIDATE = r"""curl -X POST -H "Content-Type: application/json" \
-d '{"apiKey": "your-api-key"}' \
http://localhost:8085/api/validate-api-key"""


def need(*commands: str) -> None:
    """Skip where a program of the guide is not installed; fail on a build server."""
    missing = [command for command in commands if shutil.which(command) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {missing}")
    elif missing:
        pytest.skip(f"not installed: {missing}")


@dataclass(frozen=True)
class Answer:
    """What a command printed, and the status it was answered with."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        """The text, parsed."""
        return json.loads(self.text)


class Reader:
    """Somebody who types what the guide says, in a shell with these variables."""

    def __init__(self, machine: UpMachine) -> None:
        self._machine = machine
        self.variables: dict[str, str] = {}

    def types(self, command: str) -> Answer:
        """Run a command to its end."""
        done = self._machine.guide(TELL_STATUS + command, **self.variables)
        assert (done.returncode, done.stderr.isdigit()) == (0, True), f"{command}\n{done}"
        return Answer(int(done.stderr), done.stdout)

    def logs_in(self) -> None:
        """Get a token, as ``$TOKEN``; the guide's ``$ADMIN_TOKEN`` is the same admin's."""
        answer = self.types(LOG_IN + '\nprintf %s "$TOKEN"')
        assert answer.status == 200
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", answer.text), "a JWT"
        self.variables["TOKEN"] = self.variables["ADMIN_TOKEN"] = answer.text

    def takes_key(self, answer: Answer) -> str:
        """Note the key of an answer as ``$API_KEY`` and return it."""
        key: str = answer.json["apiKey"]
        assert re.fullmatch(r"tk_[0-9a-z]{19}_[0-9A-Za-z]{52}", key)
        self.variables["API_KEY"] = key
        return key

    # Own checks, in the guide's manner

    def awaits(self, model: str) -> None:
        """Wait until a model's status is live: its publication's latest change is served."""
        details = f'curl -H "Authorization: Bearer $TOKEN" http://localhost:8085/api/models/{model}/publish'
        assert until(lambda: self.types(f"{details} | jq -r .status").text == "live\n"), self.types(details)

    def predicts(self, base: str, key: str = "$API_KEY") -> Answer:
        """Call my-model under this base URL with a key."""
        command = PREDICT.replace(ROUTER, base).replace("$API_KEY", key)
        return self.types(command)

    def validates(self, key: str) -> Any:
        """Ask about a key as the guide does about ``your-api-key``."""
        return self.types(VALIDATE.replace("your-api-key", key)).json

    def unpublishes(self, model: str) -> Answer:
        """Take a model back."""
        path = f"http://localhost:8085/api/models/{model}/publish"
        return self.types(f'curl -X DELETE -H "Authorization: Bearer $TOKEN" {path}')


@contextmanager
def following_the_guide(machine: UpMachine) -> Iterator[Reader]:
    """A reader who has logged in; afterwards the guide's models are unpublished as they were."""
    need("curl", "jq")
    reader = Reader(machine)
    reader.logs_in()
    yield reader
    for model in ("my-model", "my-llm", "tenant-b-model"):
        assert reader.unpublishes(model).status in {204, 404}
