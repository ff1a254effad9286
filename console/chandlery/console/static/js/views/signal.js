// One signal: what it says, where its time went, what became of it.

import { get } from "../api.js";
import { clockTime, durationUs, percent, timestamp } from "../amounts.js";
import { h, put, svg } from "../dom.js";
import { stageClass } from "../drawing.js";
import { icon } from "../icons.js";
import { actionBadge, copyButton, empty, lifeWord, loading, panel, signalHref, traderHref } from "../parts.js";
import { heading } from "../router.js";

export function signalView({ scope, root, live, path }) {
  const id = path[1];
  const says = panel("What it says");
  const stages = panel("Where its time went");
  const life = panel("What became of it");
  for (const each of [says, stages, life]) put(each.body, loading());
  const beside = h("span", { class: "head-badges" });
  put(
    root,
    h("p", { class: "crumbs" }, h("a", { href: "#/signals" }, "Signals"), " / ", h("code", {}, id.slice(0, 12))),
    heading("Signal", beside),
    says.element,
    stages.element,
    life.element,
  );
  let known;
  const expiry = new Alarm(scope);
  const load = async () => {
    try {
      known = await get(`signals/${encodeURIComponent(id)}`, {}, scope.signal);
    } catch (problem) {
      if (!scope.closed) says.fail(problem, load);
      if (!scope.closed && known === undefined) for (const each of [says, stages, life]) put(each.body, empty("Not known here."));
      return;
    }
    says.ok();
    put(beside, actionBadge(known.action), h("span", {}, `${known.symbol} ${known.interval}`), lifeWord(known.state));
    showSays(scope, says.body, known);
    showStages(stages.body, known);
    showLife(life.body, known);
    // Its time is up at a known moment: then it is asked for once more.
    if (known.expires_ms !== null) expiry.at(known.expires_ms, load);
  };
  live.follow(scope, "signals", {
    // Its stages come a moment after it; the next signal of its Trader on its symbol may end it.
    data: (signal) => {
      const ends = known && signal.trader === known.trader && signal.symbol === known.symbol;
      if (signal.id === id || ends) load();
    },
    opened: load,
  });
}

/** Calls once when a moment has come, the last one that was set; none that is more than a day away. */
class Alarm {
  #run;

  constructor(scope) {
    this.scope = scope;
  }

  at(moment_ms, call) {
    this.#run?.close();
    this.#run = this.scope.inner();
    const wait_ms = Math.max(0, moment_ms - Date.now()) + 500;
    if (wait_ms < 86_400_000) this.#run.after(wait_ms, call);
  }
}

function showSays(scope, body, signal) {
  const url = webAddress(signal.trace_url);
  const rows = [
    ["id", h("span", { class: "id" }, h("code", {}, signal.id), copyButton(scope, signal.id, "Copy id"))],
    ["trader", h("a", { href: traderHref(signal.trader) }, signal.trader)],
    ["strategy", `${signal.strategy}, rule ${signal.rule}, incarnation ${signal.incarnation}`],
    ["says", `${signal.action} at ${signal.price}, strength ${signal.strength}: ${signal.reason}`],
    ["candle", `${signal.symbol} ${signal.interval} opened ${timestamp(signal.open_time_ms)}${signal.forming ? " (still forming then)" : ""}`],
    ["emitted", timestamp(signal.emitted_ms)],
    ["strategy's own time", durationUs(signal.strategy_us)],
    [
      "trace",
      url
        ? h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, "Open the trace ", icon("out"))
        : signal.trace_id
          ? h("span", {}, h("code", {}, signal.trace_id), h("span", { class: "quiet" }, " (no trace_url is set)"))
          : "none",
    ],
  ];
  put(body, h("dl", { class: "pairs" }, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
}

/** The address where it is one of the web; a setting's `javascript:` isn't followed. */
function webAddress(text) {
  try {
    const url = new URL(text);
    return ["http:", "https:"].includes(url.protocol) ? url.href : "";
  } catch {
    return "";
  }
}

/** An uncertainty that the shown digits hide anyway would only be noise; the command line leaves it out the same way. */
function length({ duration_us: lasted, uncertainty_us: sure }) {
  if (sure < 0.5 || sure * 50 < lasted) return durationUs(lasted);
  return `${durationUs(lasted)} ± ${durationUs(sure)}`;
}

function showStages(body, signal) {
  if (signal.waterfall.length === 0) {
    put(body, empty("No stages yet: they are known once the broker has acknowledged the signal."));
    return;
  }
  const head = ["Stage", "Start", "Length", "Share", "Clock", "Over time"].map((name, at) =>
    h("th", { scope: "col", class: at >= 1 && at <= 3 ? "right num" : undefined }, name),
  );
  const rows = signal.waterfall.map((stage) =>
    h(
      "tr",
      {},
      h(
        "th",
        { scope: "row" },
        h("span", { class: `swatch ${stageClass(stage.name)}`, "aria-hidden": "true" }),
        stage.name,
        h("span", { class: "sub quiet" }, stage.meaning),
      ),
      h("td", { class: "right num" }, durationUs(stage.start_us)),
      h("td", { class: "right num" }, length(stage)),
      h("td", { class: "right num" }, percent(stage.share)),
      h("td", { class: "quiet clock", title: stage.clock }, stage.clock_name),
      h("td", { class: "fall-cell" }, fallBar(stage, signal.whole_us)),
    ),
  );
  put(
    body,
    h(
      "div",
      { class: "table-box", tabindex: "0", role: "region", "aria-label": "Stages" },
      h(
        "table",
        { class: "waterfall" },
        h("caption", { class: "hidden" }, "Stages of the signal, in order of time"),
        h("thead", {}, h("tr", {}, head)),
        h("tbody", {}, rows),
        h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "whole"), h("td", {}), h("td", { class: "right num" }, durationUs(signal.whole_us)), h("td", {}), h("td", {}), h("td", {}))),
      ),
    ),
    h("ul", { class: "remarks" }, remarks(signal).map((words) => h("li", {}, words))),
  );
}

