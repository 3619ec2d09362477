"""The instruments of the secrets in force, all of them. Labels are enums."""

from __future__ import annotations

import enum

from prometheus_client import CollectorRegistry, Counter, Gauge

from catalog.keys.secrets import Secrets
from catalog.keys.versions import Family, current


class Load(enum.StrEnum):
    """What became of a secrets file that had changed."""

    LOADED = "loaded"
    REFUSED = "refused"


class SecretsMetrics:
    """Counts loads and shows which versions are in use."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.loads = Counter(
            "tollkeeper_secrets_loads",
            "Times the secrets file was read: at the start and when it had changed.",
            ["outcome"],
            registry=registry,
        )
        self._current = Gauge(
            "tollkeeper_secrets_current_version",
            "Version that new credentials (pepper) and texts (mac_key) get in this process.",
            ["secret"],
            registry=registry,
        )
        self._newest = Gauge(
            "tollkeeper_secrets_newest_version",
            "Newest version that this process knows.",
            ["secret"],
            registry=registry,
        )

    def loaded(self, secrets: Secrets) -> None:
        """Count a file that is in force from now on."""
        self.loads.labels(Load.LOADED.value).inc()
        for family, known in ((Family.PEPPER, secrets.peppers), (Family.MAC_KEY, secrets.mac_keys)):
            self._current.labels(family.value).set(current(secrets, family))
            self._newest.labels(family.value).set(max(known))

    def refused(self) -> None:
        """Count a file that is not good; the one before stays in force."""
        self.loads.labels(Load.REFUSED.value).inc()
