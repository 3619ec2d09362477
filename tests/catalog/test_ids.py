"""Ids: what they say about the tenant and how random they are."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ids import cell_of, is_id, new_id, shard_of


def test_a_tenants_shard_never_changes() -> None:
    """The shard is part of stored ids, so its value is fixed for good."""
    assert (shard_of("tenant-a"), shard_of("tenant-b"), shard_of("münchen")) == (167, 3947, 1884)


@given(st.text())
def test_every_name_has_a_shard(tenant: str) -> None:
    """Any text at all falls into 0..4095."""
    assert 0 <= shard_of(tenant) < 4096


@given(st.integers(0, 4095), st.binary(min_size=10, max_size=10))
def test_an_id_is_the_shard_and_all_eighty_random_bits(shard: int, randomness: bytes) -> None:
    """Two ids are the same only if shard and every random bit are."""
    made = new_id(shard, lambda _: randomness)
    flipped = bytes([*randomness[:-1], randomness[-1] ^ 1])
    assert is_id(made)
    assert int(made[:3], 16) == shard
    assert made != new_id(shard, lambda _: flipped)


def test_ids_take_ten_bytes_from_the_source() -> None:
    """The source of randomness is asked for 80 bits."""
    asked: list[int] = []
    new_id(0, lambda size: asked.append(size) or os.urandom(size))  # type: ignore[func-returns-value]
    assert asked == [10]


@pytest.mark.parametrize("shard", [-1, 4096])
def test_a_shard_out_of_range_is_refused(shard: int) -> None:
    """A shard that three characters cannot name makes no id."""
    with pytest.raises(ValueError, match=r"must be 0\.\.4095"):
        new_id(shard, os.urandom)


@given(st.integers(0, 4095), st.integers(1, 4096))
def test_the_cell_follows_from_the_id_alone(shard: int, cells: int) -> None:
    """An id and its tenant's shard name the same cell, whatever the number of cells."""
    made = new_id(shard, os.urandom)
    assert cell_of(made, cells) == cell_of(shard, cells) == shard % cells


@pytest.mark.parametrize(
    "text", ["", "0a1", "0A1" + "a" * 16, "0a1" + "a" * 15, "0a1" + "1" * 16, "0a1" + "a" * 16 + "\n"]
)
def test_other_texts_are_no_ids(text: str) -> None:
    """Length, case and alphabet are checked, a trailing newline included."""
    assert not is_id(text)
