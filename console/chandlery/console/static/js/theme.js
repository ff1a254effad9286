// Light or dark: as the system has it, or as a person chose.

const KEY = "chandlery-theme";
const ORDER = ["auto", "light", "dark"];
const listeners = new Set();

export function theme() {
  const kept = localStorage.getItem(KEY);
  return ORDER.includes(kept) ? kept : "auto";
}

export function applyTheme() {
  const chosen = theme();
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  for (const listener of listeners) listener();
}

export function nextTheme() {
  localStorage.setItem(KEY, ORDER[(ORDER.indexOf(theme()) + 1) % ORDER.length]);
  applyTheme();
  return theme();
}

/** Call when colours change, until the scope closes: for what is drawn on a canvas. */
export function onTheme(scope, listener) {
  listeners.add(listener);
  scope.onClose(() => listeners.delete(listener));
  scope.listen(matchMedia("(prefers-color-scheme: dark)"), "change", listener);
}

/** Colours of the style sheet as the canvas takes them. */
export function colours(names) {
  const probe = document.createElement("span");
  document.body.append(probe);
  const found = {};
  for (const name of names) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}
