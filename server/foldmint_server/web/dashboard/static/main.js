// The page: asks the server, and shows what it answers.

import { Connection } from "./data.js";
import { Devices } from "./devices.js";
import { byId, html, say } from "./dom.js";
import { FirstLook } from "./first.js";
import { count, duration, figure, NONE, percent, runs } from "./format.js";
import { HeatMap } from "./heatmap.js";
import { Lineage } from "./lineage.js";
import { Tail } from "./tail.js";
import { Course, perSecond } from "./traffic.js";
import { Looking, Usage } from "./usage.js";

const TOP = 10;

const looking = new Looking();
const connection = new Connection();
const map = new HeatMap(looking);
const tail = new Tail(looking);
const lineage = new Lineage();
const first = new FirstLook();
const devices = new Devices();
const courses = {
  residues: new Course("residues-chart", [{ tell: perSecond("residues") }]),
  structures: new Course("structures-chart", [{ tell: perSecond("structures") }]),
  refusals: new Course("refusals-chart", [{ tell: perSecond("structures or calls"), style: "refused" }]),
  latency: new Course("latency-chart", [
    { tell: (value) => `99 % within ${duration(value)}`, style: "second" },
    { tell: (value) => `half within ${duration(value)}` },
  ], { axis: duration, least: 0 }),
};
let usage = null;
let of = ""; // the scope and version of `usage`

connection.addEventListener("data", ({ usage: told, now }) => {
  const comparable = of === `${told.scope} ${told.codebook.version}`;
  of = `${told.scope} ${told.codebook.version}`;
  usage = new Usage(told.hits, told.evidence);
  document.title = `${told.model} ${told.codebook.version} · Foldmint`;
  say("model", told.model);
  say("version", told.codebook.version);
  say("residues", count(usage.total));
  say("window-name", `Last ${duration(told.window.seconds)}`);
  say("since", told.since === null ? `in the last ${duration(told.window.seconds)}` : `since ${new Date(1000 * told.since).toLocaleString()}`);
  follow(told);
  about(told, now);
  first.show(told);
  devices.show(told.devices);
  say("updated", `Updated ${new Date().toLocaleTimeString()}`);
  byId("code").max = told.hits.length - 1;
  figures(told);
  if (looking.chosen === null && usage.total) looking.chosen = usage.order[0];
  map.show(usage, comparable);
  tail.show(usage);
  top();
  unhit();
  readout();
  const swap = told.codebook.activated > told.started + 1 ? { back: now - told.codebook.activated, name: told.codebook.version } : null;
  const { traffic } = told;
  courses.residues.show([traffic.residues_per_second], traffic.interval, swap);
  courses.structures.show([traffic.structures_per_second], traffic.interval, swap);
  courses.refusals.show([traffic.refusals_per_second], traffic.interval, swap);
  courses.latency.show([traffic.latency_p99, traffic.latency_p50], traffic.interval, swap);
});

/** A line if the server serves something else than its store says, or serves a canary. */
function follow({ codebook, store }) {
  const canary = store.canary && codebook.version === store.canary.version;
  const lines = [];
  if (!store.follows) {
    lines.push(`This server serves codebook ${codebook.version}`, store.expected ? `; its store says ${store.expected}` : "");
    lines.push(store.problem ? `: ${store.problem}` : ".");
  } else if (canary) {
    lines.push(`Codebook ${codebook.version} is a canary on ${percent(store.canary.share)} of the servers; ${store.active} is active.`);
  }
  say("store-note", lines.join(""));
  byId("store-note").hidden = !lines.length;
}

/** Release, uptime, and where the documentation is. */
function about({ release, started, docs }, now) {
  say("about", `release ${release}, up ${duration(Math.max(0, Math.round(now - started)))}`);
  const pages = { page: "This page", metrics: "Metrics", runbook: "Runbook", settings: "Settings" };
  const node = byId("docs");
  if (node.dataset.docs === String(docs)) return;
  node.dataset.docs = String(docs);
  if (docs) {
    const links = Object.entries(pages).map(([name, text]) => {
      const link = html("a", "", text);
      link.href = `${docs}/${name}.html`;
      return link;
    });
    node.replaceChildren("Documentation: ", ...links);
  } else {
    node.textContent = `Documentation: ${Object.keys(pages).map((name) => `docs/${name}.md`).join(", ")}`;
  }
}

/** While too few residues were counted: how many, of how many. */
const few = (residues, needed) => `not enough residues yet: ${count(residues)} of ${count(needed)}`;

