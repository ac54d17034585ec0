// Colors of the heat map: a ramp through OKLab, in which equal steps look equal.

// Lightness, chroma and hue (degrees) of the stops, from one hit to the most.
const LIGHT = [
  [0.915, 0.055, 168],
  [0.8, 0.1, 168],
  [0.62, 0.105, 182],
  [0.45, 0.09, 220],
  [0.27, 0.08, 262],
];
const DARK = [
  [0.3, 0.045, 250],
  [0.42, 0.075, 225],
  [0.57, 0.1, 192],
  [0.76, 0.13, 168],
  [0.96, 0.08, 150],
];

const lab = ([lightness, chroma, hue]) => [
  lightness,
  chroma * Math.cos((hue * Math.PI) / 180),
  chroma * Math.sin((hue * Math.PI) / 180),
];

// From OKLab to sRGB bytes (Björn Ottosson's matrices).
function bytes([lightness, a, b]) {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((linear) => {
    const clipped = Math.min(1, Math.max(0, linear));
    return Math.round(255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055));
  });
}

/** 256 CSS colors from few hits to many. */
export function ramp(dark) {
  const stops = (dark ? DARK : LIGHT).map(lab);
  return Array.from({ length: 256 }, (_, index) => {
    const place = (index / 255) * (stops.length - 1);
    const from = Math.min(Math.floor(place), stops.length - 2);
    const mixed = stops[from].map((value, axis) => value + (place - from) * (stops[from + 1][axis] - value));
    return `rgb(${bytes(mixed).join(" ")})`;
  });
}

/** Whether the page is dark now. */
export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** The value of one of the style sheet's colors. */
export function token(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
