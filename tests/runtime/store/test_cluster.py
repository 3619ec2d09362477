"""A link to a Cluster: each command to its server, redirections followed, and one server's trouble is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from gatebench import wait_until
from halting import halt
from redis.exceptions import AskError, MovedError, RedisError, ResponseError
from valkeycluster import Cluster, running_cluster
from valkeys import running_valkey

from runtime.addresses import TcpAddress
from runtime.clock import SystemClock
from runtime.store.cluster import ClusterLink, _Route
from runtime.store.keeper import StoreKeeper
from runtime.store.link import Command, NotConnectedError, NotSentError
from runtime.store.slots import SLOTS, key_of, read_owners, slot_of

CLOCK = SystemClock()
KEYS = [f"{{{n}}}" for n in range(64)]


def soon() -> float:
    """A deadline no busy machine misses."""
    return CLOCK.monotonic_ms() + 20_000


def connected(cluster: Cluster) -> ClusterLink:
    """A link that knows every server."""
    link = ClusterLink(cluster.url, CLOCK)
    link.connect()
    return link


@pytest.fixture
def cluster(valkey_cluster: Cluster) -> Iterator[Cluster]:
    """The session's Cluster, empty."""
    valkey_cluster.flush()
    yield valkey_cluster
    valkey_cluster.flush()


@pytest.fixture
def link(cluster: Cluster) -> Iterator[ClusterLink]:
    """A link to it."""
    made = connected(cluster)
    yield made
    made.close()


@pytest.fixture
def own_cluster(valkey_binary: str) -> Iterator[Cluster]:
    """A Cluster whose nodes may be stopped and killed; it serves what slots it has."""
    with running_cluster(valkey_binary, "--cluster-require-full-coverage", "no") as cluster:
        yield cluster