function figures({ window, hits, traffic }) {
  const over = `over ${duration(window.seconds)}`;
  say("utilization", percent(window.utilization));
  say("utilization-note", `of ${count(hits.length)} codes, ${over}`);
  say("perplexity", window.perplexity === null ? NONE : count(Math.round(window.perplexity)));
  say("perplexity-note", window.perplexity === null ? over : `as ${count(Math.round(window.perplexity))} codes used alike`);
  say("dead", count(window.proved_dead));
  say("dead-note", window.dead === null ? few(window.residues, usage.evidence.needed) : `of ${count(window.dead)} not hit ${over}`);
  const recent = (series) => (series.length ? series.slice(-2).reduce((sum, one) => sum + one, 0) / Math.min(2, series.length) : null);
  say("rate", figure(recent(traffic.residues_per_second)));
  say("rate-note", `${count(traffic.residues)} since start`);
  say("structures", figure(recent(traffic.structures_per_second)));
  say("structures-note", `${count(traffic.structures)} since start`);
  const { p50, p99 } = traffic.latency;
  say("latency", duration(p50));
  say("latency-note", p99 === null ? "none in the last minute" : `99 % within ${duration(p99)}`);
  say("load", `${count(traffic.in_flight)} in flight, ${count(traffic.queued_residues)} residues queued`);
}

function top() {
  const list = byId("top");
  const codes = usage.total ? usage.order.slice(0, TOP).filter((code) => usage.hits[code]) : [];
  while (list.children.length > codes.length) list.lastChild.remove();
  while (list.children.length < codes.length) {
    const [name, bar, hits] = [html("span", "name"), html("span", "bar", html("i")), html("span", "hits")];
    const button = html("button", "", name, bar, hits);
    button.type = "button";
    button.addEventListener("click", () => looking.choose(Number(button.dataset.code), "top"));
    list.append(html("li", "", button));
  }
  codes.forEach((code, place) => {
    const button = list.children[place].firstChild;
    const [name, bar, hits] = button.children;
    button.dataset.code = code;
    button.setAttribute("aria-label", `Code ${code}, ${count(usage.hits[code])} hits`);
    name.textContent = code;
    bar.firstChild.style.width = `${(100 * usage.hits[code]) / usage.most}%`;
    hits.textContent = count(usage.hits[code]);
  });
  if (!codes.length) list.replaceChildren();
}

function unhit() {
  const { unhit: codes, hits, dead, evidence } = usage;
  const proved = dead.size;
  byId("dead-swatch").hidden = !proved;
  const shown = proved || codes.length;
  say("unhit-title", codes.length ? `${count(shown)} ${shown === 1 ? "code" : "codes"} ${proved ? "never hit" : "not hit yet"}` : "Every code was hit");
  const others = codes.length - proved;
  const proof = [];
  if (!evidence.enough) proof.push(few(evidence.residues, evidence.needed));
  else if (others) proof.push(`${count(others)} ${proved ? "more " : ""}without a hit are so rare that chance may explain it`);
  say("unhit-proof", codes.length && proof.length ? `${proof.join(" ").replace(/^n/, "N")}.` : "");
  say("unhit-list", codes.length === hits.length ? "" : codes.length ? runs(proved ? codes.filter((code) => dead.has(code)) : codes) : "There is none to list.");
}

function readout() {
  const code = looking.code;
  if (!usage || code === null) return;
  const input = byId("code");
  if (document.activeElement !== input) input.value = code;
  say("r-hits", count(usage.hits[code]));
  say("r-share", percent(usage.share(code)));
  say("r-rank", usage.hits[code] ? count(usage.rank[code]) : NONE);
  say("r-even", figure(usage.even(code)));
}

looking.addEventListener("look", readout);

byId("code").addEventListener("input", (event) => {
  const code = event.target.valueAsNumber;
  if (usage && Number.isInteger(code) && code >= 0 && code < usage.hits.length) looking.choose(code, "input");
});

connection.addEventListener("lineage", ({ lineage: told, now }) => lineage.show(told, now));

connection.addEventListener("state", ({ state }) => {
  byId("status").dataset.state = state;
  say("status-text", { live: "Live", lost: "No answer, trying again", paused: "Paused" }[state]);
});

byId("pause").addEventListener("click", (event) => {
  const paused = event.target.getAttribute("aria-pressed") !== "true";
  event.target.setAttribute("aria-pressed", paused);
  connection.paused = paused;
});

for (const input of document.querySelectorAll("#scope input")) {
  input.addEventListener("change", () => connection.look(input.value));
}
connection.scope = document.querySelector("#scope input:checked").value; // browsers keep a choice over a reload
connection.start();
