// What to do while nothing was tokenized yet: a command to copy.

import { byId, say } from "./dom.js";

export class FirstLook {
  constructor() {
    byId("copy").addEventListener("click", () => this.#copy());
  }

  /** Shown until the first structure was answered. */
  show({ traffic, listener }) {
    const nothing = traffic.structures === 0 && listener !== null;
    byId("first").hidden = !nothing;
    if (!nothing) return;
    const parts = ["foldmint tokenize STRUCTURE.cif", `--server ${location.hostname}:${listener.port}`];
    const notes = [];
    if (listener.tls) {
      parts.push("--tls-ca CERTIFICATE.pem");
      notes.push("The server speaks TLS: CERTIFICATE.pem is its authority's certificate; --tls instead if that is a public one.");
    }
    if (listener.token) {
      parts.push("--token-file TOKEN");
      notes.push("Callers need a token: foldmint-server tokens create NAME --scope tokenize > TOKEN.");
    }
    say("command", parts.join(" "));
    say("first-note", notes.join(" "));
    byId("first-note").hidden = !notes.length;
  }

  async #copy() {
    const command = byId("command");
    try {
      await navigator.clipboard.writeText(command.textContent);
      say("copy", "Copied");
    } catch {
      // Without TLS a browser gives no clipboard to pages of other machines: leave it to the user's keys.
      getSelection().selectAllChildren(command);
      say("copy", "Selected");
    }
    setTimeout(() => say("copy", "Copy"), 2000);
  }
}
