"""How a cluster's namespaces say whose they are. Pure."""

from __future__ import annotations

from typing import Final

TENANT_LABEL: Final = "tollkeeper.dev/tenant"
"""On a namespace, and on what is mirrored there: the tenant's name."""
