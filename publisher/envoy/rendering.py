"""Plans as Envoy's two files, one after the other: rendered again is only what changed since the plan before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from publisher.envoy.clusters import cluster_text, clusters
from publisher.envoy.files import Resources
from publisher.envoy.routes import NO_ALIASES, Aliases, routes, routes_text
from publisher.memo import Memo
from publisher.plan import Plan, Route, Upstream


@dataclass(frozen=True, slots=True)
class Rendered:
    """Both files."""

    clusters: Resources
    routes: Resources


class Rendering:
    """Renders one plan after the other; its settings are those of ``clusters`` and ``routes``."""

    def __init__(
        self, *, upstream_ca: str, origins: Sequence[str], credentials: str = "", aliases: Aliases = NO_ALIASES
    ) -> None:
        self._upstream_ca = upstream_ca
        self._origins = origins
        self._aliases = aliases
        self._clusters = Memo[Upstream, str](lambda upstream: cluster_text(upstream, upstream_ca, credentials))
        self._routes = Memo[tuple[Route, ...], str](routes_text)
        self._last: tuple[Plan, Rendered] | None = None

    def of(self, wanted: Plan) -> Rendered:
        """A plan's files."""
        if self._last is None or self._last[0] is not wanted:
            self._clusters.next_round()
            self._routes.next_round()
            made = Rendered(
                clusters(wanted, upstream_ca=self._upstream_ca, rendered=self._clusters),
                routes(wanted, origins=self._origins, aliases=self._aliases, taken=self._routes),
            )
            self._last = wanted, made
        return self._last[1]
