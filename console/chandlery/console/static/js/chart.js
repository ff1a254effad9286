// Candles of one series with the signals on them, drawn by TradingView's Lightweight Charts.

import {
  CandlestickSeries,
  createChart,
  createSeriesMarkers,
  HistogramSeries,
} from "../vendor/lightweight-charts.standalone.production.mjs";
import { get } from "./api.js";
import { clockTime, count, timestamp } from "./amounts.js";
import { attr, h, put, text } from "./dom.js";
import { candleTopic } from "./live.js";
import { signalHref } from "./parts.js";
import { colours, onTheme } from "./theme.js";

const CANDLES = 500;
//: More stay on the server; the browser's memory is bounded.
const CANDLES_MOST = 3_000;
const FEW = 5;
const SIGNALS_MOST = 500;

/** Digits after the point of a decimal text: `0.001` has 3. */
function digitsOf(decimal) {
  const at = decimal.indexOf(".");
  return at < 0 ? 0 : decimal.length - at - 1;
}

const MARK = {
  buy: { position: "belowBar", shape: "arrowUp", colour: "buy" },
  sell: { position: "aboveBar", shape: "arrowDown", colour: "sell" },
  close: { position: "aboveBar", shape: "circle", colour: "close" },
  custom: { position: "aboveBar", shape: "square", colour: "custom" },
};
const COLOURS = ["surface", "ink", "quiet", "line", "buy", "sell", "close", "custom", "volume"];

export class CandleChart {
  #scope;
  #live;
  #series = undefined; // {feed, symbol, interval}
  #inner = undefined; // scope of the series shown
  #candles = new Map(); // open_time_ms -> candle
  #signals = new Map(); // id -> signal
  #palette = colours(COLOURS);
  #drawnTo = -Infinity;
  #pointed = undefined; // time of the candle under the pointer, ms

