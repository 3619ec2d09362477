"""Rows: what an InferenceService says, and what it means for the model. The specification of ``admin.kserve.facts``."""

from __future__ import annotations

from typing import Any, NamedTuple

from catalog.records import ModelType, Protocol

INTERNAL = "http://my-model.tenant-a.svc.cluster.local"


class Row(NamedTuple):
    """One InferenceService, told by what differs from one that is ready and plain."""

    name: str
    annotations: dict[str, str]
    predictor: dict[str, Any]
    status: dict[str, Any]
    url: str
    protocol: Protocol
    message: str  # why it is not ready; empty when it is


def condition(kind: str, status: str, message: str = "", reason: str = "") -> dict[str, str]:
    """Write a condition as KServe does."""
    told = {"message": message, "reason": reason}
    return {"type": kind, "status": status} | {name: text for name, text in told.items() if text}


READY = condition("Ready", "True")
SKLEARN = {"model": {"modelFormat": {"name": "sklearn"}}}
WELL = {"address": {"url": INTERNAL}, "url": "http://my-model.tenant-a.example.com", "conditions": [READY]}
V1, V2, OPENAI = Protocol.KSERVE_V1, Protocol.KSERVE_V2, Protocol.OPENAI


def protocol(name: str, predictor: dict[str, Any], wanted: Protocol, **annotations: str) -> Row:
    """A row about the protocol alone."""
    noted = {f"tollkeeper.dev/{key}": value for key, value in annotations.items()}
    return Row(name, noted, predictor, WELL, INTERNAL, wanted, "")


def state(name: str, message: str, *conditions: dict[str, str]) -> Row:
    """A row about the conditions alone."""
    return Row(name, {}, SKLEARN, WELL | {"conditions": list(conditions)}, INTERNAL, V1, message)


def url(name: str, wanted: str, message: str, **status: Any) -> Row:
    """A row about the URL alone."""
    return Row(name, {}, SKLEARN, {"conditions": [READY]} | status, wanted, V1, message)


ROWS = (
    protocol("a format of v1", SKLEARN, V1),
    protocol("v2 is asked for", {"model": {"modelFormat": {"name": "sklearn"}, "protocolVersion": "v2"}}, V2),
    protocol("v1 is asked for", {"model": {"modelFormat": {"name": "triton"}, "protocolVersion": "v1"}}, V1),
    protocol("v2 over gRPC has v2's paths", {"model": {"protocolVersion": "grpc-v2"}}, V2),
    protocol("the older form", {"triton": {"protocolVersion": "v2", "storageUri": "s3://x"}}, V2),
    protocol(
        "openai is asked for", {"model": {"modelFormat": {"name": "custom"}, "protocolVersion": "openai"}}, OPENAI
    ),
    protocol("a format of language models", {"model": {"modelFormat": {"name": "huggingface"}}}, OPENAI),
    protocol(
        "and v2, which KServe adds to it by itself",
        {"model": {"modelFormat": {"name": "huggingface"}, "protocolVersion": "v2"}},
        OPENAI,
    ),
    protocol("a runtime of language models", {"model": {"runtime": "kserve-huggingfaceserver"}}, OPENAI),
    protocol("vLLM's", {"model": {"runtime": "my-vLLM-runtime", "modelFormat": {"name": "x"}}}, OPENAI),
    protocol("the older form of language models", {"huggingface": {"args": []}}, OPENAI),
    protocol("containers tell nothing", {"containers": [{"image": "x"}]}, V1),
    protocol("the annotation goes before all", {"model": {"runtime": "vllm"}}, V2, protocol="kserve-v2"),
    protocol("the annotation makes it openai", {"containers": [{"image": "x"}]}, OPENAI, protocol="openai"),
    protocol("a server of another kind", SKLEARN, Protocol.HTTP, protocol="http"),
    Row(
        "an annotation that is none",
        {"tollkeeper.dev/protocol": "soap"},
        SKLEARN,
        WELL,
        INTERNAL,
        Protocol.HTTP,
        "its annotation tollkeeper.dev/protocol must be one of grpc, http, kserve-v1, kserve-v2, openai",
    ),
    state("not ready, with words", "the pod is out of memory", condition("Ready", "False", "the pod is out of memory")),
    state(
        "a part's words",
        "PredictorReady: Revision failed to pull the image",
        condition("IngressReady", "True"),
        condition("PredictorReady", "False", "Revision failed to pull the image"),
        condition("Ready", "False", reason="PredictorNotReady"),
    ),
    state("a part's reason", "IngressReady: NoGateway", condition("IngressReady", "False", reason="NoGateway")),
    state("a reason only", "Waiting", condition("Ready", "Unknown", reason="Waiting")),
    state("unknown is not ready", "KServe has not said yet that it is ready", condition("Ready", "Unknown")),
    state("nothing said yet", "KServe has not said yet that it is ready"),
    state("long words are cut", "x" * 500, condition("Ready", "False", "x" * 2_000)),
    url("the internal address first", INTERNAL, "", address={"url": INTERNAL}, url="http://out.example.com"),
    url("else the other", "http://out.example.com", "", url="http://out.example.com"),
    url("a port stays", "http://a.b:8080", "", address={"url": "http://a.b:8080"}),
    url("https stays", "https://a.b", "", address={"url": "https://a.b/"}),
    url("a call's path goes", INTERNAL, "", address={"url": f"{INTERNAL}/v1/models/my-model:predict"}),
    url("v2's too", INTERNAL, "", address={"url": f"{INTERNAL}/v2/models/my-model/infer"}),
    url(
        "a path of its own cannot be kept",
        "",
        "its URL cannot be used: must have no path of its own",
        url="http://ingress.example.com/serving/tenant-a/my-model",
    ),
    url(
        "gRPC is not HTTP",
        "",
        "its URL cannot be used: must be http:// or https:// with a host, perhaps a port, and nothing else",
        address={"url": "grpc://modelmesh-serving.tenant-a:8033"},
    ),
    url(
        "nor the cloud's own server",
        "",
        "its URL is refused: the address is link-local or a cloud's metadata service",
        address={"url": "http://169.254.169.254"},
    ),
    url("no URL yet", "", "KServe gives no URL for it"),
    url("an odd status", "", "KServe gives no URL for it", address="x", url=None),
)

TYPES = {Protocol.OPENAI: ModelType.OPENAI}
"""Of each protocol; the others are traditional."""
