// All signals: filter, endless paging into the past, new ones on top.

import { get } from "../api.js";
import { attr, h, put, text } from "../dom.js";
import { stageLegend } from "../drawing.js";
import { empty, field, loading, options, panel } from "../parts.js";
import { heading, remember } from "../router.js";
import { LOOK_MS, SignalList } from "./signal_list.js";

const PAGE = 50;
//: More rows make a browser slow; whoever wants more narrows down.
const MOST = 1_000;
const TYPED_MS = 300;
//: No stream tells that a signal is closed or expired: it follows from those that may yet be, which must be known for it.
const MAY_BECOME = { closed: ["active"], expired: ["active", "detected"] };

export function signalsView({ scope, root, live, query }) {
  const traders = h("datalist", { id: "known-traders" });
  const trader = h("input", { type: "search", placeholder: "namespace/name", list: traders.id, value: query.get("trader") ?? "" });
  const symbol = h("input", { type: "search", placeholder: "BTC/USDT", value: query.get("symbol") ?? "" });
  const action = h("select", {});
  options(action, [["", "all"], ...["buy", "sell", "close", "custom"].map((name) => [name, name])]);
  action.value = query.get("action") ?? "";
  const state = h("select", {});
  options(state, [["", "all"], ...["detected", "invalidated", "active", "closed", "expired"].map((name) => [name, name])]);
  state.value = query.get("state") ?? "";
  const note = h("span", { class: "quiet" });
  const all = panel("Signals", { className: "headless" });
  const list = new SignalList(MOST);
  const older = h("button", { type: "button", hidden: true }, "Load older");
  const end = h("p", { class: "quiet center", hidden: true });
  put(all.body, list.element, h("div", { class: "center" }, older), end);
  put(
    root,
    heading("Signals", note),
    traders,
    h("div", { class: "filters", role: "search" }, field("Trader", trader), field("Symbol", symbol), field("Action", action), field("State", state)),
    stageLegend(),
    all.element,
  );
  const names = { trader, symbol, action, state };
  let known = [];
  const filter = () => {
    const asked = Object.fromEntries(Object.entries(names).map(([name, { value }]) => [name, value.trim()]));
    return { ...asked, trader: wholeName(asked.trader, known) };
  };
  live.follow(scope, "traders", {
    data: (rows) => {
      const now = [...rows.keys()].sort();
      if (now.join() === known.join()) return;
      known = now;
      put(traders, known.map((value) => h("option", { value })));
    },
    failed: () => {}, // names to choose from are a help; the list below says what fails
  });
  const feed = new Paging({ scope, live, all, list, older, end, note, filter: filter() });
  const changed = () => {
    remember("signals", filter());
    feed.begin(filter());
  };
  let typing;
  const typed = () => {
    clearTimeout(typing);
    typing = setTimeout(changed, TYPED_MS);
  };
  scope.onClose(() => clearTimeout(typing));
  scope.listen(trader, "input", typed);
  scope.listen(symbol, "input", typed);
  scope.listen(action, "change", changed);
  scope.listen(state, "change", changed);
}

/** `namespace/name` of what was typed: of a bare name the one Trader that has it, else the one of namespace default. */
export function wholeName(typed, known) {
  const name = typed.replace(/\/$/, "");
  if (name === "" || name.includes("/")) return name;
  const found = known.filter((full) => full.endsWith(`/${name}`));
  return found.length === 1 ? found[0] : `default/${name}`;
}

/** The pages of one filter, and the live signals that pass it. */
class Paging {
  #filter = {};
  #next = "";
  #run = undefined;
  #busy = false;
  #begun = false; // whether the first page is there

