// Small drawings of our own: bars of a sparkline, stages in a row, a line over time.

import { attr, h, put, svg, text } from "./dom.js";
import { clockTime, durationUs } from "./amounts.js";

const SPARK_WIDTH = 90;
const SPARK_HEIGHT = 22;

/** Counts by time as small bars; `show(counts, label)` redraws. */
export function sparkline() {
  const path = svg("path", { class: "spark-bars" });
  const base = svg("path", { class: "spark-base", d: `M0 ${SPARK_HEIGHT - 0.5}H${SPARK_WIDTH}` });
  const element = svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    base,
    path,
  );
  const show = (counts, label) => {
    const most = Math.max(1, ...counts);
    const step = SPARK_WIDTH / Math.max(counts.length, 1);
    let d = "";
    counts.forEach((value, at) => {
      if (!(value > 0)) return;
      const high = Math.max(2, (value / most) * (SPARK_HEIGHT - 2));
      d += `M${(at * step + 0.5).toFixed(1)} ${(SPARK_HEIGHT - high).toFixed(1)}h${(step - 1).toFixed(1)}v${high.toFixed(1)}h-${(step - 1).toFixed(1)}z`;
    });
    attr(path, "d", d);
    attr(element, "aria-label", label);
  };
  return { element, show };
}

const KNOWN = ["appended", "aggregated", "emitted", "fed", "published", "woken", "decided", "signalled", "acknowledged"];

/** The class that gives a stage its colour; one that this console doesn't know is grey. */
export function stageClass(name) {
  return KNOWN.includes(name) ? `stage-${name}` : "stage-other";
}

/** A signal's stages in one row, each as long as its share. */
export function stageBar() {
  const element = svg("svg", {
    class: "stages",
    viewBox: "0 0 100 10",
    preserveAspectRatio: "none",
    role: "img",
  });
  let drawn = "";
  const show = (stages) => {
    const key = JSON.stringify(stages);
    if (key === drawn) return;
    drawn = key;
    const whole = stages.reduce((sum, [, us]) => sum + us, 0);
    if (whole <= 0) {
      put(element, svg("rect", { class: "stage-none", width: 100, height: 10 }));
      attr(element, "aria-label", "stages not known yet");
      return;
    }
    let at = 0;
    const parts = stages.map(([name, us]) => {
      const width = (us / whole) * 100;
      const part = svg("rect", { class: stageClass(name), x: at.toFixed(3), width: width.toFixed(3), height: 10 });
      part.append(svg("title", {}, `${name} ${durationUs(us)}`));
      at += width;
      return part;
    });
    put(element, parts);
    attr(element, "aria-label", `stages: ${stages.map(([name, us]) => `${name} ${durationUs(us)}`).join(", ")}`);
  };
  return { element, show };
}

/** What the colours of the stages mean. */
export function stageLegend() {
  return h(
    "ul",
    { class: "legend", "aria-label": "Colours of the stages, and what else is shown" },
    KNOWN.map((name) => h("li", {}, h("span", { class: `swatch ${stageClass(name)}`, "aria-hidden": "true" }), name)),
    h("li", {}, "beside them: frame to acknowledged signal; times are UTC"),
  );
}

const ROUND = [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The end of a scale that holds `high`: a round number, so that nobody takes it for a value. */
export function scaleTop(high) {
  if (!(high > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(high));
  return ROUND.find((step) => step * power >= high * 1.04) * power || 12 * power;
}

const LINE_WIDTH = 600;
const LINE_HEIGHT = 140;

/**
 * Values over time as a line over its area, with its range written beside it.
 * `show([[ms, value], …], format, label)`. The scale begins at 0, so that a wave of some per cent is no mountain.
 */
export function timeLine() {
  const area = svg("path", { class: "line-area" });
  const line = svg("path", { class: "line-path", "vector-effect": "non-scaling-stroke" });
  const grid = svg("path", { class: "line-grid", "vector-effect": "non-scaling-stroke" });
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${LINE_WIDTH} ${LINE_HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    grid,
    area,
    line,
  );
  const most = h("span", { class: "line-most" });
  const least = h("span", { class: "line-least" });
  const from = h("span", {});
  const until = h("span", {});
  const none = h("p", { class: "empty line-none", hidden: true }, "It fills as figures come.");
  const element = h(
    "figure",
    { class: "time-line" },
    h("div", { class: "line-box" }, picture, most, least, none),
    h("figcaption", { class: "line-times" }, from, until),
  );
  const show = (points, format, label) => {
    none.hidden = points.length >= 2;
    const values = points.map(([, value]) => value);
    const high = Math.max(...values, 0);
    const top = scaleTop(high);
    const begin = points[0]?.[0] ?? 0;
    const length = Math.max((points.at(-1)?.[0] ?? 0) - begin, 1);
    const at = ([ms, value]) => {
      const x = ((ms - begin) / length) * LINE_WIDTH;
      const y = LINE_HEIGHT - 6 - (Math.max(value, 0) / top) * (LINE_HEIGHT - 12);
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    };
    const d = points.length >= 2 ? `M${points.map(at).join("L")}` : "";
    attr(line, "d", d);
    attr(area, "d", d && `${d}L${LINE_WIDTH} ${LINE_HEIGHT}L0 ${LINE_HEIGHT}Z`);
    attr(grid, "d", `M0 6H${LINE_WIDTH}M0 ${LINE_HEIGHT / 2}H${LINE_WIDTH}M0 ${LINE_HEIGHT - 6}H${LINE_WIDTH}`);
    text(most, points.length >= 2 ? format(top) : "");
    text(least, points.length >= 2 ? "0" : "");
    text(from, points.length >= 2 ? clockTime(begin) : "");
    text(until, points.length >= 2 ? `${clockTime(begin + length)} UTC` : "");
    attr(picture, "aria-label", label);
  };
  return { element, show };
}

/** How full something is: a bar with its words. `show(used, capacity, words)`. */
export function fillBar() {
  const bar = h("span", { class: "fill-part" });
  const track = h("span", { class: "fill", "aria-hidden": "true" }, bar);
  const words = h("span", { class: "fill-words" });
  const element = h("div", { class: "fill-row" }, track, words);
  const show = (used, capacity, said) => {
    const share = capacity > 0 ? Math.min(1, used / capacity) : 0;
    bar.style.width = `${(share * 100).toFixed(1)}%`;
    attr(bar, "data-level", share > 0.9 ? "bad" : share > 0.75 ? "warn" : "good");
    text(words, said);
  };
  return { element, show };
}
