"""Names that users rely on, of settings and of metrics, are those that were published."""

import json
import re

import pytest

from foldmint_server.settings import Settings
from helpers.support import DATA, ROOT

PUBLISHED = json.loads((DATA / "public-names.json").read_text())


def settings() -> list[str]:
    return list(Settings.model_fields)


def metrics() -> list[str]:
    """As the reference tells them, which tests/test_docs.py compares with the code."""
    return re.findall(r"^\| `([\w:]+)` \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("what", ["settings", "metrics"])
def test_no_name_that_was_published_is_missing(what: str) -> None:
    now = {"settings": settings, "metrics": metrics}[what]()
    assert sorted(set(PUBLISHED[what]) - set(now)) == []
    assert sorted(set(now) - set(PUBLISHED[what])) == [], "new names: add them to tests/data/public-names.json"
