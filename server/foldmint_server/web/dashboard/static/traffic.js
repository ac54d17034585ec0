// Courses over the last minutes: rates and latencies.

import { Chart } from "./chart.js";
import { byId, svg } from "./dom.js";
import { duration, figure, short } from "./format.js";

const SAMPLES = 150;

// The least of 1, 2, 5, 10, … and of their parts from `least` on, that is not below a value.
function nice(value, least) {
  if (value <= least) return least || 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value * (1 - 1e-9));
}

/** How a rate is told. */
export const perSecond = (unit) => (value) => `${figure(value)} ${unit} a second`;

const known = (value) => value !== null && value !== undefined;

export class Course extends Chart {
  page = 15;
  #lines;
  #axis;
  #least;
  #values = [];
  #interval = 2;
  #at = null;
  #swap = null;

  /**
   * node: its name. lines: of each, .tell: how a value is told, and .style, a class besides. axis: how the axis names a
   * value. least: below which the axis does not end.
   */
  constructor(node, lines, { axis = (value) => (value < 10 ? figure(value) : short(value)), least = 1 } = {}) {
    super(byId(node), 108, [10, 12, 20, 48]);
    this.#lines = lines;
    this.#axis = axis;
    this.#least = least;
    this.node.setAttribute("aria-valuemin", -SAMPLES + 1);
    this.node.setAttribute("aria-valuemax", 0);
    this.#tellReader(SAMPLES - 1);
  }

  /** values: of each line, the oldest first, up to now; null: not known. swap: how many seconds back another codebook came into use, and its name. */
  show(values, interval, swap) {
    this.#interval = interval;
    this.#swap = swap;
    this.#values = values.map((line) => [...new Array(Math.max(0, SAMPLES - line.length)).fill(null), ...line].slice(-SAMPLES));
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
    if (!this.#values.length) return;
    this.#at = index;
    this.#mark();
    this.#tellReader(index);
    this.tell(this.#x(index), this.#y(Math.max(...this.#values.map((line) => line[index] ?? 0))), this.#told(index));
  }

  leave() {
    super.leave();
    this.#at = null;
    this.#mark();
  }

  #told(index) {
    const back = (SAMPLES - 1 - index) * this.#interval;
    const lines = this.#lines.flatMap(({ tell }, line) => (known(this.#values[line]?.[index]) ? [tell(this.#values[line][index])] : []));
    return [...(lines.length ? lines.reverse() : ["not known"]), back ? `${duration(back)} ago` : "now"];
  }

  #tellReader(index) {
    this.node.setAttribute("aria-valuenow", index - SAMPLES + 1);
    this.node.setAttribute("aria-valuetext", this.#told(index).join(", "));
  }

  get #most() {
    return nice(Math.max(0, ...this.#values.flat().filter(known)), this.#least);
  }

  #x(index) {
    return this.left + (this.plotWidth * index) / (SAMPLES - 1);
  }

  #y(value) {
    return this.top + this.plotHeight * (1 - value / this.#most);
  }

  draw() {
    if (!this.width || !this.#values.length) return;
    const most = this.#most;
    const [base, right] = [this.top + this.plotHeight, this.left + this.plotWidth];
    const parts = [0, most / 2, most].flatMap((value) => {
      const y = this.#y(value);
      return [
        this.line(this.left, y, right, y, value ? "grid" : "axis"),
        this.text(this.left - 8, y + 4, value ? this.#axis(value) : "0", "tick", "end"),
      ];
    });
    this.#values.forEach((values, line) => parts.push(...this.#curves(values, this.#lines[line].style ?? "", base)));
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

  // A curve over each stretch of known values; areas only where there is one line.
  #curves(values, style, base) {
    const most = this.#most;
    const y = (value) => (this.top + this.plotHeight * (1 - value / most)).toFixed(1);
    const parts = [];
    for (let from = 0; from < values.length; from += 1) {
      if (!known(values[from])) continue;
      let to = from;
      while (known(values[to + 1])) to += 1;
      const points = values.slice(from, to + 1).map((value, index) => `${this.#x(from + index).toFixed(1)} ${y(value)}`);
      const path = `M${points.join("L")}${from === to ? "h0.1" : ""}`;
      if (this.#lines.length === 1) {
        parts.push(svg("path", { d: `${path}L${this.#x(to)} ${base}L${this.#x(from)} ${base}Z`, class: `area ${style}` }));
      }
      parts.push(svg("path", { d: path, class: `curve ${style}` }));
      from = to;
    }
    const last = values.at(-1);
    if (known(last)) parts.push(svg("circle", { cx: this.left + this.plotWidth, cy: y(last), r: 3, class: `end ${style}` }));
    return parts;
  }

  #mark() {
    const group = this.node.querySelector(".mark");
    if (!group) return;
    if (this.#at === null) return group.replaceChildren();
    const x = this.#x(this.#at);
    group.replaceChildren(this.line(x, this.top, x, this.top + this.plotHeight, "at"));
    for (const values of this.#values) {
      if (known(values[this.#at])) group.append(svg("circle", { cx: x, cy: this.#y(values[this.#at]), r: 4.5, class: "dot" }));
    }
  }
}
