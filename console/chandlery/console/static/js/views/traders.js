// All Traders, live: filter, sort, state, sparkline.

import { h, put, text } from "../dom.js";
import { icon } from "../icons.js";
import { field, loading, options, panel } from "../parts.js";
import { heading, remember } from "../router.js";
import { matches, traderTable } from "./trader_table.js";

export function tradersView({ scope, root, live, config, query }) {
  const words = h("input", { type: "search", placeholder: "name, symbol…", value: query.get("q") ?? "" });
  const state = h("select", {});
  options(state, [["", "all"]]);
  const sum = h("span", { class: "quiet", "aria-live": "polite" });
  const make = h("a", { class: "button primary", href: "#/new-trader" }, icon("plus"), "New Trader");
  const all = panel("Traders", { className: "headless" });
  const table = traderTable("whole");
  put(all.body, loading("Loading Traders…"));
  put(
    root,
    heading("Traders", sum, config.writable && make),
    h("div", { class: "filters", role: "search" }, field("Filter", words), field("State", state)),
    all.element,
  );
  let rows = [];
  let chosen = query.get("state") ?? "";
  const shownState = (row) => (row.suspended ? "Suspended" : row.state);
  const show = () => {
    const states = [...new Set(rows.map(shownState))].sort();
    options(state, [["", "all"], ...states.map((name) => [name, name])], chosen);
    const found = rows.filter((row) => (!chosen || shownState(row) === chosen) && matches(row, words.value));
    table.show(found);
    text(sum, found.length === rows.length ? `${rows.length} in all` : `${found.length} of ${rows.length}`);
  };
  const changed = () => {
    chosen = state.value;
    remember("traders", { q: words.value, state: chosen });
    show();
  };
  scope.listen(words, "input", changed);
  scope.listen(state, "change", changed);
  live.follow(scope, "traders", {
    data: (now) => {
      all.ok();
      if (table.element.parentNode !== all.body) put(all.body, table.element);
      rows = [...now.values()];
      show();
    },
    failed: (problem) => all.fail(problem),
  });
}
