// The REST API, and the token it may want. Paths are relative, so that the console also lives under a prefix.

const TOKEN = "chandlery-token";
//: Longer than the API's own limits, so that its answer says what went wrong.
const TIMEOUT_MS = 20_000;
const PAGE = 200;

/** An error answer (RFC 9457), or what the network said. */
export class ApiProblem extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "The request failed.");
    this.name = "ApiProblem";
    this.status = problem.status ?? 0;
    this.title = problem.title ?? "";
    this.reason = problem.reason ?? "";
    this.field = problem.field ?? "";
    this.value = problem.value ?? "";
  }
}

export const token = {
  get: () => sessionStorage.getItem(TOKEN) ?? "",
  set: (value) => sessionStorage.setItem(TOKEN, value),
  forget: () => sessionStorage.removeItem(TOKEN),
};

let onUnauthorized = () => {};

/** Who asks a person for the token when the API refuses the one it has. */
export function whenUnauthorized(call) {
  onUnauthorized = call;
}

/** `api/v1/…` with a query; empty values are left out. */
export function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(given).toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

export async function problemOf(response) {
  let body;
  try {
    body = await response.json();
  } catch {
    body = undefined; // a proxy's page, say: the status is all there is to tell
  }
  if (body === null || typeof body !== "object" || typeof body.detail !== "string") {
    body = { title: response.statusText, status: response.status, detail: `The server answered ${response.status}.` };
  }
  return new ApiProblem({ ...body, status: response.status });
}

/** One call. Returns the JSON answer (undefined for 204). Throws ApiProblem; an AbortError when `signal` ends it. */
export async function call(method, path, { query, body, headers, signal } = {}) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  const held = token.get();
  let response;
  try {
    response = await fetch(address(path, query), {
      method,
      headers: { ...authorization(), ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
    });
    if (response.ok) return response.status === 204 ? undefined : await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    const detail = limit.aborted
      ? `The server gave no answer within ${TIMEOUT_MS / 1000} s.`
      : "The server can't be reached.";
    throw new ApiProblem({ title: "Unreachable", status: 0, detail, reason: "Unreachable" });
  }
  const problem = await problemOf(response);
  // A late answer to the token before isn't about the one that was given meanwhile.
  if (problem.status === 401 && token.get() === held) onUnauthorized();
  throw problem;
}

export function authorization() {
  const held = token.get();
  return held ? { Authorization: `Bearer ${held}` } : {};
}

export const get = (path, query, signal) => call("GET", path, { query, signal });

/** All items of a paged list. */
export async function all(path, signal) {
  const items = [];
  let cursor = "";
  do {
    const page = await get(path, { limit: PAGE, cursor }, signal);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor);
  return items;
}

/** `namespace/name` as two path segments. */
export function named(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}
