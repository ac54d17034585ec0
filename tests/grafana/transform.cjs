// What Grafana's own library makes of tables, and which colors it gives them.
//
// In: {"panel": a panel of the dashboard, "frames": [{field: values}], "color": a field or null}. Out: {"frames":
// [{field: values}], "colors": one for each value of that field}. Run by tests/test_grafana_library.py, in the folder
// where package.json's packages are.
const { createRequire } = require("node:module");
const path = require("node:path");
const fs = require("node:fs");

const installed = createRequire(path.join(process.cwd(), "package.json"));
const { JSDOM } = installed("jsdom");

// The library is for browsers, and looks for one when it is loaded.
const page = new JSDOM("<!doctype html><html><head></head><body></body></html>", { url: "http://localhost/" }).window;
page.matchMedia = () => ({ matches: false, addEventListener() {} });
for (const name of ["document", "localStorage", "location", "HTMLElement", "navigator"]) {
  Object.defineProperty(globalThis, name, { value: page[name], configurable: true });
}
globalThis.window = page;

const grafana = installed("@grafana/data");
const known = new Map(Object.values(grafana.standardTransformers).map((one) => [one.id, one]));
grafana.standardTransformersRegistry.setInit(() =>
  [...known.values()].map((one) => ({ id: one.id, name: one.name, transformation: one, editor: () => null })),
);

const { panel, frames, color } = JSON.parse(fs.readFileSync(0, "utf8"));
const tables = frames.map((frame, i) =>
  grafana.toDataFrame({
    refId: String.fromCharCode(65 + i),
    fields: Object.entries(frame).map(([name, values]) => ({
      name,
      values,
      config: {},
      type: name === "Time" ? "time" : typeof values[0] === "number" ? "number" : "string",
    })),
  }),
);

grafana
  .transformDataFrame(panel.transformations, tables, { interpolate: (text) => text })
  .subscribe((made) => {
    const named = made.map((frame) => ({
      frame,
      fields: frame.fields.map((field) => [grafana.getFieldDisplayName(field, frame, made), field]),
    }));
    let colors = [];
    if (color) {
      const [, field] = named[0].fields.find(([name]) => name === color);
      const { color: mode, thresholds } = panel.fieldConfig.defaults;
      const steps = thresholds.steps.map((step) => ({ ...step, value: step.value ?? -Infinity }));
      const config = { ...field.config, color: mode, thresholds: { ...thresholds, steps } };
      const display = grafana.getDisplayProcessor({ field: { ...field, config }, theme: grafana.createTheme() });
      colors = field.values.map((value) => display(value).color);
    }
    const plain = named.map(({ fields }) => Object.fromEntries(fields.map(([name, field]) => [name, field.values])));
    process.stdout.write(JSON.stringify({ frames: plain, colors }));
  });
