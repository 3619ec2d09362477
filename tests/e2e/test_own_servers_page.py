"""docs/ollama-and-vllm.md: its commands, pasted in order into one shell beside a machine and stubs of such servers."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from clients import client_family
from dialects import TEXT
from ownserver import OwnServer, own_server
from upclient import Operator
from upmachine import UpMachine, until, up_machine

from tests.e2e.guide.reader import need
from tests.e2e.proxy import short_folder

PAGE = (Path(__file__).parents[2] / "docs/ollama-and-vllm.md").read_text()
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)
BLOCKS = [found for found in _BLOCK.findall(PAGE) if found[0] in {"bash", "python"}]
ROWS = re.findall(r"^\| ([^|]+) \| `([^`|]+)` \| `http://127\.0\.0\.1:(\d+)/v1` \|$", PAGE, re.MULTILINE)
KINDS = {"llama.cpp": "llama.cpp", "LM Studio": "lm-studio", "SGLang": "sglang", "Text Generation Inference": "tgi"}
MODEL = re.compile(r"(?:--alias|lms load|--model-path|--model-id) (\S+)")
BETWEEN = "\x1e"
WAIT_S = 90

pytestmark = pytest.mark.timeout(240)


def started(text: str) -> tuple[str, str]:
    """The model and the server's own key of the page's command that starts vLLM."""
    found = re.search(r"^vllm serve (\S+) --api-key (\S+) ", text, re.MULTILINE)
    assert found
    return found[1], found[2]


@pytest.fixture(scope="module")
def servers() -> Iterator[Mapping[str, OwnServer]]:
    """What the page's commands would have started, by the ports that they have there."""
    pulled = re.search(r"^ollama pull (\S+) ", PAGE, re.MULTILINE)
    assert pulled
    model, key = started(PAGE)
    with ExitStack() as stack:
        made = {"11434": own_server("ollama", pulled[1]), "8000": own_server("vllm", model, key=key)}
        for name, command, port in ROWS:
            (called,) = MODEL.findall(command)
            assert port in command
            made[port] = own_server(KINDS[name], called)
        yield {port: stack.enter_context(one) for port, one in made.items()}


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """A machine of its own, whose folder is where `make up` has it."""
    need("jq", "curl")
    with short_folder() as folder, up_machine(folder / ".tollkeeper") as running:
        yield running


@pytest.fixture(scope="module")
def printed(machine: UpMachine, servers: Mapping[str, OwnServer]) -> list[str]:
    """What each block printed; one that fails ends the rest."""
    python = client_family("python").home / "bin/python"
    shell = "set -euo pipefail\n" + f"printf '{BETWEEN}'\n".join(
        text if language == "bash" else f"{python} - <<'END'\n{text}END\n" for language, text, _ in BLOCKS
    )
    for port, server in servers.items():
        shell = shell.replace(f"http://127.0.0.1:{port}", server.url)
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=machine.state.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.split(BETWEEN)


def test_the_page_prints_what_it_says(printed: list[str]) -> None:
    """Each command prints what is written below it; "…" stands for anything."""
    assert len(printed) == len(BLOCKS) == PAGE.count("```bash\n") + PAGE.count("```python\n")
    for told, (_, text, expected) in zip(printed, BLOCKS, strict=True):
        pattern = re.escape(expected.rstrip("\n")).replace("…", ".*")
        assert re.fullmatch(pattern, told.rstrip("\n")), (text, told)
    assert printed[-1] == TEXT


def test_the_calls_reached_the_servers(printed: list[str], servers: Mapping[str, OwnServer]) -> None:
    """By their own names for the models, with the server's own key and none of ours."""
    assert printed
    (chat,) = servers["11434"].heard_at("/v1/chat/completions")
    assert chat.body["model"] == "llama3.1:8b"
    (chat,) = servers["8000"].heard_at("/v1/chat/completions")
    assert (chat.body["model"], chat.headers["authorization"]) == (started(PAGE)[0], f"Bearer {started(PAGE)[1]}")
    assert len(servers["11434"].heard_at("/api/chat")) == 1
    assert not any("tk_" in json.dumps(one.headers) for server in servers.values() for one in server.heard)


