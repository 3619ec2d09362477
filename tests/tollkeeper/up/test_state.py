"""The state folder: held by one machine, private, and honest about what it cannot be."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.lifecycle import CannotStart
from tollkeeper.up.state import (
    MAX_SOCKET_PATH_BYTES,
    give_back_up_json,
    hold,
    read_json,
    take_last_up_json,
    write_json,
    write_up_json,
)

_HOLDS_AND_DIES = """
import os, signal, sys
from pathlib import Path
from tollkeeper.up.state import hold
with hold(Path(sys.argv[1])) as held:
    print(held.layout.sockets, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_holding(folder: Path) -> Path:
    """Leave the folder as a killed machine does; its socket folder."""
    command = [sys.executable, "-c", _HOLDS_AND_DIES, str(folder)]
    return Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip())


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_private(tmp_path: Path) -> None:
    """Nobody else looks into it, whatever the umask."""
    folder = tmp_path / "deep" / "state"
    with hold(folder) as held:
        assert mode(folder) == mode(held.layout.sockets) == 0o700
        assert not held.after_crash
        write_json(held.layout.up_json, {"a": 1})
        assert mode(held.layout.up_json) == 0o600


def test_a_second_holder_is_refused_by_the_firsts_pid(tmp_path: Path) -> None:
    """One machine a folder."""
    with hold(tmp_path), pytest.raises(CannotStart, match=rf"pid {os.getpid()}\) is using"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_a_killed_holder_is_no_obstacle(tmp_path: Path) -> None:
    """Its process id is stale, and the next one knows of the crash."""
    folder = tmp_path / "state"
    killed_while_holding(folder)
    assert (folder / "lock").read_text().strip().isdigit()
    with hold(folder) as held:
        assert held.after_crash
    with hold(folder) as held:
        assert not held.after_crash


def test_long_socket_paths_move_to_a_short_private_folder(tmp_path: Path) -> None:
    """Unix sockets have about 104 bytes of path; what a killed machine left there is removed."""
    folder = tmp_path / ("long" * 30)
    left = killed_while_holding(folder)
    assert left.is_dir()
    with hold(folder) as held:
        sockets = held.layout.sockets
        assert len(os.fsencode(held.layout.socket("envoy-admin"))) <= MAX_SOCKET_PATH_BYTES
        assert mode(sockets) == 0o700
        assert not left.exists()
    assert not sockets.exists()


def test_a_folder_in_other_use_is_left_alone(tmp_path: Path) -> None:
    """A mistyped --state does not change the mode of someone's folder."""
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CannotStart, match="is in other use"), hold(tmp_path):
        pass
    assert mode(tmp_path) == 0o755


@pytest.mark.parametrize("folder", ["/proc/tollkeeper", "/dev/null/state"])
def test_a_folder_that_cannot_be_written_is_told(folder: str) -> None:
    """One sentence, naming the option."""
    with pytest.raises(CannotStart, match=r"--state .* cannot be written"), hold(Path(folder)):
        pass


def test_up_json_is_there_only_while_it_is_true(tmp_path: Path) -> None:
    """A start puts the last one aside and, if it fails, gives it back; a damaged one is none."""
    with hold(tmp_path) as held:
        layout = held.layout
        assert take_last_up_json(layout) == {}
        write_up_json(layout, {"sample": 1})
        assert take_last_up_json(layout) == {"sample": 1}
        assert not layout.up_json.exists()
        give_back_up_json(layout)
        assert read_json(layout.up_json) == {"sample": 1}
        take_last_up_json(layout)
        write_up_json(layout, {"sample": 2})
        give_back_up_json(layout)
        assert read_json(layout.up_json) == {"sample": 2}
        assert not layout.last_up_json.exists()
        layout.up_json.write_text("{")
        assert take_last_up_json(layout) == {}
