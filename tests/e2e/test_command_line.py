"""The command line against a machine that runs: publish, make keys, find, rotate, revoke, see; and who may not."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from upmachine import ROOT, UpMachine, up_machine

from tests.e2e.guide.reader import need
from tests.e2e.proxy import short_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.DOTALL | re.MULTILINE)
KEY = re.compile(r"tk_[0-9a-z]{19}_[0-9A-Za-z]+")


class Shell:
    """Somebody at a shell, with a home of their own."""

    def __init__(self, home: Path, admin_url: str) -> None:
        self.home = home
        self.admin_url = admin_url

    def run(self, *words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``tollkeeper`` with these words."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("TOLLKEEPER_", "XDG_"))}
        return subprocess.run(
            [sys.executable, "-m", "tollkeeper", *words],
            cwd=ROOT,
            env={**clean, "HOME": str(self.home), **variables},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def good(self, *words: str, stdin: str = "") -> str:
        """Run it, see that it goes well, and return what it printed."""
        answer = self.run(*words, stdin=stdin)
        assert answer.returncode == 0, answer
        return answer.stdout

    def json(self, *words: str, stdin: str = "") -> Any:
        """The same, as a program reads it."""
        return json.loads(self.good(*words, "-o", "json", stdin=stdin))

    def bad(self, *words: str, stdin: str = "", code: int = 1) -> str:
        """Run it, see that it is refused without a traceback, and return why."""
        answer = self.run(*words, stdin=stdin)
        assert answer.returncode == code, answer
        assert "Traceback" not in answer.stderr
        return answer.stderr

    def log_in(self, name: str, password: str) -> str:
        """Log in, by a password on standard input."""
        return self.good("login", self.admin_url, "-u", name, "--password-file", "-", stdin=f"{password}\n")


@pytest.fixture(scope="module")
def machine() -> Iterator[UpMachine]:
    """One machine for all of them."""
    with short_folder() as folder, up_machine(folder / "state") as made:
        yield made


@pytest.fixture(scope="module")
def admin(machine: UpMachine, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """The admin, logged in."""
    shell = Shell(tmp_path_factory.mktemp("admin"), machine.up["admin_url"])
    shell.log_in(machine.up["admin_username"], machine.up["admin_password"])
    return shell


def calls(machine: UpMachine, key: str, path: str) -> int:
    """The status of a prediction with a key."""
    body = {"instances": [{"feature1": 1.0, "feature2": 2.0}]}
    url = f"{machine.up['gateway_url']}{path}/predict"
    return requests.post(url, json=body, headers={"X-API-Key": key}, timeout=10).status_code


def test_a_whole_day_of_a_model(machine: UpMachine, admin: Shell, tmp_path: Path) -> None:
    """Register, publish, give two people keys, limit, rotate, disable, revoke, unpublish: what it says is so."""
    server = admin.json("models", "show", "iris-sample", "--tenant", "sample")["url"]
    admin.good("tenants", "create", "team-cli", "--requests-per-minute", "6000")
    made = admin.json("models", "create", "--url", server, "--name", "iris-sample", "--tenant", "team-cli")
    assert (made["tenantId"], made["ready"]) == ("team-cli", True)
    path = "/models/team-cli/iris"
    published = admin.json("publications", "create", "iris-sample", "--tenant", "team-cli", "--path", path)
    assert KEY.fullmatch(published["apiKey"])
    file = tmp_path / "nightly.key"
    key = admin.json(
        *("keys", "create", "--name", "nightly", "--tenant", "team-cli", "--publication", "iris-sample"),
        *("--requests-per-minute", "3", "--owner", "Ann", "--label", "team=red", "--key-file", str(file)),
    )
    text = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEY.fullmatch(text)
    assert text not in json.dumps(key)
    until_live(admin, "iris-sample", "team-cli")
    assert [calls(machine, text, path) for _ in range(4)] == [200, 200, 200, 429]
    admin.good("keys", "update", key["id"], "--requests-per-minute", "none", "--burst-limit", "1000000")
    shown = admin.json("keys", "show", key["id"])
    assert shown["rateLimiting"] == {
        "requestsPerMinute": None,
        "requestsPerHour": None,
        "tokensPerHour": None,
        "burstLimit": 1_000_000,
    }
    assert calls(machine, text, path) == 200
    found = admin.good("keys", "find", "--text-file", str(file))
    assert key["id"] in found
    assert "current" in found
    rotated = admin.json("keys", "rotate", key["id"], "--grace-s", "600")["apiKey"]
    assert [calls(machine, one, path) for one in (text, rotated)] == [200, 200]
    admin.good("keys", "disable", key["id"])
    assert calls(machine, rotated, path) == 401
    admin.good("keys", "enable", key["id"])
    assert calls(machine, rotated, path) == 200
    assert admin.bad("keys", "delete", key["id"]).count("--yes") == 1
    assert calls(machine, rotated, path) == 200
    assert admin.good("keys", "delete", key["id"], "--yes") == f"key {key['id']} is revoked\n"
    assert calls(machine, rotated, path) == 401
    assert key["id"] in admin.good("keys", "deleted", "--tenant", "team-cli")
    admin.good("publications", "delete", "iris-sample", "--tenant", "team-cli", "-y")
    admin.good("models", "delete", "iris-sample", "--tenant", "team-cli", "-y")
    acts = [one["action"] for one in admin.json("audit", "list", "--tenant", "team-cli", "--limit", "100")]
    assert {"key.create", "key.rotate", "key.delete", "publication.create", "publication.delete"} <= set(acts)


def until_live(shell: Shell, model: str, tenant: str) -> None:
    """Wait until a publication is in force."""
    from upmachine import until  # noqa: PLC0415

    def is_live() -> bool:
        return bool(shell.json("publications", "show", model, "--tenant", tenant)["status"] == "live")

    assert until(is_live, 20, every_s=0.2)


def test_lists_are_read_by_people_and_programs(admin: Shell) -> None:
    """The same items in each form."""
    names = [one["modelName"] for one in admin.json("publications", "list")]
    assert {"iris-sample", "chat-sample"} <= set(names)
    table = admin.good("publications", "list").splitlines()
    assert table[0].split()[:4] == ["MODEL", "TENANT", "TYPE", "STATUS"]
    assert [line.split()[0] for line in table[1:]] == names
    assert [one["modelName"] for one in yaml.safe_load(admin.good("publications", "list", "-o", "yaml"))] == names
    assert [line.split(",")[0] for line in admin.good("publications", "list", "-o", "csv").splitlines()[1:]] == names
    one = admin.run("keys", "list", "--limit", "1")
    assert len(one.stdout.splitlines()) == 2
    assert "only the first 1 are shown" in one.stderr


def test_usage_is_told(admin: Shell) -> None:
    """Sums, budgets and the hours with calls."""
    told = admin.good("publications", "usage", "iris-sample", "--tenant", "sample")
    assert "totalRequests" in told
    assert "Budgets now" in told


def test_refusals_name_the_option_and_what_is_next(admin: Shell) -> None:
    """As the API's, with its request's id."""
    make = ("keys", "create", "--name", "x", "--tenant", "sample")
    told = admin.bad(*make, "--publication", "iris-sample", "--requests-per-minute", "0")
    assert re.search(r"--requests-per-minute: must be .* \(INVALID_REQUEST, request [0-9a-f]{16}\)", told)
    assert "missing --name" in admin.bad("keys", "create", "--publication", "iris-sample", code=2)
    assert "--label: must be NAME=VALUE" in admin.bad(*make, "--label", "red", code=2)
    assert "next: tollkeeper keys list" in admin.bad("keys", "show", "nosuchkey")
    assert "next: tollkeeper models list" in admin.bad("publications", "create", "nosuchmodel")


def test_no_key_is_made_where_its_file_cannot_be(admin: Shell, tmp_path: Path) -> None:
    """A file that exists, or a folder that does not: nothing is asked of the API, and the file stays as it is."""
    before = admin.json("keys", "list")
    file = tmp_path / "key"
    file.write_text("mine")
    make = ("keys", "create", "--name", "lost", "--tenant", "sample", "--publication", "iris-sample", "--key-file")
    assert "exists already" in admin.bad(*make, str(file), code=2)
    assert "cannot be written" in admin.bad(*make, str(tmp_path / "no" / "key"), code=2)
    assert file.read_text() == "mine"
    assert "publication" in admin.bad(*make[:-3], "--publication", "nope", "--key-file", str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()
    assert admin.json("keys", "list") == before


def test_bodies_come_from_files_too(admin: Shell, tmp_path: Path) -> None:
    """JSON or YAML, from standard input too; options lie over them. What is none is told by the file's name."""
    body = "name: from a file\npublications: [iris-sample]\nlabels: {a: '1'}\nrateLimiting: {requestsPerMinute: 5}\n"
    made = admin.json("keys", "create", "-f", "-", "--tenant", "sample", "--requests-per-hour", "50", stdin=body)
    assert (made["name"], made["labels"]) == ("from a file", {"a": "1"})
    assert (made["rateLimiting"]["requestsPerMinute"], made["rateLimiting"]["requestsPerHour"]) == (5, 50)
    admin.good("keys", "delete", made["id"], "-y")
    whole = tmp_path / "config.json"
    whole.write_text(json.dumps({"config": {"rateLimiting": {"burstLimit": 77}}}))
    told = admin.json("publications", "update", "iris-sample", "--tenant", "sample", "-f", str(whole))
    assert told["rateLimiting"]["burstLimit"] == 77
    for text, words in (("a: [", "neither JSON nor YAML"), ("- a", "must be an object"), ("", "must be an object")):
        whole.write_text(text)
        assert words in admin.bad("keys", "create", "-f", str(whole), code=2)
    assert "cannot be read" in admin.bad("keys", "create", "-f", str(tmp_path / "none"), code=2)


