"""The server's page in a real browser: what it shows of a server, and what it does when that changes."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
import trustme
from playwright.sync_api import Browser, expect

from foldmint.v1 import codebook_pb2, tokenizer_pb2
from foldmint_server.security.bearer_tokens import AccessToken, digest_of, format_tokens
from foldmint_tokenizer.codebook import Codebook, nearest_code
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.engine import Engine
from foldmint_tokenizer.neighborhoods import build_geometry
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.model_store import create_store
from helpers.chains import RealChain
from helpers.dashboard_page import COUNT_RINGS, centre, hits_of, opened, ranked, text
from helpers.support import ROOT, RunningServer, admin_of, metrics_of, running_server, stub_of
from helpers.traffic import streamed
from helpers.waiting import wait_until

pytestmark = pytest.mark.slow


def test_figures_are_those_of_the_metrics(browser: Browser, counting: RunningServer) -> None:
    with opened(browser, counting) as page:
        metrics, hits = metrics_of(counting), hits_of(counting)
        assert text(page, "residues") == f"{sum(hits):,}"
        assert text(page, "utilization") == f"{100 * metrics['foldmint_code_utilization_ratio']:.1f} %"
        assert text(page, "perplexity") == f"{round(metrics['foldmint_code_perplexity']):,}"
        assert text(page, "dead") == "–"
        assert text(page, "dead-note") == f"not enough residues yet: {sum(hits):,} of 40,960"
        assert text(page, "rate-note") == f"{sum(hits):,} since start"
        assert text(page, "structures-note") == "30 since start"
        assert text(page, "model") == "versions"
        assert text(page, "version") == "000001"
        order, unhit = ranked(hits), [code for code in range(4096) if not hits[code]]
        assert page.locator("#top .name").all_inner_texts() == [str(code) for code in order[:10]]
        assert page.locator("#top .hits").all_inner_texts() == [str(hits[code]) for code in order[:10]]
        page.locator("#unhit summary").click()
        assert text(page, "unhit-title") == f"{len(unhit):,} codes not hit yet"
        assert text(page, "unhit-proof") == f"Not enough residues yet: {sum(hits):,} of 40,960."
        listed: list[int] = []
        for run in text(page, "unhit-list").split(", "):
            first, _, last = run.partition("–")
            listed += range(int(first), int(last or first) + 1)
        assert listed == unhit
        half = next(place for place in range(4096) if 2 * sum(hits[code] for code in order[:place]) >= sum(hits))
        assert text(page, "tail-lead").startswith(f"{half:,} codes, ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cells_tell_hits_by_color(browser: Browser, counting: RunningServer, scheme: Any) -> None:
    """In light darker, in dark brighter, the more hits; and what was never hit is like none of them."""
    with opened(browser, counting, color_scheme=scheme) as page:
        colors = page.evaluate(
            """() => {
              const canvas = document.getElementById("heat");
              const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              const cell = canvas.width / 64;
              return Array.from({length: 4096}, (_, code) => {
                const at = 4 * ((Math.floor(code / 64) * cell + 1) * canvas.width + (code % 64) * cell + 1);
                return [...data.slice(at, at + 4)];
              });
            }"""
        )
    hits = hits_of(counting)
    by_hits: dict[int, set[tuple[int, ...]]] = {}
    for code, color in enumerate(colors):
        by_hits.setdefault(hits[code], set()).add(tuple(color))
    assert all(len(same) == 1 for same in by_hits.values())
    (never,) = by_hits.pop(0)
    assert all(never not in same for same in by_hits.values())
    light = [sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), *by_hits[n], strict=False)) for n in sorted(by_hits)]
    assert len(light) > 5
    assert light == sorted(light, reverse=scheme == "light")
    assert abs(light[-1] - light[0]) > 120


def test_hover_tells_of_a_code(browser: Browser, counting: RunningServer) -> None:
    hits = hits_of(counting)
    order = ranked(hits)
    with opened(browser, counting) as page:
        code = order[100]
        page.mouse.move(*centre(page, code))
        tip = page.locator("#tip")
        expect(tip).to_contain_text(f"Code {code}")
        expect(tip).to_contain_text(f"{hits[code]} hits")
        expect(tip).to_contain_text("rank 101")
        assert text(page, "r-hits") == str(hits[code])
        assert text(page, "r-rank") == "101"
        expect(page.locator("#tail")).to_have_attribute("aria-valuenow", "101")
        page.mouse.move(*centre(page, hits.index(0)))
        expect(tip).to_contain_text("not hit yet")
        page.mouse.move(5, 5)
        expect(tip).to_be_hidden()
        expect(page.locator("#code")).to_have_value(str(order[0]))
        page.mouse.click(*centre(page, code))
        page.mouse.move(5, 5)
        expect(page.locator("#code")).to_have_value(str(code))
        # The other way: from the tail to the map.
        box = page.locator("#tail").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 44 + (box["width"] - 56) / 2, box["y"] + 50)
        expect(page.locator("#r-rank")).to_have_text(re.compile(r"^2,04\d$"))


_BASELINE = """node => {
  const mark = document.createElement("span");
  mark.style.display = "inline-block";
  node.append(mark);
  const line = mark.getBoundingClientRect().bottom;
  mark.remove();
  return line;
}"""


def test_what_stands_side_by_side_stands_on_one_line(browser: Browser, counting: RunningServer) -> None:
    """The bars of the most used codes in the middle of their numbers; the field of a code beside its figures."""
    with opened(browser, counting) as page:
        expect(page.locator("#r-hits")).not_to_have_text("–")
        rows = page.locator(".top button")
        expect(rows).not_to_have_count(0)
        for row in range(rows.count()):
            line = rows.nth(row).locator(".name").evaluate(_BASELINE)
            bar = rows.nth(row).locator(".bar i").bounding_box()
            assert bar is not None
            assert bar["y"] + bar["height"] == pytest.approx(line - 1, abs=0.5)
        top = """node => {
          const style = getComputedStyle(node);
          return node.getBoundingClientRect().top + parseFloat(style.borderTopWidth) + parseFloat(style.paddingTop);
        }"""
        tops = [page.locator(part).evaluate(top) for part in ("#code", "#r-hits", "#r-share", "#r-rank", "#r-even")]
        assert tops == pytest.approx([tops[0]] * 5, abs=0.5)


def test_it_is_live(browser: Browser, counting: RunningServer, short: list[RealChain]) -> None:
    with opened(browser, counting) as page, stub_of(counting) as stub:
        page.evaluate(COUNT_RINGS)
        before = sum(hits_of(counting))
        sent = streamed(stub, short)
        expect(page.locator("#residues")).to_have_text(f"{before + sent:,}")
        page.wait_for_timeout(200)
        assert page.evaluate("window.rings") > 100
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#status-text")).to_have_text("Paused")
        sent += streamed(stub, short)
        page.wait_for_timeout(3000)
        assert text(page, "residues") == f"{before + sent // 2:,}"
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#residues")).to_have_text(f"{before + sent:,}")
        expect(page.locator("#status-text")).to_have_text("Live")


@pytest.fixture(scope="module")
def few_codes(tmp_path_factory: pytest.TempPathFactory, chains: list[RealChain]) -> Path:
    """A store of 32 codes, as frequent as real chains have them, and of one far from all, said to be no rarer."""
    torch.manual_seed(0)
    encoder = Encoder(ModelConfig(width=16, heads=2, layers=1, out=8, codes=33))
    shapes = [build_geometry(chain.coordinates, chain.residue_index) for chain in chains[:20]]
    engine = Engine(encoder)
    z = torch.cat([engine.vectors(shape.rows(slice(None))) for shape in shapes])
    vectors = torch.cat([z[torch.randperm(len(z))[:32]], z.mean(0, keepdim=True) + 1e4])
    hits = torch.bincount(nearest_code(z, vectors)[0], minlength=33).float()
    hits[32] = hits.mean()
    path = tmp_path_factory.mktemp("few") / "store"
    codebook = Codebook(vectors, hits, vectors * hits[:, None])
    create_store(path, name="few", encoder=encoder, codebook=codebook, about={})
    return path


def test_what_to_do_first(browser: Browser, few_codes: Path, tmp_path: Path, short: list[RealChain]) -> None:
    """The command that the page shows works as it is, but for the file's name, and the hint goes with its answer."""
    with running_server("--model", str(few_codes)) as server, opened(browser, server) as page:
        first = page.locator("#first")
        expect(first).to_be_visible()
        port = server.address.rpartition(":")[2]
        command = text(page, "command")
        assert command == f"foldmint tokenize STRUCTURE.cif --server 127.0.0.1:{port}"
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.get_by_role("button", name="Copy").click()
        expect(page.locator("#copy")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == command
        assert not page.locator("#dead-swatch").is_visible()
        (name, *arguments) = command.replace("STRUCTURE.cif", str(ROOT / "examples/1a8o.cif.gz")).split()
        subprocess.run([Path(sys.executable).with_name(name), *arguments], check=True, capture_output=True)
        expect(first).to_be_hidden()


def test_callers_that_need_tls_and_a_token_are_told(browser: Browser, few_codes: Path, tmp_path: Path) -> None:
    ca, tokens = trustme.CA(), tmp_path / "tokens.toml"
    pair = ca.issue_cert("localhost")
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tokens.write_text(format_tokens([AccessToken("alice", digest_of("x"), frozenset({"tokenize"}))]))
    arguments = ["--model", str(few_codes), "--tokens-file", str(tokens), "--docs-url", "https://docs.example.org/x/"]
    arguments += ["--tls-server-certificate", str(tmp_path / "cert.pem"), "--tls-server-key", str(tmp_path / "key.pem")]
    with running_server(*arguments) as server, opened(browser, server) as page:
        assert text(page, "command").endswith(" --tls-ca CERTIFICATE.pem --token-file TOKEN")
        assert "foldmint-server tokens create NAME --scope tokenize > TOKEN" in text(page, "first-note")
        links = page.locator("#docs a").evaluate_all("nodes => nodes.map(node => node.href)")
        pages = ("page", "metrics", "runbook", "settings")
        assert links == [f"https://docs.example.org/x/{name}.html" for name in pages]
        assert all((ROOT / f"docs/{name}.md").exists() for name in pages)


def test_never_hit_is_said_once_it_is_proved(browser: Browser, few_codes: Path, chains: list[RealChain]) -> None:
    """Not of a code of which there were too few residues to tell; the rule is the one of the metrics and of repairs."""
    short = min(chains, key=lambda chain: len(chain.sequence))
    with (
        running_server("--model", str(few_codes)) as server,
        opened(browser, server) as page,
        stub_of(server) as stub,
    ):
        few = streamed(stub, [short])
        assert few < 330
        expect(page.locator("#unhit-proof")).to_have_text(f"Not enough residues yet: {few} of 330.")
        expect(page.locator("#unhit-title")).to_contain_text("not hit yet")
        assert not page.locator("#dead-swatch").is_visible()
        assert page.locator("#tail .unhit:not(.yet)").count() == 0
        streamed(stub, chains[:20])
        page.locator("#unhit summary").click()
        expect(page.locator("#unhit-title")).to_have_text("1 code never hit")
        expect(page.locator("#dead")).to_have_text("1")
        expect(page.locator("#dead-note")).to_have_text("of 1 not hit over 60 min")
        expect(page.locator("#unhit-list")).to_have_text("32")
        expect(page.locator("#dead-swatch")).to_be_visible()
        expect(page.locator("#tail .unhit:not(.yet)")).to_have_count(1)
        page.locator("#code").fill("31")
        page.locator("#map").focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#said")).to_have_text("Code 32: never hit")


def test_devices_refusals_latency_and_release(browser: Browser, counting: RunningServer) -> None:
    with opened(browser, counting) as page, stub_of(counting) as stub:
        with pytest.raises(grpc.RpcError, match="unknown format"):
            stub.Tokenize(tokenizer_pb2.TokenizeRequest(file=tokenizer_pb2.StructureFile(content=b"junk")))
        cells = page.locator("#devices tr")
        rows = [row.inner_text().split() for row in cells.all()]
        assert [(row[0], row[1].rstrip(",")) for row in rows] == [("cpu", "encodes"), ("cpu", "decodes")]
        metrics = metrics_of(counting)
        assert metrics['foldmint_batch_duration_seconds_sum{device="cpu"}'] > 0
        assert f"release {version('foldmint')}, up " in text(page, "about")
        assert "docs/runbook.md" in text(page, "docs")
        refusals = page.locator("#refusals-chart")
        refusals.focus()

        def seen() -> bool:
            """Whether a refusal is somewhere on the chart, which keys walk along."""
            page.keyboard.press("End")
            for _ in range(20):
                if not (refusals.get_attribute("aria-valuetext") or "").startswith(("0 ", "not known")):
                    return True
                page.keyboard.press("ArrowLeft")
            return False

        wait_until(seen)
        assert "structures or calls a second" in (refusals.get_attribute("aria-valuetext") or "")
        latency = page.locator("#latency-chart")
        assert latency.locator("path.curve").count() >= 2
        assert latency.locator("path.curve.second").count() >= 1


def test_a_server_that_does_not_answer(browser: Browser, counting: RunningServer) -> None:
    """What was shown stays, the page says so, and goes on by itself. What the browser logs of it is its own."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{counting.metrics}/")
    expect(page.locator("#status-text")).to_have_text("Live", timeout=20_000)
    residues = text(page, "residues")
    context.set_offline(True)
    expect(page.locator("#status-text")).to_have_text("No answer, trying again", timeout=20_000)
    assert text(page, "residues") == residues
    context.set_offline(False)
    expect(page.locator("#status-text")).to_have_text("Live", timeout=20_000)
    context.close()


def test_a_swap_is_seen(browser: Browser, counting: RunningServer, short: list[RealChain]) -> None:
    """Last, since it changes what the server serves."""
    with opened(browser, counting) as page, admin_of(counting) as admin, stub_of(counting) as stub:
        rows = page.locator("#lineage li")
        assert rows.locator("b").all_inner_texts() == [f"{number:06d}" for number in range(8, 0, -1)]
        expect(page.locator("#lineage li.active b")).to_have_text("000001")
        admin.ActivateCodebook(codebook_pb2.ActivateCodebookRequest(version="000002"))
        sent = streamed(stub, short)
        expect(page.locator("#version")).to_have_text("000002")
        expect(page.locator("#lineage li.active b")).to_have_text("000002")
        expect(page.locator("#lineage li.kept b")).to_have_text("000001")
        expect(page.locator("#lineage li.active .story")).to_contain_text("from 000001")
        assert page.locator("#lineage svg circle").count() == 8
        assert page.locator("#lineage svg path").count() == 7
        expect(page.locator("#residues")).to_have_text(f"{sent:,}")
        page.get_by_role("radio", name="Since start").check()
        expect(page.locator("#residues")).to_have_text(f"{sum(hits_of(counting)):,}")
        expect(page.locator("#residues-chart")).to_contain_text("codebook 000002")
