"""The test bench itself."""

import redis


def test_each_test_starts_with_an_empty_database(store: redis.Redis) -> None:
    """What a test writes is its own."""
    assert store.dbsize() == 0
    store.set("x", 1)
