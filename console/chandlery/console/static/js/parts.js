// Parts that several views show: panels, figures, badges, links.

import { attr, h, put, text } from "./dom.js";
import { icon } from "./icons.js";
import { clockTime, durationUs } from "./amounts.js";
import { stageBar } from "./drawing.js";

/** A panel: title, actions, body; and its own error, so that one that fails leaves the others live. */
export function panel(title, { actions = [], className = "", note = "", level = 2 } = {}) {
  const error = h("div", { class: "panel-error", role: "alert", hidden: true });
  const body = h("div", { class: "panel-body" });
  const element = h(
    "section",
    { class: `panel ${className}`, "aria-label": title },
    h(
      "div",
      { class: "panel-head" },
      h(`h${level}`, {}, title),
      note && h("span", { class: "quiet" }, note),
      h("div", { class: "panel-actions" }, actions),
    ),
    error,
    body,
  );
  let failures = 0;
  return {
    element,
    body,
    /** What to give `ok` with the answer to what is asked now. */
    asks: () => failures,
    /** Say what is wrong above what was last known. */
    fail(problem, retry) {
      failures += 1;
      put(
        error,
        icon("alert"),
        h("span", {}, problem.detail || problem.message || problem.title || "This can't be shown now."),
        retry && h("button", { type: "button", class: "small", onclick: retry }, "Try again"),
      );
      error.hidden = false;
    },
    /** All is well again; an answer to what was asked before the newest failure says nothing of it. */
    ok(asked = failures) {
      if (!error.hidden && asked === failures) {
        error.hidden = true;
        error.replaceChildren();
      }
    },
  };
}

/** Where nothing is yet: what it means, and what to do. */
export function empty(...words) {
  return h("p", { class: "empty" }, words);
}

export function loading(words = "Loading…") {
  return h("p", { class: "empty loading" }, words);
}

/** One figure of the first look. `show(value, note, level)`; level: good, warn, bad or nothing. */
export function tile(label, href) {
  const value = h("span", { class: "tile-value" }, "–");
  const note = h("span", { class: "tile-note" });
  const element = h("a", { class: "tile", href }, h("span", { class: "tile-label" }, label), value, note);
  return {
    element,
    show(shown, said, level = "") {
      text(value, shown);
      text(note, said);
      attr(element, "data-level", level || null);
    },
  };
}

const STATE_LEVEL = {
  Active: "good",
  Warm: "good",
  Ready: "good",
  Retired: "quiet",
  Suspended: "quiet",
  Init: "wait",
  Pending: "wait",
  Stopping: "wait",
  Blocked: "warn",
  Backoff: "warn",
  Stalled: "bad",
};

/** How a Trader is: good, wait, warn, bad, or quiet. A state that is none of a process is its resource's. */
export function stateLevel({ state, ready, reason, suspended }) {
  if (suspended) return "quiet";
  return STATE_LEVEL[state] ?? (ready ? "good" : reason ? "bad" : "wait");
}

/** A state by colour and word. */
export function stateBadge() {
  const element = h("span", { class: "badge" });
  const show = (trader) => {
    text(element, trader.suspended ? "Suspended" : trader.state || "Unknown");
    attr(element, "data-level", stateLevel(trader));
    attr(element, "title", trader.reason || null);
  };
  return { element, show };
}

export function actionBadge(action) {
  const known = ["buy", "sell", "close", "custom"].includes(action) ? action : "custom";
  return h("span", { class: "action", "data-action": known }, action);
}

/** A state of a signal's life as a small word; unknown ones look quiet. */
export function lifeWord(state) {
  return h("span", { class: "life-word", "data-state": state }, state);
}

export const traderHref = (name) => `#/traders/${name.split("/").map(encodeURIComponent).join("/")}`;
export const signalHref = (id) => `#/signals/${encodeURIComponent(id)}`;

/** Copies a text; says so in the place of its label. */
export function copyButton(scope, value, label = "Copy") {
  const words = h("span", {}, label);
  const button = h("button", { type: "button", class: "small quiet-button" }, icon("copy"), words);
  scope.listen(button, "click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      words.textContent = "Copied";
    } catch {
      words.textContent = "Select it and copy"; // no clipboard on a page without https
    }
    scope.after(1_500, () => {
      words.textContent = label;
    });
  });
  return button;
}

/** One signal in a list: when, what, who, its stages; the whole row leads to its page. */
export function signalRow(signal) {
  const bar = stageBar();
  const length = h("span", { class: "signal-length num" });
  const state = h("span", { class: "signal-state" });
  let shown;
  const element = h(
    "li",
    { class: "signal-row" },
    h(
      "a",
      { href: signalHref(signal.id) },
      h("time", { class: "num signal-time", datetime: new Date(signal.emitted_ms).toJSON() }, clockTime(signal.emitted_ms)),
      state,
      actionBadge(signal.action),
      h("span", { class: "signal-symbol" }, signal.symbol, " ", h("span", { class: "quiet" }, signal.interval)),
      h("span", { class: "signal-trader clip" }, signal.trader),
      h("span", { class: "signal-price num" }, signal.price),
      h("span", { class: "signal-reason clip quiet" }, signal.reason),
      h("span", { class: "signal-bar" }, bar.element),
      length,
    ),
  );
  const show = (now) => {
    bar.show(now.stages ?? []);
    text(length, now.frame_to_signal_us === null ? "–" : durationUs(now.frame_to_signal_us));
    attr(length, "title", now.frame_to_signal_us === null ? "not acknowledged yet" : "frame to acknowledged signal");
    if (shown !== now.state) put(state, lifeWord((shown = now.state)));
  };
  return { element, show };
}

/** Names and values. `show([[name, value or node], …])`. */
export function figures() {
  const element = h("dl", { class: "figures" });
  const cells = new Map();
  const show = (rows) => {
    for (const [name, value] of rows) {
      let cell = cells.get(name);
      if (cell === undefined) {
        cell = h("dd", { class: "num" });
        cells.set(name, cell);
        element.append(h("div", {}, h("dt", {}, name), cell));
      }
      cell.parentNode.classList.toggle("long", String(value).length > 14);
      if (value instanceof Node) {
        if (cell.firstChild !== value) put(cell, value);
      } else text(cell, value);
    }
  };
  return { element, show };
}

/** A labelled field of a filter bar; `roomy`: its values are sentences. */
export function field(label, control, { roomy = false } = {}) {
  return h("label", { class: roomy ? "field roomy" : "field" }, h("span", {}, label), control);
}

/** Put options into a select, keeping what is chosen where it still stands. Values are [value, words]. */
export function options(select, values, chosen = select.value) {
  const key = JSON.stringify(values);
  if (select.dataset.drawn !== key) {
    select.dataset.drawn = key;
    put(select, values.map(([value, words]) => h("option", { value }, words)));
  }
  if (values.some(([value]) => value === chosen)) select.value = chosen;
}
