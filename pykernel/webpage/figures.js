// SPDX-License-Identifier: BSD-3-Clause
// One figure: axes, lines with bands, points, an area of shades; by mouse, finger and keyboard.

const SVG = "http://www.w3.org/2000/svg";
const CHARACTER = 6.6; // pixels, of a tick's text

/** An element with attributes and children (elements or text); classes and texts only, never markup. */
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "rect", "text", "circle", "title", "desc"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const MARKS = [
  "M0-4A4 4 0 1 0 0 4A4 4 0 1 0 0-4Z",
  "M-3.5-3.5H3.5V3.5H-3.5Z",
  "M0-4.5L4.2 3.2H-4.2Z",
  "M0 4.5L4.2-3.2H-4.2Z",
  "M0-5L4 0L0 5L-4 0Z",
  "M-1.4-4.5H1.4V-1.4H4.5V1.4H1.4V4.5H-1.4V1.4H-4.5V-1.4H-1.4Z",
  "M-4-2.2L-2.2-4L0-1.8L2.2-4L4-2.2L1.8 0L4 2.2L2.2 4L0 1.8L-2.2 4L-4 2.2L-1.8 0Z",
  "M-4.5 0L3.2-4.2V4.2Z",
  "M0-5L1.3-1.6H4.8L2 .6L3 4.2L0 2.1L-3 4.2L-2 .6L-4.8-1.6H-1.3Z",
];
const mark = (i, x, y, more = "") =>
  make("path", { d: MARKS[i % MARKS.length], transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, class: `mark s${i % 9} ${more}` });

const finite = Number.isFinite;

