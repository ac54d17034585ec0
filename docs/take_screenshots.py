"""Pictures of the server's own page: docs/page-light.png, docs/page-dark.png and docs/page-phone.png.

python docs/take_screenshots.py [SET.parquet] [--out DIR]

A server of a copy of the default model tokenizes a set's chains, its codebook is repaired and swapped, and it goes on
with the chains; then Debian's chromium looks at its page. The set is the tests' own unless another is given. The
pictures in this folder were taken with Debian's fonts-inter.
"""

import argparse
import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from foldmint_client import Backbone, Client
from foldmint_maintenance.datasets.records import Record, read_parquet
from foldmint_tokenizer.store.model_store import DEFAULT

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class _Picture:
    """size: of the window, in CSS pixels. scale: device pixels to one. whole: the page, or what the window shows."""

    name: str
    scheme: str
    size: tuple[int, int]
    scale: float
    whole: bool


_PICTURES = (
    _Picture("page-light.png", "light", (1280, 900), 1.25, whole=True),
    _Picture("page-dark.png", "dark", (1280, 900), 1.25, whole=True),
    _Picture("page-phone.png", "light", (390, 844), 2, whole=False),
)


@contextmanager
def _server(store: Path) -> Iterator[tuple[str, str, str]]:
    """A server on free ports; the addresses of the service, of the page and of the operators' service."""
    command = [sys.executable, "-m", "foldmint_server.cli", "--model", str(store), "--log-level", "warning"]
    for name in ("listen", "metrics-listen", "admin-listen"):
        command += [f"--{name}", "127.0.0.1:0"]
    command += ["--insecure-admin"]  # the repair activates its codebook
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            lines = [line.strip() for line in itertools.islice(process.stdout or (), 3)]
            if len(lines) < 3:
                raise SystemExit("the server did not start; its log is above")
            service, page, admin = (line.split()[-1] for line in lines)
            yield service, page, admin
        finally:
            process.terminate()


def _tokenize(address: str, chains: list[Record], rounds: int, told: threading.Event) -> None:
    """Chains in an order of their own each round, one after another, with pauses; until told to stop."""
    drawn = random.Random(0)  # noqa: S311
    with Client(address) as client:
        for _ in range(rounds):
            for chain in drawn.sample(chains, len(chains)):
                if told.is_set():
                    return
                client.tokenize([Backbone(chain.coordinates, residue_index=chain.residue_index)])
                time.sleep(drawn.expovariate(10))


@contextmanager
def _traffic(address: str, chains: list[Record]) -> Iterator[None]:
    """One more caller for as long as this lasts."""
    told = threading.Event()
    caller = threading.Thread(target=_tokenize, args=(address, chains, 1000, told))
    caller.start()
    try:
        yield
    finally:
        told.set()
        caller.join()


def _repair(store: Path, data: Path, admin: str) -> None:
    command = [sys.executable, "-m", "foldmint_maintenance.cli", "repair", "--store", str(store), "--data", str(data)]
    command += ["--servers", admin, "--activate", admin, "--measure", "frequency", "--row-steps", "20"]
    subprocess.run(command, check=True)  # noqa: S603


def _take(page_address: str, out: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture in _PICTURES:
            width, height = picture.size
            context = browser.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=picture.scale,
                color_scheme="dark" if picture.scheme == "dark" else "light",
                has_touch=width < 600,
            )
            page = context.new_page()
            page.goto(f"http://{page_address}/")
            page.wait_for_selector("#status[data-state=live]")
            page.wait_for_selector("#lineage li")
            if width >= 600:  # with a mouse, which points at a code
                # A window as high as the page: one that grew for the picture would take the tip away.
                height = page.evaluate("document.documentElement.scrollHeight")
                page.set_viewport_size({"width": width, "height": height})
                page.wait_for_function("document.getElementById('r-hits').textContent !== '–'")
                page.hover("#cells", position={"x": 415, "y": 345})
                page.wait_for_selector("#tip", state="visible")
            page.wait_for_timeout(500)
            page.screenshot(path=out / picture.name, full_page=picture.whole)
            # Few colors: a palette holds them in half the bytes.
            with Image.open(out / picture.name) as image:
                colors = image.convert("RGB").quantize(
                    256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
                )
                colors.save(out / picture.name, optimize=True)
            sys.stdout.write(f"{out / picture.name}: {(out / picture.name).stat().st_size / 1024:.0f} KiB\n")
            context.close()
        browser.close()


def main() -> None:
    """Make the traffic, then the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "tests/data/chains.parquet")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each chain is sent before the repair, and after it"
    )
    given = parser.parse_args()
    if shutil.which("chromium") is None:
        raise SystemExit("chromium is missing; `apt-get install chromium` installs it")
    chains = list(read_parquet(given.data))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        shutil.copytree(DEFAULT, store)
        with _server(store) as (service, page, admin):
            _tokenize(service, chains, given.rounds, threading.Event())
            _repair(store, given.data, admin)
            _tokenize(service, chains, given.rounds, threading.Event())
            with _traffic(service, chains):
                time.sleep(5)
                _take(page, given.out)


if __name__ == "__main__":
    main()
