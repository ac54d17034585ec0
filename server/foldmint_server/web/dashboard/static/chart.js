// What the charts share: an SVG as wide as its place, a plot within margins, and a mark that pointer and keys move.

import { svg, tip } from "./dom.js";

export class Chart {
  /** node: where it is drawn. least: its height in CSS pixels, if nothing stretches it. margin: top, right, bottom, left. */
  constructor(node, least, margin) {
    this.node = node;
    node.style.minHeight = `${least}px`;
    this.height = least;
    [this.top, this.right, this.bottom, this.left] = margin;
    this.width = 0;
    new ResizeObserver(() => {
      if (node.clientWidth === this.width && node.clientHeight === this.height) return;
      [this.width, this.height] = [node.clientWidth, node.clientHeight];
      this.draw();
    }).observe(node);
    node.addEventListener("pointermove", (event) => event.pointerType !== "touch" && this.#point(event, false));
    node.addEventListener("click", (event) => this.#point(event, true));
    node.addEventListener("pointerleave", () => this.leave());
    node.addEventListener("keydown", (event) => this.#key(event));
    node.addEventListener("blur", () => this.leave());
  }

  get plotWidth() {
    return Math.max(1, this.width - this.left - this.right);
  }

  get plotHeight() {
    return this.height - this.top - this.bottom;
  }

  /** Replace the drawing. */
  put(...children) {
    const { width, height } = this;
    this.node.replaceChildren(svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...children));
  }

  text(x, y, content, style = "tick", anchor = "start") {
    return svg("text", { x, y, class: style, "text-anchor": anchor }, content);
  }

  line(x1, y1, x2, y2, style) {
    return svg("line", { x1, y1, x2, y2, class: style });
  }

  /** The tip above a point of the plot. */
  tell(x, y, lines) {
    const box = this.node.getBoundingClientRect();
    tip(box.left + x, box.top + y, lines);
  }

  leave() {
    tip();
  }

  #point(event, chosen) {
    const x = event.clientX - this.node.getBoundingClientRect().left - this.left;
    this.pointed(Math.min(1, Math.max(0, x / this.plotWidth)), chosen);
  }

  #key(event) {
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -this.page, PageUp: this.page };
    const { min, max, value } = this.range;
    const to = { Home: min, End: max }[event.key] ?? value + (steps[event.key] ?? 0);
    if (!(event.key in steps || ["Home", "End"].includes(event.key)) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.moved(Math.min(max, Math.max(min, to)));
  }
}
