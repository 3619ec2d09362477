"""The text of a probe call: by it the publisher asks the gate, through the proxy, which publication a route names.

Pure: the clock and the secrets are arguments. It is ``tkprobe_<MAC key version>_<Unix seconds>_<MAC>`` and sent as
``X-API-Key``. It opens nothing: the gate answers it by itself, and for a minute only. Whoever has the secrets file can
make and read one, and nobody else.

The MAC is HMAC-SHA256 under a key derived for probes alone, so that no check of a key's text is one of these, nor the
reverse. The answer is proved in the same way: no model server can say in the gate's place that a route leads to it.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

from catalog.keys.keytext import KeyText
from catalog.keys.secrets import Secrets

LIFE_S: Final = 60
"""How far a text's time may be from the reader's clock, both ways: clocks of two machines are not the same."""

_BEGINS: Final = "tkprobe_"
_FORM: Final = re.compile(r"tkprobe_(?P<version>[1-9][0-9]{0,8})_(?P<time_s>[0-9]{1,12})_(?P<mac>[0-9a-f]{64})")
_TEXT_LABEL: Final = b"tollkeeper probe text"
_ANSWER_LABEL: Final = b"tollkeeper probe answer"


def mint_probe(secrets: Secrets, *, now_ms: int) -> KeyText:
    """Make a text that is good from now on, for ``LIFE_S`` seconds."""
    said = f"tkprobe_{secrets.current_mac_key}_{now_ms // 1000}"
    return KeyText(f"{said}_{_mac(secrets.mac_keys[secrets.current_mac_key], _TEXT_LABEL, said)}")


def looks_like_probe(text: str) -> bool:
    """Whether a text may be one, whoever made it."""
    return text.startswith(_BEGINS)


def is_probe(text: str, secrets: Secrets, *, now_ms: int) -> bool:
    """Whether a text was made by a holder of these secrets at about this time."""
    form = _FORM.fullmatch(text)
    key = secrets.mac_keys.get(int(form["version"])) if form else None
    if form is None or key is None:
        return False
    genuine = hmac.compare_digest(form["mac"], _mac(key, _TEXT_LABEL, text.rpartition("_")[0]))
    return genuine and abs(now_ms // 1000 - int(form["time_s"])) <= LIFE_S


def prove_answer(text: KeyText, told: str, secrets: Secrets) -> str:
    """The proof that the gate itself told this to a probe; "" where the probe's MAC key is not known any more."""
    form = _FORM.fullmatch(text.reveal())
    key = secrets.mac_keys.get(int(form["version"])) if form else None
    return _mac(key, _ANSWER_LABEL, f"{text.reveal()} {told}") if key else ""


def is_proved(proof: str, text: KeyText, told: str, secrets: Secrets) -> bool:
    """Whether a holder of these secrets told this to this probe."""
    expected = prove_answer(text, told, secrets)
    return expected != "" and hmac.compare_digest(proof.encode(errors="replace"), expected.encode())


def _mac(mac_key: bytes, label: bytes, said: str) -> str:
    derived = hmac.digest(mac_key, label, "sha256")
    return hmac.digest(derived, said.encode(errors="replace"), "sha256").hex()
