"""Which Kubernetes cluster a process speaks to: one setting for every command that does."""

from __future__ import annotations

from pathlib import Path

from runtime.settings import Settings


class ClusterSettings(Settings):
    """Where the cluster is, and who we are there."""

    kubeconfig: Path | None = None
    """The file that says where the cluster is and who we are there. Without it: a pod's service account, else
    `$KUBECONFIG`, else `~/.kube/config`."""
