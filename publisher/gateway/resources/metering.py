"""The filter that notes an answer's usage as it passes, and how it comes before the gateway's router. Pure.

By a policy it is on the routes of openai models. By a patch it stands on the listener for all routes, and looks only at
answers to calls that have a reservation: a patch of routes would have to know which listener has routes of which host.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from publisher.envoy.answer import answer_filter, rewriting_meter
from publisher.gateway.options import GatewayOptions, MeterBy
from publisher.gateway.resources.naming import Json, made, own_name
from publisher.gateway.resources.targets import READS, read_targets


def meter_policy(routes: Iterable[Json], options: GatewayOptions) -> list[Json]:
    """The extension of those of these routes whose calls' bodies Check reads, where it comes by a policy.

    An Envoy Gateway that has not turned Lua on, or that finds fault with it, answers their calls 500.
    """
    if options.meter is not MeterBy.POLICY:
        return []
    spec = {**read_targets(routes, options), "lua": [{"type": "Inline", "inline": rewriting_meter()}]}
    name = own_name(options.gateway, "meter")
    where = {"namespace": options.namespace, "gateway": options.gateway}
    return [made("EnvoyExtensionPolicy", name, spec, labels=READS, **where)]


_RESERVED_ONLY: Final = """
local read_answer = envoy_on_response

function envoy_on_response(handle)
  local said = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  if said and said["reservation"] then
    read_answer(handle)
  end
end
"""


def meter_filter() -> Json:
    """The filter for a listener whose routes do not turn it on."""
    made_one = answer_filter()
    code = {"inline_string": rewriting_meter() + _RESERVED_ONLY}
    return made_one | {"disabled": False, "typed_config": made_one["typed_config"] | {"default_source_code": code}}