def test_people_see_what_is_theirs(machine: UpMachine, admin: Shell, tmp_path: Path) -> None:
    """A viewer reads their tenant; another's is not there; what they may not do says so."""
    admin.good(
        "users",
        "create",
        "vera",
        "--role",
        "viewer",
        "--tenant",
        "tenant-a",
        "--password-file",
        "-",
        stdin="a good long password\n",
    )
    vera = Shell(tmp_path, machine.up["admin_url"])
    assert "vera (viewer)" in vera.log_in("vera", "a good long password")
    assert {one["tenantId"] for one in vera.json("models", "list")} == {"tenant-a"}
    assert "next: tollkeeper models list" in vera.bad("models", "show", "iris-sample", "--tenant", "sample")
    assert "next: tollkeeper whoami" in vera.bad("models", "delete", "my-model", "-y")
    assert vera.json("whoami")["role"] == "viewer"
    new = tmp_path / "new"
    new.write_text("another good password\n")
    vera.good("password", "--current-file", "-", "--new-file", str(new), stdin="a good long password\n")
    assert vera.json("whoami")["name"] == "vera"  # the session goes on
    assert "LOGIN_FAILED" in vera.bad(
        "login", vera.admin_url, "-u", "vera", "--password-file", "-", stdin="a good long password\n"
    )
    assert vera.good("logout") == "logged out\n"
    assert "tollkeeper login URL" in vera.bad("whoami")


