// Server-sent events out of a fetch body: EventSource can't send a token.

/**
 * Feed it text as it comes; it calls `onEvent({event, data, id})` for each whole event, and `onPlace(id)` for one of no
 * data: it is no event for anybody, but its id is what to resume from.
 */
export class EventParser {
  #rest = "";
  #event = "";
  #data = [];
  #id = undefined;
  #sawReturn = false;

  constructor(onEvent, onPlace = () => {}) {
    this.onEvent = onEvent;
    this.onPlace = onPlace;
  }

  feed(chunk) {
    let text = chunk;
    // A CR that ended the last chunk has ended its line; an LF after it belongs to it.
    if (this.#sawReturn && text.startsWith("\n")) text = text.slice(1);
    if (text === "") return;
    this.#sawReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") {
      if (this.#data.length > 0) {
        this.onEvent({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
      } else if (this.#id !== undefined) {
        this.onPlace(this.#id);
      }
      this.#event = "";
      this.#data = [];
      this.#id = undefined;
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment, such as keep-alive
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "event") this.#event = value;
    else if (field === "data") this.#data.push(value);
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }
}
