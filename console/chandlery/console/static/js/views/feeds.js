// The health of each feed, and the candles of any of its series.

import { age, count, rate } from "../amounts.js";
import { CandleChart } from "../chart.js";
import { attr, h, Keyed, put, text } from "../dom.js";
import { empty, field, figures, loading, options, panel } from "../parts.js";
import { heading, remember } from "../router.js";

export function feedsView({ scope, root, live, query }) {
  const health = panel("Health", { className: "bare" });
  put(health.body, loading("Loading feeds…"));
  const chart = panel("Candles");
  put(root, heading("Feeds"), health.element, chart.element);
  const cards = feedCards((feed) => choice.choose(feed));
  const choice = seriesChoice({ scope, live, query }, chart);
  const nothing = empty("No feed yet: apply a MarketFeed.");
  live.follow(scope, "feeds", {
    data: (feeds) => {
      health.ok();
      const content = feeds.length ? cards.element : nothing;
      if (content.parentNode !== health.body) put(health.body, content);
      cards.show(feeds);
      chart.element.hidden = feeds.length === 0;
      choice.offer(feeds);
    },
    failed: (problem) => health.fail(problem),
  });
}

function word(feed) {
  if (feed.finished) return feed.alive ? ["Finished", "quiet"] : ["Finished, not whole", "warn"];
  if (feed.alive) return ["Alive", "good"];
  return feed.connected ? ["Connected, silent", "warn"] : ["Not connected", "bad"];
}

function feedCards(onChart) {
  const element = h("ul", { class: "cards feed-cards" });
  const cards = new Keyed(element, {
    key: ({ feed }) => feed,
    create: ({ feed }) => {
      const badge = h("span", { class: "badge" });
      const source = h("p", { class: "quiet clip" });
      const message = h("p", { class: "message", hidden: true });
      const numbers = figures();
      const show = h("button", { type: "button", class: "small", onclick: () => onChart(feed) }, "Show its candles");
      const card = h("li", { class: "card panel" }, h("div", { class: "card-head" }, h("h2", { class: "clip" }, feed), badge), source, message, numbers.element, show);
      card.parts = { badge, source, message, numbers };
      return card;
    },
    update: ({ parts }, feed) => {
      const [state, level] = word(feed);
      text(parts.badge, state);
      attr(parts.badge, "data-level", level);
      text(parts.source, feed.source || "–");
      parts.message.hidden = !feed.message;
      text(parts.message, feed.message);
      parts.numbers.show([
        ["Trades a second", rate(feed.trades_per_s, "")],
        ["Newest candle", feed.watermark_age_ms === null ? "none yet" : `${age(feed.watermark_age_ms)} ago`],
        ["Lag", `${count(feed.lag)} record${feed.lag === 1 ? "" : "s"}${feed.behind_ms >= 1000 ? `, ${age(feed.behind_ms)} behind` : ""}`],
        ["Late trades", count(feed.late)],
        ["Doubled trades", count(feed.duplicate)],
        ["Missing trades", count(feed.missing_ids)],
        ["Dropped", count(feed.dropped)],
        ["Dead letters", count(feed.dead_letters)],
        ["Reconnects", count(feed.reconnects)],
        ["Trades", count(feed.trades)],
        ["Frames", count(feed.frames)],
        ["Candles closed", count(feed.candles_closed)],
        ["Symbols", feed.symbols.join(", ") || "none asked for"],
        ["Intervals", feed.intervals.join(", ") || "none asked for"],
      ]);
    },
  });
  return { element, show: (feeds) => cards.show(feeds) };
}

/** The chart with its choice of feed, symbol and interval. */
function seriesChoice({ scope, live, query }, into) {
  const feed = h("select", {});
  const symbol = h("select", {});
  const interval = h("select", {});
  put(into.body, h("div", { class: "filters" }, field("Feed", feed), field("Symbol", symbol), field("Interval", interval)));
  const chart = new CandleChart(scope, live, { onProblem: (problem, retry) => into.fail(problem, retry), onOk: () => into.ok() });
  into.body.append(chart.element);
  let feeds = [];
  let asked = { feed: query.get("feed"), symbol: query.get("symbol"), interval: query.get("interval") };
  const offer = () => {
    options(feed, feeds.map((each) => [each.feed, each.feed]), asked.feed ?? feed.value);
    const now = feeds.find((each) => each.feed === feed.value);
    options(symbol, (now?.symbols ?? []).map((each) => [each, each]), asked.symbol ?? symbol.value);
    options(interval, (now?.intervals ?? []).map((each) => [each, each]), asked.interval ?? interval.value);
    if (feed.value && symbol.value && interval.value) {
      chart.show(feed.value, symbol.value, interval.value);
      asked = {};
    }
  };
  const chosen = () => {
    asked = {};
    offer();
    remember("feeds", { feed: feed.value, symbol: symbol.value, interval: interval.value });
  };
  for (const select of [feed, symbol, interval]) scope.listen(select, "change", chosen);
  return {
    offer(now) {
      feeds = now;
      offer();
    },
    choose(name) {
      feed.value = name;
      chosen();
      into.element.scrollIntoView({ block: "start" });
    },
  };
}
