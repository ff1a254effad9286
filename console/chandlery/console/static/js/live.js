// The one stream behind all that is shown. Browsers allow six connections to a host, and tabs share them.

import { address, ApiProblem, authorization, problemOf, token } from "./api.js";
import { EventParser } from "./sse.js";

//: The server sends at least a comment every 10 s: three missed, and the connection is dead.
const SILENCE_MS = 31_000;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MOST_MS = 15_000;
//: A view that closes and the one that opens change the topics in one go.
const SETTLE_MS = 30;
//: A tab that nobody sees gives its connection back after this: a browser has six for a host, over all its tabs.
const HIDDEN_MS = 60_000;

const BROKEN = "What came can't be shown: that is a fault of the console. The browser's own console has the details.";

/** Topics whose newest event says all there is. */
const STATES = new Set(["overview", "pools", "feeds", "latency", "memory"]);

/** How long to wait before try `attempt` (0, 1, …): half fixed, half by chance, never above the cap. */
export function backoffMs(attempt, random = Math.random()) {
  const span = Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 10));
  return span / 2 + (span / 2) * random;
}

/** Call one panel's handler. Where it fails that panel says so: the stream and the others go on. */
function spared(handlers, call) {
  try {
    call();
  } catch (error) {
    console.error("live: a panel can't show what came:", error);
    try {
      handlers.failed?.({ detail: BROKEN });
    } catch (again) {
      console.error("live: nor can it say so:", again);
    }
  }
}

/** The topic of a candle event. */
export function candleTopic(feed, symbol, interval) {
  return `candles:${feed}:${symbol}:${interval}`;
}

/**
 * Subscriptions by topic, and the stream that serves them.
 *
 * States: `idle` (nothing is subscribed), `connecting`, `live`, `reconnecting` (cut; tries again), `paused` (nobody
 * sees the tab).
 */
export class Live {
  #topics = new Map(); // topic -> Set of handlers
  #newest = new Map(); // topic -> its newest data
  #traders = new Map(); // name -> row
  #failed = new Map(); // topic -> problem
  #asked = "";
  #told = new Set(); // topics of the stream that runs
  #hadOpened = new WeakSet(); // handlers that were told to ask
  #lastId = "";
  #run = undefined; // AbortController of the connection
  #settle = undefined;
  #unseen = undefined; // timer of a hidden tab
  #retry = undefined;
  #attempt = 0;
  #watchers = new Set();
  state = "idle";
  problem = undefined;

