// Views by the hash of the address: each mounts into a scope of its own, which closes with it.

import { h, put } from "./dom.js";
import { Scope } from "./scope.js";

/** `#/traders/a/b?x=1` as `{path: ["traders", "a", "b"], query}`. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const decode = (part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // somebody typed a lone %
    }
  };
  return { path: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

/** Write filters into the address without another entry in the history, and without mounting anew. */
export function remember(path, query) {
  const given = Object.entries(query).filter(([, value]) => value);
  const text = new URLSearchParams(given).toString();
  history.replaceState(null, "", `#/${path}${text ? `?${text}` : ""}`);
}

export class Router {
  #scope = undefined;
  #first = true;

  constructor(main, context, find) {
    this.main = main;
    this.context = context;
    this.find = find;
    addEventListener("hashchange", () => this.go());
  }

  /** Close what is shown, and show what the address says. */
  go() {
    const { path, query } = parse(location.hash);
    const { view, title, name } = this.find(path);
    this.#scope?.close();
    const scope = (this.#scope = new Scope());
    const root = h("div", { class: "view", id: `view-${name}` });
    put(this.main, root);
    document.title = title ? `${title} · Chandlery` : "Chandlery";
    try {
      view({ ...this.context, scope, root, path, query });
    } catch (error) {
      console.error(`the view ${name} can't be shown:`, error);
      scope.close(); // half a view follows nothing
      const words = "This can't be shown: that is a fault of the console. The browser's own console has the details.";
      put(root, heading(title || "Chandlery"), h("p", { class: "empty", role: "alert" }, words));
    }
    this.context.onView(name, title);
    scrollTo(0, 0);
    // Where a keyboard or a screen reader stood is gone: begin at the new heading, but not on the first load.
    if (!this.#first) root.querySelector("h1")?.focus({ preventScroll: true });
    this.#first = false;
  }
}

/** The heading of a view; it can be given focus. */
export function heading(words, ...beside) {
  return h("div", { class: "view-head" }, h("h1", { tabindex: "-1" }, words), beside);
}
