"""The instruments of the API, all of them. Labels are routes, codes and names of acts: bounded sets."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AdminMetrics:
    """Counts requests and acts in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "tollkeeper_admin_requests",
            "Requests by route, method and status.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "tollkeeper_admin_request_seconds",
            "Time until a request was answered.",
            ("route",),
            registry=registry,
        )
        self.acts = Counter(
            "tollkeeper_admin_acts",
            "Changes asked of the store: committed, conflict, unknown or unavailable.",
            ("action", "outcome"),
            registry=registry,
        )
        self.logins = Counter(
            "tollkeeper_admin_logins", "Logins: ok, failed or throttled.", ("outcome",), registry=registry
        )
        self.unaudited_logins = Counter(
            "tollkeeper_admin_logins_unaudited",
            "Logins that are not in the audit stream, because it had enough of them that minute or cannot be written.",
            registry=registry,
        )
        self.unnoted_uses = Counter(
            "tollkeeper_admin_service_uses_unnoted",
            "Calls of service accounts whose time could not be written down.",
            registry=registry,
        )
        self.damaged = Counter(
            "tollkeeper_admin_damaged_records",
            "Records that a list could not show, by kind, each time it met one.",
            ("kind",),
            registry=registry,
        )
        self.metering = Gauge(
            "tollkeeper_publications_metering",
            "Openai publications by whether the proxy tells how their calls end.",
            ("metering",),
            registry=registry,
        )
        self.above_hold = Gauge(
            "tollkeeper_publications_above_hold",
            "Openai publications of which 20 calls and more of this clock hour and the last cost more than they held.",
            registry=registry,
        )
        self.metering_errors = Counter(
            "tollkeeper_admin_metering_errors",
            "Looks at the metering that failed because the store could not be read.",
            registry=registry,
        )
