"""Starting, stopping and owning tasks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys

import pytest

from runtime.lifecycle import fault_told, going_on, rest, running, stop_requested

_DRAINS_FOREVER = """
import asyncio
from runtime.lifecycle import stop_requested
async def main():
    waiting = asyncio.ensure_future(stop_requested())
    await asyncio.sleep(0)
    print("ready", flush=True)
    await waiting
    print("draining", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("one", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_asks_for_the_stop(one: signal.Signals) -> None:
    """Both signals mean: drain."""
    waiting = asyncio.ensure_future(stop_requested())
    await asyncio.sleep(0)
    os.kill(os.getpid(), one)
    assert await asyncio.wait_for(waiting, 5) is one
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def test_a_second_signal_ends_the_process_at_once() -> None:
    """A drain that hangs does not hold the operator."""
    with subprocess.Popen([sys.executable, "-c", _DRAINS_FOREVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "draining\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 128 + signal.SIGTERM


async def test_background_work_ends_with_its_owner() -> None:
    """Work has the name it was given and is gone after the body."""
    async with running(asyncio.Event().wait(), name="feed") as task:
        assert task.get_name() == "feed"
    assert task.cancelled()


async def test_a_fault_of_background_work_stops_its_owner() -> None:
    """No task fails unseen."""

    async def fail() -> None:
        raise LookupError("broken")

    with pytest.raises(ExceptionGroup) as caught:
        async with running(fail(), name="feed"):
            await asyncio.Event().wait()
    assert caught.value.subgroup(LookupError)


async def test_work_that_lost_its_cancellation_rests_no_more() -> None:
    """What redis-py may lose before Python 3.12 delays nobody's end by the loop's rest."""
    looking, looked = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        while going_on():
            looking.set()
            with contextlib.suppress(asyncio.CancelledError):  # as wait_for does when the answer came just then
                await looked.wait()
            await rest(3600)

    watching = asyncio.create_task(watch(), name="watch")
    await looking.wait()
    watching.cancel()
    done, _ = await asyncio.wait([watching], timeout=10)
    assert done == {watching}
    assert watching.cancelled()


def test_an_owner_learns_of_the_fault_that_ended_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, and raised no further; work that ends by itself says nothing."""
    told: list[str] = []
    with fault_told(logging.getLogger("test"), "the worker", lambda: told.append("fault")):
        pass
    assert told == []
    with fault_told(logging.getLogger("test"), "the worker", lambda: told.append("fault")):
        raise ValueError
    assert told == ["fault"]
    (record,) = caplog.records
    assert record.getMessage() == "the worker ended by a fault of its own"
    assert record.exc_info is not None


def test_a_thread_that_is_told_to_exit_is_no_fault() -> None:
    """Only faults are kept from going on."""
    with pytest.raises(SystemExit), fault_told(logging.getLogger("test"), "the worker", pytest.fail):
        raise SystemExit
