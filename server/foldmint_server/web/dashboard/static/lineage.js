// Where the codebook comes from: a row for each version, and a line from each to its parent.

import { byId, html, say, svg } from "./dom.js";
import { ago, count } from "./format.js";

const SHOWN = 12;

export class Lineage {
  #lineage = null;
  #all = false;
  #now = 0;

  constructor() {
    this.node = byId("lineage");
    new ResizeObserver(() => this.#lines()).observe(this.node);
  }

  /** now: the server's time, in seconds since 1970. */
  show(lineage, now) {
    this.#lineage = lineage;
    this.#now = now;
    const { versions, store } = lineage;
    const kept = versions.filter((version) => version.kept).length;
    say(
      "lineage-lead",
      store
        ? `${count(versions.length)} ${versions.length === 1 ? "version" : "versions"} known, ${count(kept)} kept in memory`
        : `The store cannot be read now; ${count(kept)} kept in memory`,
    );
    const shown = this.#all ? versions : versions.slice(0, SHOWN);
    const list = html("ol", "versions", ...shown.map((version) => this.#row(version)));
    this.node.replaceChildren(list);
    if (shown.length < versions.length) {
      const more = html("button", "more", `Show ${count(versions.length - shown.length)} older`);
      more.type = "button";
      more.addEventListener("click", () => {
        this.#all = true;
        this.show(this.#lineage, this.#now);
      });
      this.node.append(more);
    }
    this.#lines();
  }

  #row(version) {
    const state = version.active ? "active" : version.kept ? "kept" : "stored";
    const words = { active: "in use", kept: "in memory", stored: "in the store" };
    const story = [];
    if (version.damaged) story.push("its manifest cannot be read");
    if (version.parent) story.push(`from ${version.parent}`);
    if (version.replaced !== null) story.push(`${count(version.replaced)} ${version.replaced === 1 ? "code" : "codes"} moved`);
    else if (version.made_by) story.push(`by ${version.made_by}`);
    if (!version.parent && !version.damaged) story.push("the first of its line");
    if (version.created && !Number.isNaN(Date.parse(version.created))) story.push(`made ${ago(Date.parse(version.created) / 1000, this.#now)}`);
    if (version.activated !== null) story.push(`activated ${ago(version.activated, this.#now)}`);
    const row = html(
      "li",
      state,
      html("b", "", version.version),
      html("span", "state", words[state]),
      html("span", "story", story.join(" · ")),
    );
    row.dataset.version = version.version;
    if (version.active) row.setAttribute("aria-current", "true");
    return row;
  }

  /** A node for each row, and arcs to the parents; those that are not shown have none. */
  #lines() {
    const list = this.node.querySelector("ol");
    if (!list) return;
    list.querySelector("svg")?.remove();
    const rows = new Map([...list.querySelectorAll("li")].map((row) => [row.dataset.version, row]));
    const order = [...rows.keys()];
    const middle = (version) => {
      const row = rows.get(version);
      const title = row.querySelector("b");
      return row.offsetTop + title.offsetTop + title.offsetHeight / 2;
    };
    const [x, parts] = [30, []];
    for (const version of this.#lineage.versions) {
      const [from, to] = [order.indexOf(version.version), order.indexOf(version.parent)];
      if (from < 0 || to < 0) continue;
      const [y1, y2] = [middle(version.version), middle(version.parent)];
      const bow = Math.min(26, 6 + 5 * (Math.abs(to - from) - 1));
      const path = Math.abs(to - from) === 1 ? `M${x} ${y1}V${y2}` : `M${x} ${y1}C${x - bow} ${y1 + 12} ${x - bow} ${y2 - 12} ${x} ${y2}`;
      parts.push(svg("path", { d: path, class: "descent" }));
    }
    for (const [version, row] of rows) {
      parts.push(svg("circle", { cx: x, cy: middle(version), r: row.className === "active" ? 7 : 5, class: `node ${row.className}` }));
    }
    list.append(svg("svg", { width: 44, height: list.clientHeight, "aria-hidden": "true" }, ...parts));
  }
}
