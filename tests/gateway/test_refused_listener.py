"""Envoy refuses a listener that somebody has patched wrongly, and takes the routes all the same: nothing opens."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from gatewaystack import LIVE_S, NAMESPACE, Machine
from upmachine import until

pytestmark = pytest.mark.gateway

TENANT, HOST, PATH = "refused-team", "refused.example.test", "/v1/models/refused"
BODY = b'{"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "Hello!"}]}'
REJECTED = "listener_manager.lds.update_rejected"
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


@pytest.fixture
def _refused(gateway: Machine) -> Iterator[None]:
    """While the test runs Envoy refuses the http listener: two filters of it would end a call."""
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}
    patch = {"op": "add", "jsonPath": "$..http_filters", "path": "0", "value": router}
    spec = {
        "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "tollkeeper"},
        "type": "JSONPatch",
        "jsonPatches": [{"type": LISTENER, "name": f"{NAMESPACE}/tollkeeper/http", "operation": patch}],
    }
    metadata = {"name": "wrong", "namespace": NAMESPACE}
    policy = {"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "EnvoyPatchPolicy", "metadata": metadata}
    file = gateway.gateway.manifests / "wrong.yaml"
    draft, before = file.with_name(".wrong"), gateway.gateway.stat(REJECTED)
    draft.write_text(json.dumps(policy | {"spec": spec}))
    draft.replace(file)
    assert until(lambda: gateway.gateway.stat(REJECTED) > before, LIVE_S), gateway.gateway.told()
    yield
    healed = "listener_manager.lds.update_success"
    before = gateway.gateway.stat(healed)
    file.unlink()
    assert until(lambda: gateway.gateway.stat(healed) > before, LIVE_S), gateway.gateway.told()


@pytest.mark.usefixtures("_refused")
def test_no_call_passes_unasked_where_envoy_has_refused_a_listener(gateway: Machine) -> None:
    """What is published meanwhile is served to its keys alone, whatever header a caller sends."""
    chat = gateway.publish(TENANT, "chat", gateway.servers["openai"], publicHostname=HOST, externalPath=PATH)
    iris = gateway.publish(TENANT, "iris", gateway.servers["kserve"], publicHostname=HOST, externalPath="/iris")
    called = [(chat, f"{PATH}/chat/completions", BODY), (chat, "/v1/chat/completions", BODY)]
    for made, path, body in (*called, (iris, "/iris/predict", b'{"instances": [[5.1, 3.5, 1.4, 0.2]]}')):
        for forged in ((), (f"x-tollkeeper-publication: {made['uid']}",)):
            assert gateway.post(path, body, *forged, host=HOST).status == 401, (path, forged)
        assert gateway.post(path, body, f"x-api-key: {made['apiKey']}", host=HOST).status == 200, path
    for model in ("chat", "iris"):
        gateway.unpublish(TENANT, model)