  constructor(parts) {
    Object.assign(this, parts);
    const { scope, live, list, older, filter } = parts;
    list.passes = (signal) => this.#keeps(signal) && (!this.#filter.state || signal.state === this.#filter.state);
    list.keeps = (signal) => this.#keeps(signal);
    this.#prepare(filter);
    scope.listen(older, "click", () => this.more());
    const watch = new IntersectionObserver(([entry]) => entry.isIntersecting && this.more(), { rootMargin: "400px" });
    watch.observe(older);
    scope.every(LOOK_MS, () => this.#begun && this.list.isDue && this.#draw());
    scope.onClose(() => {
      watch.disconnect();
      this.#run?.close();
    });
    live.follow(scope, "signals", {
      data: (signal) => {
        this.all.ok();
        this.list.take(signal); // also one that doesn't pass: it may end one that is shown
        this.#draw();
      },
      failed: (problem) => this.all.fail(problem),
      opened: () => this.#newest(),
    });
  }

  /** Another filter: everything anew. */
  begin(filter) {
    this.#prepare(filter);
    this.#newest();
  }

  #prepare(filter) {
    this.#filter = filter;
    this.#run?.close();
    this.#run = this.scope.inner();
    this.#busy = false;
    this.#begun = false;
    this.#next = "";
    this.list.clear();
    this.list.draw(() => loading("Loading signals…"));
    this.older.hidden = true;
  }

  /** Whether a signal passes the filter, whatever its state. */
  #keeps({ trader, symbol, action }) {
    const { trader: whose, symbol: which, action: what } = this.#filter;
    return (!whose || trader === whose) && (!which || symbol === which) && (!what || action === what);
  }

  /** The newest page; after a cut as many as it takes to meet what was known, so that no hole is left between. */
  async #newest() {
    // Asked before the page: what ends between the two is on the page.
    for (const state of MAY_BECOME[this.#filter.state] ?? []) {
      if ((await this.#ask({ state, limit: MOST }, () => this.#newest())) === undefined) return;
    }
    // Of one state, rows come in between: to have met one known says nothing of those around it.
    const known = new Set(this.#begun && !this.#filter.state ? this.list.all.map(({ id }) => id) : []);
    let cursor = "";
    let met = false;
    for (let pages = 0; pages === 0 || (known.size > 0 && !met && cursor && pages < MOST / PAGE); pages += 1) {
      const page = await this.#page(cursor);
      if (page === undefined) return;
      met = page.items.some(({ id }) => known.has(id));
      cursor = page.next;
    }
    // Where the pages loaded before end is still where older ones begin.
    if (!met) this.#next = cursor;
    this.#begun = true;
    this.#draw();
  }

  async more() {
    if (this.#busy || this.#next === "" || this.list.full) return;
    this.#busy = true;
    attr(this.older, "aria-busy", "true");
    const run = this.#run;
    const page = await this.#page(this.#next);
    if (run !== this.#run) return; // another filter meanwhile
    this.#busy = false;
    attr(this.older, "aria-busy", null);
    if (page === undefined) return;
    this.#next = page.next;
    this.#draw();
  }

  #page(cursor) {
    return this.#ask({ limit: PAGE, cursor }, () => (cursor ? this.more() : this.#newest()));
  }

  /** Signals that pass the filter; nothing where another one was chosen meanwhile, or it failed. */
  async #ask(more, again) {
    const run = this.#run;
    const [asked, before] = [this.list.ask(), this.all.asks()];
    try {
      const page = await get("signals", { ...this.#filter, ...more }, run.signal);
      if (run.closed) return undefined;
      this.all.ok(before);
      for (const signal of page.items) this.list.take(signal, asked);
      return page;
    } catch (problem) {
      if (run.closed) return undefined;
      this.list.draw(() => null);
      this.all.fail(problem, again);
      return undefined;
    }
  }

  #draw() {
    const filtered = Object.values(this.#filter).some(Boolean);
    this.list.draw(() =>
      empty(filtered ? "No signal passes this filter." : "No signal yet. They come once a Trader is Active and its strategy decides."),
    );
    this.older.hidden = this.#next === "" || this.list.full;
    this.end.hidden = this.list.size === 0 || !this.older.hidden;
    text(this.end, this.list.full ? `The newest ${MOST} are shown: narrow down by the filter.` : "That is all there is.");
    text(this.note, this.list.size ? `${this.list.size} shown, new ones come on top` : "");
  }
}
