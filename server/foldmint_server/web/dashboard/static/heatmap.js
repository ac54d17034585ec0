// The heat map: a cell for each code, row by row; with pointer and keys to look at one.

import { isDark, ramp, token } from "./color.js";
import { byId, html, tip } from "./dom.js";
import { count, percent, figure, short } from "./format.js";

const GLOW = 1400; // ms

/** Draws usage, tells `looking` which code is looked at, and says it aloud after a key. */
export class HeatMap {
  #looking;
  #usage = null;
  #side = 64;
  #cell = 10; // device pixels
  #lit = new Map(); // code -> when it was hit, of those that still glow
  #still = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(looking) {
    this.#looking = looking;
    this.map = byId("map");
    this.cells = byId("cells");
    new ResizeObserver(() => this.#resize()).observe(this.map);
    document.addEventListener("theme", () => this.#draw());
    looking.addEventListener("look", (event) => this.#look(event.by));
    this.cells.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") looking.hover(this.#at(event), "map");
    });
    this.cells.addEventListener("pointerleave", () => looking.hover(null, "map"));
    this.cells.addEventListener("click", (event) => {
      const code = this.#at(event);
      if (code !== null) looking.choose(code, "map");
    });
    this.map.addEventListener("keydown", (event) => this.#key(event));
    this.map.addEventListener("blur", () => tip());
  }

  /** New numbers; codes hit since the last ones of the same scope and version glow for a moment. */
  show(usage, comparable) {
    const before = this.#usage;
    this.#usage = usage;
    const side = Math.max(1, Math.ceil(Math.sqrt(usage.hits.length)));
    if (side !== this.#side || !before) {
      this.#side = side;
      this.#label();
    }
    this.#resize();
    if (before && comparable && !this.#still.matches) {
      const now = performance.now();
      usage.hits.forEach((hits, code) => hits > before.hits[code] && this.#lit.set(code, now));
      if (this.#lit.size) requestAnimationFrame((time) => this.#glow(time));
    }
    this.#look("data");
  }

  #label() {
    const every = this.#side / 8;
    const marks = Array.from({ length: 8 }, (_, index) => Math.round(index * every));
    for (const [name, value] of [
      ["across", (mark) => `+${mark}`],
      ["down", (mark) => count(mark * this.#side)],
    ]) {
      byId(name).replaceChildren(
        ...marks.map((mark) => {
          const node = html("span", "", value(mark));
          node.style[name === "across" ? "left" : "top"] = `${(100 * (mark + 0.5)) / this.#side}%`;
          return node;
        }),
      );
    }
  }

  #resize() {
    if (!this.#usage) return;
    const room = this.map.clientWidth - this.cells.offsetLeft;
    const cell = Math.max(2, Math.floor((room * devicePixelRatio) / this.#side));
    const rows = Math.ceil(this.#usage.hits.length / this.#side);
    this.#cell = cell;
    for (const name of ["heat", "glow"]) {
      const canvas = byId(name);
      if (canvas.width !== cell * this.#side || canvas.height !== cell * rows) {
        canvas.width = cell * this.#side;
        canvas.height = cell * rows;
      }
      canvas.style.width = `${canvas.width / devicePixelRatio}px`;
      canvas.style.height = `${canvas.height / devicePixelRatio}px`;
    }
    this.cells.style.width = byId("heat").style.width;
    this.cells.style.height = byId("heat").style.height;
    this.#draw();
    this.#place();
  }

  #draw() {
    const usage = this.#usage;
    if (!usage) return;
    const colors = ramp(isDark());
    const context = byId("heat").getContext("2d");
    const cell = this.#cell;
    const gap = cell >= 5 ? Math.max(1, Math.round(cell / 12)) : 0;
    const seed = Math.max(1, Math.round(cell / 5));
    const [empty, seeded] = [token("--empty"), token("--seed")];
    const scale = 255 / Math.log(Math.max(2, usage.most));
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    usage.hits.forEach((hits, code) => {
      const x = (code % this.#side) * cell;
      const y = Math.floor(code / this.#side) * cell;
      context.fillStyle = hits ? colors[Math.round(scale * Math.log(hits))] : empty;
      context.fillRect(x, y, cell - gap, cell - gap);
      if (usage.dead.has(code)) {
        const inset = Math.floor((cell - gap - seed) / 2);
        context.fillStyle = seeded;
        context.fillRect(x + inset, y + inset, seed, seed);
      }
    });
    this.#legend(colors);
  }

  #legend(colors) {
    const context = byId("scale").getContext("2d");
    colors.forEach((color, index) => {
      context.fillStyle = color;
      context.fillRect(index, 0, 1, 1);
    });
    const most = Math.max(2, this.#usage.most);
    const ticks = [1];
    while (ticks.at(-1) * 10 < most / 2) ticks.push(ticks.at(-1) * 10);
    ticks.push(most);
    byId("ticks").replaceChildren(
      ...ticks.map((tick) => {
        const node = html("span", "", short(tick));
        node.style.left = `${(100 * Math.log(tick)) / Math.log(most)}%`;
        return node;
      }),
    );
  }

  /** Rings around codes that were just hit, which fade. */
  #glow(time) {
    const context = byId("glow").getContext("2d");
    const cell = this.#cell;
    context.clearRect(0, 0, context.canvas.width, context.canvas.height);
    context.strokeStyle = token("--glow");
    context.lineWidth = Math.max(1, cell / 7);
    for (const [code, began] of this.#lit) {
      const left = 1 - (time - began) / GLOW;
      if (left <= 0) {
        this.#lit.delete(code);
        continue;
      }
      context.globalAlpha = Math.min(1, left) ** 2;
      const x = (code % this.#side) * cell;
      const y = Math.floor(code / this.#side) * cell;
      context.strokeRect(x + 0.5, y + 0.5, cell - 2, cell - 2);
    }
    if (this.#lit.size) requestAnimationFrame((next) => this.#glow(next));
  }

  #at(event) {
    const box = this.cells.getBoundingClientRect();
    const size = this.#cell / devicePixelRatio;
    const column = Math.floor((event.clientX - box.left) / size);
    const row = Math.floor((event.clientY - box.top) / size);
    const code = row * this.#side + column;
    return column >= 0 && column < this.#side && row >= 0 && code < (this.#usage?.hits.length ?? 0) ? code : null;
  }

  #key(event) {
    const usage = this.#usage;
    if (!usage || event.altKey || event.metaKey) return;
    const [at, side, last] = [this.#looking.code ?? 0, this.#side, usage.hits.length - 1];
    const row = at - (at % side);
    const moves = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - side,
      ArrowDown: at + side,
      PageUp: Math.max(at % side, at - 8 * side),
      PageDown: at + 8 * side > last ? at + side * Math.floor((last - at) / side) : at + 8 * side,
      Home: event.ctrlKey ? 0 : row,
      End: event.ctrlKey ? last : Math.min(last, row + side - 1),
      d: usage.unhit.find((code) => code > at) ?? usage.unhit[0],
      D: usage.unhit.findLast((code) => code < at) ?? usage.unhit.at(-1),
    };
    const to = moves[event.key];
    if (!(event.key in moves) || (event.ctrlKey && !["Home", "End"].includes(event.key))) return;
    event.preventDefault();
    if (to === undefined || to < 0 || to > last) return;
    this.#looking.choose(to, "key");
  }

  #place() {
    const [code, cursor, size] = [this.#looking.code, byId("cursor"), this.#cell / devicePixelRatio];
    cursor.hidden = code === null;
    if (code === null) return;
    cursor.style.width = cursor.style.height = `${size}px`;
    cursor.style.left = `${(code % this.#side) * size}px`;
    cursor.style.top = `${Math.floor(code / this.#side) * size}px`;
  }

  #look(by) {
    this.#place();
    const code = this.#looking.code;
    if (!this.#usage || code === null) return tip();
    if (by === "key") byId("said").textContent = `Code ${code}: ${lines(this.#usage, code).slice(1).join(", ")}`;
    if (by === "key" || (by === "map" && this.#looking.under !== null)) {
      const box = byId("cursor").getBoundingClientRect();
      tip(box.right, box.top, lines(this.#usage, code));
    } else if (by === "map") tip();
  }
}

/** What a tip tells of a code. */
export function lines(usage, code) {
  const hits = usage.hits[code];
  if (!hits) return [`Code ${code}`, usage.absence(code)];
  return [
    `Code ${code}`,
    `${count(hits)} ${hits === 1 ? "hit" : "hits"}, ${percent(usage.share(code))} of residues`,
    `rank ${count(usage.rank[code])}, ${figure(usage.even(code))} × an even share`,
  ];
}
