"""What every process says of itself: CPU, memory, file descriptors, its version. Knows no process."""

from __future__ import annotations

import platform

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

from runtime.version import VERSION


def register_process_metrics(registry: CollectorRegistry) -> None:
    """Add ``process_*`` (Linux) and ``tollkeeper_build_info``."""
    ProcessCollector(registry=registry)
    build = Gauge(
        "tollkeeper_build_info",
        "Always 1; the labels name what runs.",
        ["version", "python"],
        registry=registry,
    )
    build.labels(VERSION, platform.python_version()).set(1)
