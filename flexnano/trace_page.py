# Your copy of solutions/flexnano/trace_page.py, made by `python -m course stubs`
# Given: there is nothing to fill in here.
# untouched while the rest of this file has the hash 9477250baf2b818c
"""The page that `Trace.html` writes: %%TITLE%%, %%COLOURS%% and %%DATA%% are put in.  Given.

A Python file, so that it travels with the others.  Nothing in it comes from elsewhere, and its Content-Security-Policy lets
nothing come.
"""

PAGE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>%%TITLE%%</title>
<style>
:root {
  color-scheme: light;
  --back: #ffffff; --ink: #1a1a1a; --quiet: #46515c; --line: #c9ced4; --paper: #f6f7f8; --accent: #0b5cad;
}
:root[data-theme="dark"] {
  color-scheme: dark;
  --back: #14181e; --ink: #eceff3; --quiet: #b4bec9; --line: #414a55; --paper: #dfe3e7; --accent: #8cc4ff;
}
* { box-sizing: border-box; }
body { margin: 0; padding: 12px; background: var(--back); color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1160px; margin: 0 auto; }
h1 { font-size: 19px; margin: 0 0 2px; }
h2 { font-size: 15px; margin: 18px 0 6px; }
p { margin: 0 0 8px; }
.quiet { color: var(--quiet); font-size: 14px; }
.controls { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; margin: 10px 0 4px; }
button { font: inherit; color: var(--ink); background: transparent; border: 1px solid var(--line); border-radius: 6px;
  min-width: 44px; height: 40px; padding: 0 12px; cursor: pointer; }
#play { min-width: 76px; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
input[type=range] { flex: 1 1 220px; min-width: 0; height: 40px; margin: 0; accent-color: var(--accent); }
output { font-variant-numeric: tabular-nums; white-space: nowrap; font-weight: 600; }
#events { margin: 4px 0 0; padding: 0; list-style: none; min-height: 66px; }
.pool { --wide: 56px; display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--wide), 1fr)); gap: 3px;
  padding: 8px; background: var(--paper); border-radius: 6px; list-style: none; margin: 0; color: #1a1a1a; }