def test_a_token_of_the_environment_is_enough(machine: UpMachine, tmp_path: Path) -> None:
    """For cron and CI; nothing is written."""
    login = {"username": machine.up["admin_username"], "password": machine.up["admin_password"]}
    token = requests.post(f"{machine.up['admin_url']}/api/admin/login", json=login, timeout=10).json()["token"]
    shell = Shell(tmp_path, machine.up["admin_url"])
    answer = shell.run("tenants", "list", TOLLKEEPER_TOKEN=token, TOLLKEEPER_URL=machine.up["admin_url"])
    assert answer.returncode == 0
    assert "sample" in answer.stdout
    assert list(tmp_path.iterdir()) == []
    assert (
        "cannot be reached"
        in shell.run("tenants", "list", TOLLKEEPER_TOKEN=token, TOLLKEEPER_URL="http://127.0.0.1:1").stderr
    )
    something = shell.run(
        "tenants", "list", TOLLKEEPER_TOKEN=token, TOLLKEEPER_URL=machine.up["gateway_url"].replace("https", "http")
    )
    assert something.returncode == 1
    assert "Traceback" not in something.stderr


def test_secrets_stay_out_of_words(machine: UpMachine, admin: Shell) -> None:
    """No password goes over a network in plaintext unasked; none is an option's own value."""
    refused = admin.bad("login", "http://192.0.2.1", "-u", "ann", "--password-file", "-", stdin="secret\n")
    assert "unencrypted" in refused
    asked = admin.bad("login", machine.up["admin_url"], "-u", "ann", code=2)
    assert "name a file instead, or - for standard input" in asked
    for words in (("login",), ("users", "create"), ("keys", "find"), ("models", "create")):
        assert not re.search(r"--(password|text|api-key|upstream-auth)[ =]", admin.good(*words, "--help"))


