// A Trader's manifest as JSON: edited and sent; the server checks it, and its complaint is shown at the field.

import { all, ApiProblem, call, get, named } from "../api.js";
import { toast } from "../dialogs.js";
import { attr, h, put, text } from "../dom.js";
import { lineOf, placeOf } from "../json_place.js";
import { field, loading, options, panel, traderHref } from "../parts.js";
import { heading } from "../router.js";

/** The strategies that are shipped, each with parameters that signal soon enough to be seen. */
const TEMPLATES = [
  ["sma-cross", "Moving averages cross", { fast: 8, slow: 21 }],
  ["rsi-reversion", "RSI comes back from an extreme", { period: 14, oversold: 30, overbought: 70 }],
  ["bollinger-breakout", "Breakout from Bollinger's bands", { period: 20 }],
  ["donchian-breakout", "Breakout from Donchian's channel", { period: 20 }],
  ["macd", "MACD crosses its signal line", {}],
];

function template([strategy, , parameters], pool, feed) {
  const [namespace = "default", name = "quants"] = (pool ?? "").split("/").filter(Boolean);
  return {
    apiVersion: "chandlery.dev/v1alpha1",
    kind: "Trader",
    metadata: { name: `my-${strategy}`, namespace },
    spec: {
      pool: { name },
      strategy: { name: strategy, parameters },
      market: { symbols: [feed?.symbols?.[0] ?? "BTC/USDT"], interval: feed?.intervals?.[0] ?? "1m" },
    },
  };
}

/** A text area with the error of a field beside it. `value()` returns the manifest, or undefined after saying why not. */
function jsonArea() {
  const area = h("textarea", {
    class: "json",
    spellcheck: "false",
    autocomplete: "off",
    rows: 22,
    "aria-label": "Manifest as JSON",
    "aria-describedby": "manifest-error",
  });
  const error = h("div", { class: "field-error", id: "manifest-error", role: "alert" });
  const ok = () => {
    put(error);
    attr(area, "aria-invalid", null);
  };
  area.addEventListener("input", ok);
  const say = (words, place) => {
    attr(area, "aria-invalid", "true");
    put(error, place && h("strong", {}, `Line ${lineOf(area.value, place[0])}: `), words);
    area.focus();
    if (place) {
      area.setSelectionRange(...place);
      const line = lineOf(area.value, place[0]);
      area.scrollTop = Math.max(0, (line - 4) * parseFloat(getComputedStyle(area).lineHeight));
    }
  };
  return {
    element: h("div", { class: "editor" }, area, error),
    area,
    set(manifest) {
      area.value = JSON.stringify(manifest, null, 2);
      ok();
    },
    value() {
      try {
        return JSON.parse(area.value);
      } catch (problem) {
        const at = /position (\d+)/.exec(problem.message)?.[1];
        say(`This is no JSON: ${problem.message}`, at && [Number(at), Number(at) + 1]);
        return undefined;
      }
    },
    complain(problem) {
      const place = problem.field ? placeOf(area.value, problem.field) : undefined;
      say(problem.field && !problem.message.includes(problem.field) ? `${problem.field}: ${problem.message}` : problem.message, place);
    },
  };
}

async function send(editor, button, request, onSaved) {
  const manifest = editor.value();
  if (manifest === undefined) return;
  button.disabled = true;
  try {
    onSaved(await request(manifest));
  } catch (problem) {
    if (!(problem instanceof ApiProblem)) throw problem;
    editor.complain(problem);
  } finally {
    button.disabled = false;
  }
}

/** What keeps a Trader: a file that changes are written to, or a tool that puts them back. */
export function keptWords(keptBy) {
  if (keptBy.startsWith("/")) return `Changes are written to ${keptBy}.`;
  return `Kept by ${keptBy}: change it there, or what is changed here is put back.`;
}

