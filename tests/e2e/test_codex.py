"""Codex's command line, as people install it, with our key and no account: it works, waits, and is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clients import client_family
from dialects import TEXT
from upmachine import UpMachine

from tests.e2e.clientground import LLAMA, ClientGround, client_ground

pytestmark = pytest.mark.timeout(180)

PAGE = (Path(__file__).parents[2] / "docs/ollama-and-vllm.md").read_text()
ONE_TRY = "stream_max_retries = 0"


@pytest.fixture(scope="module")
def ground(up: UpMachine) -> Iterator[ClientGround]:
    """The servers, published."""
    client_family("codex")
    with client_ground(up, "codex") as made:
        yield made


@dataclass(frozen=True)
class Told:
    """What a run of ``codex exec`` said."""

    code: int
    events: list[Any]
    log: str

    def items(self, kind: str) -> list[Any]:
        """What it did of a kind."""
        done = [one["item"] for one in self.events if one["type"] == "item.completed"]
        return [one for one in done if one["type"] == kind]

    @property
    def failure(self) -> str:
        """Why it gave up."""
        return str(self.events[-1]["error"]["message"])


def codex(ground: ClientGround, folder: Path, key: str, *settings: str, model: str = LLAMA) -> Told:
    """Ask it for something, configured as docs/ollama-and-vllm.md says."""
    config = PAGE.partition("```toml\n")[2].partition("```")[0]
    assert all(config.count(one) == 1 for one in (f'"{LLAMA}"', '"http://localhost:8080/v1"'))
    config = config.replace(f'"{LLAMA}"', f'"{model}"').replace("http://localhost:8080/v1", ground.base)
    (folder / "config.toml").write_text(config + "\n".join(settings))
    family = client_family("codex")
    words = ("exec", "--skip-git-repo-check", "--json", "--sandbox", "read-only", "Say hello.")
    done = family.call(family.program("codex"), *words, CODEX_HOME=str(folder), OUR_KEY=key)
    return Told(done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr)


def test_it_works_with_its_tools(ground: ClientGround, tmp_path: Path) -> None:
    """The model calls a tool of Codex's, hears what came of it, and answers."""
    before = len(ground.ollama.heard)
    told = codex(ground, tmp_path, ground.key())
    assert told.code == 0, told
    assert [one["text"] for one in told.items("agent_message")] == [TEXT]
    assert told.events[-1]["usage"]["output_tokens"] == 6
    first, second = ground.ollama.heard[before:]
    assert {one.path for one in (first, second)} == {"/v1/responses"}
    assert first.body["tools"][0]["name"] == "exec_command"
    assert [one["aggregated_output"] for one in told.items("command_execution")] == ["heard\n"]
    assert second.body["input"][-1]["type"] == "function_call_output"
    assert not any("tk_" in value for value in first.headers.values())


def test_websocket_first_then_http(ground: ClientGround, tmp_path: Path) -> None:
    """A handshake is refused at once in a way that it understands, and it goes on by POST."""
    told = codex(ground, tmp_path, ground.key(), "supports_websockets = true")
    assert "failed to connect to Responses WebSocket" in told.log
    assert told.code == 0, told
    assert [one["text"] for one in told.items("agent_message")] == [TEXT]


def test_a_key_that_is_none(ground: ClientGround, tmp_path: Path) -> None:
    """It stops and shows what we say."""
    told = codex(ground, tmp_path, "tk_nonsense", ONE_TRY)
    assert told.code == 1
    assert "unexpected status 401 Unauthorized: No valid API key was given" in told.failure


def test_a_model_that_is_none(ground: ClientGround, tmp_path: Path) -> None:
    """It stops and shows what we say."""
    told = codex(ground, tmp_path, ground.key(), ONE_TRY, model="nothing")
    assert told.code == 1
    assert "The model does not exist or this key may not see it." in told.failure


def test_it_waits_for_room(ground: ClientGround, tmp_path: Path) -> None:
    """As long as the refusal says, and goes on."""
    told = codex(ground, tmp_path, ground.key(burstLimit=1))
    assert told.code == 0, told
    assert [one["text"] for one in told.items("agent_message")] == [TEXT]
    (tried,) = (one["message"] for one in told.events if one["type"] == "error")
    assert "Reconnecting... 1/5" in tried
    assert "429 Too Many Requests" in tried


def test_a_budget_that_is_used_up(ground: ClientGround, tmp_path: Path) -> None:
    """It stops and tells the status, and not our words; by the request's id the operator finds the rest."""
    told = codex(ground, tmp_path, ground.key(requestsPerHour=1), ONE_TRY)  # its first turn makes two calls
    assert told.code == 1
    assert "429 Too Many Requests, request id: " in told.failure