@pytest.fixture
def moved(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Moves a key's slot to another master, and back at the end."""
    homes = {}

    def move(key: str, **options: Any) -> None:
        slot = slot_of(key)
        homes[slot] = cluster.node_of(slot)
        cluster.move(slot, next(node for node in cluster.nodes if node != homes[slot]), **options)

    yield move
    for slot, home in homes.items():
        cluster.move(slot, home)


def test_each_command_finds_its_server(link: ClusterLink, cluster: Cluster) -> None:
    """Written and read back in order, on all three masters, each a command at the right one at once."""
    for node in cluster.nodes:
        with node.client() as client:
            client.config_resetstat()
    assert link.execute_many(soon(), [("SET", key, key) for key in KEYS]) == [b"OK"] * len(KEYS)
    assert link.execute_many(soon(), [("GET", key) for key in KEYS]) == [key.encode() for key in KEYS]
    for node in cluster.nodes:
        with node.client() as client:
            assert client.dbsize() > 10
            assert "errorstat_MOVED" not in client.info("errorstats")


def test_an_error_reply_stands_in_its_place(link: ClusterLink) -> None:
    """As on one server; and ``execute`` raises it."""
    commands: list[Command] = [("SET", "a", "x"), ("INCR", "a"), ("GET", "a")]
    first, error, last = link.execute_many(soon(), commands)
    assert (first, last) == (b"OK", b"x")
    assert isinstance(error, ResponseError)
    with pytest.raises(ResponseError, match="not an integer"):
        link.execute(soon(), "INCR", "a")


def test_a_command_without_a_key_goes_to_every_server(link: ClusterLink) -> None:
    """A loaded script is found on each; among commands with keys one without has no place."""
    name = link.execute(soon(), "SCRIPT", "LOAD", "return KEYS[1]")
    replies = link.execute_many(soon(), [("EVALSHA", name, 1, key) for key in KEYS])
    assert replies == [key.encode() for key in KEYS]
    with pytest.raises(ValueError, match="no key"):
        link.execute_many(soon(), [("PING",)])
    with pytest.raises(ValueError, match="no key"):
        link.execute(soon(), "ROLE")


def test_a_moved_slot_is_learnt(link: ClusterLink, cluster: Cluster, moved: Callable[..., None]) -> None:
    """The first command after the move is redirected once and answered; the next goes straight there."""
    link.execute(soon(), "SET", "a", "1")
    moved("a")
    for node in cluster.nodes:
        with node.client() as client:
            client.config_resetstat()
    assert link.execute_many(soon(), [("INCR", "a"), ("INCR", "a")]) == [2, 3]
    assert link.execute(soon(), "INCR", "a") == 4
    assert sum(_redirections(cluster, "MOVED")) == 2


def _redirections(cluster: Cluster, kind: str) -> Iterator[int]:
    for node in cluster.nodes:
        with node.client() as client:
            yield client.info("errorstats").get(f"errorstat_{kind}", {"count": 0})["count"]


def test_every_command_runs_once_while_its_slot_moves(link: ClusterLink, moved: Callable[..., None]) -> None:
    """Before, between and after the keys have gone, by MOVED or ASK: each increment counts, and counts once."""
    keys = [f"{{a}}{n}" for n in range(20)]
    counts = dict.fromkeys([*keys, "{a}new"], 0)

    def step(_stage: str) -> None:
        for key in counts:
            counts[key] += 1
        assert link.execute_many(soon(), [("INCR", key) for key in counts]) == list(counts.values())

    step("before")
    link.execute(soon(), "DEL", "{a}new")
    counts["{a}new"] = 0
    moved("{a}", during=step)
    step("after")
    assert counts["{a}0"] > 10


def test_no_redirection_outlasts_the_deadline(link: ClusterLink, moved: Callable[..., None]) -> None:
    """A command redirected too late is told as redirected or not sent: it surely did not run."""
    moved("a")
    late = CLOCK.monotonic_ms() - 1
    (error,) = link.execute_many(late, [("SET", "a", "1")])
    assert isinstance(error, NotSentError)
    assert link.execute(soon(), "GET", "a") is None


def test_redirections_without_end_are_given_up(link: ClusterLink, cluster: Cluster) -> None:
    """Servers that send a command round and round: after four of them the redirection itself is the answer."""
    slot, (one, other, _) = slot_of("a"), cluster.nodes
    home = cluster.node_of(slot)
    one, other = (node for node in cluster.nodes if node != home)
    link._view.owners[slot] = TcpAddress("127.0.0.1", one.port)
    original, asked = link._redirected, []

    def round_and_round(routes: Any, replies: Any) -> Any:
        again = original(routes, replies)
        asked.extend(again)
        return {place: route._replace(address=TcpAddress("127.0.0.1", other.port)) for place, route in again.items()}

    link._redirected = round_and_round  # type: ignore[method-assign]
    (error,) = link.execute_many(soon(), [("SET", "a", "1")])
    assert isinstance(error, MovedError)
    assert len(asked) == 4


def _parted(cluster: Cluster, victim: int) -> tuple[list[str], list[str]]:
    """Keys of one node, and of the others."""
    with_victim = [key for key in KEYS if cluster.node_of(slot_of(key)) == cluster.nodes[victim]]
    return with_victim, [key for key in KEYS if key not in with_victim]


def _kinds(replies: list[Any]) -> set[type]:
    return {type(reply) for reply in replies}


def test_a_server_away_fails_its_own_slots(own_cluster: Cluster) -> None:
    """Hung: its commands time out at the deadline. Dead: they are refused at once. The others are answered."""
    link = connected(own_cluster)
    lost, kept = _parted(own_cluster, 1)
    commands: list[Command] = [("SET", key, "1") for key in (*lost, *kept)]
    node = own_cluster.nodes[1]
    halt(node.process.pid)
    begun_ms = CLOCK.monotonic_ms()
    replies = link.execute_many(begun_ms + 300, commands)
    assert 300 <= CLOCK.monotonic_ms() - begun_ms < 2_000
    assert _kinds(replies[: len(lost)]) == {redis.TimeoutError}
    assert replies[len(lost) :] == [b"OK"] * len(kept)
    assert link.connected
    assert not link.closed_by_store()
    begun_ms = CLOCK.monotonic_ms()
    replies = link.execute_many(begun_ms + 10_000, commands)
    assert CLOCK.monotonic_ms() - begun_ms < 5_000
    assert _kinds(replies[: len(lost)]) == {NotConnectedError}
    assert replies[len(lost) :] == [b"OK"] * len(kept)
    node.process.kill()
    heir, trouble = link.mended()
    assert heir is not link
    assert isinstance(trouble, RedisError)
    assert heir.mended() == (heir, None)  # not again at once
    assert heir.execute_many(soon(), commands)[len(lost) :] == [b"OK"] * len(kept)
    heir.close()
    link.close()
    assert not link.connected
    assert _kinds(link.execute_many(soon(), commands)) == {NotConnectedError}


def test_a_server_that_closes_is_found_again(own_cluster: Cluster) -> None:
    """A keeper mends the link while the rest is in use; whoever goes by what a link has proved sees another one."""
    made: list[ClusterLink] = []

    def make() -> ClusterLink:
        made.append(ClusterLink(own_cluster.url, CLOCK))
        return made[-1]

    errors: list[Exception] = []
    keeper = StoreKeeper(
        make,
        lambda _link: lambda: None,
        look=lambda _link: lambda: None,
        clock=CLOCK,
        name="test-keeper",
        on_proved=lambda: None,
        on_error=errors.append,
        on_fault=lambda: pytest.fail("the keeper ended by a fault"),
    )
    keeper.start()
    wait_until(lambda: keeper.ready)
    first = keeper.current(0)
    for node in own_cluster.nodes[:2]:
        with node.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    commands: list[Command] = [("SET", key, "1") for key in KEYS]

    def all_good() -> bool:
        keeper.renew()
        link = keeper.current(0)
        return link is not None and link.execute_many(soon(), commands) == [b"OK"] * len(KEYS)

    wait_until(all_good)
    assert made[0] is first
    assert keeper.current(0) is not first  # what it proved of those servers is to be proved anew
    keeper.stop(5)


def test_nobody_there(own_cluster: Cluster) -> None:
    """Without any server the link cannot be had; a link whose servers have all gone says so."""
    link = connected(own_cluster)
    for node in own_cluster.nodes:
        node.process.kill()
        node.process.wait()
    assert link.closed_by_store()
    with pytest.raises(redis.ConnectionError, match="no server of the Cluster tells its slots"):
        ClusterLink(own_cluster.url, CLOCK).connect()
    with pytest.raises(redis.ConnectionError, match="no server of the Cluster tells its slots"):
        link.mended()
    link.close()


def test_a_server_that_is_no_cluster_is_refused(valkey_binary: str) -> None:
    """The operator is told what is wrong with the URL's server."""
    with running_valkey(valkey_binary) as plain:
        link = ClusterLink(f"redis+cluster://{plain.address}", CLOCK)
        with pytest.raises(redis.ConnectionError, match="cluster support disabled"):
            link.connect()


def test_slots_are_of_the_hash_tag() -> None:
    """The specification's own example, and tags that are none."""
    assert slot_of("123456789") == 0x31C3 % SLOTS
    assert slot_of("tk:budget:{7}:p:1") == slot_of(b"tk:epoch:{7}") == slot_of("7")
    assert slot_of("{}a") != slot_of("a")


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "a"), "a"),
        (("EVALSHA", "0" * 40, 2, "a", "b"), "a"),
        (("EVAL", b"return 1", 1, b"a"), b"a"),
        (("SCRIPT", "LOAD", b"return 1"), None),
    ],
)
def test_a_command_tells_its_key(command: Command, key: str | bytes | None) -> None:
    """Where the commands that are sent have theirs."""
    assert key_of(command) == key


ASKED = TcpAddress("here", 1)


def test_owners_are_read() -> None:
    """Ranges of slots with their master first; one without a host is where we asked; the rest is nobody's."""
    owners = read_owners(
        [[0, 9, [b"::1", 7, b"id", []], [b"replica", 8, b"id"]], [12, 12, [None, 9]], [13, 13, [b"", 9]]], ASKED
    )
    assert owners[:14] == [TcpAddress("::1", 7)] * 10 + [None, None] + [TcpAddress("here", 9)] * 2
    assert len(owners) == SLOTS


@pytest.mark.parametrize("reply", [None, 7, [[0]], [[0, SLOTS, [b"h", 1]]], [[5, 4, [b"h", 1]]], [["a", 1, [b"h", 1]]]])
def test_owners_that_cannot_be_read_are_an_error(reply: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(redis.ConnectionError, match="slots in no known form"):
        read_owners(reply, ASKED)


def test_a_redirection_without_a_host_is_to_where_we_asked(link: ClusterLink) -> None:
    """Servers that do not know their name send an empty one."""
    again = link._redirected({0: _Route(ASKED)}, [AskError("1 :6381")])
    assert again == {0: _Route(TcpAddress("here", 6381), asking=True)}
