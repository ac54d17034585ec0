"""SECURITY.md names things that are there, and the calls that it gives to each scope are the server's own."""

import re
from typing import get_args

import pytest

from foldmint_server.security.authorization import NEEDS
from foldmint_server.security.bearer_tokens import Scope
from foldmint_server.settings import Settings
from helpers.support import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_its_options_are_settings() -> None:
    named = {name.replace("-", "_") for name in re.findall(r"`--([a-z-]+)", PAGE)}
    assert len(named) >= 5
    assert named - set(Settings.model_fields) == set()


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert "](SECURITY.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_commands_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", PAGE):
        assert f"\n{target}:" in makefile
    assert "/opt/foldmint/sbom.cdx.json" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "tests/test_image.py" in PAGE


@pytest.mark.parametrize("scope", get_args(Scope))
def test_each_scope_is_told(scope: str) -> None:
    assert re.search(rf"scope `{scope}` \|", PAGE)


def test_operators_alone_may_do_what_it_gives_to_them() -> None:
    """Which version is in use, and a sample of vectors."""
    alone = {method.rpartition("/")[2] for method, scopes in NEEDS.items() if scopes == ("admin",)}
    assert alone == {"ActivateCodebook", "RollbackCodebook", "SampleEmbeddings"}
    open_to_all = {method for method, scopes in NEEDS.items() if not scopes}
    assert all("grpc.health" in method for method in open_to_all)