function fallBar(stage, whole) {
  const share = (value) => (whole > 0 ? (value / whole) * 100 : 0);
  const begin = Math.min(share(stage.start_us), 99.5);
  // The shortest still shows as a thin mark.
  const wide = Math.max(0.5, Math.min(share(stage.duration_us), 100 - begin));
  return svg(
    "svg",
    { class: "fall", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("rect", { class: "fall-track", width: 100, height: 10 }),
    svg("rect", { class: stageClass(stage.name), x: begin.toFixed(2), width: wide.toFixed(2), height: 10 }),
  );
}

/** What the clocks are worth, in the words of `chandlery trace`. */
function remarks(signal) {
  const said = [];
  const known = (value) => value !== null && value !== undefined;
  if (signal.received_host) said.push(`begins with the frame received, by host clock ${signal.received_host}`);
  if (known(signal.frame_to_signal_us)) said.push(`frame to acknowledged signal: ${durationUs(signal.frame_to_signal_us)}`);
  if (known(signal.visible_to_decided_us)) said.push(`visible in the segment to decided: ${durationUs(signal.visible_to_decided_us)}`);
  if (known(signal.skew_us)) {
    said.push(`exchange to frame: ${durationUs(signal.skew_us)} by two wall clocks (network and clock difference together, so not a stage)`);
  }
  if (known(signal.transit_us)) {
    said.push(`of that, more than the quickest frame of the last minutes took: ${durationUs(signal.transit_us)} ± ${durationUs(signal.transit_uncertainty_us)}`);
  }
  if (known(signal.recorded_skew_us)) {
    said.push(`replay: when captured, the frame's receive clock read ${durationUs(signal.recorded_skew_us)} after the exchange's stamp (kept apart, no stage)`);
  }
  if (signal.corrected) said.push(`${signal.corrected} stamp(s) contradicted their neighbours and were moved; see ± above`);
  return said;
}

const EXPLAINED = {
  detected: "signalled",
  confirmed: "the close of its candle says the same",
  invalidated: "withdrawn: the close of its candle doesn’t say it",
  active: "one to act on",
  closed: "by an opposite signal",
  expired: "its time was up",
};

function showLife(body, { lifecycle, ended_by: by, expires_ms: expires, forming, state }) {
  if (lifecycle.length === 0) {
    put(body, empty("Nothing is told of its life yet."));
    return;
  }
  const step = ([name, at], coming) =>
    h(
      "li",
      { "data-state": name, class: coming ? "coming" : undefined },
      h("strong", {}, name),
      " ",
      h("time", { class: "num quiet", datetime: new Date(at).toJSON(), title: timestamp(at) }, `${clockTime(at)} UTC`),
      h("span", { class: "sub quiet" }, name === "closed" && by ? h("a", { href: signalHref(by) }, EXPLAINED[name]) : (coming ? "if nothing ends it before" : (EXPLAINED[name] ?? ""))),
    );
  const waits = forming && state === "detected" && h("p", { class: "quiet" }, "It was made while its candle was forming: the close confirms or withdraws it.");
  put(
    body,
    h("ol", { class: "life" }, lifecycle.map((each) => step(each, false)), expires !== null && step(["expired", expires], true)),
    waits,
  );
}
