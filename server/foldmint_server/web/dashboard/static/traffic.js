// Rates over the last minutes.

import { Chart } from "./chart.js";
import { byId, svg } from "./dom.js";
import { duration, figure, short } from "./format.js";

const SAMPLES = 150;

// The least of 1, 2, 5, 10, … that is not below a value.
function nice(value) {
  if (value <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}

export class Rates extends Chart {
  page = 15;
  #unit;
  #rates = [];
  #interval = 2;
  #at = null;
  #swap = null;

  /** unit: "residues" or "structures". */
  constructor(unit) {
    super(byId(`${unit}-chart`), 108, [10, 12, 20, 44]);
    this.#unit = unit;
    this.node.setAttribute("aria-valuemin", -SAMPLES + 1);
    this.node.setAttribute("aria-valuemax", 0);
    this.#tellReader(SAMPLES - 1);
  }

  /** rates: the oldest first, up to now. swap: how many seconds back another codebook came into use, and its name. */
  show(rates, interval, swap) {
    this.#interval = interval;
    this.#swap = swap;
    this.#rates = [...new Array(Math.max(0, SAMPLES - rates.length)).fill(null), ...rates].slice(-SAMPLES);
    this.draw();
    this.#tellReader(this.#at ?? SAMPLES - 1);
  }

  get range() {
    return { min: 0, max: SAMPLES - 1, value: this.#at ?? SAMPLES - 1 };
  }

  pointed(share) {
    this.moved(Math.round(share * (SAMPLES - 1)));
  }

  moved(index) {
    if (!this.#rates.length) return;
    this.#at = index;
    this.#mark();
    this.#tellReader(index);
    this.tell(this.#x(index), this.#y(this.#rates[index] ?? 0), this.#lines(index));
  }

  leave() {
    super.leave();
    this.#at = null;
    this.#mark();
  }

  #lines(index) {
    const [rate, back] = [this.#rates[index], (SAMPLES - 1 - index) * this.#interval];
    const when = back ? `${duration(back)} ago` : "now";
    return rate === null || rate === undefined ? ["not known", when] : [`${figure(rate)} ${this.#unit} a second`, when];
  }

  #tellReader(index) {
    this.node.setAttribute("aria-valuenow", index - SAMPLES + 1);
    this.node.setAttribute("aria-valuetext", this.#lines(index).join(", "));
  }

  #x(index) {
    return this.left + (this.plotWidth * index) / (SAMPLES - 1);
  }

  #y(rate) {
    const most = nice(Math.max(...this.#rates.map((one) => one ?? 0)));
    return this.top + this.plotHeight * (1 - rate / most);
  }

  draw() {
    if (!this.width || !this.#rates.length) return;
    const most = nice(Math.max(...this.#rates.map((one) => one ?? 0)));
    const [base, right] = [this.top + this.plotHeight, this.left + this.plotWidth];
    const parts = [0, most / 2, most].flatMap((value) => {
      const y = this.#y(value);
      return [
        this.line(this.left, y, right, y, value ? "grid" : "axis"),
        this.text(this.left - 8, y + 4, value < 10 ? figure(value) : short(value), "tick", "end"),
      ];
    });
    const first = this.#rates.findIndex((rate) => rate !== null);
    const y = (rate) => (this.top + this.plotHeight * (1 - rate / most)).toFixed(1);
    const points = this.#rates.slice(first).map((rate, index) => `${this.#x(first + index).toFixed(1)} ${y(rate)}`);
    if (first >= 0) {
      const path = `M${points.join("L")}`;
      parts.push(
        svg("path", { d: `${path}L${right} ${base}L${this.#x(first)} ${base}Z`, class: "area" }),
        svg("path", { d: path, class: "curve" }),
        svg("circle", { cx: right, cy: y(this.#rates.at(-1)), r: 3, class: "end" }),
      );
    }
    const seconds = (SAMPLES - 1) * this.#interval;
    for (const [share, text, anchor] of [
      [0, `${duration(Math.round(seconds / 60) * 60)} ago`, "start"],
      [1, "now", "end"],
    ]) {
      parts.push(this.text(this.left + share * this.plotWidth, base + 16, text, "tick", anchor));
    }
    if (this.#swap && this.#swap.back < seconds) {
      const x = right - (this.plotWidth * this.#swap.back) / seconds;
      const late = right - x < 90;
      parts.push(
        this.line(x, this.top - 6, x, base, "half"),
        this.text(late ? x - 5 : x + 5, this.top + 3, `codebook ${this.#swap.name}`, "label", late ? "end" : "start"),
      );
    }
    this.put(...parts, svg("g", { class: "mark" }));
    this.#mark();
  }

  #mark() {
    const group = this.node.querySelector(".mark");
    if (!group) return;
    if (this.#at === null) return group.replaceChildren();
    const [x, rate] = [this.#x(this.#at), this.#rates[this.#at]];
    group.replaceChildren(this.line(x, this.top, x, this.top + this.plotHeight, "at"));
    if (rate !== null && rate !== undefined) group.append(svg("circle", { cx: x, cy: this.#y(rate), r: 4.5, class: "dot" }));
  }
}
