"""How an operator names another meter's metadata."""

from __future__ import annotations

import pytest

from ratelimit.tokens.meter import OWN_METER, Meter
from runtime.settings import BadSettings, as_text, read
from tollkeeper.up.settings import UpSettings

GATEWAYS = Meter("io.envoy.ai_gateway", "llm_total_token", "llm_input_token", "llm_output_token")


def test_ours_is_told_unless_named() -> None:
    """The filters that the gateway brings along."""
    assert read(UpSettings, {}).usage_metadata == OWN_METER


def test_another_meter_is_named_in_one_word() -> None:
    """Namespace and three names; written as it is read."""
    settings = read(UpSettings, {"usage_metadata": str(GATEWAYS)})
    assert settings.usage_metadata == GATEWAYS
    assert read(UpSettings, as_text(settings)).usage_metadata == GATEWAYS


@pytest.mark.parametrize(
    "text",
    ["ns", "ns:a,b", "ns:a,b,c,d", ":a,b,c", "ns:a,,c", "ns:a,b,c%", "ns:a,b,c\n", "n s:a,b,c", "ns)%REQ(x):a,b,c"],
)
def test_what_is_no_meter_is_refused(text: str) -> None:
    """Nothing that would change Envoy's substitution format around the names."""
    with pytest.raises(BadSettings, match=r"--usage-metadata .*: is not NAMESPACE:TOTAL,PROMPT,COMPLETION"):
        read(UpSettings, {"usage_metadata": text})
