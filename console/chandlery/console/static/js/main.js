// The console begins here: what the server is, the frame around the views, the one live stream.

import { call, get, token, whenUnauthorized } from "./api.js";
import { askForToken, toast } from "./dialogs.js";
import { attr, h, put, text } from "./dom.js";
import { icon } from "./icons.js";
import { Live } from "./live.js";
import { empty } from "./parts.js";
import { heading, Router } from "./router.js";
import { Scope } from "./scope.js";
import { applyTheme, nextTheme, theme } from "./theme.js";
import { feedsView } from "./views/feeds.js";
import { memoryView } from "./views/memory.js";
import { overviewView } from "./views/overview.js";
import { performanceView } from "./views/performance.js";
import { signalView } from "./views/signal.js";
import { signalsView } from "./views/signals.js";
import { traderView } from "./views/trader.js";
import { newTraderView } from "./views/trader_editor.js";
import { tradersView } from "./views/traders.js";

const VIEWS = [
  ["overview", "Overview", "#/"],
  ["traders", "Traders", "#/traders"],
  ["signals", "Signals", "#/signals"],
  ["performance", "Performance", "#/performance"],
  ["memory", "Memory", "#/memory"],
  ["feeds", "Feeds", "#/feeds"],
];

/** Which view a path means. */
function find(path) {
  const [first = "overview", ...rest] = path;
  if (first === "overview") return { view: overviewView, title: "Overview", name: "overview" };
  if (first === "new-trader") return { view: newTraderView, title: "New Trader", name: "traders" };
  if (first === "traders" && rest.length === 0) return { view: tradersView, title: "Traders", name: "traders" };
  if (first === "traders" && rest.length === 2) return { view: traderView, title: rest.join("/"), name: "traders" };
  if (first === "signals" && rest.length === 0) return { view: signalsView, title: "Signals", name: "signals" };
  if (first === "signals" && rest.length === 1) return { view: signalView, title: "Signal", name: "signals" };
  if (first === "performance") return { view: performanceView, title: "Performance", name: "performance" };
  if (first === "memory") return { view: memoryView, title: "Memory", name: "memory" };
  if (first === "feeds") return { view: feedsView, title: "Feeds", name: "feeds" };
  return { view: nowhere, title: "Not found", name: "none" };
}

function nowhere({ root }) {
  put(root, heading("There is no such page"), empty("Go to the ", h("a", { href: "#/" }, "overview"), "."));
}

function rail() {
  const links = new Map();
  const list = h(
    "ul",
    {},
    VIEWS.map(([name, title, href]) => {
      const link = h("a", { href, title }, icon(name), h("span", {}, title));
      links.set(name, link);
      return h("li", {}, link);
    }),
  );
  put(document.getElementById("rail"), list);
  return (shown) => {
    for (const [name, link] of links) attr(link, "aria-current", name === shown ? "page" : null);
  };
}

const LINK_WORDS = { idle: "Idle", connecting: "Connecting…", live: "Live", reconnecting: "Reconnecting…", paused: "Paused" };

function linkState(live) {
  const words = h("span", {});
  const again = h("button", { type: "button", class: "small", hidden: true, onclick: () => live.hurry() }, "Try now");
  const element = h("div", { class: "link", role: "status", id: "link" }, h("span", { class: "dot", "aria-hidden": "true" }), words, again);
  live.watch((state, problem) => {
    text(words, LINK_WORDS[state]);
    attr(element, "data-state", state);
    attr(element, "title", problem ? problem.message : null);
    attr(document.body, "data-stale", state === "reconnecting" || null);
    again.hidden = state !== "reconnecting";
  });
  return element;
}

function themeButton() {
  const button = h("button", { type: "button", class: "icon-button", id: "theme" });
  const show = () => {
    put(button, icon(theme()));
    const words = `Colours: ${{ auto: "as the system", light: "light", dark: "dark" }[theme()]}`;
    attr(button, "aria-label", `${words}. Change`);
    attr(button, "title", words);
  };
  button.addEventListener("click", () => {
    nextTheme();
    show();
  });
  show();
  return button;
}

function bar(live, config) {
  const leave = h("button", { type: "button", class: "icon-button", id: "sign-out", title: "Forget the token", "aria-label": "Forget the token" }, icon("key"));
  leave.hidden = !config.token_required;
  leave.addEventListener("click", () => {
    token.forget();
    location.reload();
  });
  put(
    document.getElementById("bar"),
    h("a", { class: "brand", href: "#/" }, h("img", { src: "icon.svg", alt: "", width: 26, height: 26 }), h("span", {}, "Chandlery")),
    h("span", { class: "mode quiet" }, config.mode ? `${config.mode} · ${config.version}` : ""),
    linkState(live),
    leave,
    themeButton(),
  );
}

let signingIn = false;

/** Ask for a token until one holds. False: a person doesn't want to give one now, or is being asked already. */
async function signIn() {
  if (signingIn) return false; // one dialog, however many calls were refused; its own tries are among them
  signingIn = true;
  const held = await askForToken(async (given) => {
    token.set(given);
    try {
      await call("GET", "overview");
      return "";
    } catch (problem) {
      token.forget();
      return problem.status === 401 ? "That isn't the token." : problem.message;
    }
  });
  signingIn = false;
  return held;
}

/** Nothing is asked for, and nothing refused, before there is a token. */
async function firstSignIn(main) {
  put(main, h("p", { class: "empty" }, "This API needs a token before it shows anything."));
  while (!(await signIn())) {
    await new Promise((resolve) => {
      const again = h("button", { type: "button", class: "primary", onclick: resolve }, "Sign in");
      put(main, h("p", { class: "empty" }, "This API needs a token before it shows anything. ", again));
      again.focus();
    });
  }
}

async function configuration() {
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await get("config");
    } catch (problem) {
      put(
        document.getElementById("main"),
        h("p", { class: "empty", role: "status" }, `${problem.message} Trying again…`),
      );
      await new Promise((resolve) => setTimeout(resolve, Math.min(10_000, 1_000 * 2 ** attempt)));
    }
  }
}

async function start() {
  applyTheme();
  const main = document.getElementById("main");
  const config = await configuration();
  const whole = new Scope();
  let router;
  const unauthorized = async () => {
    if (!(await signIn())) return;
    toast("Signed in.");
    live.restart();
    router.go();
  };
  const live = new Live({ onUnauthorized: unauthorized });
  whenUnauthorized(unauthorized);
  bar(live, config);
  const mark = rail();
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault(); // the hash is the router's
    main.focus();
  });
  const onView = (name, title) => {
    mark(name);
    text(document.getElementById("announce"), `${title}`);
  };
  const show = () => {
    // Always followed: whether the stream lives is then seen on every view.
    live.follow(whole, "overview", { data: ({ attention }) => attr(document.body, "data-attention", attention.length || null) });
    router = new Router(main, { live, config, onView }, find);
    router.go();
  };
  if (config.token_required && !token.get()) await firstSignIn(main);
  show();
}

start();