/** Edit a Trader in a dialog; `onSaved(detail)`. */
export async function openEditor({ trader, onSaved }) {
  let detail;
  try {
    // As it is now: what is on the page may be older.
    detail = await get(`traders/${named(trader)}`);
  } catch (problem) {
    toast(problem.message, "bad");
    return;
  }
  const editor = jsonArea();
  editor.set(detail.manifest);
  const save = h("button", { class: "primary" }, "Save");
  const cancel = h("button", { type: "button", class: "plain" }, "Cancel");
  const form = h(
    "form",
    {},
    h("h2", { id: "dialog-title" }, `Edit ${trader}`),
    detail.kept_by && h("p", { class: "message" }, keptWords(detail.kept_by)),
    editor.element,
    h("div", { class: "dialog-actions" }, cancel, save),
  );
  const dialog = h("dialog", { class: "wide-dialog", "aria-labelledby": "dialog-title", id: "editor" }, form);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const headers = detail.resource_version ? { "If-Match": detail.resource_version } : {};
    send(editor, save, (manifest) => call("PUT", `traders/${named(trader)}`, { body: manifest, headers }), (saved) => {
      dialog.close();
      toast(`${trader} is saved.`);
      onSaved(saved);
    });
  });
  // Leaving the page by Back leaves the dialog too.
  addEventListener("hashchange", () => dialog.close(), { once: true });
  document.body.append(dialog);
  dialog.showModal();
  editor.area.focus();
  editor.area.setSelectionRange(0, 0);
  editor.area.scrollTop = 0;
}

/** The page that makes a Trader from a template. */
export function newTraderView({ scope, root, config }) {
  const which = h("select", {});
  options(which, TEMPLATES.map(([name, words]) => [name, `${name}: ${words}`]));
  const pool = h("select", {});
  const note = h("p", { class: "quiet" });
  const editor = jsonArea();
  const create = h("button", { type: "submit", class: "primary" }, "Create");
  const into = panel("Manifest");
  const form = h("form", {}, h("div", { class: "filters" }, field("Template", which, { roomy: true }), field("Pool", pool)), editor.element, note, h("div", { class: "dialog-actions" }, h("a", { class: "button plain", href: "#/traders" }, "Cancel"), create));
  put(root, h("p", { class: "crumbs" }, h("a", { href: "#/traders" }, "Traders"), " / new"), heading("New Trader"), into.element);
  if (!config.writable) {
    put(into.body, h("p", { class: "empty" }, "This API is read-only: apply a manifest where Traders are kept."));
    return;
  }
  put(into.body, loading());
  let pools = [];
  let feeds = [];
  const fill = () => {
    const chosen = TEMPLATES.find(([name]) => name === which.value) ?? TEMPLATES[0];
    const used = pools.find((each) => each.pool === pool.value);
    editor.set(template(chosen, pool.value, feeds.find(({ feed }) => feed === used?.feed)));
    const free = used ? used.capacity - used.used : 0;
    const room = used && used.capacity > 0 ? `${used.pool} has room for ${Math.max(0, free)} more of ${used.capacity} Traders.` : "";
    text(note, pools.length ? room : "No TraderPool is known: a Trader needs one.");
  };
  scope.listen(which, "change", fill);
  scope.listen(pool, "change", fill);
  scope.listen(form, "submit", (event) => {
    event.preventDefault();
    send(editor, create, (manifest) => call("POST", "traders", { body: manifest }), (made) => {
      toast(`${made.trader} is made.`);
      location.hash = traderHref(made.trader);
    });
  });
  const load = async () => {
    try {
      [pools, feeds] = await Promise.all([all("pools", scope.signal), all("feeds", scope.signal)]);
      into.ok();
    } catch (problem) {
      if (scope.closed) return;
      into.fail(problem, load); // one can be written all the same
    }
    options(pool, pools.length ? pools.map((each) => [each.pool, each.pool]) : [["", "none known"]]);
    put(into.body, form);
    fill();
  };
  load();
}