def test_a_shell_completes_names(admin: Shell) -> None:
    """Commands, and what the API lists; nothing at all where nobody is logged in."""
    script = admin.good("completion", "bash")
    assert "_TOLLKEEPER_COMPLETE=bash_complete" in script
    asked = {"_TOLLKEEPER_COMPLETE": "bash_complete", "COMP_WORDS": "tollkeeper models show iris", "COMP_CWORD": "3"}
    assert admin.run(**asked).stdout.split(",")[-1] == "iris-sample\n"
    nobody = Shell(admin.home / "nobody", admin.admin_url)
    assert nobody.run(**asked).stdout.strip() == ""


def test_the_old_names_still_work_and_say_so(admin: Shell) -> None:
    """``keys rotate-pepper`` is ``secrets rotate-pepper``."""
    old = admin.run("keys", "rotate-pepper", "--nonsense")
    assert "`tollkeeper keys rotate-pepper` is `tollkeeper secrets rotate-pepper` now" in old.stderr
    assert "--nonsense: no such option" in old.stderr
    assert "rotate-pepper" not in admin.good("keys", "--help")
    assert "rotate-pepper" in admin.good("secrets", "--help")


def test_the_pages_commands_work(machine: UpMachine, admin: Shell, tmp_path: Path) -> None:
    """docs/command-line.md, pasted in order into one shell."""
    need("jq")
    blocks = BLOCK.findall((ROOT / "docs/command-line.md").read_text())
    assert len(blocks) == (ROOT / "docs/command-line.md").read_text().count("```bash\n")
    program = f'set -euo pipefail\ncd {tmp_path}\ntollkeeper() {{ {sys.executable} -m tollkeeper "$@"; }}\n'
    settings = {
        "HOME": str(tmp_path),
        "PYTHONPATH": str(ROOT),
        "UP": str(machine.state / "up.json"),
        "XDG_CONFIG_HOME": "",
    }
    done = machine.shell(program + "\n".join(blocks), within_s=150, **settings)
    assert done.returncode == 0, done
    assert stat.S_IMODE((tmp_path / "nightly-2.key").stat().st_mode) == 0o600
    assert "key.delete" in done.stdout
    assert "warning" not in done.stderr
    assert not KEY.search(done.stdout + done.stderr)
    admin.good("models", "delete", "iris-sample", "--tenant", "team-red", "-y")


def test_no_error_quotes_a_key(admin: Shell) -> None:
    """Errors go into logs of builds: a key given as a word is refused, and not repeated."""
    key = f"tk_{'a' * 19}_{'B' * 52}"
    token = f"tka_cron_{'B' * 52}"
    for words in (("keys", "find", key), ("keys", "show", key, key), ("models", "list", token), (key,)):
        answer = admin.run(*words)
        assert answer.returncode == 2 or words[1:2] == ("show",)
        assert key not in answer.stdout + answer.stderr
        assert token not in answer.stdout + answer.stderr
    assert "--text-file" in admin.bad("keys", "find", key, code=2)


def test_publishing_can_be_waited_for(admin: Shell) -> None:
    """With --wait it is live when the command ends, and the key is told all the same."""
    made = admin.json("publications", "create", "my-model", "--path", "/models/waited", "--wait")
    assert made["status"] == "live"
    assert KEY.fullmatch(made["apiKey"])
    changed = admin.json("publications", "update", "my-model", "--requests-per-hour", "9000", "--wait")
    assert (changed["status"], changed["rateLimiting"]["requestsPerHour"]) == ("live", 9000)
    refused = admin.bad("publications", "create", "my-model")
    assert "next: tollkeeper publications update my-model" in refused
    admin.good("publications", "delete", "my-model", "-y")


def test_lists_say_how_much_was_used(admin: Shell) -> None:
    """In the table and in CSV too."""
    assert "LAST USED" in admin.good("keys", "list", "--usage").splitlines()[0]
    assert "LAST USED" not in admin.good("keys", "list").splitlines()[0]
    assert "usage.totalRequests" in admin.good("publications", "list", "--usage", "-o", "csv").splitlines()[0]
