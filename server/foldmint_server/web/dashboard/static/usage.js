// What is known of the codes: hits, ranks, and which code is looked at.

/** Hits with what follows from them. order: codes, the most used first; rank: of each code, from 1. */
export class Usage {
  /** evidence: what the absence of hits proves: .enough, .dead (codes), .residues, .needed. */
  constructor(hits, evidence) {
    this.hits = hits;
    this.evidence = evidence;
    this.dead = new Set(evidence.dead);
    this.order = hits.map((_, code) => code).sort((a, b) => hits[b] - hits[a] || a - b);
    this.rank = new Array(hits.length);
    this.order.forEach((code, place) => (this.rank[code] = place + 1));
    this.total = hits.reduce((sum, one) => sum + one, 0);
    this.most = hits.length ? hits[this.order[0]] : 0;
    this.unhit = hits.flatMap((one, code) => (one ? [] : [code]));
    let sum = 0;
    this.half = this.total ? 1 + this.order.findIndex((code) => (sum += hits[code]) * 2 >= this.total) : 0;
  }

  /** What to say of a code without a hit: only with evidence that it is dead. */
  absence(code) {
    if (this.dead.has(code)) return "never hit";
    return this.evidence.enough ? "not hit yet, which may be chance" : "not hit yet";
  }

  share(code) {
    return this.total ? this.hits[code] / this.total : null;
  }

  /** Hits as a multiple of those that each code had if all had as many. */
  even(code) {
    return this.total ? (this.hits[code] * this.hits.length) / this.total : null;
  }
}

/** The code that is looked at: under the pointer, else the one that was chosen. */
export class Looking extends EventTarget {
  chosen = null;
  under = null;

  get code() {
    return this.under ?? this.chosen;
  }

  choose(code, by) {
    this.chosen = code;
    this.under = null;
    this.#tell(by);
  }

  hover(code, by) {
    if (code === this.under) return;
    this.under = code;
    this.#tell(by);
  }

  #tell(by) {
    this.dispatchEvent(Object.assign(new Event("look"), { by }));
  }
}
