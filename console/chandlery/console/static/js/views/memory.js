// Where the memory is, what grows, how full the segments are.

import { count, growth, sizeBytes } from "../amounts.js";
import { attr, h, Keyed, put, text } from "../dom.js";
import { fillBar, timeLine } from "../drawing.js";
import { empty, figures, loading, panel, tile, traderHref } from "../parts.js";
import { heading } from "../router.js";
import { cellOf, LiveTable } from "../table.js";

//: A process that grows by more than this is looked at, bytes an hour.
const GROWS = 5_000_000;
/** Whose memory is told: in a cluster Kafka, operator and console aren't asked for theirs. */
export const WHOSE = { local: "all processes", cluster: "feeds and workers" };
export const MEASURES = {
  PSS: "PSS: what they share counts once",
  RSS: "RSS: what they share counts in each",
  mixed: "PSS, and RSS where that isn’t known",
};

export function memoryView({ scope, root, live, config }) {
  const tiles = { total: tile("Total", "#/memory"), growing: tile("Growing", "#/memory"), segments: tile("Shared memory", "#/memory"), laps: tile("Laps", "#/memory") };
  const glance = panel("At a glance", { className: "bare" });
  put(glance.body, h("div", { class: "tiles" }, Object.values(tiles).map(({ element }) => element)));
  const history = panel("Total over time", { note: `${WHOSE[config.mode] ?? "all that is told"}, the last ten minutes` });
  const line = timeLine();
  put(history.body, line.element);
  const segments = panel("Segments and rings", { note: "what workers share with their Traders" });
  const processes = panel("Processes", { note: "PSS divides what is shared among those who share it, RSS counts it in each; growth is of RSS, and kafka and console fill what they may have" });
  put(segments.body, loading());
  put(processes.body, loading());
  put(root, heading("Memory"), glance.element, history.element, segments.element, processes.element);
  const table = processTable();
  const cards = segmentCards();
  live.follow(scope, "memory", {
    data: (now) => {
      for (const each of [glance, history, segments, processes]) each.ok();
      showTiles(tiles, now);
      line.show(now.history, sizeBytes, `memory over time, now ${sizeBytes(now.total_bytes)}`);
      cards.show(segments.body, now.segments);
      if (table.element.parentNode !== processes.body) put(processes.body, table.element);
      const all = now.processes.map((process) => ({ ...process, counted: process.pss_bytes ?? process.rss_bytes }));
      const most = Math.max(1, ...all.map(({ counted }) => counted));
      table.show(all.map((process) => ({ ...process, most })));
    },
    failed: (problem) => processes.fail(problem),
  });
}

function showTiles(tiles, { processes, segments, total_bytes: total, measure }) {
  const many = processes.length === 1 ? "one process" : `${count(processes.length)} processes`;
  tiles.total.show(sizeBytes(total), processes.length ? `${many}, ${measured(processes, measure)}` : "no process is known yet");
  showGrowing(tiles.growing, processes);
  const sum = (pick) => segments.reduce((all, each) => all + pick(each), 0);
  tiles.segments.show(sizeBytes(sum(({ size_bytes }) => size_bytes)), segments.length ? `${segments.length} segment${segments.length === 1 ? "" : "s"}` : "no segment yet");
  const laps = sum((each) => each.laps);
  if (segments.length === 0) tiles.laps.show("–", "no segment yet");
  else tiles.laps.show(count(laps), laps ? "readers were left behind" : "no reader was left behind", laps ? "warn" : "good");
}

/** Which memory a sum is of: what processes share counts once in the one, and in each of them in the other. */
function measured(processes, measure) {
  if (measure !== "mixed") return MEASURES[measure];
  const resident = processes.filter(({ pss_bytes: share }) => share === null).length;
  return `PSS; of ${count(resident)} only RSS is known, so what those share counts in each`;
}

const grows = ({ growth_bytes_per_h: rate, bounded }) => !bounded && (rate ?? 0) > GROWS;

