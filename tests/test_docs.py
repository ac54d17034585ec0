"""The documentation tells of things as they are: references, links, and a site that builds without a network."""

import json
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from foldmint_server.settings import Settings, read_settings
from foldmint_tokenizer.model import DecoderRows
from foldmint_tokenizer.store.model_store import DEFAULT, Store
from helpers.support import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["proto", "settings"])
def test_a_reference_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDMINT_LISTEN", "elsewhere:1")  # is no part of it
    written = runpy.run_path(str(DOCS / f"generate_{name}.py"))["page"]()
    assert written == (DOCS / f"{name}.md").read_text(encoding="utf-8"), f"run python docs/generate_{name}.py"


def test_the_contract_is_told_whole() -> None:
    page = (DOCS / "proto.md").read_text(encoding="utf-8")
    for file in (ROOT / "protos/foldmint/v1").glob("*.proto"):
        text = file.read_text(encoding="utf-8")
        for kind, name in re.findall(r"(?m)^\s*(service|rpc|message|enum) (\w+)", text):
            assert re.search(rf"(?m)^#+ {'service ' * (kind == 'service')}{name}$", page), f"{kind} {name}"
        for name in re.findall(r"(?m)^ +(?:repeated )?[\w.]+ (\w+) = \d+;", text):
            assert f"| `{name}` = " in page, name


def test_each_setting_is_told_as_it_is_given(tmp_path: Path) -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    options = re.findall(r"(?m)^- `--([\w-]+)`.*?, `FOLDMINT_(\w+)`: \S", page)
    assert [name.replace("-", "_") for name, _ in options] == list(Settings.model_fields)
    assert [variable.lower() for _, variable in options] == list(Settings.model_fields)
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "foldmint.toml"
    file.write_text(example)
    read = read_settings({}, file)
    assert {name: getattr(read, name) for name in tomllib.loads(example)} == tomllib.loads(example)


def test_the_store_is_told_whole(tmp_path: Path) -> None:
    page = (DOCS / "store.md").read_text(encoding="utf-8")
    # `reading` is there where a model has one of its own.
    assert _keys(page, "model.json") == set(json.loads((DEFAULT / "model.json").read_text())) | {"reading"}
    store = _copied_store(tmp_path / "store")
    model = store.load()
    assert model.decoder is not None
    rows = DecoderRows(torch.tensor([7]), torch.zeros(1, model.decoder.config.width))
    version = store.publish(model.codebook.codebook, parent="000001", decoder_rows=rows, about={})
    first, second = (set(store.manifest(name)) for name in ("000001", version.version))
    assert _keys(page, "manifest.json") == first | second
    folder = tmp_path / "store/codebooks"
    assert _keys(page, "codebook.safetensors") == set(load_file(DEFAULT / "codebooks/000001/codebook.safetensors"))
    for name in load_file(folder / version.version / "decoder.safetensors"):
        assert f"`{name}`, (" in page
    (tree,) = re.findall(r"```\n(store/.*?)```", page, re.DOTALL)
    found = {path.name for path in (tmp_path / "store").rglob("*")}
    assert found - set(re.findall(r"[\w.]+", tree)) == set()


def _copied_store(path: Path) -> Store:
    for file in DEFAULT.rglob("*"):
        if file.is_file():
            to = path / file.relative_to(DEFAULT)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    return Store(path)


def _keys(page: str, section: str) -> set[str]:
    """The names in the first column of a section's table."""
    (part,) = re.findall(rf"(?ms)^## {re.escape(section)}$(.*?)(?=^## )", page)
    return {name for row in re.findall(r"(?m)^\| (`.*?) \|", part) for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a link or anchor that leads nowhere, or a page in no menu, is an error."""
    out = tmp_path_factory.mktemp("site")
    # Not --quiet: it does not count what it does not show.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_has_all_pages_and_the_files_that_they_link_to(site: Path) -> None:
    pages = {path.stem for path in DOCS.glob("*.md")}
    assert {path.stem for path in site.glob("*.html")} - {"404"} == pages
    for path in ("deploy/kubernetes/kustomization.yaml", "deploy/compose.yaml", "protos/foldmint/v1/tokenizer.proto"):
        assert (site / "repository" / path).read_bytes() == (ROOT / path).read_bytes()


class _Assets(HTMLParser):
    """What a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.found.append(str(given["src"]))
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.found.append(str(given["href"]))


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.glob("*.html"):
        reader = _Assets()
        reader.feed(page.read_text(encoding="utf-8"))
        assert len(reader.found) >= 4
        for asset in reader.found:
            path = site / asset.lstrip("/").partition("?")[0]
            assert "://" not in asset, f"{page.name} loads {asset}"
            assert path.is_file(), f"{page.name} loads {asset}, which is not there"


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("[there](../mkdocs.yml) [gone](../deploy/absent.yaml)\n")
    (docs / "repository_links.py").write_text((DOCS / "repository_links.py").read_text())
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(settings.partition("nav:")[0])
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "'../deploy/absent.yaml'" in done.stderr
    assert "mkdocs.yml'" not in done.stderr


def _links(page: Path) -> Iterator[str]:
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for link in re.finditer(r"\]\((?P<target>[^)\s]+)\)|(?:src|srcset)=\"(?P<image>[^\"\s]+)\"", text):
        target = link["target"] or link["image"]
        if "://" not in target:
            yield target


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "tests/data/README.md"])
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in _links(page):
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), f"{name}: {target}"
        if anchor:
            text = (page.parent / path).read_text(encoding="utf-8")
            assert anchor in {_slug(heading) for heading in re.findall(r"(?m)^#+ (.*)$", text)}, f"{name}: {target}"


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


def test_the_readme_leads_to_every_page() -> None:
    linked = {Path(target).name for target in _links(ROOT / "README.md")}
    assert {path.name for path in DOCS.glob("*.md")} - {"index.md"} <= linked


def test_the_first_screen_of_the_readme_shows_it_working() -> None:
    screen = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    for text in ("$ make serve", "$ make traffic", "http://localhost:9464/", "foldmint tokenize"):
        assert text in screen


def test_the_architecture_names_files_that_there_are() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = {name.replace("/…/", "/") for name in re.findall(r"`([\w/…]+(?:/|\.py|\.md|\.json|\.proto))`", page)}
    assert len(named) > 40
    folders = {f"/{file.rpartition('/')[0]}/" for file in listed}
    for name in named:
        tail = f"/{name.removeprefix('client/')}"
        assert any(f"/{file}".endswith(tail) for file in listed) or any(tail in folder for folder in folders), name
