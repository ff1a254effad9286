// A live table: real table semantics, sortable by its head, rows kept over updates.

import { attr, h, Keyed, put } from "./dom.js";
import { empty } from "./parts.js";

const compare = (one, other) => {
  const missing = (value) => value === null || value === undefined || value === "";
  if (missing(one) || missing(other)) return Number(missing(one)) - Number(missing(other));
  if (typeof one === "number" && typeof other === "number") return one - other;
  return String(one).localeCompare(String(other), "en", { numeric: true });
};

/**
 * columns: `{id, label, numeric, wide, sort(item), show(cell, item)}`; `wide` ones go on a phone, `show` fills a cell and
 * is called again when the item changed. `sorted`: [column, "ascending" | "descending"] to begin with.
 */
export class LiveTable {
  #items = [];
  #shown = 0;
  #drawn = new WeakMap();

  constructor({ caption, columns, key, sorted, nothing, batch = 150, className }) {
    this.columns = columns;
    this.batch = batch;
    this.#shown = batch;
    this.sorted = sorted;
    this.nothing = nothing;
    this.heads = new Map();
    const head = h(
      "tr",
      {},
      columns.map((column) => {
        const label = column.sort
          ? h("button", { type: "button", class: "sort", onclick: () => this.#sortBy(column) }, column.label)
          : column.label;
        const cell = h("th", { scope: "col", class: this.#classes(column) }, label);
        this.heads.set(column.id, cell);
        return cell;
      }),
    );
    const body = h("tbody");
    this.rows = new Keyed(body, { key, create: () => this.#row(), update: (row, item) => this.#update(row, item) });
    this.table = h("table", { class: className }, h("caption", { class: "hidden" }, caption), h("thead", {}, head), body);
    this.foot = h("div", { class: "table-foot" });
    this.element = h(
      "div",
      {},
      h("div", { class: "table-box", tabindex: "0", role: "region", "aria-label": caption }, this.table),
      this.foot,
    );
    this.#marks();
  }

  show(items) {
    this.#items = items;
    const column = this.columns.find(({ id }) => id === this.sorted?.[0]);
    const sign = this.sorted?.[1] === "descending" ? -1 : 1;
    const isMissing = (value) => value === null || value === undefined || value === "";
    const ordered = column
      ? [...items].sort((one, other) => {
          const [left, right] = [column.sort(one), column.sort(other)];
          // What isn't known stays at the end, whichever way.
          return isMissing(left) || isMissing(right) ? compare(left, right) : sign * compare(left, right);
        })
      : items;
    this.rows.show(ordered.slice(0, this.#shown));
    this.table.hidden = items.length === 0;
    this.#footer(items.length);
  }

  #footer(total) {
    const left = Math.max(0, total - this.#shown);
    const said = total === 0 ? "nothing" : String(left);
    if (this.foot.dataset.said === said && total > 0) return;
    this.foot.dataset.said = said;
    if (total === 0) put(this.foot, empty(this.nothing()));
    else if (left === 0) put(this.foot);
    else put(this.foot, h("button", { type: "button", onclick: () => this.#more() }, `Show more (${left} left)`));
  }

  #more() {
    this.#shown += this.batch;
    this.show(this.#items);
  }

  #sortBy(column) {
    const [id, way] = this.sorted ?? [];
    const first = column.numeric ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    this.sorted = [column.id, id === column.id && way === first ? other : first];
    this.#marks();
    this.show(this.#items);
  }

  #marks() {
    for (const [id, cell] of this.heads) {
      attr(cell, "aria-sort", id === this.sorted?.[0] ? this.sorted[1] : null);
    }
  }

  #classes(column) {
    return [column.numeric && "num right", column.wide && "wide", column.className].filter(Boolean).join(" ") || undefined;
  }

  #row() {
    return h("tr", {}, this.columns.map((column) => h("td", { class: this.#classes(column) })));
  }

  #update(row, item) {
    if (this.#drawn.get(row) === item) return; // the server sends only rows that changed
    this.#drawn.set(row, item);
    this.columns.forEach((column, at) => column.show(row.cells[at], item));
  }
}

/** A `show` for a part with its own `element` and `show`: made once a cell. */
export function cellOf(make, present) {
  const parts = new WeakMap();
  return (cell, item) => {
    let part = parts.get(cell);
    if (part === undefined) {
      part = make(item);
      parts.set(cell, part);
      put(cell, part.element);
    }
    present(part, item);
  };
}
