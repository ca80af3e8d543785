// What a page owes to those who do not see it, or not well; returns a list of what is missing.
const wrong = [];
const expect = (ok, what) => { if (!ok) wrong.push(what); };
const visible = (e) => e.checkVisibility() && e.getClientRects().length > 0;
const name = (e) => (e.getAttribute("aria-label") ?? (e.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ").trim())
  || (e.labels?.length ? e.labels[0].textContent.trim() : "") || e.textContent.trim();
const place = (e) => `${e.tagName.toLowerCase()}#${e.id}.${e.getAttribute("class") ?? ""} "${e.textContent.trim().slice(0, 30)}"`;

expect(document.documentElement.lang === "en", "the document has a language");
expect(document.title.length > 5, "it has a title");
expect(document.querySelectorAll("main").length === 1 && document.querySelectorAll("h1").length === 1, "one main, one h1");
expect(document.documentElement.scrollWidth <= innerWidth, `no sideways scrolling: ${document.documentElement.scrollWidth} > ${innerWidth}, as wide as ${
  [...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > innerWidth).map(place).slice(-3)}`);
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
expect(new Set(ids).size === ids.length, "every id is used once");
for (const e of document.querySelectorAll("button, input, meter, [role=button], [role=img], section, svg[role]"))
  if (visible(e)) expect(name(e), `${place(e)} has a name`);
for (const table of document.querySelectorAll("table")) {
  expect(table.caption?.textContent, `${table.id} has a caption`);
  for (const th of table.querySelectorAll("th")) expect(th.scope, `${place(th)} has a scope`);
}
for (const attribute of ["aria-labelledby", "aria-describedby"])
  for (const e of document.querySelectorAll(`[${attribute}]`))
    for (const id of e.getAttribute(attribute).split(" ")) expect(document.getElementById(id), `${attribute} of ${place(e)} leads somewhere`);
for (const e of document.querySelectorAll("a[href], button, input"))
  if (visible(e) && !e.disabled) expect(e.tabIndex >= 0, `${place(e)} is reached by the keyboard`);

// Of a map's rows everything is in sight at any width, and nothing lies upon something else.
const overlap = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1;
for (const table of document.querySelectorAll(".map table")) {
  const hidden = [...table.tHead.rows[0].cells].filter((cell) => !visible(cell)).map((cell) => cell.textContent);
  expect(hidden.every((title) => title === "last seen"), `${table.id} shows its columns; it hides ${hidden}`);
  for (const row of table.rows) {
    const cells = [...row.cells].filter(visible), boxes = cells.map((cell) => cell.getBoundingClientRect());
    cells.forEach((cell, i) => {
      expect(boxes[i].left >= 0 && boxes[i].right <= innerWidth && cell.scrollWidth <= cell.clientWidth + 1, `${place(cell)} is in sight`);
      expect(!boxes.some((box, j) => j > i && overlap(box, boxes[i])), `${place(cell)} lies upon another`);
    });
  }
}
for (const text of document.querySelectorAll("#drawing text")) {
  const [box, all] = [text.getBoundingClientRect(), document.getElementById("drawing").getBoundingClientRect()];
  expect(!visible(text) || (box.left >= all.left && box.right <= all.right), `${place(text)} is inside the drawing`);
}
if (innerWidth <= 900)
  for (const e of document.querySelectorAll("button:not(.link), input")) {
    const { width, height } = e.getBoundingClientRect();
    expect(!visible(e) || (width >= 40 && height >= 40), `${place(e)} is wide enough for a thumb: ${width} by ${height}`);
  }

// Contrast of every text with the colour that lies behind it (WCAG 2.1, 1.4.3).
const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
function ground(e) {
  for (; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
}
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const poor = new Set();
for (let text; (text = walker.nextNode());) {
  const e = text.parentElement;
  if (!text.data.trim() || ["SCRIPT", "STYLE", "TITLE", "title"].includes(e.tagName) || !visible(e) || e.closest(":disabled")) continue;
  const style = getComputedStyle(e), inside = e.closest("svg");
  const front = channels(inside ? style.fill : style.color);
  const behind = e.closest(".self") ? channels(getComputedStyle(e.closest(".self").querySelector("rect")).fill) : ground(e);
  const [light, dark] = [luminance(front), luminance(behind)].sort((a, b) => b - a);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio < 4.5) poor.add(`contrast ${ratio.toFixed(2)} of ${place(e)}`);
}
return [...wrong, ...[...poor].slice(0, 10)];
