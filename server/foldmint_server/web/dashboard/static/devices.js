// The devices: a row for each that encodes, and one for the decoder.

import { byId, html } from "./dom.js";
import { bytes, count, percent, short } from "./format.js";

export class Devices {
  show(devices) {
    byId("devices").replaceChildren(...devices.map((device) => this.#row(device)));
  }

  #row({ name, work, workers, busy, queued_residues: queued, queue_limit: limit, memory }) {
    const title = html("th", "", name);
    title.scope = "row";
    const does = work === "decode" ? "decodes" : workers > 1 ? `encodes, ${count(workers)} workers` : "encodes";
    title.append(html("span", "note", does));
    const bar = html("span", "share", html("i"));
    bar.setAttribute("aria-hidden", "true");
    bar.firstChild.style.width = `${100 * (busy ?? 0)}%`;
    const used = memory === null ? ["–"] : [bytes(memory.used), html("span", "note", `of ${bytes(memory.total)}`)];
    return html(
      "tr",
      "",
      title,
      html("td", "", busy === null ? "–" : percent(Math.round(1000 * busy) / 1000), bar),
      html("td", "", short(queued), html("span", "note", `of ${short(limit)} residues`)),
      html("td", "", ...used),
    );
  }
}
