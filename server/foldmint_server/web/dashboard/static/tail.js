// The long tail: codes by rank, hits on a log scale.

import { Chart } from "./chart.js";
import { byId, say, svg } from "./dom.js";
import { count, figure, percent, short } from "./format.js";
import { lines } from "./heatmap.js";

export class Tail extends Chart {
  page = 64;
  #looking;
  #usage = null;

  constructor(looking) {
    super(byId("tail"), 232, [14, 12, 34, 44]);
    this.#looking = looking;
    looking.addEventListener("look", () => this.#mark());
  }

  show(usage) {
    this.#usage = usage;
    const whole = usage.total > 0;
    say(
      "tail-lead",
      whole ? `${count(usage.half)} codes, ${percent(usage.half / usage.hits.length)}, carry half of all residues` : "Nothing was counted yet",
    );
    this.node.setAttribute("aria-valuemax", usage.hits.length);
    this.draw();
  }

  get range() {
    const code = this.#looking.code;
    return { min: 1, max: this.#usage?.hits.length ?? 1, value: code === null || !this.#usage ? 1 : this.#usage.rank[code] };
  }

  pointed(share, chosen) {
    if (!this.#usage) return;
    const rank = 1 + Math.round(share * (this.#usage.hits.length - 1));
    const code = this.#usage.order[rank - 1];
    if (chosen) this.#looking.choose(code, "tail");
    else this.#looking.hover(code, "tail");
    this.#tell(code);
  }

  moved(rank) {
    if (!this.#usage) return;
    const code = this.#usage.order[rank - 1];
    this.#looking.choose(code, "tail");
    this.#tell(code);
  }

  leave() {
    super.leave();
    this.#looking.hover(null, "tail");
  }

  #tell(code) {
    this.tell(this.#x(this.#usage.rank[code]), this.#y(this.#usage.hits[code]), lines(this.#usage, code));
  }

  // Powers of ten from below one hit, so that a single hit is seen, to the most.
  #y(hits) {
    const high = Math.log10(Math.max(10, this.#usage.most)) + 0.15;
    const place = hits ? (Math.log10(hits) + 0.3) / (high + 0.3) : 0;
    return this.top + this.plotHeight * (1 - place);
  }

  #x(rank) {
    return this.left + (this.plotWidth * (rank - 1)) / Math.max(1, this.#usage.hits.length - 1);
  }

  draw() {
    const usage = this.#usage;
    if (!usage || !this.width) return;
    const base = this.top + this.plotHeight;
    const right = this.left + this.plotWidth;
    const codes = usage.hits.length;
    const parts = [];
    for (let power = 1; power <= Math.max(10, usage.most); power *= 10) {
      const y = this.#y(power);
      parts.push(this.line(this.left, y, right, y, "grid"), this.text(this.left - 8, y + 4, short(power), "tick", "end"));
    }
    const used = codes - usage.unhit.length;
    if (used < codes && used > 0) {
      const x = this.#x(used + 1);
      parts.push(svg("rect", { x, y: this.top, width: Math.max(1, right - x), height: this.plotHeight, class: usage.dead.size ? "unhit" : "unhit yet" }));
      const text = usage.dead.size ? `${count(usage.dead.size)} never hit` : `${count(codes - used)} not hit yet`;
      if (right - x > 96) parts.push(this.text((x + right) / 2, this.top + 16, text, usage.dead.size ? "note" : "tick", "middle"));
    }
    if (used) {
      let path = `M${this.#x(1)} ${this.#y(usage.most)}`;
      for (let rank = 2; rank <= used; rank += 1) {
        const [before, hits] = [usage.hits[usage.order[rank - 2]], usage.hits[usage.order[rank - 1]]];
        if (hits !== before || rank === used) path += `L${this.#x(rank).toFixed(1)} ${this.#y(before).toFixed(1)}V${this.#y(hits).toFixed(1)}`;
      }
      parts.push(
        svg("path", { d: `${path}V${base}H${this.left}Z`, class: "area" }),
        svg("path", { d: path, class: "curve" }),
      );
      const even = this.#y(usage.total / codes);
      parts.push(
        this.line(this.left, even, right, even, "even"),
        this.text(right - 6, even - 6, `even share, ${figure(usage.total / codes)}`, "label", "end"),
      );
      const half = this.#x(usage.half);
      parts.push(this.line(half, base, half, this.#y(usage.hits[usage.order[usage.half - 1]]), "half"));
      parts.push(this.text(half + 5, base - 7, "half of all residues", "label"));
    }
    parts.push(this.line(this.left, base, right, base, "axis"));
    const quarter = codes / 4;
    for (const rank of [1, quarter, 2 * quarter, 3 * quarter, codes].map(Math.round)) {
      const anchor = rank === 1 ? "start" : rank === codes ? "end" : "middle";
      parts.push(this.text(this.#x(rank), base + 16, count(rank), "tick", anchor));
    }
    parts.push(this.text(this.left + this.plotWidth / 2, base + 31, "rank", "tick", "middle"));
    this.put(...parts, svg("g", { class: "mark" }));
    this.#mark();
  }

  #mark() {
    const [group, code, usage] = [this.node.querySelector(".mark"), this.#looking.code, this.#usage];
    if (!group || !usage) return;
    if (code === null) return group.replaceChildren();
    const [x, y] = [this.#x(usage.rank[code]), this.#y(usage.hits[code])];
    group.replaceChildren(this.line(x, this.top, x, this.top + this.plotHeight, "at"), svg("circle", { cx: x, cy: y, r: 4.5, class: "dot" }));
    this.node.setAttribute("aria-valuenow", usage.rank[code]);
    this.node.setAttribute("aria-valuetext", `Rank ${usage.rank[code]}: ${lines(usage, code).slice(0, 2).join(", ")}`);
  }
}
