"""Claude Code's command line, as people install it, with our key and no account: it works, and says why it does not."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import client_family
from messagesserver import ANSWER_TOKENS, USAGE, WORDS
from upmachine import UpMachine, until

from tests.e2e.anthropicground import ALIAS, MODEL, AnthropicGround, anthropic_ground

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PAGE = (Path(__file__).parents[2] / "docs/anthropic.md").read_text()
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "API_TIMEOUT_MS": "30000"}


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[AnthropicGround]:
    """The models, published."""
    client_family("claude-code")
    with anthropic_ground(up, "claude-code") as made:
        yield made


def claude(ground: AnthropicGround, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask it for something once, as docs/anthropic.md says. Without install scripts the program is found by itself."""
    family = client_family("claude-code")
    (program,) = family.home.glob("node_modules/@anthropic-ai/claude-code-*/claude")
    told = {"ANTHROPIC_BASE_URL": ground.base, "ANTHROPIC_MODEL": ALIAS, "CLAUDE_CODE_MAX_RETRIES": "0"}
    given = QUIET | told | variables
    return family.call(program, "-p", "Say hello.", "--output-format", "json", timeout_s=100, **given)


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """What it said as JSON."""
    assert done.stdout, done
    return json.loads(done.stdout)


@pytest.mark.parametrize("variable", ["ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY"])
def test_it_works(ground: AnthropicGround, variable: str) -> None:
    """By a bearer token and by an API key; it streams, and the server hears all that it says of its API."""
    before = ground.tokens_used()
    done = claude(ground, **{variable: ground.key()})
    said = told(done)
    assert (done.returncode, said["is_error"], said["result"]) == (0, False, "".join(WORDS)), done
    assert said["usage"]["output_tokens"] == ANSWER_TOKENS
    heard = ground.server.last
    assert (heard.target, heard.body["model"], heard.body["stream"]) == ("/v1/messages?beta=true", MODEL, True)
    assert heard.headers["anthropic-version"] == "2023-06-01"
    assert "claude-code" in heard.headers["anthropic-beta"]
    assert not {"x-api-key", "authorization", "accept-encoding"} & {*heard.headers}
    cost = sum(USAGE.values()) + ANSWER_TOKENS
    assert until(lambda: ground.tokens_used() == before + cost, 20)


def test_a_bad_key(ground: AnthropicGround) -> None:
    """It takes that for its own business, and says so in its own words."""
    done = claude(ground, ANTHROPIC_AUTH_TOKEN="tk_nonsense")
    said = told(done)
    assert (said["is_error"], said["api_error_status"]) == (True, 401)
    assert "Not logged in" in said["result"]


def test_a_model_that_is_not_published(ground: AnthropicGround) -> None:
    """It says which, and what to do about it."""
    said = told(claude(ground, ANTHROPIC_AUTH_TOKEN=ground.key(), ANTHROPIC_MODEL="nothing"))
    assert (said["is_error"], said["api_error_status"]) == (True, 404)
    assert "nothing" in said["result"]


def test_a_budget_that_is_used_up(ground: AnthropicGround) -> None:
    """It gives up at once where waiting is not worth its while, and shows until when."""
    key = ground.key(requestsPerHour=1)
    assert told(claude(ground, ANTHROPIC_AUTH_TOKEN=key))["is_error"] is False
    said = told(claude(ground, ANTHROPIC_AUTH_TOKEN=key))
    assert (said["is_error"], said["api_error_status"]) == (True, 429)
    assert "hour budget is used up" in said["result"]


def test_a_large_hold_is_explained(ground: AnthropicGround) -> None:
    """It asks for 32,000 tokens at once: a publication with fewer an hour says so, and that is what the page is for."""
    said = told(claude(ground, ANTHROPIC_AUTH_TOKEN=ground.key(), ANTHROPIC_MODEL="small"))
    assert (said["is_error"], said["api_error_status"]) == (True, 400)
    assert "ask for fewer by 'max_tokens'" in said["result"]


def test_what_the_page_sets_is_what_works(ground: AnthropicGround) -> None:
    """The variables of docs/anthropic.md, as they stand there, but for the gateway, the key and the model."""
    (block,) = re.findall(r"^```sh\n(export ANTHROPIC_BASE_URL.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    given = dict(re.findall(r"^export (\w+)=(\S+)", block, re.MULTILINE))
    assert {*given} >= {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_MODEL"}
    ours = {"ANTHROPIC_BASE_URL": ground.base, "ANTHROPIC_AUTH_TOKEN": ground.key()}
    models = {name: ALIAS for name in given if name.endswith("_MODEL")}
    said = told(claude(ground, **(given | ours | models)))
    assert said["result"] == "".join(WORDS)
