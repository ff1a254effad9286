// Signals newest first, by id: one that comes again (with its stages, or after a cut) stays one.

import { h, Keyed, put } from "../dom.js";
import { signalRow } from "../parts.js";

/** Newest first; equal times keep a stable order by id. */
function order(one, other) {
  return other.emitted_ms - one.emitted_ms || (one.id < other.id ? -1 : 1);
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
    if (held === undefined || signal.stages.length >= held.stages.length) this.#signals.set(signal.id, signal);
  }

  clear() {
    this.#signals.clear();
  }

  wait(words) {
    put(this.nothing, words);
  }

  draw(nothing) {
    const all = this.all;
    for (const { id } of all.slice(this.most)) this.#signals.delete(id);
    this.keyed.show(all.slice(0, this.most));
    put(this.nothing, all.length === 0 && nothing());
  }
}
