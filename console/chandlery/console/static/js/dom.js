// Elements from plain values. Text always becomes text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on") && typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element: attributes by name, `onclick` and the like as listeners, the rest as children. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Put these children in the place of whatever is there. */
export function put(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Set text only where it differs, so that a selection or a screen reader isn't disturbed each second. */
export function text(element, value) {
  const shown = String(value);
  if (element.textContent !== shown) element.textContent = shown;
  return element;
}

/** Set an attribute only where it differs; null removes it. */
export function attr(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
  return element;
}

/**
 * Children of `parent` by key, kept over updates: made once, told of changes, moved only where the order changed.
 * `create(item)` returns a node, `update(node, item)` brings it up to date.
 */
export class Keyed {
  #nodes = new Map();

  constructor(parent, { key, create, update }) {
    this.parent = parent;
    this.key = key;
    this.create = create;
    this.update = update;
  }

  show(items) {
    const wanted = new Map();
    for (const item of items) {
      const key = this.key(item);
      if (!wanted.has(key)) wanted.set(key, item); // one node a key, whatever the server says
    }
    // First what leaves: with it in the way all that stand behind it would be put in anew.
    for (const [key, node] of this.#nodes) {
      if (!wanted.has(key)) {
        node.remove();
        this.#nodes.delete(key);
      }
    }
    let place = this.parent.firstElementChild;
    for (const [key, item] of wanted) {
      let node = this.#nodes.get(key);
      if (node === undefined) {
        node = this.create(item);
        this.#nodes.set(key, node);
      }
      this.update?.(node, item);
      if (node === place) place = place.nextElementSibling;
      else this.parent.insertBefore(node, place);
    }
  }
}