  constructor({ onUnauthorized }) {
    this.onUnauthorized = onUnauthorized;
    addEventListener("online", () => this.hurry());
    document.addEventListener("visibilitychange", () => this.#seen());
  }

  /** Call `watcher(state, problem)` now and on each change. Returns how to stop it. */
  watch(watcher) {
    this.#watchers.add(watcher);
    watcher(this.state, this.problem);
    return () => this.#watchers.delete(watcher);
  }

  /**
   * Follow a topic until the scope closes.
   *
   * handlers: `data(value, event)`; `failed(problem)`, until data comes again; for signals and candles `opened()`: what
   * the API answers from now on and what the stream tells have no hole between them. It is called when the stream begins
   * to tell the topic, and again whenever something may be missing: after a cut, a gap, a failure. Where there is no
   * stream it is called once all the same, for the API may well answer.
   */
  follow(scope, topic, handlers) {
    let all = this.#topics.get(topic);
    if (all === undefined) this.#topics.set(topic, (all = new Set()));
    all.add(handlers);
    scope.onClose(() => {
      all.delete(handlers);
      if (all.size === 0 && this.#topics.get(topic) === all) this.#topics.delete(topic);
      this.#changed();
    });
    if (this.#newest.has(topic)) spared(handlers, () => handlers.data(this.#newest.get(topic), topic));
    if (this.#failed.has(topic)) spared(handlers, () => handlers.failed?.(this.#failed.get(topic)));
    if (this.state === "live" && this.#told.has(topic)) this.#opened([handlers]);
    else if (this.state === "reconnecting") this.#opened([handlers]);
    this.#changed();
  }

  /** Tell these handlers to ask. */
  #opened(all) {
    for (const handlers of all) {
      this.#hadOpened.add(handlers);
      spared(handlers, () => handlers.opened?.());
    }
  }

  /** Those of `topic`, as they are now: a handler may well follow or let go of something. */
  #of(topic) {
    return [...(this.#topics.get(topic) ?? [])];
  }

  /** Try again now: a person asked, a token was given, the network is back. */
  hurry() {
    if (this.state !== "reconnecting") return;
    this.#attempt = 0;
    this.#open();
  }

  /** Begin anew, with another token. */
  restart() {
    this.#attempt = 0;
    this.#asked = "";
    this.#changed();
  }

  #seen() {
    clearTimeout(this.#unseen);
    if (document.visibilityState === "hidden") this.#unseen = setTimeout(() => this.#close("paused"), HIDDEN_MS);
    else if (this.state === "paused") this.#open(); // signals go on from the last position, the rest asks
  }

  #changed() {
    this.#settle ??= setTimeout(() => {
      this.#settle = undefined;
      this.#forget();
      const asked = [...this.#topics.keys()].sort().join(",");
      if (asked === this.#asked) return;
      this.#asked = asked;
      if (asked === "") this.#close("idle");
      else if (this.state !== "paused") this.#open();
    }, SETTLE_MS);
  }

  /** What is known of topics that nobody follows any more; one left and followed again at once stays as it is. */
  #forget() {
    for (const known of [this.#newest, this.#failed]) {
      for (const topic of [...known.keys()]) if (!this.#topics.has(topic)) known.delete(topic);
    }
    if (!this.#topics.has("traders")) this.#traders.clear();
    if (!this.#topics.has("signals")) this.#lastId = "";
  }

  #close(state) {
    this.#run?.abort();
    this.#run = undefined;
    this.#told = new Set();
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#tell(state, undefined);
  }

  #tell(state, problem) {
    if (this.state === state && this.problem === problem) return;
    this.state = state;
    this.problem = problem;
    for (const watcher of this.#watchers) watcher(state, problem);
  }

  async #open() {
    this.#run?.abort();
    clearTimeout(this.#retry);
    this.#retry = undefined;
    const run = (this.#run = new AbortController());
    this.#told = new Set();
    // A stream that makes room for one with other topics isn't worth a word.
    if (this.state === "idle") this.#tell("connecting", undefined);
    const held = token.get();
    let problem;
    try {
      await this.#read(run);
      problem = new ApiProblem({ detail: "The server ended the stream.", reason: "StreamEnded" });
    } catch (error) {
      problem = error instanceof ApiProblem ? error : new ApiProblem({ detail: "The connection was cut.", reason: "Cut" });
    } finally {
      run.abort(); // whatever ended it, the connection isn't needed any more
    }
    if (this.#run !== run) return; // closed, or another took over
    this.#tell("reconnecting", problem);
    for (const topic of [...this.#topics.keys()]) {
      this.#opened(this.#of(topic).filter((handlers) => !this.#hadOpened.has(handlers)));
    }
    if (problem.status === 401 && token.get() === held) {
      this.onUnauthorized(); // a person has to give a token: until then trying again is no use
      return;
    }
    this.#retry = setTimeout(() => this.#open(), backoffMs(this.#attempt));
    this.#attempt += 1;
  }

  async #read(run) {
    const asked = this.#asked;
    const resume = this.#lastId && this.#topics.has("signals") ? { "Last-Event-ID": this.#lastId } : {};
    let silence = setTimeout(() => run.abort(), SILENCE_MS);
    try {
      const response = await fetch(address("live", { topics: asked }), {
        headers: { Accept: "text/event-stream", ...authorization(), ...resume },
        signal: run.signal,
        cache: "no-store",
      });
      if (!response.ok) throw await problemOf(response);
      this.#attempt = 0;
      this.#failed.clear();
      this.#told = new Set(asked.split(","));
      this.#tell("live", undefined);
      this.#begun(Boolean(resume["Last-Event-ID"]));
      const parser = new EventParser(
        (event) => {
          if (this.#run === run) this.#take(event);
        },
        (id) => {
          if (this.#run === run && this.#topics.has("signals")) this.#lastId = id;
        },
      );
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => run.abort(), SILENCE_MS);
        parser.feed(decoder.decode(value, { stream: true }));
      }
    } finally {
      clearTimeout(silence);
    }
  }

  /** A stream began. Signals that go on from a position miss nothing: only who is new to them has to ask. */
  #begun(resumes) {
    for (const topic of [...this.#topics.keys()]) {
      if (!this.#told.has(topic)) continue; // the next stream tells it
      const all = this.#of(topic);
      this.#opened(topic === "signals" && resumes ? all.filter((handlers) => !this.#hadOpened.has(handlers)) : all);
    }
  }

  #take({ event, data, id }) {
    let value;
    try {
      value = JSON.parse(data);
    } catch {
      console.warn(`live: an event ${event} that is no JSON was left out`);
      return;
    }
    if (event === "failed") {
      this.#failed.set(value.topic, value.problem);
      for (const handlers of this.#of(value.topic)) spared(handlers, () => handlers.failed?.(value.problem));
    } else if (event === "signal") {
      if (id) this.#lastId = id;
      this.#give("signals", value, event);
    } else if (event === "gap") {
      if (id) this.#lastId = id;
      this.#opened(this.#of("signals"));
    } else if (event === "candle") {
      this.#give(candleTopic(value.feed, value.symbol, value.interval), value, event);
    } else if (event === "traders") {
      this.#give("traders", this.#merge(value), event, true);
    } else if (STATES.has(event)) {
      this.#give(event, value, event, true);
    }
  }

  #merge({ rows = [], removed = [], whole = false }) {
    if (whole) this.#traders.clear();
    for (const name of removed) this.#traders.delete(name);
    for (const row of rows) this.#traders.set(row.trader, row);
    return this.#traders;
  }

  #give(topic, value, event, keep = false) {
    if (!this.#topics.has(topic)) return; // a late event of a topic that nobody follows any more
    if (keep) this.#newest.set(topic, value);
    const failed = this.#failed.delete(topic);
    for (const handlers of this.#of(topic)) spared(handlers, () => handlers.data(value, event));
    if (failed) this.#opened(this.#of(topic));
  }
}
