// Dialogs: the browser's own, so that focus stays inside and Escape closes them.

import { h, put } from "./dom.js";

/** Show a dialog; resolves with its return value, empty when it was left by Escape or Cancel. */
function ask(dialog, first) {
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const { returnValue } = dialog;
      dialog.remove();
      resolve(returnValue);
    });
    document.body.append(dialog);
    dialog.showModal();
    first?.focus();
  });
}

/** Ask before something that can't be undone. True: yes. */
export async function confirmed({ title, words, yes }) {
  const no = h("button", { value: "", class: "plain" }, "Cancel");
  const dialog = h(
    "dialog",
    { "aria-labelledby": "dialog-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, words),
      h("div", { class: "dialog-actions" }, no, h("button", { value: "yes", class: "danger" }, yes)),
    ),
  );
  return (await ask(dialog, no)) === "yes";
}

/**
 * Ask for the API's token until `check(token)` accepts one: it returns what is wrong with it, or nothing.
 * Returns whether there is a token that holds.
 */
export async function askForToken(check) {
  const input = h("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
    "aria-describedby": "token-words token-error",
  });
  const error = h("p", { id: "token-error", class: "field-error", role: "alert" });
  const submit = h("button", { class: "primary" }, "Sign in");
  let accepted = false;
  const form = h(
    "form",
    {},
    h("h2", { id: "dialog-title" }, "This API needs a token"),
    // Who keeps passwords wants a name to keep them under.
    h("input", { type: "text", autocomplete: "username", value: "chandlery", hidden: true, readonly: true }),
    h("p", { id: "token-words", class: "quiet" }, "The one in the server's token file. It is kept in this tab until it is closed."),
    h("label", { class: "field", for: "token" }, h("span", {}, "Token"), input),
    error,
    h("div", { class: "dialog-actions" }, h("button", { type: "button", class: "plain", id: "token-cancel" }, "Not now"), submit),
  );
  const dialog = h("dialog", { "aria-labelledby": "dialog-title", id: "login" }, form);
  form.querySelector("#token-cancel").addEventListener("click", () => dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    put(error);
    const said = await check(input.value.trim());
    submit.disabled = false;
    if (said === "") {
      accepted = true;
      dialog.close();
    } else {
      put(error, said);
      input.select();
    }
  });
  await ask(dialog, input);
  return accepted;
}

/** Tell what was done, where screen readers hear it too. */
export function toast(words, level = "good") {
  const element = h("div", { class: "toast", "data-level": level }, words);
  document.getElementById("toasts").append(element);
  setTimeout(() => element.remove(), level === "bad" ? 8_000 : 4_000);
}
