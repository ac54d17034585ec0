// Light or dark: as the system is, unless chosen. Runs before the first paint, so that nothing flashes.
"use strict";

(() => {
  const KEY = "foldmint-theme";
  const root = document.documentElement;

  const stored = () => {
    try {
      const value = localStorage.getItem(KEY);
      return value === "light" || value === "dark" ? value : "auto";
    } catch {
      return "auto"; // storage may be forbidden
    }
  };

  const apply = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme");
    else root.dataset.theme = theme;
    document.dispatchEvent(new Event("theme"));
  };

  apply(stored());

  document.addEventListener("DOMContentLoaded", () => {
    for (const input of document.querySelectorAll("#theme input")) {
      input.checked = input.value === stored();
      input.addEventListener("change", () => {
        try {
          if (input.value === "auto") localStorage.removeItem(KEY);
          else localStorage.setItem(KEY, input.value);
        } catch {
          // Not kept then, but used.
        }
        apply(input.value);
      });
    }
  });

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("theme")));
})();