  constructor(scope, live, { onProblem, onOk }) {
    this.#scope = scope;
    this.#live = live;
    this.onProblem = onProblem;
    this.onOk = onOk;
    this.box = h("div", { class: "chart-box", role: "img", "aria-label": "Candle chart" });
    this.legend = h("p", { class: "chart-legend num" });
    this.hint = h("p", { class: "empty chart-hint" }, "Choose a series.");
    this.element = h("div", { class: "chart" }, this.legend, h("div", { class: "chart-frame" }, this.box, this.hint), attribution());
    this.chart = createChart(this.box, { autoSize: true, ...this.#looks() });
    this.bars = this.chart.addSeries(CandlestickSeries, this.#barLooks());
    this.volume = this.chart.addSeries(HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.bars.priceScale().applyOptions({ scaleMargins: { top: 0.08, bottom: 0.2 } });
    this.marks = createSeriesMarkers(this.bars, []);
    const move = ({ time }) => {
      this.#pointed = time === undefined ? undefined : time * 1000;
      this.#showLegend();
    };
    const click = (event) => {
      if (event.hoveredObjectId !== undefined && this.#signals.has(event.hoveredObjectId)) {
        location.hash = signalHref(event.hoveredObjectId);
      }
    };
    this.chart.subscribeCrosshairMove(move);
    this.chart.subscribeClick(click);
    onTheme(scope, () => this.#paint());
    scope.onClose(() => {
      this.chart.unsubscribeCrosshairMove(move);
      this.chart.unsubscribeClick(click);
      this.chart.remove();
      this.#candles.clear();
      this.#signals.clear();
    });
  }

  /** Show another series; the one before is let go. `trader`: whose signals alone; empty: all on this series. */
  show(feed, symbol, interval, trader = "") {
    const now = JSON.stringify([feed, symbol, interval, trader]);
    if (now === this.#series) return;
    this.#series = now;
    this.#inner?.close();
    const inner = (this.#inner = this.#scope.inner());
    this.#candles.clear();
    this.#signals.clear();
    this.#draw();
    text(this.hint, "Loading candles…");
    this.hint.hidden = false;
    attr(this.box, "aria-label", `Candle chart of ${symbol} ${interval}`);
    const load = () => this.#loadCandles(inner, { feed, symbol, interval });
    this.#live.follow(inner, candleTopic(feed, symbol, interval), {
      data: (event) => this.#take(event, load),
      failed: (problem) => this.onProblem(problem),
      opened: load,
    });
    this.#live.follow(inner, "signals", {
      data: (signal) => {
        if (signal.symbol !== symbol || signal.interval !== interval) return;
        if (trader ? signal.trader !== trader : signal.feed && signal.feed !== feed) return;
        this.#signals.set(signal.id, signal);
        this.#mark();
      },
      failed: (problem) => this.onProblem(problem),
      opened: () => this.#loadSignals(inner, { feed, symbol, interval, trader }),
    });
  }

  async #loadSignals(inner, { feed, symbol, interval, trader }) {
    try {
      const page = await get("signals", { symbol, trader, feed, limit: SIGNALS_MOST }, inner.signal);
      for (const signal of page.items) if (signal.interval === interval) this.#signals.set(signal.id, signal);
      this.#mark();
    } catch (problem) {
      if (!inner.closed) this.onProblem(problem, () => this.#loadSignals(inner, { feed, symbol, interval, trader }));
    }
  }

  async #loadCandles(inner, series) {
    let answer;
    try {
      answer = await get("candles", { ...series, limit: CANDLES }, inner.signal);
    } catch (problem) {
      if (inner.closed) return;
      this.hint.hidden = this.#candles.size > 0;
      text(this.hint, "No candles to show.");
      this.onProblem(problem, () => this.#loadCandles(inner, series));
      return;
    }
    this.onOk();
    const fit = this.#candles.size < 2; // the first: later ones leave where a person has scrolled to
    for (const candle of answer.candles) this.#keep(candle);
    text(
      this.hint,
      answer.complete
        ? "No candles yet: they come once the feed has trades of this series."
        : "The newest candles are still being read from Kafka…",
    );
    this.#draw(fit);
    // An answer that isn't whole yet is asked for again, while somebody looks.
    if (!answer.complete) inner.after(1_500, () => this.#loadCandles(inner, series));
  }

  /** Newer revisions replace older ones; an answer that crossed a live event doesn't turn time back. */
  #keep(candle) {
    const held = this.#candles.get(candle.open_time_ms);
    const older = held && (held.revision > candle.revision || (held.state !== "forming" && candle.state === "forming"));
    if (!older) this.#candles.set(candle.open_time_ms, candle);
    return !older;
  }

  #take({ candle, reset }, load) {
    this.onOk();
    if (reset) {
      this.#candles.clear();
      this.#signals.clear();
      this.#keep(candle);
      this.#draw();
      load();
      return; // signals of the session before went with it; new ones come by themselves
    }
    if (!this.#keep(candle)) return;
    if (this.#candles.size > CANDLES_MOST) this.#candles.delete(Math.min(...this.#candles.keys()));
    // The first few tell how many digits a price has, and how far apart the candles are.
    if (candle.open_time_ms < this.#drawnTo || this.#candles.size <= FEW) {
      this.#draw();
      return;
    }
    const isNew = candle.open_time_ms > this.#drawnTo;
    this.#drawnTo = candle.open_time_ms;
    this.bars.update(this.#bar(candle));
    this.volume.update(this.#column(candle));
    this.hint.hidden = true;
    this.#showLegend();
    if (isNew) this.#mark();
  }

  #draw(fit = false) {
    const candles = [...this.#candles.values()].sort((one, other) => one.open_time_ms - other.open_time_ms);
    const digits = Math.min(10, Math.max(0, ...candles.slice(-50).map(({ close }) => digitsOf(close))));
    this.bars.applyOptions({ priceFormat: { type: "price", precision: digits, minMove: 10 ** -digits } });
    this.bars.setData(candles.map((candle) => this.#bar(candle)));
    this.volume.setData(candles.map((candle) => this.#column(candle)));
    this.#drawnTo = candles.at(-1)?.open_time_ms ?? -Infinity;
    this.hint.hidden = candles.length > 0;
    const span = candles.length ? candles.at(-1).open_time_ms - candles[0].open_time_ms : 0;
    this.chart.timeScale().applyOptions({ secondsVisible: span > 0 && span / candles.length < 60_000 });
    if (fit && candles.length) {
      const shown = Math.min(candles.length, 120);
      this.chart.timeScale().setVisibleLogicalRange({ from: candles.length - shown, to: candles.length + 3 });
    }
    this.#mark();
    this.#showLegend();
  }

  #bar({ open_time_ms, open, high, low, close }) {
    return { time: open_time_ms / 1000, open: Number(open), high: Number(high), low: Number(low), close: Number(close) };
  }

  #column({ open_time_ms, open, close, volume }) {
    const rose = Number(close) >= Number(open);
    return { time: open_time_ms / 1000, value: Number(volume), color: rose ? this.#faded("buy") : this.#faded("sell") };
  }

  #faded(name) {
    return this.#palette[name].replace("rgb(", "rgba(").replace(")", ", 0.28)");
  }

  #mark() {
    if (this.#signals.size > SIGNALS_MOST) {
      const newest = [...this.#signals.values()].sort((one, other) => other.open_time_ms - one.open_time_ms);
      for (const { id } of newest.slice(SIGNALS_MOST)) this.#signals.delete(id);
    }
    // A marker without its candle would be drawn on a neighbour: it waits until its candle is there.
    const drawn = [...this.#signals.values()].filter(({ open_time_ms }) => this.#candles.has(open_time_ms));
    drawn.sort((one, other) => one.open_time_ms - other.open_time_ms);
    this.marks.setMarkers(
      drawn.map((signal) => {
        const { position, shape, colour } = MARK[signal.action] ?? MARK.custom;
        return { time: signal.open_time_ms / 1000, position, shape, color: this.#palette[colour], id: signal.id };
      }),
    );
    attr(this.box, "data-markers", drawn.length);
    attr(this.box, "data-candles", this.#candles.size);
  }

  /** The candle under the pointer, else the newest. */
  #showLegend() {
    const at = this.#pointed ?? this.#drawnTo;
    const candle = this.#candles.get(at);
    if (candle === undefined) {
      text(this.legend, "");
      return;
    }
    const here = [...this.#signals.values()].filter(({ open_time_ms }) => open_time_ms === at);
    const signals = here.length ? ` · ${here.map(({ action, trader }) => `${action} by ${trader}`).join(", ")}` : "";
    text(
      this.legend,
      `${timestamp(candle.open_time_ms).slice(0, 10)} ${clockTime(candle.open_time_ms)} UTC · O ${candle.open} H ${candle.high} ` +
        `L ${candle.low} C ${candle.close} · volume ${candle.volume} · ${count(candle.trades)} trade${candle.trades === 1 ? "" : "s"} · ${candle.state}${signals}`,
    );
  }

  #paint() {
    this.#palette = colours(COLOURS);
    this.chart.applyOptions(this.#looks());
    this.bars.applyOptions(this.#barLooks());
    this.#draw();
  }

  #looks() {
    const { surface, quiet, line } = this.#palette;
    return {
      layout: { background: { color: surface }, textColor: quiet, attributionLogo: false, fontSize: 11 },
      grid: { vertLines: { color: line }, horzLines: { color: line } },
      rightPriceScale: { borderColor: line },
      timeScale: { borderColor: line, timeVisible: true, rightOffset: 3 },
      crosshair: { mode: 0 },
      localization: { locale: "en-GB" },
      handleScale: { axisPressedMouseMove: true },
    };
  }

  #barLooks() {
    const { buy, sell } = this.#palette;
    return { upColor: buy, downColor: sell, borderUpColor: buy, borderDownColor: sell, wickUpColor: buy, wickDownColor: sell };
  }
}

/** What the licence of Lightweight Charts asks for: its notice and the link, beside each chart. */
function attribution() {
  return put(
    h("p", { class: "attribution" }),
    "Charts: TradingView Lightweight Charts™, Copyright © TradingView, Inc. ",
    h("a", { href: "https://www.tradingview.com/", target: "_blank", rel: "noopener noreferrer" }, "tradingview.com"),
  );
}
