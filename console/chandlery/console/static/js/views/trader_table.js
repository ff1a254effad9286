// The table of Traders: brief on the overview, whole on its own view.

import { count, durationUs, sizeBytes } from "../amounts.js";
import { attr, h, text } from "../dom.js";
import { sparkline } from "../drawing.js";
import { stateBadge, stateLevel, traderHref } from "../parts.js";
import { cellOf, LiveTable } from "../table.js";

//: The worst first.
const RANK = { bad: 0, warn: 1, wait: 2, good: 3, quiet: 4 };

/** Where a state stands when sorted; within one, by name. */
export function stateRank(trader) {
  return RANK[stateLevel(trader)];
}

const nameCell = cellOf(
  (trader) => {
    const link = h("a", { class: "name", href: traderHref(trader.trader), title: trader.trader }, trader.trader);
    const what = h("span", { class: "sub quiet" });
    return { element: h("div", { class: "two-lines" }, link, what), what };
  },
  ({ what }, { strategy, symbols, interval }) => {
    const some = symbols.length > 2 ? `${symbols.slice(0, 2).join(", ")} +${symbols.length - 2}` : symbols.join(", ");
    text(what, [strategy, some, interval].filter(Boolean).join(" · "));
  },
);

const stateCell = cellOf(
  () => {
    const badge = stateBadge();
    const why = h("span", { class: "sub quiet clip" });
    return { element: h("div", { class: "two-lines" }, badge.element, why), badge, why };
  },
  ({ badge, why }, trader) => {
    badge.show(trader);
    const warming = trader.warm_need > 0 && trader.warm_have < trader.warm_need && !trader.suspended;
    text(why, (trader.reason !== trader.state && trader.reason) || (warming ? `warm ${trader.warm_have}/${trader.warm_need}` : ""));
    attr(why, "title", trader.message || null);
  },
);

const sparkCell = cellOf(sparkline, ({ show }, { sparkline: counts = [] }) => {
  const sum = counts.reduce((one, other) => one + other, 0);
  show(counts, `${sum} signals in 5 minutes`);
});

const COLUMNS = {
  trader: { id: "trader", label: "Trader", sort: ({ trader }) => trader, show: nameCell },
  state: { id: "state", label: "State", sort: stateRank, show: stateCell },
  spark: {
    id: "spark",
    label: "Signals, 5 min",
    numeric: true,
    sort: ({ sparkline: counts = [] }) => counts.reduce((one, other) => one + other, 0),
    show: sparkCell,
    className: "spark-cell",
  },
  signals: {
    id: "signals",
    label: "Signals",
    numeric: true,
    wide: true,
    sort: ({ signals }) => signals,
    show: (cell, { signals }) => text(cell, count(signals)),
  },
  p99: {
    id: "p99",
    label: "p99 to signal",
    numeric: true,
    sort: ({ latency }) => latency.p99_us,
    show: (cell, { latency }) => {
      text(cell, durationUs(latency.p99_us));
      attr(cell, "title", `frame to signal: p50 ${durationUs(latency.p50_us)} over ${count(latency.count)} signals`);
    },
  },
  memory: {
    id: "memory",
    label: "Memory (RSS)",
    numeric: true,
    wide: true,
    sort: ({ rss_bytes }) => rss_bytes,
    show: (cell, { rss_bytes }) => text(cell, sizeBytes(rss_bytes)),
  },
  faults: {
    id: "faults",
    label: "Restarts, errors",
    numeric: true,
    wide: true,
    sort: ({ restarts, errors }) => restarts + errors,
    show: (cell, { restarts, errors, last_error }) => {
      text(cell, `${count(restarts)}, ${count(errors)}`);
      attr(cell, "title", last_error || null);
    },
  },
  pool: { id: "pool", label: "Pool", wide: true, sort: ({ pool }) => pool, show: (cell, { pool }) => text(cell, pool) },
};

export function traderTable(kind) {
  const { trader, state, spark, signals, p99, memory, faults, pool } = COLUMNS;
  return new LiveTable({
    caption: "Traders",
    className: `trader-table ${kind}`,
    columns: kind === "brief" ? [trader, state, spark, p99] : [trader, state, spark, p99, signals, memory, faults, pool],
    key: (row) => row.trader,
    sorted: kind === "brief" ? ["state", "ascending"] : ["trader", "ascending"],
    nothing: () =>
      h("span", {}, "No Trader here. ", h("a", { href: "#/new-trader" }, "Make one from a template"), ", or apply a manifest."),
    batch: kind === "brief" ? 12 : 150,
  });
}

/** Whether a row holds all the words somebody typed. */
export function matches(trader, words) {
  const said = [trader.trader, trader.state, trader.reason, trader.strategy, trader.interval, trader.pool, ...trader.symbols]
    .join(" ")
    .toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => said.includes(word));
}

