// Where the time goes, over many signals: stages, transports, Traders.

import { get } from "../api.js";
import { count, durationUs } from "../amounts.js";
import { attr, h, Keyed, put, svg, text } from "../dom.js";
import { stageClass, timeLine } from "../drawing.js";
import { empty, field, loading, options, panel, tile, traderHref } from "../parts.js";
import { heading, remember } from "../router.js";
import { LiveTable } from "../table.js";

const LIVE_S = 60;
const POLL_MS = 5_000;
//: Ten minutes of one figure a second.
const LINE_MOST = 600;

export function performanceView({ scope, root, live, query }) {
  const range = h("select", {});
  options(range, [[60, "1 minute"], [300, "5 minutes"], [900, "15 minutes"], [3600, "1 hour"]].map(([value, words]) => [String(value), words]));
  range.value = ["60", "300", "900", "3600"].includes(query.get("window")) ? query.get("window") : "60";
  const whose = h("select", {});
  let wanted = query.get("trader") ?? "";
  options(whose, [["", "all"], ...(wanted ? [[wanted, wanted]] : [])], wanted);
  const glance = {
    whole: tile("Frame to signal, p99", "#/performance"),
    wholeMid: tile("Frame to signal, p50", "#/performance"),
    decide: tile("Visible to decided, p99", "#/performance"),
    signals: tile("Signals in the window", "#/signals"),
  };
  const figures = panel("At a glance", { className: "bare" });
  put(figures.body, h("div", { class: "tiles" }, Object.values(glance).map(({ element }) => element)));
  const stages = panel("Stages", { note: "p50 filled, p99 as the mark; logarithmic" });
  const line = panel("p99 frame to signal", { note: "since this view was opened" });
  const transports = panel("Shared memory against serialised");
  const traders = panel("By Trader", { note: "each one's newest signals, whatever the window" });
  for (const each of [stages, transports, traders]) put(each.body, loading());
  put(
    root,
    heading("Performance"),
    h("div", { class: "filters" }, field("Window", range), field("Trader", whose)),
    figures.element,
    stages.element,
    h("div", { class: "split" }, line.element, transports.element),
    traders.element,
  );
  const chart = timeLine();
  put(line.body, chart.element);
  const bars = stageBars();
  let points = [];
  const show = (now) => {
    for (const each of [figures, stages, transports, line]) each.ok();
    showTiles(glance, now);
    bars.show(stages.body, now.stages);
    showTransports(transports.body, now.transports);
    if (now.frame_to_signal.p99_us !== null) points.push([Date.now(), now.frame_to_signal.p99_us]);
    points = points.slice(-LINE_MOST);
    chart.show(points, durationUs, `p99 from frame to signal over time, now ${durationUs(now.frame_to_signal.p99_us)}`);
  };
  const fail = (problem, retry) => stages.fail(problem, retry);
  const source = new Source({ scope, live, show, fail });
  const choose = () => {
    points = [];
    wanted = whose.value;
    remember("performance", { window: range.value === "60" ? "" : range.value, trader: wanted });
    source.choose(Number(range.value), wanted);
  };
  scope.listen(range, "change", choose);
  scope.listen(whose, "change", choose);
  source.choose(Number(range.value), wanted);
  followTraders(scope, live, traders, (names) => options(whose, [["", "all"], ...names.map((name) => [name, name])], wanted));
}

/** The latency of a choice: from the stream where it has it, else asked for again and again. */
class Source {
  #inner = undefined;

  constructor({ scope, live, show, fail }) {
    Object.assign(this, { scope, live, show, fail });
  }

