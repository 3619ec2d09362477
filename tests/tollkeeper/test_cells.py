"""``tollkeeper cells set``, and processes that are started with another number of cells than the stores have."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from gatebench import Catalog, question, status
from gateprocess import gate_process, tollkeeper

from catalog.keys.secrets import create_secrets, load_secrets
from gate.links import StoreUrls


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A fresh secrets file."""
    create_secrets(tmp_path / "secrets.json")
    return tmp_path / "secrets.json"


@pytest.fixture
def stores(redis_url: str, another_redis_url: str) -> list[str]:
    """Options that name two stores."""
    return ["--records-url", redis_url, "--budgets-url", another_redis_url]


def test_who_has_another_number_does_not_start(stores: list[str], file: Path, tmp_path: Path) -> None:
    """Gate, admin and the commands that write say both numbers and how it is changed."""
    made = tollkeeper("cells", "set", "16", *stores)
    assert (made.returncode, made.stderr) == (0, "")
    assert "--cells 16 (1 before)" in made.stdout
    told = "--cells is 4, but the stores have agreed on 16: start it with --cells 16"
    secrets = ["--secrets-file", str(file)]
    listen = ["--listen", f"unix:{tmp_path}/socket"]
    starts = {
        "gate": ["gate", *listen, "--http-listen", "127.0.0.1:0"],
        "gate of workers": ["gate", "--workers", "2", *listen, "--http-listen", "127.0.0.1:0"],
        "admin": ["admin", "--listen", "127.0.0.1:0"],
        "keys": ["keys", "rotate-pepper", "--wait-s", "0"],
    }
    for name, words in starts.items():
        refused = tollkeeper(*words, *secrets, *stores, "--cells", "4")
        assert refused.returncode == 1, name
        assert told in refused.stderr, name
        assert "'tollkeeper cells set 4'" in refused.stderr
        assert "Traceback" not in refused.stderr


def test_the_number_is_changed_beside_a_gate_that_runs(
    stores: list[str], redis_url: str, another_redis_url: str, file: Path
) -> None:
    """From the command's end the old gate refuses and is not ready; started with the new number it serves."""
    catalog = Catalog(redis_url, load_secrets(file), StoreUrls(redis_url, another_redis_url, 2))
    catalog.tenant()
    publication = catalog.publication()
    ask = question(key=catalog.key(publication)[1], publication=publication)
    with gate_process(redis_url, file, *stores, "--cells", "2") as gate:
        assert status(gate.asker.ask(ask)) == 200
        assert tollkeeper("cells", "set", "3", *stores).returncode == 0
        assert [status(gate.asker.ask(ask)) for _ in range(5)] == [503] * 5
        assert not gate.ready()["ready"]
    with gate_process(redis_url, file, *stores, "--cells", "3") as gate:
        assert status(gate.asker.ask(ask)) == 200


def test_a_number_that_cannot_be_is_refused(redis_url: str, another_redis_url: str) -> None:
    """One store has one cell; no number, no change; reservations of cells that are no more go."""
    one = tollkeeper("cells", "set", "2", "--redis-url", redis_url)
    assert "needs records and budgets in two stores" in one.stderr
    none = tollkeeper("cells", "set", "--redis-url", redis_url)
    assert none.returncode == 2
    away = tollkeeper("cells", "set", "2", "--redis-url", redis_url, "--budgets-url", "unix:///nonexistent/s.sock")
    assert "run it again" in away.stderr
    with redis.Redis.from_url(another_redis_url) as budgets:
        two = ["--records-url", redis_url, "--budgets-url", another_redis_url]
        assert tollkeeper("cells", "set", "4", *two).returncode == 0
        budgets.hset("tk:held:{3}", "a", "b")
        budgets.hset("tk:held:{1}", "a", "b")
        assert tollkeeper("cells", "set", "2", *two).returncode == 0
        assert (budgets.exists("tk:held:{3}"), budgets.exists("tk:held:{1}")) == (0, 1)
