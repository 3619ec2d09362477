"""A model server that speaks the KServe v1 protocol: a logistic model over four numbers.

``python -m tollkeeper.samples.kserve --listen 127.0.0.1:9001 --model iris-sample``
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from aiohttp import web

from tollkeeper.samples.serving import MAX_BODY_BYTES, SampleSettings, json_body, run_sample

WEIGHTS: Final[Mapping[str, float]] = {"feature1": 0.8, "feature2": -0.4, "feature3": 1.5, "feature4": 0.1}
BIAS: Final = -0.2
MAX_INSTANCES: Final = 1000

_NAMES: Final[web.AppKey[tuple[str, ...]]] = web.AppKey("names")


def predict(instance: Any) -> float:
    """Return the probability for one instance; absent features count 0.

    ``{"feature1": 1.0}`` and ``[1.0]`` both give sigmoid(-0.2 + 0.8 x 1.0) = 0.6457.
    Raises ``ValueError`` for what is neither named nor listed numbers.
    """
    score = BIAS + sum(WEIGHTS[name] * value for name, value in _features(instance).items())
    return round(1 / (1 + math.exp(-max(-500.0, min(500.0, score)))), 6)


def _features(instance: Any) -> Mapping[str, float]:
    if isinstance(instance, list):
        if len(instance) > len(WEIGHTS):
            raise ValueError(f"an instance has at most {len(WEIGHTS)} features")
        instance = dict(zip(WEIGHTS, instance, strict=False))
    if not isinstance(instance, dict):
        raise ValueError("an instance is a list of numbers or an object of features")  # noqa: TRY004  a bad value
    if unknown := instance.keys() - WEIGHTS.keys():
        raise ValueError(f"unknown feature {min(unknown)!r}; the features are {', '.join(WEIGHTS)}")
    return {name: _number(name, value) for name, value in instance.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number")
    return float(value)


def application(names: tuple[str, ...]) -> web.Application:
    """Serve the model under each of ``names``."""
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    app[_NAMES] = names
    app.router.add_get("/v1/models", _list)
    app.router.add_get("/v1/models/{name}", _ready)
    app.router.add_post("/v1/models/{name:[^/:]+}:predict", _predict)
    return app


async def _list(request: web.Request) -> web.Response:
    return web.json_response({"models": [*request.app[_NAMES]]})


async def _ready(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in request.app[_NAMES]:
        return _error(404, f"no model {name!r}")
    return web.json_response({"name": name, "ready": True})


async def _predict(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    if name not in request.app[_NAMES]:
        return _error(404, f"no model {name!r}")
    try:
        return web.json_response({"predictions": [predict(one) for one in _instances(await json_body(request))]})
    except ValueError as error:
        return _error(400, str(error))


def _instances(body: Any) -> list[Any]:
    instances = body.get("instances") if isinstance(body, dict) else None
    if not isinstance(instances, list) or len(instances) > MAX_INSTANCES:
        raise ValueError(f"instances must be a list of at most {MAX_INSTANCES}")
    return instances


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


if __name__ == "__main__":
    run_sample(SampleSettings, lambda settings: application(settings.model), name="tollkeeper.samples.kserve")
