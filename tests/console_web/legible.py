"""What of a page people can't read, or a screen reader can't name: contrast below WCAG AA, missing names, ids
that are there twice, words over their cell."""

from __future__ import annotations

from typing import Final

#: Returns one sentence for each fault of the page as it stands; none is an empty list.
FAULTS: Final = r"""() => {
  const faults = new Set();
  const paper = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  // A colour in whatever notation, as the browser paints it: red, green, blue 0-255, opacity 0-1.
  const painted = (color) => {
    paper.clearRect(0, 0, 1, 1);
    paper.fillStyle = color;
    paper.fillRect(0, 0, 1, 1);
    const [red, green, blue, opacity] = paper.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, opacity / 255];
  };
  const over = ([red, green, blue, opacity], under) => [red, green, blue].map((c, at) => c * opacity + under[at] * (1 - opacity));
  const ground = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.unshift(painted(getComputedStyle(one).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const linear = (c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) => 0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!says || !element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (element.closest("svg, option, .hidden, :disabled")) continue;
    const style = getComputedStyle(element);
    const under = ground(element);
    const [bright, dark] = [luminance(over(painted(style.color), under)), luminance(under)].sort((one, other) => other - one);
    const ratio = (bright + 0.05) / (dark + 0.05);
    const size_px = parseFloat(style.fontSize);
    const large = size_px >= 24 || (size_px >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) {
      faults.add(`contrast ${ratio.toFixed(2)}: ${element.tagName} ${element.className}: ${element.textContent.trim().slice(0, 40)}`);
    }
  }
  for (const one of document.querySelectorAll("a[href], button, input, select, textarea, [role=region]")) {
    const name = one.getAttribute("aria-label") || one.title || one.textContent || one.labels?.[0]?.textContent
      || document.getElementById(one.getAttribute("aria-labelledby") ?? "")?.textContent;
    if (one.checkVisibility() && !name?.trim()) faults.add(`no name: ${one.outerHTML.slice(0, 80)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids.filter((id, at) => ids.indexOf(id) !== at)) faults.add(`twice: #${id}`);
  for (const one of document.querySelectorAll(".two-lines > *")) {
    const room = one.closest("td").getBoundingClientRect();
    if (one.checkVisibility() && one.getBoundingClientRect().right > room.right + 0.5) faults.add(`over its cell: ${one.textContent}`);
  }
  const heads = document.querySelectorAll("h1").length;
  if (heads !== 1) faults.add(`${heads} headings of the first level`);
  return [...faults];
}"""
