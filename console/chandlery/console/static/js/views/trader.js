// One Trader: its figures, its candles with its signals, its manifest, and what can be done with it.

import { all, call, get, named } from "../api.js";
import { age, clockTime, count, durationUs, sizeBytes } from "../amounts.js";
import { CandleChart } from "../chart.js";
import { confirmed, toast } from "../dialogs.js";
import { h, put, text } from "../dom.js";
import { stageLegend } from "../drawing.js";
import { empty, field, figures, loading, options, panel, stateBadge } from "../parts.js";
import { heading } from "../router.js";
import { LOOK_MS, SignalList } from "./signal_list.js";
import { keptWords, openEditor } from "./trader_editor.js";

const NEWEST = 15;

export function traderView(context) {
  const { scope, root, live, path } = context;
  const name = path.slice(1).join("/");
  const badge = stateBadge();
  const message = h("p", { class: "message", role: "status", hidden: true });
  const actions = h("div", { class: "actions" });
  const state = panel("Figures");
  const chart = panel("Candles and signals");
  const manifest = panel("Manifest");
  const signals = panel("Newest signals", {
    actions: [h("a", { href: `#/signals?${new URLSearchParams({ trader: name })}` }, "All of this Trader")],
  });
  const numbers = figures();
  put(state.body, loading());
  put(manifest.body, loading());
  put(
    root,
    h("p", { class: "crumbs" }, h("a", { href: "#/traders" }, "Traders"), " / ", path[1], " / ", path[2]),
    heading(path[2], badge.element, actions),
    message,
    state.element,
    chart.element,
    h("div", { class: "split" }, signals.element, manifest.element),
  );

  let shown = {};
  let missing = false;
  const show = (trader) => {
    shown = { ...shown, ...trader };
    badge.show(shown);
    message.hidden = !(shown.message || shown.last_error);
    text(message, [shown.message, shown.last_error && `Last error: ${shown.last_error}`].filter(Boolean).join(" "));
    if (numbers.element.parentNode !== state.body) put(state.body, numbers.element);
    numbers.show(rowsOf(shown));
    for (const button of actions.querySelectorAll("[data-suspends]")) text(button, shown.suspended ? "Resume" : "Suspend");
  };
  const candles = chartOf(context, chart);
  const load = async () => {
    const before = state.asks();
    try {
      const detail = await get(`traders/${named(name)}`, {}, scope.signal);
      state.ok(before);
      missing = chart.element.hidden = false;
      show(detail);
      showManifest(manifest, detail);
      showActions(actions, context, () => shown, changed);
      candles(detail);
    } catch (problem) {
      if (scope.closed) return;
      state.fail(problem, load);
      if (shown.trader !== undefined) return;
      missing = chart.element.hidden = true;
      // That nobody answers says nothing of the Trader.
      const unknown = problem.status === 404;
      put(state.body, empty(unknown ? "Nothing is known of this Trader. " : "This Trader can’t be asked after now. ", h("a", { href: "#/traders" }, "All Traders")));
      put(manifest.body, empty(unknown ? "None is known." : "It can’t be asked for now."));
    }
  };
  const changed = (detail) => {
    if (scope.closed) return;
    show(detail);
    showManifest(manifest, detail);
  };
  live.follow(scope, "traders", {
    data: (rows) => {
      state.ok();
      const row = rows.get(name);
      if (row !== undefined) {
        // A generation that isn't the one shown: somebody edited it.
        const edited = shown.generation !== undefined && row.generation !== shown.generation;
        show(row);
        if (edited || missing) load();
      } else if (shown.trader !== undefined) {
        message.hidden = false;
        text(message, "This Trader is gone: somebody deleted it.");
      }
    },
    failed: (problem) => state.fail(problem),
  });
  followSignals(context, signals, name);
  load();
}

function rowsOf(trader) {
  const warm = trader.warm_need ? `${count(trader.warm_have)} of ${count(trader.warm_need)}` : "–";
  return [
    ["Strategy", trader.strategy || "–"],
    ["Symbols", trader.symbols.join(", ") || "–"],
    ["Interval", trader.interval || "–"],
    ["Pool", trader.pool || "–"],
    ["Worker", trader.worker || "–"],
    ["Frame to signal, p50", durationUs(trader.latency.p50_us)],
    ["Frame to signal, p99", durationUs(trader.latency.p99_us)],
    ["Signals", count(trader.signals)],
    ["Calls", count(trader.calls)],
    ["Warm candles", warm],
    ["Memory (RSS)", sizeBytes(trader.rss_bytes)],
    ["Restarts", count(trader.restarts)],
    ["Errors", count(trader.errors)],
    ["Newest candle", trader.last_open_time_ms ? `${clockTime(trader.last_open_time_ms)} UTC` : "–"],
    ["Generation", trader.generation || "–"],
    ["Figures are from", `${age(trader.age_ms)} ago`],
  ];
}

