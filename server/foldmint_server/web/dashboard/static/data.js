// The live connection: asks again and again, one question at a time, and less often while nothing answers.

const EVERY = 2000;
const LONGEST = 30000;
const PATIENCE = 8000;

/** The answer, and the server's time, in seconds since 1970. */
async function asked(address) {
  const answer = await fetch(address, { cache: "no-cache", credentials: "same-origin", signal: AbortSignal.timeout(PATIENCE) });
  if (!answer.ok) throw new Error(`${address} answered ${answer.status}`);
  const now = Date.parse(answer.headers.get("Date")) || Date.now();
  return { answer: await answer.json(), now: now / 1000 };
}

/** Events: "data" with .usage, "lineage" with .lineage, both with .now; "state" with .state: live, lost or paused. */
export class Connection extends EventTarget {
  scope = "version";
  #timer = 0;
  #failures = 0;
  #paused = false;
  #round = 0;
  #version = null;
  #lineageAt = 0;

  start() {
    document.addEventListener("visibilitychange", () => this.now());
    this.now();
  }

  set paused(paused) {
    this.#paused = paused;
    if (paused) this.#tell("state", { state: "paused" });
    this.now();
  }

  /** Ask at once; what an older question still brings is left aside. */
  now() {
    clearTimeout(this.#timer);
    this.#round += 1;
    if (!document.hidden && !this.#paused) this.#ask(this.#round);
  }

  /** One answer, also while paused: what is shown was changed by hand. */
  look(scope) {
    this.scope = scope;
    clearTimeout(this.#timer);
    this.#round += 1;
    this.#ask(this.#round);
  }

  async #ask(round) {
    try {
      const { answer: usage, now } = await asked(`api/usage?scope=${this.scope}`);
      if (round !== this.#round) return;
      this.#failures = 0;
      this.#tell("data", { usage, now });
      if (!this.#paused) this.#tell("state", { state: "live" });
      if (usage.codebook.version !== this.#version || performance.now() - this.#lineageAt > 60000) {
        const { answer: lineage, now } = await asked("api/codebooks");
        this.#version = usage.codebook.version;
        this.#lineageAt = performance.now();
        this.#tell("lineage", { lineage, now });
      }
    } catch (error) {
      if (round !== this.#round) return;
      this.#failures += 1;
      this.#tell("state", { state: "lost", error });
    }
    if (round !== this.#round || this.#paused || document.hidden) return;
    this.#timer = setTimeout(() => this.#ask(round), Math.min(LONGEST, EVERY * 2 ** this.#failures));
  }

  #tell(name, detail) {
    this.dispatchEvent(Object.assign(new Event(name), detail));
  }
}
