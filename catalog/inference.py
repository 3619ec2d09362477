"""What is known of gRPC inference: the Open Inference Protocol's service, and how its callers name a model. Pure.

A gRPC call has one path for all models of a host, and the message that names the model is read by nobody on its way. So
metadata name the publication, or the host does where it has no other.
"""

from __future__ import annotations

from typing import Final

SERVICE: Final = "inference.GRPCInferenceService"
ROOT: Final = f"/{SERVICE}"
READY: Final = f"{ROOT}/ServerReady"
METHODS: Final = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelInfer",
    "ModelStreamInfer",
)
"""What may be called: the protocol's own methods, and Triton's stream. Others change servers (their models, shared
memory, log and trace settings) or tell of models that are nobody's business."""

MODEL_HEADERS: Final = ("x-model", "seldon-model", "mm-vmodel-id", "mm-model-id")
"""The metadata by which a call names its model, looked at in this order: ours, Seldon's, ModelMesh's."""

CONTENT_TYPE: Final = "application/grpc"

_MODELS: Final = "/models/"


def called_as(path: str) -> str:
    """What a call names the publication at ``path``: ``/models/iris`` is ``iris``, any other path itself.

    Unique on a host, because paths are.
    """
    name = path.removeprefix(_MODELS)
    return path if "/" in name else name


def is_grpc_type(content_type: str) -> bool:
    """Whether a Content-Type is gRPC's, as Envoy decides it too: gRPC-Web's is not."""
    return content_type.startswith(CONTENT_TYPE) and content_type[len(CONTENT_TYPE) :][:1] in {"", "+"}
