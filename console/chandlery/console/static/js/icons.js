// Small line drawings, one path each, on a grid of 20.

import { svg } from "./dom.js";

const PATHS = {
  overview: "M3 11.5 10 4l7 7.5M5 10v6.5h10V10M8.5 16.5v-4h3v4",
  traders: "M6 3v3M6 13v4M14 4v4M14 14v3M4 6h4v7H4zM12 8h4v6h-4z",
  signals: "M3 12h3l2-7 4 11 2-6h3",
  performance: "M3 15a7 7 0 1 1 14 0M10 15l3.5-5",
  memory: "M5 5h10v10H5zM8 2.5V5M12 2.5V5M8 15v2.5M12 15v2.5M2.5 8H5M2.5 12H5M15 8h2.5M15 12h2.5",
  feeds: "M4 16a6 6 0 0 1 6-6M4 16a12 12 0 0 1 12-12M10 16a6 6 0 0 1 6-6M4.5 16h.01",
  light: "M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7zM10 2v2M10 16v2M2 10h2M16 10h2M4.3 4.3l1.4 1.4M14.3 14.3l1.4 1.4M4.3 15.7l1.4-1.4M14.3 5.7l1.4-1.4",
  dark: "M16 11.5A6.5 6.5 0 0 1 8.5 4a6.5 6.5 0 1 0 7.5 7.5z",
  auto: "M10 3a7 7 0 1 0 0 14zM10 3a7 7 0 0 1 0 14",
  key: "M12.5 7.5a3.5 3.5 0 1 0-3.2 3.5L11 9.5h2v2h2v2h2.5V11L13 7.9M5.5 7.5h.01",
  copy: "M7 7h9v9H7zM13 7V4H4v9h3",
  out: "M8 4H4v12h12v-4M11 4h5v5M16 4l-7 7",
  alert: "M10 3 2.5 16.5h15zM10 8v4M10 14.3h.01",
  plus: "M10 4v12M4 10h12",
};

/** An icon beside words: hidden from screen readers, which read the words. */
export function icon(name) {
  return svg(
    "svg",
    { class: "icon", viewBox: "0 0 20 20", "aria-hidden": "true", focusable: "false" },
    svg("path", { d: PATHS[name] }),
  );
}