.pool.dense { --wide: 26px; gap: 2px; }
.box { position: relative; height: 44px; border: 1px solid #8c8c8c; background: #fff; display: flex;
  align-items: center; justify-content: center; forced-color-adjust: none; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.dense .box { height: 30px; }
.dense .number { display: none; }
.box b { font-size: 13px; line-height: 1.25; font-weight: 600; background: #fff; color: #1a1a1a; padding: 0 3px;
  border-radius: 3px; white-space: nowrap; max-width: 100%; overflow: hidden; }
.box b:empty { display: none; }
.box sub { font-size: 12px; line-height: 0; font-weight: 400; }
.box.sink { background: #c4c4c4; }
.box.sink b { background: none; font-weight: 400; padding: 0; }
.box.owned { border-color: #1a1a1a; }
.box.taken { outline: 2px solid #1a1a1a; outline-offset: -1px; }
.box.freed { border: 2px dashed #1a1a1a; }
.box.stolen { outline: 4px solid #d00000; outline-offset: -3px; z-index: 1; }
.chosen + .number { background: #1a1a1a; color: #fff; border-radius: 0 0 3px 3px; }
.dense .chosen { box-shadow: 0 0 0 2px #1a1a1a, 0 0 0 4px #fff; z-index: 2; }
.number { display: block; text-align: center; font-size: 12px; color: #46515c; line-height: 1.3; }
#detail { min-height: 44px; margin-top: 6px; overflow-wrap: anywhere; }
.run { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 0 8px; }
.names { list-style: none; margin: 0; padding: 0; }
.names li { height: 30px; display: flex; align-items: center; gap: 6px; font-size: 14px; }
.chip { flex: none; min-width: 26px; padding: 0 4px; text-align: center; font-weight: 600; color: #1a1a1a; background: #fff;
  border: 1px solid #1a1a1a; border-left: 9px solid; border-radius: 3px; forced-color-adjust: none; }
.state { width: 15.5em; white-space: nowrap; }
.scroll { overflow-x: auto; background: var(--paper); border-radius: 6px; }
svg { display: block; touch-action: pan-x; cursor: pointer; forced-color-adjust: none; }
svg text { font: 12px system-ui, sans-serif; fill: #46515c; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 8px 0 0; padding: 8px; list-style: none; font-size: 14px;
  background: var(--paper); color: #1a1a1a; border-radius: 6px; }
.legend li { display: flex; align-items: center; gap: 7px; }
.legend .box { width: 30px; height: 22px; flex: none; }
.legend svg { cursor: default; }
@media (max-width: 620px) {
  .pool { --wide: 46px; }
  .state { width: 8.2em; white-space: normal; line-height: 1.05; font-size: 12px; }
}
</style>
</head>
<body>
<main>
<h1>%%TITLE%%</h1>
<p class="quiet" id="about"></p>
<noscript>This page needs JavaScript. It loads nothing from elsewhere.</noscript>
<div class="controls">
  <button id="back" aria-label="one step back">◀</button>
  <button id="play">Play</button>
  <button id="on" aria-label="one step on">▶</button>
  <input type="range" id="slider" min="0" value="0" step="1" aria-label="step">
  <output id="where" for="slider"></output>
</div>
<ul id="events" aria-live="polite"></ul>
<h2>The pool, page by page</h2>
<ol class="pool" id="pool" tabindex="0" aria-label="pages of the pool; arrow keys choose one" aria-describedby="detail"></ol>
<p id="detail" class="quiet" aria-live="polite"></p>
<h2>Who does what, step by step →</h2>
<div class="run">
  <ul class="names" id="names"></ul>
  <div class="scroll" id="scroll"></div>
</div>
<ul class="legend" id="marks"></ul>
<ul class="legend" id="boxes"></ul>
</main>
<script type="application/json" id="data">%%DATA%%</script>
<script>
"use strict";
const trace = JSON.parse(document.getElementById("data").textContent);
const COLOURS = %%COLOURS%%;
const at = (id) => document.getElementById(id);
const request = new Map(trace.requests.map((one) => [one.id, one]));
const steps = trace.steps, size = trace.page_size;
const dense = trace.n_pages > 128;
const endedIn = new Map(steps.flatMap((step, k) => Object.keys(step.finished).map((id) => [+id, k])));
let now = 0, chosen = null, timer = null;

// ---------------------------------------------------------------- colours: owners in order of admission
const mix = (colour, other, share) => "#" + [1, 3, 5].map((i) => {
  const part = parseInt(colour.slice(i, i + 2), 16);
  return Math.round(part + (other - part) * share).toString(16).padStart(2, "0");
}).join("");
const colourOf = (id) => {
  const place = trace.admission_order.indexOf(id);
  return place < 0 ? "#ffffff" : COLOURS[place % COLOURS.length];
};
const dark = (colour) => mix(colour, 0, 0.45), light = (colour) => mix(colour, 255, 0.55);

// ---------------------------------------------------------------- words
const nameOf = (id) => request.get(id).name;
const namesOf = (ids) => ids.map(nameOf).join(", ");
const listed = (pages) => `${pages.length === 1 ? "page" : "pages"} ${pages.join(", ")}`;
const count = (n, what) => `${n.toLocaleString("en")} ${what}${n === 1 ? "" : "s"}`;

function events(k) {
  const step = steps[k], said = [];
  const of = (kind) => step.parts.filter((part) => part.kind === kind);
  const prefilled = of("prefill").map((part) => `${nameOf(part.request)} (${count(part.n_tokens, "token")})`);
  if (prefilled.length) said.push(`Prefill of ${prefilled.join(", ")}.`);
  if (of("decode").length) said.push(`Decode of ${namesOf(of("decode").map((part) => part.request))}, a token each.`);
  for (const id of step.preempted) {
    const lost = Object.keys(step.stolen).filter((page) => step.stolen[page] === id);
    said.push(`${nameOf(id)} is preempted${lost.length ? `, and loses ${listed(lost)}` : ""}.`);
  }
  const taking = step.held.map((held) => [held.request, held.pages.filter((page) => step.taken.includes(page))]);
  const takes = taking.filter(([, pages]) => pages.length).map(([id, pages]) => `${nameOf(id)} takes ${listed(pages)}`);
  if (takes.length) said.push(`${takes.join("; ")}.`);
  if (step.freed.length) said.push(`Free again: ${listed(step.freed)}.`);
  for (const [id, why] of Object.entries(step.finished)) {
    said.push(`${nameOf(+id)} finishes (${why}); its pages are free after this step.`);
  }
  return said;
}

function stateOf(id, k) {
  const step = steps[k], part = step.parts.find((one) => one.request === id);
  const held = step.held.find((one) => one.request === id);
  const tokens = held ? held.filled.reduce((sum, n) => sum + n, 0) : 0;
  const has = held ? `${count(tokens, "token")}, ${count(held.pages.length, "page")}` : "";
  if (part) return [part.kind, has];
  if (held) return ["held up", has];
  if (step.preempted.includes(id)) return ["preempted", ""];
  if (step.waiting.includes(id)) return ["waiting", ""];
  return k > (endedIn.get(id) ?? k) ? ["finished", steps[endedIn.get(id)].finished[id]] : ["not here yet", ""];
}

// ---------------------------------------------------------------- the pool
const boxes = [];
for (let page = 0; page <= trace.n_pages; page++) {
  const [item, box, number] = ["li", "div", "span"].map((kind) => document.createElement(kind));
  box.className = "box";
  box.append(document.createElement("b"));
  number.className = "number";
  number.textContent = page;
  item.append(box, number);
  item.dataset.page = page;
  at("pool").append(item);
  boxes.push(box);
}
if (dense) at("pool").classList.add("dense");

/** By page, who owns it in a step: {id, place, filled, written from} each. */
function ownersIn(step) {
  const owners = new Map();
  for (const held of step.held) {
    const part = step.parts.find((one) => one.request === held.request);
    held.pages.forEach((page, i) => {
      const place = held.first + i, filled = held.filled[i];
      const from = part ? Math.min(Math.max(part.start - place * size, 0), filled) : filled;
      if (!owners.has(page)) owners.set(page, []);
      owners.get(page).push({ id: held.request, place, filled, from });
    });
  }
  return owners;
}

/** Solid as far as there are tokens, dark where this step wrote them, hatched where there is room. */
function background(owners) {
  const layers = [];
  owners.forEach(({ id, filled, from }, i) => {
    const colour = colourOf(id), [a, b] = [from, filled].map((n) => (100 * n / size) + "%");
    const where = owners.length === 1 ? "0 0 / 100% 100%"
      : `0 ${100 * i / (owners.length - 1)}% / 100% ${100 / owners.length}%`;
    layers.push(`linear-gradient(90deg, ${colour} 0 ${a}, ${dark(colour)} ${a} ${b}, transparent ${b}) ${where} no-repeat`);
    layers.push(`repeating-linear-gradient(135deg, ${colour} 0 2px, transparent 2px 6px) ${where} no-repeat`);
  });
  return [...layers, "#fff"].join(", ");
}

function drawPool(k) {
  const step = steps[k], owners = ownersIn(step);
  const taken = new Set(step.taken), freed = new Set(step.freed);
  boxes.forEach((box, page) => {
    const mine = owners.get(page) || [], victim = step.stolen[page];
    const label = box.firstChild;
    label.replaceChildren();
    if (page === 0) label.append(dense ? "" : "sink");
    if (victim !== undefined && !dense) label.append(nameOf(victim) + "→");
    for (const { id, place } of mine) {
      label.append(nameOf(id));
      if (dense) break;
      const sub = document.createElement("sub");
      sub.textContent = place;
      label.append(sub);
    }
    box.className = "box" + (page === 0 ? " sink" : "") + (mine.length ? " owned" : "") + (taken.has(page) ? " taken" : "")
      + (freed.has(page) ? " freed" : "") + (victim === undefined ? "" : " stolen") + (page === chosen ? " chosen" : "");
    box.style.background = mine.length ? background(mine) : "";
  });
  at("detail").textContent = chosen === null
    ? "Point at a page to see what lies in it." : detail(chosen, owners.get(chosen) || []);
}

function detail(page, owners) {
  if (page === 0) return "Page 0 is the sink: padding is written there, and nobody reads it.";
  if (!owners.length) return `Page ${page} is free.`;
  return owners.map(({ id, place, filled }) => {
    const first = place * size, text = request.get(id).tokens.slice(first, first + filled).join("");
    return `Page ${page} is page ${place} of ${nameOf(id)}: ` + (filled
      ? `tokens ${first} to ${first + filled - 1}, ${filled} of ${size} places` + (text ? `: “${text}”` : ".")
      : "reserved, still empty.");
  }).join(" ");
}

function choose(page) {
  chosen = page;
  drawPool(now);
}
for (const kind of ["pointerover", "click"]) at("pool").addEventListener(kind, (event) => {
  const item = event.target.closest("li");
  if (item) choose(+item.dataset.page);
});
at("pool").addEventListener("keydown", (event) => {
  const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (!move) return;
  event.preventDefault();
  choose(Math.min(Math.max((chosen ?? -1) + move, 0), trace.n_pages));
});

// ---------------------------------------------------------------- the timeline
const ROW = 30, svgNS = "http://www.w3.org/2000/svg";
function shape(kind, attributes, text) {
  const one = document.createElementNS(svgNS, kind);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}
let wide = 20, cursor = null;

function drawTimeline() {
  const room = at("scroll").clientWidth;
  wide = Math.max(9, Math.min(44, Math.floor(room / steps.length)));
  const high = ROW * trace.requests.length, length = wide * steps.length;
  const said = { role: "img", "aria-label": "what each request did in each step" };
  const svg = shape("svg", { width: length, height: high + 20, ...said });
  trace.requests.forEach(({ id }, row) => {
    const y = row * ROW, colour = colourOf(id);
    for (let k = 0; k < steps.length; k++) {
      const [kind] = stateOf(id, k), x = k * wide;
      const line = { ...thread(x, y + 15, wide), "data-kind": kind };
      if (kind === "prefill" || kind === "decode") {
        const fill = kind === "prefill" ? dark(colour) : light(colour), thick = wide < 14 ? 0.3 : 0.8;
        const box = { x, y: y + 4, width: wide, height: ROW - 8 };
        svg.append(shape("rect", { ...box, fill, stroke: "#1a1a1a", "stroke-width": thick, "data-kind": kind }));
      } else if (kind === "held up") svg.append(shape("line", line));
      else if (kind === "waiting" || kind === "preempted") svg.append(shape("line", { ...line, ...DOTTED }));
      if (steps[k].preempted.includes(id)) svg.append(cross(x + wide / 2, y + 15));
      if (id in steps[k].finished) svg.append(shape("rect", { ...END, x: x + wide - 3, y: y + 1, height: ROW - 2 }));
    }
  });
  let every = 1;
  while (every * wide < 34) every *= 2;
  for (let k = 0; k < steps.length; k += every) {
    svg.append(shape("text", { x: k * wide + wide / 2, y: high + 14, "text-anchor": k ? "middle" : "start" }, k));
  }
  cursor = shape("rect", { y: 0, width: wide, height: high, fill: "none", stroke: "#1a1a1a", "stroke-width": 2.5 });
  svg.append(cursor);
  const jump = (event) => go(Math.floor((event.clientX - svg.getBoundingClientRect().left) / wide));
  svg.addEventListener("pointerdown", (event) => { pause(); jump(event); });
  svg.addEventListener("pointermove", (event) => { if (event.buttons && event.pointerType === "mouse") jump(event); });
  at("scroll").replaceChildren(svg);
}
const thread = (x, y, length) => ({ x1: x, x2: x + length, y1: y, y2: y, stroke: "#46515c", "stroke-width": 1.5 });
const DOTTED = { "stroke-dasharray": "2 3" }, END = { width: 3, fill: "#1a1a1a" };
const cross = (x, y) => shape("path", { d: `M${x - 5} ${y - 5}l10 10m0 -10l-10 10`, stroke: "#1a1a1a", "stroke-width": 2.5 });

for (const { id, name } of trace.requests) {
  const [item, chip, state] = ["li", "span", "span"].map((kind) => document.createElement(kind));
  chip.className = "chip";
  chip.textContent = name;
  chip.style.borderLeftColor = colourOf(id);
  state.className = "state";
  item.append(chip, state);
  at("names").append(item);
}

// ---------------------------------------------------------------- one step
function go(k) {
  now = Math.min(Math.max(k, 0), steps.length - 1);
  at("slider").value = now;
  at("slider").setAttribute("aria-valuetext", `step ${now}`);
  at("where").textContent = `step ${now} of ${steps.length - 1}`;
  at("events").replaceChildren(...events(now).map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  drawPool(now);
  trace.requests.forEach(({ id }, row) => {
    const [kind, more] = stateOf(id, now);
    at("names").children[row].lastChild.textContent = more ? `${kind}: ${more}` : kind;
  });
  cursor.setAttribute("x", now * wide);
  const scroll = at("scroll"), left = now * wide;
  if (left < scroll.scrollLeft || left + wide > scroll.scrollLeft + scroll.clientWidth) {
    scroll.scrollLeft = left - scroll.clientWidth / 2;
  }
  fitFrame();
}
function pause() {
  clearInterval(timer);
  timer = null;
  at("play").textContent = "Play";
}
function play() {
  if (now === steps.length - 1) go(0);
  at("play").textContent = "Pause";
  timer = setInterval(() => { go(now + 1); if (now === steps.length - 1) pause(); }, 700);
}
at("play").addEventListener("click", () => (timer === null ? play() : pause()));
at("back").addEventListener("click", () => { pause(); go(now - 1); });
at("on").addEventListener("click", () => { pause(); go(now + 1); });
at("slider").addEventListener("input", () => { pause(); go(+at("slider").value); });

// ---------------------------------------------------------------- the legend
const example = "#0072B2";
const hatch = `repeating-linear-gradient(135deg, ${example} 0 2px, transparent 2px 6px), #fff`;
for (const [kind, style, text] of [
  ["box owned", example, "holds tokens"],
  ["box owned", dark(example), "written in this step"],
  ["box owned", hatch, "reserved, still empty"],
  ["box owned taken", light(example), "taken in this step"],
  ["box stolen", "#fff", "stolen: its owner was preempted (from → to)"],
  ["box freed", "#fff", "freed: its owner finished"],
  ["box", "#fff", "free"],
  ["box sink", "", "sink"],
]) {
  const item = document.createElement("li"), box = document.createElement("span");
  box.className = kind;
  if (style) box.style.background = style;
  item.append(box, text);
  at("boxes").append(item);
}
const marks = {
  "prefill": [shape("rect", { width: 30, height: 22, fill: dark(example) })],
  "decode": [shape("rect", { width: 30, height: 22, fill: light(example) })],
  "preempted": [cross(15, 11)],
  "waiting": [shape("line", { ...thread(0, 11, 30), ...DOTTED })],
  "held up: runs, but not in this step": [shape("line", thread(0, 11, 30))],
  "finished": [shape("rect", { ...END, x: 20, height: 22 })],
};
for (const [text, shapes] of Object.entries(marks)) {
  const item = document.createElement("li"), svg = shape("svg", { width: 30, height: 22, "aria-hidden": "true" });
  svg.append(...shapes);
  item.append(svg, text);
  at("marks").append(item);
}

// ---------------------------------------------------------------- where it stands: theme and height of the frame
function outer() {
  try {
    return window.parent !== window ? window.parent.document : null;
  } catch {
    return null;  // another origin, as in Colab
  }
}
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
function setTheme() {
  const around = outer();
  const said = around && (around.documentElement.dataset.theme
    || { true: "light", false: "dark" }[around.body.dataset.jpThemeLight]);
  const known = said === "dark" || said === "light";
  document.documentElement.dataset.theme = known ? said : prefersDark.matches ? "dark" : "light";
}
prefersDark.addEventListener("change", setTheme);
if (outer()) for (const node of [outer().documentElement, outer().body]) {
  new MutationObserver(setTheme).observe(node, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
}
let tallest = 0, lastWidth = 0;
function fitFrame() {
  if (!outer() || !window.frameElement) return;
  document.documentElement.style.overflowY = "hidden";  // a scrollbar would make it narrower, and so higher
  if (innerWidth !== lastWidth) [tallest, lastWidth] = [0, innerWidth];
  const needed = Math.ceil(document.querySelector("main").getBoundingClientRect().height) + 26;
  tallest = Math.max(tallest, needed);  // what stands below must not jump from step to step
  window.frameElement.style.height = tallest + "px";
}

setTheme();
at("about").textContent = `${count(trace.n_pages, "page")} of ${count(size, "token")}, ${count(trace.slots, "slot")}; `
  + `${count(trace.requests.length, "request")} in ${count(steps.length, "step")}.`;
if (steps.length) {
  at("slider").max = steps.length - 1;
  drawTimeline();
  go(0);
  addEventListener("resize", () => { drawTimeline(); go(now); });
} else at("where").textContent = "no step was recorded";
</script>
</body>
</html>
"""