/** The path through points, broken where one is no number. */
function through(points) {
  let path = "";
  let pen = false;
  for (const [x, y] of points) {
    if (finite(x) && finite(y)) path += `${pen ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = finite(x) && finite(y);
  }
  return path;
}

/**
 * Draw a figure into a box, and again when the box changes its width.
 *   spec: {name, x, y: {label, kind, words, marked}, series, bands, shades, height}
 *   a series: {name, at: number of its colour and mark, points: [{x, y, low, high, said: [texts], pick}], line, band, bars,
 *     theory: [{x, y, low, high}], chosen: index or -1}
 *   bands: [{from, to}] of y.  shades: {x, y, values, reach}.
 * Returns {show(spec)}.
 */
function figure(box) {
  const plot = make("div", { class: "plot" });
  const tip = make("div", { class: "tip", hidden: true });
  const spoken = make("p", { class: "spoken", "aria-live": "polite" });
  const legend = make("ul", { class: "legend", "aria-label": "lines of the figure: press to hide or show one" });
  box.append(plot, legend, spoken);
  const hidden = new Set();
  let spec = null;
  let width = 0;
  let places = []; // of points, by series, in pixels
  let current = null; // [series, point]

  const shown = () => spec.series.filter((series) => !hidden.has(series.name));

  function draw() {
    width = Math.max(260, Math.floor(plot.clientWidth || 640));
    plot.replaceChildren(picture(spec, shown(), width, (found) => (places = found)), tip);
    tip.hidden = true;
    current = null;
    const svg = plot.firstChild;
    svg.addEventListener("pointermove", (event) => near(event, false));
    svg.addEventListener("pointerleave", () => point(null));
    svg.addEventListener("click", (event) => near(event, true));
    svg.addEventListener("keydown", keys);
    svg.addEventListener("blur", () => point(null));
  }

  function near(event, pick) {
    const svg = plot.firstChild;
    const ratio = width / svg.getBoundingClientRect().width;
    const x = (event.clientX - svg.getBoundingClientRect().left) * ratio;
    const y = (event.clientY - svg.getBoundingClientRect().top) * ratio;
    let best = null;
    let least = 32;
    places.forEach((line, i) =>
      line.forEach(([px, py], j) => {
        const far = Math.hypot(px - x, py - y);
        if (far < least) [best, least] = [[i, j], far];
      }),
    );
    point(best);
    if (pick && best) choose();
  }

  function choose() {
    const item = shown()[current[0]].points[current[1]];
    if (item.pick) item.pick();
  }

  /** Show which point is meant, and say it. */
  function point(which, say = false) {
    current = which;
    plot.querySelector(".ring")?.remove();
    tip.hidden = which === null;
    if (which === null) return;
    const [x, y] = places[which[0]][which[1]];
    const texts = shown()[which[0]].points[which[1]].said;
    plot.firstChild.append(make("circle", { class: "ring", cx: x, cy: y, r: 9 }));
    tip.replaceChildren(...texts.map((text, i) => make(i ? "span" : "strong", {}, text)));
    const ratio = plot.firstChild.getBoundingClientRect().width / width;
    tip.style.left = `${Math.min(Math.max(x * ratio - tip.offsetWidth / 2, 0), plot.clientWidth - tip.offsetWidth)}px`;
    const above = y * ratio - tip.offsetHeight - 14;
    tip.style.top = `${above > 0 ? above : y * ratio + 14}px`;
    if (say) spoken.textContent = texts.join(", ");
  }

  function keys(event) {
    const lines = places.map((line) => line.map((_, j) => j).filter((j) => finite(line[j][1])));
    const some = lines.map((line, i) => (line.length ? i : -1)).filter((i) => i >= 0);
    if (!some.length) return;
    let [i, j] = current ?? [some[0], lines[some[0]][0]];
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (event.key === "Escape") point(null);
    else if ((event.key === "Enter" || event.key === " ") && current) choose();
    else if (event.key === "Home" || event.key === "End") point([i, lines[i].at(event.key === "Home" ? 0 : -1)], true);
    else if (step && !current) point([i, j], true);
    else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
      const k = lines[i].indexOf(j) + step;
      if (k >= 0 && k < lines[i].length) point([i, lines[i][k]], true);
    } else if (step) {
      const x = places[i][j][0];
      i = some[(some.indexOf(i) + step + some.length) % some.length];
      j = lines[i].reduce((best, k) => (Math.abs(places[i][k][0] - x) < Math.abs(places[i][best][0] - x) ? k : best), lines[i][0]);
      point([i, j], true);
    } else return;
    event.preventDefault();
  }

  function showLegend() {
    legend.replaceChildren(
      ...(spec.series.length < 2 ? [] : spec.series).map((series) => {
        const swatch = make("svg", { width: 30, height: 12, viewBox: "-15 -6 30 12", "aria-hidden": "true" });
        const dashed = !series.line && series.theory?.length;
        if (series.line || dashed) swatch.append(make("path", { d: "M-15 0H15", class: `${dashed ? "theory" : "line"} s${series.at % 9}` }));
        swatch.append(mark(series.at, 0, 0));
        const toggle = (event) => {
          hidden.has(series.name) ? hidden.delete(series.name) : hidden.add(series.name);
          event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(series.name)));
          draw();
        };
        const pressed = String(!hidden.has(series.name));
        return make("li", {}, make("button", { type: "button", "aria-pressed": pressed, onclick: toggle }, swatch, series.name));
      }),
    );
  }

  new ResizeObserver(() => spec && Math.abs(plot.clientWidth - width) > 1 && draw()).observe(plot);
  return {
    show(next) {
      spec = next;
      for (const name of [...hidden]) if (!spec.series.some((series) => series.name === name)) hidden.delete(name);
      showLegend();
      draw();
    },
  };
}

/** The SVG of a figure; `placed` is told where its points lie. */
function picture(spec, series, width, placed) {
  const height = Math.round(Math.min(spec.height ?? 400, Math.max(320, 0.62 * width)));
  const inside = (a) => [a.y, a.low, a.high].map(number);
  const all = series.flatMap((one) => [...one.points.flatMap(inside), ...(one.theory ?? []).flatMap((t) => [t.y, t.low, t.high].map(number))]);
  const xs = spec.series.flatMap((one) => one.points.map((p) => p.x));
  const y = scale(spec.y.kind, spec.shades ? spec.shades.y : all, spec.y);
  const x = scale(spec.x.kind, spec.shades ? spec.shades.x : xs, spec.x);
  const left = 36 + CHARACTER * Math.max(2, ...y.ticks.map(([, text]) => text.length));
  const right = 14;
  const turned = x.words && (width - left - right) / x.words.length < CHARACTER * Math.max(...x.words.map((w) => w.length)) + 6;
  const below = turned ? 30 + CHARACTER * Math.min(22, Math.max(...x.words.map((w) => w.length))) : 46;
  const [top, bottom] = [12, height - below];
  const px = (v) => left + x.at(v) * (width - left - right);
  const py = (v) => bottom - Math.min(1.02, Math.max(-0.02, y.at(v))) * (bottom - top);
  // A value beyond all numbers stands at the edge, open.
  const edge = (v) => (finite(v) ? py(v) : v > 0 ? top : v < 0 ? bottom : NaN);
  const svg = make("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "application",
    tabindex: 0,
    "aria-roledescription": "figure",
    "aria-label": `${spec.name}. Arrow keys go from point to point${spec.picks ? ", Enter chooses one" : ""}; the table below has all numbers.`,
  });
  if (spec.shades) svg.append(shades(spec.shades, px, py));
  for (const band of spec.bands ?? [])
    svg.append(make("rect", { class: "stable", x: left, width: width - left - right, y: py(band.to), height: Math.max(0, py(band.from) - py(band.to)) }));
  axes(svg, spec, x, y, { left, right: width - right, top, bottom, px, py, turned });
  placed(series.map((one) => lay(svg, one, px, py, edge)));
  return svg;
}

/** One series; returns where its points lie. */
function lay(svg, one, px, py, edge) {
  const group = make("g", { class: "series" });
  const at = one.points.map((p) => [px(p.x), edge(number(p.y))]);
  const [low, high] = ["low", "high"].map((side) => one.points.map((p) => [px(p.x), edge(number(p[side] ?? p.y))]));
  if (one.band) group.append(make("path", { class: `band s${one.at % 9}`, d: around(low, high) }));
  const theory = (one.theory ?? []).map((t) => ({ x: px(t.x), y: edge(number(t.y)), low: edge(number(t.low)), high: edge(number(t.high)) }));
  if (theory.length > 1) group.append(make("path", { class: `theory s${one.at % 9}`, d: through(theory.map((t) => [t.x, t.y])) }));
  if (theory.length > 1 && theory.some((t) => finite(t.low)))
    for (const side of ["low", "high"]) group.append(make("path", { class: `theory thin s${one.at % 9}`, d: through(theory.map((t) => [t.x, t[side]])) }));
  if (theory.length === 1 && finite(theory[0].y)) {
    const [t] = theory;
    if (finite(t.low)) group.append(make("line", { class: `theory s${one.at % 9}`, x1: t.x, x2: t.x, y1: t.low, y2: t.high }));
    group.append(make("path", { class: `cross s${one.at % 9}`, d: "M-5-5L5 5M-5 5L5-5", transform: `translate(${t.x} ${t.y})` }));
  }
  if (one.line) group.append(make("path", { class: `line s${one.at % 9}`, d: through(at) }));
  if (one.bars)
    at.forEach(([x], j) => finite(low[j][1]) && finite(high[j][1]) &&
      group.append(make("line", { class: `bar s${one.at % 9}`, x1: x, x2: x, y1: low[j][1], y2: high[j][1] })));
  const few = Math.max(1, Math.floor(at.length / 14));
  if (!one.unmarked) at.forEach(([x, y], j) => {
    if (!finite(x) || !finite(y) || (j % few && one.chosen !== j)) return;
    const open = finite(number(one.points[j].y)) ? "" : " open";
    group.append(mark(one.at, x, y, (one.chosen === j ? "chosen" : "") + open));
  });
  svg.append(group);
  return at;
}

/** The area between two lines. */
function around(low, high) {
  const some = low.map((_, i) => i).filter((i) => finite(low[i][1]) && finite(high[i][1]));
  if (some.length < 2) return "";
  return `${through(some.map((i) => high[i]))}L${through(some.reverse().map((i) => low[i])).slice(1)}Z`;
}

/** Grid, ticks and labels. */
function axes(svg, spec, x, y, { left, right, top, bottom, px, py, turned }) {
  const group = make("g", { class: "axes", "aria-hidden": "true" });
  let last = -Infinity;
  for (const [value, text] of x.ticks) {
    const at = px(value);
    group.append(make("line", { x1: at, x2: at, y1: top, y2: bottom, class: "grid" }));
    const room = turned ? 11 : (CHARACTER * text.length) / 2 + 3;
    if (at - room < last) continue;
    last = at + room;
    const cut = text.length > 22 ? `${text.slice(0, 21)}…` : text;
    const where = turned ? { transform: `translate(${at + 4} ${bottom + 8}) rotate(-90)`, "text-anchor": "end" } : { x: at, y: bottom + 16, "text-anchor": "middle" };
    group.append(make("text", where, cut));
  }
  last = Infinity;
  for (const [value, text] of y.ticks) {
    const at = py(value);
    group.append(make("line", { x1: left, x2: right, y1: at, y2: at, class: value === 0 ? "grid zero" : "grid" }));
    if (last - at < 13) continue;
    last = at;
    group.append(make("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, text));
  }
  group.append(make("text", { class: "label", x: (left + right) / 2, y: svg.viewBox.baseVal.height - 6, "text-anchor": "middle" }, spec.x.label));
  const middle = (top + bottom) / 2;
  group.append(make("text", { class: "label", transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle" }, spec.y.label));
  svg.append(group);
}

/** An area of values: blue below zero, orange above, none where signals run away. */
function shades({ x, y, values, reach }, px, py) {
  const group = make("g", { class: "shades", "aria-hidden": "true" });
  const half = (list, i, side) => (list[Math.min(list.length - 1, Math.max(0, i + side))] + list[i]) / 2;
  y.forEach((v, row) =>
    x.forEach((u, column) => {
      const value = number(values[row][column]);
      const [x0, x1, y0, y1] = [px(half(x, column, -1)), px(half(x, column, 1)), py(half(y, row, 1)), py(half(y, row, -1))];
      const cell = make("rect", { x: x0.toFixed(1), y: y0.toFixed(1), width: (x1 - x0 + 0.4).toFixed(1), height: (y1 - y0 + 0.4).toFixed(1) });
      if (finite(value)) cell.style.fill = shade(value / reach);
      else cell.setAttribute("class", "away");
      group.append(cell);
    }),
  );
  return group;
}

/** The colour of a share from -1 (vanishing) to 1 (exploding). */
function shade(share) {
  const much = Math.round(100 * Math.min(1, Math.abs(share)));
  return `color-mix(in srgb, var(--${share < 0 ? "vanishing" : "exploding"}) ${much}%, var(--stable))`;
}
