"""What Envoy does before it runs out of memory or connections. Pure."""

from __future__ import annotations

from typing import Final

from publisher.envoy.files import Json

_TYPE: Final = "type.googleapis.com/envoy."

_SHED_BETWEEN: Final = (0.75, 0.95)
"""Of the heap. From here on pieces of requests are turned away by chance, at last all: a body of megabytes comes in
dozens of pieces, each of which may cost it the call, a small call in one."""


def overload_manager(*, max_heap_bytes: int, max_connections: int) -> Json:
    """What Envoy does before it runs out of memory or connections."""
    bounded = heap_bounds(max_heap_bytes)
    connections = _monitor(
        "envoy.resource_monitors.global_downstream_max_connections",
        "downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=max_connections,
    )
    return bounded | {"resource_monitors": [*bounded["resource_monitors"], connections]}


def heap_bounds(max_heap_bytes: int) -> Json:
    """What Envoy does before it runs out of memory."""
    heap = "envoy.resource_monitors.fixed_heap"
    return {
        "refresh_interval": "0.1s",
        "resource_monitors": [_monitor(heap, "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=max_heap_bytes)],
        "actions": [
            _action("envoy.overload_actions.disable_http_keepalive", heap, 0.9),
            _action("envoy.overload_actions.stop_accepting_requests", heap, 0.95),
        ],
        "loadshed_points": [
            _shed_point("envoy.load_shed_points.http1_server_abort_dispatch", heap),
            _shed_point("envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", heap),
        ],
    }


def _monitor(name: str, config: str, **bounds: int) -> Json:
    return {
        "name": name,
        "typed_config": {"@type": f"{_TYPE}extensions.resource_monitors.{config}", **bounds},
    }


def _shed_point(name: str, resource: str) -> Json:
    begins, is_full = _SHED_BETWEEN
    scaled = {"scaling_threshold": begins, "saturation_threshold": is_full}
    return {"name": name, "triggers": [{"name": resource, "scaled": scaled}]}


def _action(name: str, resource: str, threshold: float) -> Json:
    return {"name": name, "triggers": [{"name": resource, "threshold": {"value": threshold}}]}