  choose(seconds, trader) {
    this.#inner?.close();
    const inner = (this.#inner = this.scope.inner());
    if (seconds === LIVE_S && trader === "") {
      this.live.follow(inner, "latency", { data: this.show, failed: this.fail });
      return;
    }
    let asking = false;
    const ask = async () => {
      if (asking) return;
      asking = true;
      try {
        const now = await get("latency", { window_s: seconds, trader }, inner.signal);
        if (!inner.closed) this.show(now);
      } catch (problem) {
        if (!inner.closed) this.fail(problem, ask);
      } finally {
        asking = false;
      }
    };
    inner.every(POLL_MS, ask);
    ask();
  }
}

function showTiles(tiles, { frame_to_signal: whole, visible_to_decided: decide, window_s: seconds }) {
  const none = "no signal in this window";
  tiles.whole.show(durationUs(whole.p99_us), whole.count ? "exchange frame to acknowledged signal" : none);
  tiles.wholeMid.show(durationUs(whole.p50_us), whole.count ? "half are quicker" : none);
  tiles.decide.show(durationUs(decide.p99_us), decide.count ? `p50 ${durationUs(decide.p50_us)}` : none);
  tiles.signals.show(count(whole.count), seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`);
}

/** Stages as bars on a logarithmic scale: µs and ms are both seen. */
function stageBars() {
  const body = h("tbody");
  const scale = h("div", { class: "log-scale", "aria-hidden": "true" });
  const rows = new Keyed(body, {
    key: ({ name }) => name,
    create: (stage) => {
      const bar = svg("rect", { class: stageClass(stage.name), y: 2, height: 8, rx: 0 });
      const mark = svg("rect", { class: "p99-mark", y: 0, height: 12, width: 0.6 });
      const picture = svg("svg", { class: "log-bar", viewBox: "0 0 100 12", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "fall-track", y: 2, height: 8, width: 100 }), bar, mark);
      const p50 = h("td", { class: "right num" });
      const p99 = h("td", { class: "right num" });
      const row = h(
        "tr",
        {},
        h("th", { scope: "row" }, h("span", { class: `swatch ${stageClass(stage.name)}`, "aria-hidden": "true" }), stage.name, h("span", { class: "sub quiet" }, stage.meaning)),
        h("td", { class: "log-cell" }, picture),
        p50,
        p99,
      );
      row.parts = { bar, mark, p50, p99 };
      return row;
    },
    update: ({ parts }, { p50_us: p50, p99_us: p99, most }) => {
      // A decade from 1 µs takes as much room as the next.
      const at = (value) => (value > 1 ? (Math.log10(value) / Math.log10(most)) * 100 : 0);
      attr(parts.bar, "width", p50 === null ? 0 : Math.max(0.5, at(p50)).toFixed(2));
      attr(parts.mark, "x", p99 === null ? -5 : Math.min(99.4, at(p99)).toFixed(2));
      text(parts.p50, durationUs(p50));
      text(parts.p99, durationUs(p99));
    },
  });
  const table = h(
    "table",
    { class: "stage-table" },
    h("caption", { class: "hidden" }, "Stages over all signals of the window"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Stage"), h("th", { scope: "col", class: "log-cell" }, scale), h("th", { scope: "col", class: "right num" }, "p50"), h("th", { scope: "col", class: "right num" }, "p99"))),
    body,
  );
  const box = h("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": "Stages" }, table);
  const nothing = empty("No signal in this window. Choose a longer one, or wait for the next signal.");
  let decades = 0;
  const show = (into, stages) => {
    const content = stages.some(({ count: signals }) => signals > 0) ? box : nothing;
    if (content.parentNode !== into) put(into, content);
    const most = Math.max(1_000, ...stages.map(({ p99_us: p99 }) => p99 ?? 0));
    const now = Math.ceil(Math.log10(most));
    if (now !== decades) {
      decades = now;
      put(scale, Array.from({ length: now + 1 }, (_, power) => {
        const label = h("span", {}, durationUs(10 ** power).replace(".00", "").replace(".0", ""));
        label.style.left = `${(power / now) * 100}%`;
        return label;
      }));
    }
    rows.show(stages.map((stage) => ({ ...stage, most: 10 ** now })));
  };
  return { show };
}

const TRANSPORT = { SharedMemory: "shared memory", Pipe: "serialised through pipes" };

function showTransports(body, transports) {
  const key = JSON.stringify(transports);
  if (body.dataset.drawn === key) return;
  body.dataset.drawn = key;
  const seen = transports.filter(({ visible_to_decided: decide }) => decide.count > 0);
  if (seen.length === 0) {
    put(body, empty("No signal in this window."));
    return;
  }
  const most = Math.max(...seen.map(({ visible_to_decided: { p99_us: p99 } }) => p99 ?? 0), 1);
  const bar = (name, value) => {
    const part = h("span", { class: "compare-part", "data-which": name });
    part.style.width = `${Math.max(0.5, ((value ?? 0) / most) * 100).toFixed(1)}%`;
    return h("div", { class: "compare-line" }, h("span", { class: "quiet" }, name), h("span", { class: "compare-track", "aria-hidden": "true" }, part), h("span", { class: "num right" }, durationUs(value)));
  };
  put(
    body,
    h("p", { class: "quiet" }, "From visible in the segment to decided:"),
    seen.map(({ transport, visible_to_decided: decide }) =>
      h(
        "div",
        { class: "compare" },
        h("h3", {}, TRANSPORT[transport] ?? transport, h("span", { class: "quiet" }, ` ${count(decide.count)} signals`)),
        bar("p50", decide.p50_us),
        bar("p99", decide.p99_us),
      ),
    ),
    comparison(seen),
  );
}

function comparison(seen) {
  const middle = (name) => seen.find(({ transport }) => transport === name)?.visible_to_decided.p50_us;
  const [shared, piped] = [middle("SharedMemory"), middle("Pipe")];
  if (shared && piped) {
    const quicker = piped >= shared;
    const times = quicker ? piped / shared : shared / piped;
    return h("p", {}, h("strong", {}, `Shared memory is ${times.toFixed(1)} times ${quicker ? "quicker" : "slower"} here`), " (p50).");
  }
  return empty("To compare: give some Traders ", h("code", {}, `transport: ${shared ? "Pipe" : "SharedMemory"}`), ".");
}

function followTraders(scope, live, into, onNames) {
  const cells = {
    trader: (cell, { trader }) => {
      if (cell.firstChild === null) cell.append(h("a", { href: traderHref(trader) }, trader));
    },
  };
  const figure = (id, label, value, shown = durationUs, wide = false) => ({ id, label, numeric: true, wide, sort: value, show: (cell, row) => text(cell, shown(value(row))) });
  const table = new LiveTable({
    caption: "Latency by Trader",
    columns: [
      { id: "trader", label: "Trader", sort: ({ trader }) => trader, show: cells.trader },
      figure("p50", "p50", ({ latency }) => latency.p50_us),
      figure("p99", "p99", ({ latency }) => latency.p99_us),
      figure("count", "Signals measured", ({ latency }) => latency.count, count, true),
    ],
    key: ({ trader }) => trader,
    sorted: ["p99", "descending"],
    nothing: () => "No Trader here.",
    batch: 50,
  });
  live.follow(scope, "traders", {
    data: (rows) => {
      into.ok();
      if (table.element.parentNode !== into.body) put(into.body, table.element);
      table.show([...rows.values()]);
      onNames([...rows.keys()].sort());
    },
    failed: (problem) => into.fail(problem),
  });
}