/** The chart with its choice of series; returns what to call with the Trader once it is known. */
function chartOf({ scope, live }, into) {
  const symbol = h("select", {});
  const interval = h("select", {});
  put(into.body, h("div", { class: "filters" }, field("Symbol", symbol), field("Interval", interval)));
  const chart = new CandleChart(scope, live, { onProblem: (problem, retry) => into.fail(problem, retry), onOk: () => into.ok() });
  into.body.append(chart.element);
  let feed = "";
  let trader = {};
  const choose = () => {
    if (feed && symbol.value && interval.value) chart.show(feed, symbol.value, interval.value, trader.trader);
  };
  scope.listen(symbol, "change", choose);
  scope.listen(interval, "change", choose);
  const load = async () => {
    try {
      const [pools, feeds] = await Promise.all([all("pools", scope.signal), all("feeds", scope.signal)]);
      feed = pools.find(({ pool }) => pool === trader.pool)?.feed ?? "";
      const market = feeds.find((each) => each.feed === feed);
      if (!feed) {
        into.fail({ detail: `Which feed the pool ${trader.pool} uses isn't known yet.` }, load);
        return;
      }
      into.ok();
      const intervals = [...new Set([trader.interval, ...(market?.intervals ?? [])])].filter(Boolean);
      options(symbol, trader.symbols.map((each) => [each, each]));
      options(interval, intervals.map((each) => [each, each]), interval.value || trader.interval);
      choose();
    } catch (problem) {
      if (!scope.closed) into.fail(problem, load);
    }
  };
  return (detail) => {
    trader = detail;
    load();
  };
}

function followSignals({ scope, live }, into, name) {
  const list = new SignalList(NEWEST);
  put(into.body, list.element, stageLegend());
  list.wait(loading("Loading signals…"));
  const show = () => list.draw(() => empty("It hasn't signalled yet."));
  const load = async () => {
    const [asked, before] = [list.ask(), into.asks()];
    try {
      const page = await get("signals", { trader: name, limit: NEWEST }, scope.signal);
      into.ok(before);
      for (const signal of page.items) list.take(signal, asked);
      show();
    } catch (problem) {
      if (!scope.closed) into.fail(problem, load);
    }
  };
  scope.every(LOOK_MS, () => list.isDue && show());
  live.follow(scope, "signals", {
    data: (signal) => {
      if (signal.trader !== name) return;
      into.ok();
      list.take(signal);
      show();
    },
    failed: (problem) => into.fail(problem),
    opened: load,
  });
}

function showManifest(into, { manifest, kept_by: keptBy }) {
  put(
    into.body,
    keptBy && h("p", { class: "message" }, keptWords(keptBy)),
    h("pre", { class: "manifest", tabindex: "0", "aria-label": "Manifest as JSON" }, JSON.stringify(manifest, null, 2)),
  );
}

function showActions(into, context, trader, changed) {
  if (!context.config.writable) {
    put(into, h("span", { class: "quiet" }, "Read-only: changes are refused here."));
    return;
  }
  const { scope } = context;
  const suspend = h("button", { type: "button", "data-suspends": true }, trader().suspended ? "Resume" : "Suspend");
  const edit = h("button", { type: "button" }, "Edit");
  const remove = h("button", { type: "button", class: "danger-text" }, "Delete");
  scope.listen(suspend, "click", async () => {
    const wanted = !trader().suspended;
    suspend.disabled = true;
    try {
      changed(await call("PUT", `traders/${named(trader().trader)}/suspend`, { body: { suspend: wanted } }));
      toast(`${trader().trader} is ${wanted ? "suspended" : "resumed"}.`);
    } catch (problem) {
      toast(problem.message, "bad");
    }
    suspend.disabled = false;
  });
  scope.listen(edit, "click", () => openEditor({ trader: trader().trader, onSaved: changed }));
  scope.listen(remove, "click", async () => {
    const name = trader().trader;
    const words = `Delete ${name}? Its process ends, and what it knew is lost. Its signals stay on their topic.`;
    if (!(await confirmed({ title: "Delete this Trader?", words, yes: "Delete" }))) return;
    try {
      await call("DELETE", `traders/${named(name)}`);
      toast(`${name} is deleted.`);
      location.hash = "#/traders";
    } catch (problem) {
      toast(problem.message, "bad");
    }
  });
  put(into, suspend, edit, remove);
}
