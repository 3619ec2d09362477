"""What is remembered of a file that Envoy reads, when others write it too."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.envoy import kept
from publisher.envoy.admin import CLUSTERS
from publisher.envoy.files import Resources, versioned
from publisher.envoy.kept import KeptFile

OURS = versioned({"a": '{"name":"a"}'})
THEIRS = versioned({"b": '{"name":"b"}'})


@pytest.mark.parametrize("theirs", [THEIRS, None])
def test_what_others_do_while_a_file_is_read_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: Resources | None
) -> None:
    """It was ours when it was read, and is replaced or gone right after: it is not taken for ours any more."""
    path = tmp_path / "clusters.json"
    path.write_text(OURS.text(), encoding="utf-8")
    file, read = KeptFile(path, CLUSTERS), kept.text_of

    def read_and_lose(path: Path) -> str | None:
        text = read(path)
        path.unlink()
        if theirs:
            path.write_text(theirs.text(), encoding="utf-8")
        return text

    with monkeypatch.context() as patched:
        patched.setattr(kept, "text_of", read_and_lose)
        assert file.says(OURS)
    assert not file.says(OURS)
    assert file.content() == theirs
