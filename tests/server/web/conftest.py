"""Fixtures of the page's tests: a browser, and a server that has counts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from helpers.chains import RealChain
from helpers.support import RunningServer, missing, running_server, stub_of
from helpers.traffic import streamed


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        missing("Debian's package chromium", "`apt-get install chromium` installs it")
    with sync_playwright() as playwright:
        # Root, as CI is, has no sandbox.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def counting(versions_copy: Path, chains: list[RealChain]) -> Iterator[RunningServer]:
    """A server of eight versions that has tokenized real chains."""
    with running_server("--model", str(versions_copy), "--poll-seconds", "0") as server, stub_of(server) as stub:
        streamed(stub, chains[:30])
        yield server
