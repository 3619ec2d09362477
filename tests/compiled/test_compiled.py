"""The hot modules compiled, as the image and a wheel for one platform have them: they do what their sources do."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from runtime.version import VERSION

pytestmark = [pytest.mark.compiled, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
HOT = (
    "tests/extauth",
    "tests/ratelimit/descriptors",
    "tests/ratelimit/service",
    "tests/ratelimit/tokens/test_ledger.py",
    "tests/ratelimit/windows/test_limiter.py",
    "tests/runtime/grpc",
    "tests/runtime/store/test_link_deadline.py",
    *(
        f"tests/gate/test_{name}.py"
        for name in ("endings", "health", "ordinary_remembered", "store_faults", "two_stores")
    ),
)
"""What stands around the compiled modules. All tests of the rooms were run on the compiled form when it was chosen."""
QUESTIONS = 2_000
FUZZED = 20_000


@pytest.fixture(scope="module")
def rooms() -> Iterator[Path]:
    """A folder with the rooms as an image has them, hot modules compiled."""
    with TemporaryDirectory(prefix="tk-") as name:
        made = subprocess.run(
            [sys.executable, "hatch_build.py", "rooms", name], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert made.returncode == 0, made.stdout + made.stderr
        yield Path(name)


def by(*paths: Path, command: tuple[str, ...], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python that looks for modules in these folders first, and not in the one it is started in."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST"))}
    found = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONHASHSEED": "0"}
    command = (sys.executable, *command)
    return subprocess.run(
        command, cwd=cwd, env={**kept, **found}, capture_output=True, text=True, check=False, timeout=800
    )


def listed() -> list[str]:
    """The modules that are compiled."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    found: list[str] = build["targets"]["wheel"]["hooks"]["custom"]["compiled"]
    return found


def test_every_listed_module_is_compiled_and_says_so(rooms: Path) -> None:
    """Each has an extension module beside its source, which is what is imported; ``--version`` tells."""
    names = [module.removesuffix(".py").replace("/", ".") for module in listed()]
    script = "import importlib, sys; print(*[importlib.import_module(name).__file__ for name in sys.argv[1:]])"
    told = by(rooms, command=("-c", script, *names))
    assert told.returncode == 0, told.stderr
    files = told.stdout.split()
    assert [Path(file).suffix for file in files] == [".so"] * len(names)
    assert [file.partition(".")[0] for file in files] == [
        str(rooms / module.removesuffix(".py")) for module in listed()
    ]
    version = by(rooms, command=("-m", "tollkeeper", "--version")).stdout
    assert version == f"tollkeeper, version {VERSION}, compiled\n"


def test_the_hot_tests_hold(rooms: Path) -> None:
    """What is promised of the sources is promised of what is made of them, on a real Valkey and by real gates.

    Left out are tests that put something else in the place of a compiled function (marked ``replaces``).
    """
    paths = f"pythonpath={rooms} tests/support ."
    options = ("-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadfile", "-o", paths, "--compiled")
    told = by(rooms, command=("-m", "pytest", *options, *HOT))
    assert told.returncode == 0, told.stdout[-10_000:] + told.stderr


def test_odd_questions_are_answered_alike(rooms: Path, redis_url: str, tmp_path: Path) -> None:
    """Byte by byte: bodies, Checks, descriptors and endings of the fuzzer, and what was counted of them."""
    seed = str(random.SystemRandom().randrange(10**6))
    command = ("-m", "tests.fuzz.transcript", redis_url, seed, str(QUESTIONS), str(tmp_path / "questions"))
    sources, compiled = by(ROOT, command=command), by(rooms, ROOT, command=command)
    assert (sources.returncode, compiled.returncode) == (0, 0), sources.stderr[-5_000:] + compiled.stderr[-5_000:]
    said, again = sources.stdout.splitlines(), compiled.stdout.splitlines()
    assert len(said) > 4 * QUESTIONS
    assert [pair for pair in zip(said, again, strict=True) if pair[0] != pair[1]][:1] == [], f"seed {seed}"
    assert 'reason="fault"' not in sources.stdout
    assert 'outcome="allowed"' in sources.stdout


def test_odd_inputs_neither_crash_nor_pass(rooms: Path) -> None:
    """The fuzzer, whose oracle knows nothing of either form."""
    told = by(rooms, ROOT, command=("-m", "tests.fuzz.run", "--inputs", str(FUZZED)))
    assert told.returncode == 0, told.stdout + told.stderr[-5_000:]


def test_without_a_compiler_there_is_none(tmp_path: Path) -> None:
    """What was asked to be compiled is not pure by mistake: one error, and nothing is kept for the next one."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "CC": "/bin/false"}
    command = (sys.executable, "hatch_build.py", "rooms", str(tmp_path / "rooms"))
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=800)
    assert told.returncode == 1
    assert told.stderr.startswith("the modules could not be compiled:"), told.stderr
    assert not (tmp_path / "rooms").exists()
    assert [one.name for one in (tmp_path / "cache/tollkeeper").iterdir() if one.is_dir()] == []


def test_a_wheel_has_them_for_its_platform_only(tmp_path: Path) -> None:
    """Its name says which Python and machine it is for; the extension modules stand where the sources do."""
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir")
    environment = {**os.environ, "TOLLKEEPER_COMPILED": "1"}
    subprocess.run([*pip, str(tmp_path), str(ROOT)], env=environment, check=True, timeout=800)
    (wheel,) = tmp_path.iterdir()
    assert not wheel.name.endswith("-any.whl")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(tmp_path / "site")], check=True)
    script = "from tollkeeper.start import main; main()"
    told = by(tmp_path / "site", command=("-c", script, "--version"), cwd=tmp_path)
    assert told.stdout == f"tollkeeper, version {VERSION}, compiled\n", told.stderr
