"""Each written form of a store is read whole or refused with its rule, and no message shows what was written."""

from __future__ import annotations

import pytest

from runtime.addresses import TcpAddress
from runtime.store.urls import (
    check_budgets_url,
    check_store_url,
    is_cluster,
    is_sentinel,
    parse_cluster,
    parse_sentinel,
)

SERVERS = [
    "redis://h",
    "redis://:p@h:1/2",
    "redis://:p%23%3F%2F%40@h/0/",
    "unix:///run/a@b.sock",
    "rediss://h?ssl_ca_certs=/ca.pem",
    "unix:///run/v.sock?db=3",
]
SENTINELS = ["redis+sentinel://h:1/m", "rediss+sentinel://u:p@h:1,[::1]:2/m?db=3&sentinel_password=s"]
CLUSTERS = ["redis+cluster://h:1", "rediss+cluster://u:p@h:1,[::1]:2?ssl_check_hostname=false"]


@pytest.mark.parametrize("url", [*SERVERS, *SENTINELS])
def test_records_live_on_one_server(url: str) -> None:
    """One server, or the master of the moment."""
    assert check_store_url(url) == url
    assert check_budgets_url(url) == url


@pytest.mark.parametrize("url", CLUSTERS)
def test_only_budgets_may_live_in_a_cluster(url: str) -> None:
    """Records are changed together, which a Cluster cannot do across its servers."""
    assert check_budgets_url(url) == url
    with pytest.raises(ValueError, match="must not be a Cluster: records are changed together"):
        check_store_url(url)


def test_a_sentinels_url_names_all_its_servers() -> None:
    """The store's credentials and database go to the store, the Sentinels' own to the Sentinels, TLS to both."""
    found = parse_sentinel(
        "rediss+sentinel://us%40er:pa%3Ass@one:1,[::1]:2/my%20master"
        "?db=3&ssl_ca_certs=/ca.pem&sentinel_username=w&sentinel_password=a%2Fb"
    )
    assert found.master == "my master"
    assert found.sentinels == (
        "rediss://w:a%2Fb@one:1?ssl_ca_certs=%2Fca.pem",
        "rediss://w:a%2Fb@[::1]:2?ssl_ca_certs=%2Fca.pem",
    )
    at = found.node.at(TcpAddress("10.0.0.1", 6379))
    assert at == "rediss://us%40er:pa%3Ass@10.0.0.1:6379?db=3&ssl_ca_certs=%2Fca.pem"


def test_sentinels_without_credentials_are_asked_without() -> None:
    """The store's password is never shown to a Sentinel."""
    assert parse_sentinel("redis+sentinel://:hidden@one:1/m").sentinels == ("redis://one:1",)


def test_a_clusters_url_names_its_first_servers() -> None:
    """The others are learnt from them; all share credentials and options."""
    found = parse_cluster("redis+cluster://u:p@one:1,[::1]:2")
    assert found.seeds == (TcpAddress("one", 1), TcpAddress("::1", 2))
    assert found.node.at(TcpAddress("two", 3)) == "redis://u:p@two:3"


def test_kinds_are_told_apart() -> None:
    """By the scheme alone."""
    assert [is_sentinel(url) for url in (*SERVERS, *SENTINELS, *CLUSTERS)] == [False] * 6 + [True] * 2 + [False] * 2
    assert [is_cluster(url) for url in (*SERVERS, *SENTINELS, *CLUSTERS)] == [False] * 8 + [True] * 2


REFUSED = {
    "hidden": "must start with",
    "http://hidden": "must start with",
    "redis:hidden": "must start with",
    "redis://hidden:port": "must be a URL with host",
    "redis://h?hidden=1": "may have no options but db, ssl_ca_certs",
    "redis://h?sentinel_password=hidden": "may have no options but db, ssl_ca_certs",
    "redis://:123#hidden@h/0": "must have no '#': in a password it is written %23",
    "redis://h/0#hidden": "must have no '#'",
    "unix:///run/v#hidden.sock": "must have no '#'",
    "redis+sentinel://:hidden#@h:1/m": "must have no '#'",
    "redis+cluster://:hidden#@h:1": "must have no '#'",
    "redis://:12?hidden@h/0": "must have its password before the '\\?': in a password that is written %3F",
    "redis+cluster://:12?hidden@h:1": "must have its password before the '\\?'",
    "redis://:12/hidden@h/0": "must have its password before the '/': in a password that is written %2F",
    "redis+sentinel://:12/hidden@h:1/m": "must have its password before the '/'",
    "redis://h/hidden": "must have nothing but the number of a database",
    "redis://h/1/2": "must have nothing but the number of a database",
    "redis+sentinel://h:1": "must end with the master's name",
    "redis+sentinel://h:1/": "must end with the master's name",
    "redis+sentinel://h:1/hidden/b": "must end with the master's name",
    "redis+sentinel://h:1/m?db=hidden": "must have a number as db",
    "redis+sentinel://h:1/m?hidden=1": "may have no options but db, sentinel_password",
    "redis+sentinel://hidden/m": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+sentinel://h:0/m": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+sentinel://unix:h/m": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+sentinel://h:1,/m": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+sentinel:///m": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+cluster://": "must name its servers as HOST:PORT,HOST:PORT",
    "redis+cluster://h:1/2": "must have no path and no database",
    "redis+cluster://h:1?db=0": "may have no options but ssl_ca_certs",
    "redis+cluster://" + ",".join(["h:1"] * 65): "must name at most 64 servers",
}


@pytest.mark.parametrize("url", REFUSED)
def test_what_cannot_be_read_is_refused_with_its_rule(url: str) -> None:
    """The message tells the rule and nothing of the URL, which may hold a password."""
    with pytest.raises(ValueError, match=REFUSED[url]) as caught:
        check_budgets_url(url)
    assert "hidden" not in str(caught.value)