@pytest.fixture(scope="module")
def operator(machine: UpMachine) -> Operator:
    """Somebody who registers what the page has no commands for."""
    return Operator(machine)


@pytest.mark.parametrize(("name", "port"), [(name, port) for name, _, port in ROWS])
def test_other_servers_are_known(
    machine: UpMachine, operator: Operator, servers: Mapping[str, OwnServer], name: str, port: str
) -> None:
    """By their URL alone: registered, published and called; the context that they tell is taken."""
    server = servers[port]
    made = operator.must("POST", "/api/models", {"url": f"{server.url}/v1"})
    assert (made["type"], made["ready"], made["modelId"]) == ("openai", True, *server.models)
    assert made["contextTokens"] == (None if name == "LM Studio" else 8192)
    place = f"/api/models/{made['name']}/publish"
    key = operator.must("POST", place)["apiKey"]
    assert until(lambda: operator.must("GET", place)["status"] == "live")
    told = chat(machine, key, made["modelId"])
    assert told["choices"][0]["message"]["content"] == TEXT


def chat(machine: UpMachine, key: str, model: str) -> Any:
    """Call a model as the page does."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]})
    told = ("-H", f"Authorization: Bearer {key}", "-H", "Content-Type: application/json", "-d", body)
    command = ["curl", "-s", f"{machine.up['gateway_url']}/v1/chat/completions", *told]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout)


def test_several_models_are_listed(operator: Operator) -> None:
    """The answer that asks for a choice names them; with the choice it is registered under its name."""
    with own_server("ollama", "one:1b", "two:2b") as server:
        asked = {"url": f"{server.url}/v1"}
        refused = operator.ask("POST", "/api/models", asked)
        assert refused.status_code == 400
        assert "one:1b" in refused.text
        assert "two:2b" in refused.text
        assert operator.must("POST", "/api/models", asked | {"modelId": "two:2b"})["name"] == "two-2b"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"modelId": "nothing"}, "the server does not list a model named nothing"),
        ({"modelId": "it"}, "the server answered 401"),
        ({"modelId": "it", "upstreamAuth": {"value": "Bearer wrong"}}, "the server answered 401"),
        ({"modelId": "it", "url": "http://127.0.0.1:9/v1"}, "the connection was refused"),
    ],
)
def test_what_does_not_work_is_told_as_the_page_says(operator: Operator, more: dict[str, Any], words: str) -> None:
    """A model that is not ready says why, in words that the page's last table has."""
    key = "" if more["modelId"] == "nothing" else "sk-of-the-server"
    with own_server("vllm", "it", key=key) as server:
        made = operator.must("POST", "/api/models", {"url": f"{server.url}/v1", **more})
    assert not made["ready"]
    assert words in made["message"]
    assert f"`{words.replace(more['modelId'], '…') if 'list' in words else words}`" in PAGE
    operator.must("DELETE", f"/api/models/{made['name']}?tenantId={made['tenantId']}")


def test_a_locked_server_by_its_url_alone_is_refused(operator: Operator) -> None:
    """There is no list to choose a model from; the words are those of the page."""
    with own_server("vllm", "it", key="sk-of-the-server") as server:
        refused = operator.ask("POST", "/api/models", {"url": f"{server.url}/v1"})
        assert refused.status_code == 400
        assert "the server answered 401" in refused.text
        assert "upstreamAuth" in refused.text
        made = operator.must(
            "POST", "/api/models", {"url": f"{server.url}/v1", "upstreamAuth": {"value": f"Bearer {server.key}"}}
        )
    assert (made["name"], made["ready"]) == ("it", True)
