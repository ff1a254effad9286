// Where in a JSON text a field stands, so that an error can be shown at it.

/** `spec.market.symbols[0]` or `spec.market.symbols.0` as ["spec", "market", "symbols", "0"]. */
export function pathOf(field) {
  return field.replace(/^body\./, "").replace(/\[(\d+)\]/g, ".$1").split(".").filter(Boolean);
}

/**
 * Begin and end of the value of `field` in a valid JSON text, or of the nearest field around it that is there.
 * Undefined: not even its first part is.
 */
export function placeOf(json, field) {
  const wanted = pathOf(field);
  let best;
  let depth = -1;
  let at = 0;
  const space = () => {
    while (/\s/.test(json[at] ?? "")) at += 1;
  };
  const string = () => {
    const begin = at;
    at += 1;
    while (at < json.length && json[at] !== '"') at += json[at] === "\\" ? 2 : 1;
    at += 1;
    return json.slice(begin, at);
  };
  const seen = (path, begin) => {
    if (path.length === 0 || path.length > wanted.length || path.length <= depth) return;
    if (path.every((part, index) => part === wanted[index])) {
      depth = path.length;
      best = [begin, at];
    }
  };
  const members = (close, path, keyOf) => {
    at += 1;
    space();
    for (let index = 0; at < json.length && json[at] !== close; index += 1) {
      const begin = at;
      const key = keyOf(index);
      value([...path, key]);
      seen([...path, key], begin);
      space();
      if (json[at] === ",") at += 1;
      space();
    }
    at += 1;
  };
  const value = (path) => {
    space();
    if (json[at] === "{") {
      members("}", path, () => {
        const key = JSON.parse(string());
        space();
        at += 1; // the colon
        return key;
      });
    } else if (json[at] === "[") members("]", path, String);
    else if (json[at] === '"') string();
    else while (at < json.length && !/[\s,\]}]/.test(json[at])) at += 1;
  };
  value([]);
  return best;
}

/** Line (from 1) of a place in a text. */
export function lineOf(text, at) {
  return text.slice(0, at).split("\n").length;
}
