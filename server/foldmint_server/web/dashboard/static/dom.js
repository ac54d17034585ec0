// Elements by name, and elements of SVG; text goes in as text, never as markup.

export const byId = (name) => document.getElementById(name);

export function say(name, text) {
  const node = byId(name);
  if (node.textContent !== text) node.textContent = text;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes and children, which may be text. */
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

/** An HTML element with a class and children. */
export function html(name, style = "", ...children) {
  const node = document.createElement(name);
  if (style) node.className = style;
  node.append(...children);
  return node;
}

addEventListener("scroll", () => tip(), { passive: true });

/** The tip beside a point of the window, in CSS pixels; lines: the first is the title. Without lines it goes. */
export function tip(x, y, lines) {
  const node = byId("tip");
  node.hidden = !lines;
  if (!lines) return;
  node.replaceChildren(...lines.map((line, index) => html(index ? "span" : "b", "", line)));
  const { width, height } = node.getBoundingClientRect();
  const right = x + 16 + width < document.documentElement.clientWidth - 8;
  node.style.left = `${Math.max(8, right ? x + 16 : x - 16 - width)}px`;
  node.style.top = `${Math.min(Math.max(8, y - height - 12), innerHeight - height - 8)}px`;
}
