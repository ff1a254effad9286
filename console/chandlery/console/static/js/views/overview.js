// The first look: is the feed alive, are all Traders Ready, how many signals, which p99, how much memory.

import { get } from "../api.js";
import { count, durationUs, sizeBytes } from "../amounts.js";
import { h, put } from "../dom.js";
import { icon } from "../icons.js";
import { empty, loading, panel, tile } from "../parts.js";
import { stageLegend } from "../drawing.js";
import { heading } from "../router.js";
import { MEASURES, WHOSE } from "./memory.js";
import { LOOK_MS, SignalList } from "./signal_list.js";
import { traderTable } from "./trader_table.js";

const NEWEST = 12;

export function overviewView({ scope, root, live }) {
  const tiles = {
    feeds: tile("Feeds alive", "#/feeds"),
    traders: tile("Traders Ready", "#/traders"),
    signals: tile("Signals a minute", "#/signals"),
    p99: tile("p99 frame to signal", "#/performance"),
    memory: tile("Memory", "#/memory"),
  };
  const figures = panel("At a glance", { className: "bare" });
  put(figures.body, h("div", { class: "tiles" }, Object.values(tiles).map(({ element }) => element)));
  const attention = panel("Needs attention");
  put(attention.body, loading());
  const newest = panel("Newest signals", { actions: [h("a", { href: "#/signals" }, "All signals")] });
  const traders = panel("Traders", { actions: [h("a", { href: "#/traders" }, "All Traders")] });
  const mode = h("span", { class: "quiet" });
  put(
    root,
    heading("Overview", mode),
    figures.element,
    attention.element,
    h("div", { class: "split uneven" }, newest.element, traders.element),
  );

  live.follow(scope, "overview", {
    data: (now) => {
      figures.ok();
      attention.ok();
      showTiles(tiles, now);
      showAttention(attention.body, now);
    },
    failed: (problem) => figures.fail(problem),
  });
  followSignals(scope, live, newest);
  followTraders(scope, live, traders);
}

function showTiles(tiles, now) {
  const dead = now.feeds - now.feeds_alive;
  const feedNote = now.feeds === 0 ? "no feed yet" : dead ? `${dead} not alive` : "all alive";
  tiles.feeds.show(`${now.feeds_alive}/${now.feeds}`, feedNote, now.feeds === 0 ? "" : dead ? "bad" : "good");
  const notReady = Math.max(0, now.traders - now.traders_ready); // suspended ones aren't among them
  const suspended = now.traders_suspended ? `, ${now.traders_suspended} suspended` : "";
  const said = now.traders === 0 ? "no Trader yet" : notReady ? `${notReady} not Ready` : "all Ready";
  tiles.traders.show(`${now.traders_ready}/${now.traders}`, `${said}${suspended}`, now.traders === 0 ? "" : notReady ? "warn" : "good");
  tiles.signals.show(count(Math.round(now.signals_per_min)), "over the last minute");
  const { p50_us: p50, p99_us: p99, count: signals } = now.frame_to_signal;
  tiles.p99.show(durationUs(p99), signals ? `p50 ${durationUs(p50)}, ${count(signals)} signals` : "no signal yet", now.slow ? "warn" : "");
  tiles.memory.show(sizeBytes(now.memory_bytes), now.memory_bytes ? `${WHOSE[now.mode]}, ${MEASURES[now.memory_measure]}` : "no process is known yet");
}

function showAttention(body, { attention, away, feeds, traders, traders_suspended: suspended }) {
  const all = [...away.map((words) => [words, "bad"]), ...attention.map((words) => [words, "warn"])];
  const nothing = feeds + traders + suspended === 0;
  const key = JSON.stringify([all, nothing]);
  if (body.dataset.drawn === key) return;
  body.dataset.drawn = key;
  if (all.length === 0) {
    const words = "Nothing runs yet: apply a MarketFeed, a TraderPool that uses it, and Traders.";
    put(body, nothing ? empty(words) : h("p", { class: "all-well" }, "Nothing: everything is as it should be."));
    return;
  }
  put(
    body,
    h("ul", { class: "attention", "aria-live": "polite" }, all.map(([words, level]) => h("li", { "data-level": level }, icon("alert"), h("span", {}, words)))),
  );
}

function followSignals(scope, live, into) {
  const list = new SignalList(NEWEST);
  put(into.body, list.element, stageLegend());
  const show = () => list.draw(() => empty("No signal yet. They come once a Trader is Active and its strategy decides."));
  const load = async () => {
    const [asked, before] = [list.ask(), into.asks()];
    try {
      const page = await get("signals", { limit: NEWEST }, scope.signal);
      into.ok(before);
      for (const signal of page.items) list.take(signal, asked);
      show();
    } catch (problem) {
      if (!scope.closed) into.fail(problem, load);
    }
  };
  scope.every(LOOK_MS, () => list.isDue && show());
  list.wait(loading("Loading signals…"));
  live.follow(scope, "signals", {
    data: (signal) => {
      into.ok();
      list.take(signal);
      show();
    },
    failed: (problem) => into.fail(problem),
    opened: load,
  });
}

function followTraders(scope, live, into) {
  const table = traderTable("brief");
  put(into.body, loading("Loading Traders…"));
  live.follow(scope, "traders", {
    data: (rows) => {
      into.ok();
      if (table.element.parentNode !== into.body) put(into.body, table.element);
      table.show([...rows.values()]);
    },
    failed: (problem) => into.fail(problem),
  });
}
