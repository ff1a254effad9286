// What a view holds while it is shown: closing the scope lets go of all of it.

export class Scope {
  #closers = [];
  #abort = new AbortController();

  /** Ends when the scope closes; for fetch and listeners. */
  get signal() {
    return this.#abort.signal;
  }

  get closed() {
    return this.#abort.signal.aborted;
  }

  /** Call when the scope closes (at once, if it has). */
  onClose(closer) {
    if (this.closed) closer();
    else this.#closers.push(closer);
  }

  listen(target, type, listener, options = {}) {
    target.addEventListener(type, listener, { ...options, signal: this.signal });
  }

  every(ms, call) {
    const timer = setInterval(call, ms);
    this.onClose(() => clearInterval(timer));
  }

  after(ms, call) {
    const timer = setTimeout(call, ms);
    this.onClose(() => clearTimeout(timer));
    return timer;
  }

  /** A scope that closes with this one, or earlier. */
  inner() {
    const scope = new Scope();
    const close = () => scope.close();
    this.#closers.push(close);
    scope.#closers.push(() => {
      const at = this.#closers.indexOf(close);
      if (at >= 0) this.#closers.splice(at, 1);
    });
    return scope;
  }

  close() {
    if (this.closed) return;
    this.#abort.abort();
    for (const closer of this.#closers.splice(0).reverse()) closer();
  }
}
