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

  constructor(most) {
    this.most = most;
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
    return this.#signals.size;
  }

  get full() {
    return this.#signals.size >= this.most;
  }

  get all() {
    return [...this.#signals.values()].sort(order);
  }

  /** Keep a signal; what is known of it later replaces what was known before, never the other way. */
  take(signal) {
    const held = this.#signals.get(signal.id);
    if (held !== undefined && !isLater(signal, held)) return;
    this.#signals.set(signal.id, signal);
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
    const all = this.all;
    for (const { id } of all.slice(this.most)) this.#signals.delete(id);
    this.keyed.show(all.slice(0, this.most));
    put(this.nothing, all.length === 0 && nothing());
  }
}
