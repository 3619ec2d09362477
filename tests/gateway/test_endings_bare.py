"""The ten endings where Envoy Gateway allows nothing but Backends: each is heard, none waits for the sweep.

Nobody reads usage there, so what was told does not matter, and what a call costs is an estimate.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from gatebench import wait_until
from gatewayground import Ground, MeteredHere
from gatewaystack import BARE, wired

from tests.e2e.metered import CONTEXT, read_until_broken
from tests.e2e.test_endings import BREAKS, before_and_bytes, left

pytestmark = [pytest.mark.gateway, wired(BARE, "bare")]


@pytest.fixture
def rig(ground: Ground) -> MeteredHere:
    """The model whose server sends any bytes, with nothing held."""
    made = ground.metered()
    made.settled()
    return made


def _whole(name: str) -> Callable[[MeteredHere], int]:
    return lambda rig: before_and_bytes(rig, name)[0]


def _left(name: str, after: int) -> Callable[[MeteredHere], int]:
    return lambda rig: left(rig, name, after)  # type: ignore[arg-type]  of it what both have


def _broken(rig: MeteredHere) -> int:
    before = rig.settled()
    with rig.envoy.connect() as connection:
        connection.sendall(rig.begin("breaks"))
        read_until_broken(connection, BREAKS)
    return rig.settled() - before


ENDINGS: dict[str, tuple[Callable[[MeteredHere], int], bool]] = {
    "whole, with usage": (_whole("json"), True),
    "whole, without": (_whole("none"), True),
    "a stream with usage": (_whole("sse"), True),
    "a stream without": (_whole("sse-none"), True),
    "dearer than what it held": (_whole("dear"), True),
    "broken off": (_broken, True),
    "left in the middle": (_left("slow", 2), True),
    "left before the first header": (_left("never", 0), True),
    "the server fails": (_whole("error"), False),
    "the server hangs up": (_whole("hangs-up"), False),
}
"""By what happens: how it comes about, and whether it costs tokens."""


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_heard_and_estimated(rig: MeteredHere, ending: str) -> None:
    """Within seconds and once; what is told of usage is believed by nobody, and a failure costs nothing."""
    happens, costs = ENDINGS[ending]
    heard, presumed = (lambda: rig.sample("tollkeeper_endings_heard_total", way="log")), _presumed(rig)
    before = heard()
    charged = happens(rig)
    assert (charged > 0) is costs
    assert charged < CONTEXT
    wait_until(lambda: heard() == before + 1)
    assert _presumed(rig) == presumed


def _presumed(rig: MeteredHere) -> float:
    return rig.sample("tollkeeper_reservations_presumed_total")


def test_a_gates_machine_that_has_gone_is_found_out(ground: Ground) -> None:
    """Envoy pings the connections of endings: their streams would else stay with a node that answers nothing."""
    told = json.loads(ground.machine.gateway.envoy("/config_dump?resource=dynamic_active_clusters"))
    (endings,) = (one["cluster"] for one in told["configs"] if one["cluster"]["name"].startswith("accesslog_als"))
    (options,) = endings["typed_extension_protocol_options"].values()
    http2 = options["explicit_http_config"]["http2_protocol_options"]
    assert http2["connection_keepalive"] == {"interval": "15s", "timeout": "10s"}
