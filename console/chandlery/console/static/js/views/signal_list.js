// Signals newest first, by id: one that comes again (with its stages, or after a cut) stays one.

import { h, Keyed, put } from "../dom.js";
import { signalRow } from "../parts.js";

/** How often a view looks whether the time of a signal is up: nobody tells it. */
export const LOOK_MS = 1_000;

/** Newest first; equal times keep a stable order by id. */
function order(one, other) {
  return other.emitted_ms - one.emitted_ms || (one.id < other.id ? -1 : 1);
}

/** What ends what, as docs/contracts.md says. */
const OPPOSITES = { buy: ["sell", "close"], sell: ["buy", "close"], close: ["buy", "sell"] };
//: Later ones are known later: what closed one may be heard of after its time was up.
const STATES = ["detected", "confirmed", "invalidated", "active", "expired", "closed"];

/** Whether one became active before another, as core/signal_life.py has it. */
function isBefore(one, other) {
  if (one.active_ms !== other.active_ms) return one.active_ms < other.active_ms;
  if (one.signalled_ns !== other.signalled_ns) return one.signalled_ns < other.signalled_ns;
  return one.id < other.id;
}

/** Whether `later` closes `held`: the stream tells of it, but not of `held` again. What was said of `held` after it, knew of it. */
function closes(later, held) {
  const [ending, ended] = [later.said, held.said];
  return (
    later.moment > held.moment &&
    ending.active_ms !== null &&
    ended.state === "active" &&
    ended.trader === ending.trader &&
    ended.symbol === ending.symbol &&
    isBefore(ended, ending) &&
    ending.active_ms <= ended.expires_ms &&
    (OPPOSITES[ended.action] ?? []).includes(ending.action)
  );
}

/** Whether what came tells of a later moment, or of the same one: pages and stream may overtake each other. */
function isLater(came, held) {
  return came.stages.length >= held.stages.length && STATES.indexOf(came.state) >= STATES.indexOf(held.state);
}

/** Guess an end that nobody has told yet. */
function end(each, state) {
  each.shown = { ...each.said, state, expires_ms: null };
}

export class SignalList {
  #signals = new Map(); // by id: what the server said, when, and what is shown, which may be guessed from others
  #moment = 0;
  #rows = new WeakMap();

  /** `passes` says of a signal as it is now whether it is shown; `keeps` whether it may be, once its life has gone on. */
  constructor(most, passes = () => true, keeps = passes) {
    this.most = most;
    this.passes = passes;
    this.keeps = keeps;
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
    return [...this.#signals.values()].map(({ shown }) => shown).sort(order);
  }

  /** A page is asked for: what is heard from now on may be newer than what it says. */
  ask() {
    return ++this.#moment;
  }

  /**
   * Keep a signal; what is known of it later replaces what was known before, and any guess, never the other way. One that
   * was shown and passes no more is kept too: a page that was asked for before must not bring back what it was.
   */
  take(signal, moment = ++this.#moment) {
    const held = this.#signals.get(signal.id);
    if (held !== undefined && !isLater(signal, held.said)) return;
    const taken = { said: signal, shown: signal, moment: Math.max(moment, held?.moment ?? 0) };
    if (held !== undefined || this.passes(signal) || this.keeps(signal)) this.#signals.set(signal.id, taken);
    for (const each of this.#signals.values()) {
      if (closes(taken, each)) end(each, "closed");
      if (closes(each, taken)) end(taken, "closed");
    }
  }

  clear() {
    this.#signals.clear();
  }

  wait(words) {
    put(this.nothing, words);
  }

  /** Whether the time of one is up, so that it is to be drawn anew. */
  get isDue() {
    const now = Date.now();
    return [...this.#signals.values()].some(({ shown }) => shown.expires_ms !== null && shown.expires_ms <= now);
  }

  draw(nothing) {
    const now = Date.now();
    for (const each of this.#signals.values()) {
      if (each.shown.expires_ms !== null && each.shown.expires_ms <= now) end(each, "expired");
    }
    const all = this.#sorted();
    const shown = all.filter(this.passes);
    const hidden = all.filter((each) => !this.passes(each));
    for (const { id } of [...shown.slice(this.most), ...hidden.slice(this.most)]) this.#signals.delete(id);
    this.keyed.show(shown.slice(0, this.most));
    put(this.nothing, shown.length === 0 && nothing());
  }
}
