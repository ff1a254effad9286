// Signals newest first, by id: one that comes again (with its stages, or after a cut) stays one.

import { h, Keyed, put } from "../dom.js";
import { signalRow } from "../parts.js";

/** Newest first; equal times keep a stable order by id. */
function order(one, other) {
  return other.emitted_ms - one.emitted_ms || (one.id < other.id ? -1 : 1);
}

/** What ends what, as docs/contracts.md says. */
const OPPOSITES = { buy: ["sell", "close"], sell: ["buy", "close"], close: ["buy", "sell"] };
const STATES = ["detected", "confirmed", "invalidated", "active", "closed", "expired"];

/** Whether `later` closes `held`: the stream tells of it, but not of `held` again. */
function closes(later, held) {
  return (
    later.state === "active" &&
    held.state === "active" &&
    held.trader === later.trader &&
    held.symbol === later.symbol &&
    held.emitted_ms < later.emitted_ms &&
    later.emitted_ms <= held.expires_ms &&
    (OPPOSITES[held.action] ?? []).includes(later.action)
  );
}

/** Whether what came tells of a later moment, or of the same one: pages and stream may overtake each other. */
function isLater(came, held) {
  return came.stages.length >= held.stages.length && STATES.indexOf(came.state) >= STATES.indexOf(held.state);
}

export class SignalList {
  #signals = new Map();
  #rows = new WeakMap();

  /** `passes` says of a signal as it is now whether it is shown. */
  constructor(most, passes = () => true) {
    this.most = most;
    this.passes = passes;
    this.list = h("ol", { class: "signal-list" });
    this.nothing = h("div");
    this.element = h("div", {}, this.list, this.nothing);
    this.keyed = new Keyed(this.list, {
      key: ({ id }) => id,
      create: (signal) => {
        const row = signalRow(signal);
        this.#rows.set(row.element, row);
        return row.element;
      },
      update: (node, signal) => this.#rows.get(node).show(signal),
    });
  }

  get size() {
    return this.all.length;
  }

  get full() {
    return this.size >= this.most;
  }

  get all() {
    return this.#sorted().filter(this.passes);
  }

  #sorted() {
    return [...this.#signals.values()].sort(order);
  }

  /**
   * Keep a signal; what is known of it later replaces what was known before, never the other way. One that was shown and
   * passes no more is kept too: a page that was asked for before must not bring back what it was.
   */
  take(signal) {
    const held = this.#signals.get(signal.id);
    if (held !== undefined && !isLater(signal, held)) return;
    if (held !== undefined || this.passes(signal)) this.#signals.set(signal.id, signal);
    if (signal.state !== "active") return;
    for (const each of this.#signals.values()) if (closes(signal, each)) this.#become(each, "closed");
  }

  #become(signal, state) {
    this.#signals.set(signal.id, { ...signal, state, expires_ms: null });
  }

  clear() {
    this.#signals.clear();
  }

  wait(words) {
    put(this.nothing, words);
  }

  draw(nothing) {
    const now = Date.now();
    for (const each of this.#signals.values()) {
      if (each.expires_ms !== null && each.expires_ms <= now) this.#become(each, "expired");
    }
    const all = this.#sorted();
    const shown = all.filter(this.passes);
    const ended = all.filter((each) => !this.passes(each));
    for (const { id } of [...shown.slice(this.most), ...ended.slice(this.most)]) this.#signals.delete(id);
    this.keyed.show(shown.slice(0, this.most));
    put(this.nothing, shown.length === 0 && nothing());
  }
}