/** How many grow; of a process that began a short while ago nobody can say, and never of one whose share alone is told. */
function showGrowing(into, processes) {
  const free = processes.filter(({ bounded, rss_bytes }) => !bounded && rss_bytes > 0);
  const known = free.filter(({ growth_bytes_per_h: rate }) => rate !== null);
  const growing = known.filter(grows);
  const [fastest] = [...growing].sort((one, other) => other.growth_bytes_per_h - one.growth_bytes_per_h);
  const unknown = free.length - known.length;
  const few = unknown ? `; ${count(unknown)} not known yet` : "";
  if (fastest) into.show(count(growing.length), `${fastest.name} ${growth(fastest.growth_bytes_per_h)}${few}`, "warn");
  else if (known.length === 0) into.show("–", "not known yet: it takes four minutes of a process");
  else into.show("0", `no process above 5 MB/h${few}`, unknown ? "" : "good");
}

function segmentCards() {
  const list = h("ul", { class: "cards" });
  const nothing = empty("No segment yet: workers make one when they start.");
  const cards = new Keyed(list, {
    key: ({ worker }) => worker,
    create: ({ worker }) => {
      const series = fillBar();
      const numbers = figures();
      const element = h("li", { class: "card" }, h("h3", { class: "clip" }, worker), series.element, numbers.element);
      element.parts = { series, numbers };
      return element;
    },
    update: ({ parts }, segment) => {
      parts.series.show(segment.series_used, segment.series_capacity, `${count(segment.series_used)} of ${count(segment.series_capacity)} series`);
      parts.numbers.show([
        ["Size", sizeBytes(segment.size_bytes)],
        ["Signal rings", count(segment.rings)],
        ["Waiting in rings", count(segment.ring_depth)],
        ["Laps", count(segment.laps)],
      ]);
    },
  });
  const show = (into, segments) => {
    const content = segments.length ? list : nothing;
    if (content.parentNode !== into) put(into, content);
    cards.show(segments);
  };
  return { show };
}

const nameCell = cellOf(
  ({ name, kind }) => ({ element: kind === "trader" && name.includes("/") ? h("a", { href: traderHref(name) }, name) : h("span", {}, name) }),
  () => {},
);

const barCell = cellOf(
  () => {
    const part = h("span", { class: "fill-part" });
    return { element: h("span", { class: "fill", "aria-hidden": "true" }, part), part };
  },
  ({ part }, { counted, most }) => {
    part.style.width = `${((counted / most) * 100).toFixed(1)}%`;
  },
);

function processTable() {
  return new LiveTable({
    caption: "Processes by memory",
    columns: [
      { id: "name", label: "Process", sort: ({ name }) => name, show: nameCell },
      { id: "kind", label: "Kind", wide: true, sort: ({ kind }) => kind, show: (cell, { kind }) => text(cell, kind) },
      { id: "bar", label: "", wide: true, show: barCell, className: "bar-cell" },
      {
        id: "memory",
        label: "Memory",
        numeric: true,
        sort: ({ counted }) => counted,
        show: (cell, { counted, pss_bytes: share }) => {
          text(cell, `${sizeBytes(counted)} ${share === null ? "RSS" : "PSS"}`);
          attr(cell, "title", share === null ? "resident: its share isn’t known" : "its share: what it shares is divided among those who share it");
        },
      },
      { id: "rss", label: "Resident", numeric: true, wide: true, sort: ({ rss_bytes }) => rss_bytes, show: (cell, { rss_bytes }) => text(cell, sizeBytes(rss_bytes)) },
      {
        id: "growth",
        label: "Growth",
        numeric: true,
        sort: ({ growth_bytes_per_h: rate }) => rate,
        show: (cell, process) => {
          const rate = process.growth_bytes_per_h;
          const never = process.rss_bytes === 0;
          text(cell, never ? "–" : rate === null ? "not yet" : growth(rate));
          attr(cell, "data-level", grows(process) ? "warn" : null);
          attr(cell, "class", rate === null || process.bounded ? "num right quiet" : "num right");
          attr(cell, "title", never ? "its share alone is told, and that grows when those go with whom it shares" : rate === null ? "known four minutes after a process began" : process.bounded ? "it fills what it may have, and then grows no more" : null);
        },
      },
    ],
    key: ({ name, kind }) => `${kind} ${name}`,
    sorted: ["memory", "descending"],
    nothing: () => "No process is known yet.",
  });
}
