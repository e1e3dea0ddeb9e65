// SPDX-License-Identifier: BSD-3-Clause
// What the page shows of a grid of cells: the map of verdicts, a quantity along an axis, the layers of a cell, all numbers.

const PHONE = window.matchMedia("(max-width: 34rem)");
const MOST_PANELS = () => (PHONE.matches ? 6 : 24);
const MOST_PLACES = 60; // along one side of the map
const MOST_SERIES = 9; // at first, in one figure

/** So many of n places, evenly, `kept` among them. */
function thin(n, most, kept = -1) {
  if (n <= most) return [...Array(n).keys()];
  const found = new Set([...Array(most).keys()].map((i) => Math.round((i * (n - 1)) / (most - 1))));
  if (kept >= 0) found.add(kept);
  return [...found].sort((a, b) => a - b);
}

/** The grid: cells lie in C order, the last axis fastest. */
class Grid {
  constructor(data) {
    Object.assign(this, data);
    this.strides = this.axes.map((_, i) => this.axes.slice(i + 1).reduce((n, axis) => n * axis.words.length, 1));
    this.chosen ??= this.axes.map((axis, i) => (i === data.x ? axis.words.length - 1 : Math.floor((axis.words.length - 1) / 2)));
    this.watchers = [];
  }
  flat(at) {
    return at.reduce((sum, i, k) => sum + i * this.strides[k], 0);
  }
  with(changes) {
    return this.chosen.map((i, k) => changes[k] ?? i);
  }
  words(at, axes = this.axes.keys()) {
    return [...axes].map((k) => this.say(k, at[k])).join(", ");
  }
  say(k, i) {
    const axis = this.axes[k];
    return axis.plain ? axis.words[i] : `${axis.name} ${axis.words[i]}`;
  }
  verdictOf(cell) {
    return this.verdicts[this.verdict[cell]];
  }
  choose(at) {
    this.chosen = at;
    this.watchers.forEach((watcher) => watcher());
  }
  /** Axes of more than one value, as options. */
  options() {
    return this.axes.map((axis, k) => [k, axis.name]).filter(([k]) => this.axes[k].words.length > 1);
  }
}

/** What is said of a cell: lines of text. */
function lines(grid, cell) {
  const found = [`${grid.verdictOf(cell)}, ${grid.replicas[cell]} draws`];
  for (const q of grid.quantities) {
    if (q.mid[cell] === null) continue;
    const theory = q.theory && q.theory[cell] !== null ? `; theory ${write(q.theory[cell])}${q.std && q.std[cell] !== null ? ` ± ${write(q.std[cell])}` : ""}` : "";
    found.push(`${q.label}: ${write(q.mid[cell])} (${write(q.low[cell])} to ${write(q.high[cell])})${theory}`);
  }
  if (grid.law) found.push(`law: ${grid.laws[grid.law[cell]]}`);
  return found;
}

/** The command that runs one cell alone, where all its words can be typed. */
function command(grid, at) {
  if (!grid.command) return "";
  return [grid.command, ...grid.axes.map((axis, k) => `${axis.flag} ${axis.typed[at[k]]}`)].join(" ");
}

function showMap(grid, box) {
  const first = (name, otherwise) => (grid.axes.findIndex((axis) => axis.name === name) + 1 || otherwise + 1) - 1;
  const long = grid.options().map(([k]) => k);
  const state = { columns: grid.x, rows: first("init", long.find((k) => k !== grid.x) ?? grid.x), colour: "verdict" };
  if (state.rows === state.columns) state.rows = long.find((k) => k !== grid.x) ?? -1;
  const controls = make("div", { class: "controls" });
  const notes = make("p", { class: "note" });
  const panels = make("div", { class: "panels" });
  box.append(controls, panels, notes);

  function colours(cell) {
    if (state.colour === "verdict") return [grid.letters[grid.verdictOf(cell)] ?? "?", `is-${grid.verdictOf(cell)}`, null];
    const q = grid.quantities.find((one) => one.name === state.colour);
    const value = number(q.mid[cell]);
    if (Number.isNaN(value)) return ["–", "is-missing", null];
    const all = q.mid.map(number).filter(Number.isFinite).map(Math.abs);
    const most = Math.max(...all, 1e-300);
    const share = q.kind === "symlog" ? SHAPES.symlog(value) / SHAPES.symlog(most) : value / most;
    return [Number.isFinite(value) ? String(Number(value.toPrecision(2))).replace("-", "−") : write(value), "", Math.max(-1, Math.min(1, share))];
  }

  function draw(focus = false) {
    const rest = grid.axes.map((_, k) => k).filter((k) => k !== state.rows && k !== state.columns);
    const said = [];
    const spread = [...rest].sort((a, b) => grid.axes[b].words.length - grid.axes[a].words.length);
    const count = () => spread.reduce((n, k) => n * grid.axes[k].words.length, 1);
    while (count() > MOST_PANELS()) said.push(`${grid.say(spread[0], grid.chosen[spread.shift()])}, as chosen`);
    const free = rest.filter((k) => spread.includes(k));
    const at = (k) => (k < 0 ? [-1] : thin(grid.axes[k].words.length, MOST_PLACES, grid.chosen[k]));
    for (const k of [state.rows, state.columns])
      if (k >= 0 && at(k).length < grid.axes[k].words.length) said.push(`${at(k).length} of ${grid.axes[k].words.length} values of ${grid.axes[k].name}`);
    let combinations = [{}];
    for (const k of free) combinations = combinations.flatMap((c) => grid.axes[k].words.map((_, i) => ({ ...c, [k]: i })));
    panels.classList.toggle("numbers", state.colour !== "verdict");
    panels.replaceChildren(...combinations.map((where) => panel(where, free, at(state.rows), at(state.columns))));
    notes.textContent = [said.length ? `Shown: ${said.join("; ")}.` : "", "Choose a cell by a click, or with arrow keys and Enter: the figures below follow."].join(" ").trim();
    const chosen = panels.querySelector("[aria-selected=true]") ?? panels.querySelector("td");
    if (chosen) chosen.tabIndex = 0;
    if (focus) chosen?.focus();
  }

  function panel(where, free, rows, columns) {
    const caption = free.map((k) => grid.say(k, where[k])).join(", ");
    const [down, across] = [grid.axes[state.rows], grid.axes[state.columns]];
    const head = make("tr", {}, make("th", { scope: "col" }, down ? down.name : ""), ...columns.map((j) => make("th", { scope: "col", class: "turned" }, make("span", {}, across.words[j]))));
    const body = rows.map((i) =>
      make("tr", {}, make("th", { scope: "row" }, i < 0 ? "" : down.words[i]), ...columns.map((j) => {
        const at = grid.with({ ...where, [state.columns]: j, ...(i < 0 ? {} : { [state.rows]: i }) });
        const cell = grid.flat(at);
        const [text, kind, share] = colours(cell);
        const td = make("td", { role: "gridcell", tabindex: -1, class: kind, "aria-selected": String(cell === grid.flat(grid.chosen)) }, text);
        td.setAttribute("aria-label", `${grid.words(at)}: ${grid.verdictOf(cell)}${state.colour === "verdict" ? "" : `, ${text}`}`);
        td.title = [grid.words(at), ...lines(grid, cell).slice(0, 2)].join("\n");
        if (share !== null) td.style.background = shade(share);
        td.addEventListener("click", () => grid.choose(at));
        td.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), grid.choose(at), draw(true)));
        return td;
      })),
    );
    const table = make("table", { role: "grid", class: "map" }, caption ? make("caption", {}, caption) : null, make("thead", {}, head), make("tbody", {}, ...body));
    if (!caption) table.setAttribute("aria-label", "verdicts");
    return make("div", { class: "wide" }, table);
  }

  panels.addEventListener("keydown", (event) => {
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    const cell = event.target.closest("td");
    if (!move || !cell) return;
    event.preventDefault();
    const bodies = [...panels.querySelectorAll("tbody")];
    let body = cell.closest("tbody");
    let i = [...body.rows].indexOf(cell.parentElement) + move[0];
    let j = cell.cellIndex + move[1];
    const step = i < 0 || j < 1 ? -1 : i >= body.rows.length || j >= body.rows[0].cells.length ? 1 : 0;
    if (step) {
      body = bodies[bodies.indexOf(body) + step];
      if (!body) return;
      if (move[0]) i = step > 0 ? 0 : body.rows.length - 1;
      else j = step > 0 ? 1 : body.rows[0].cells.length - 1;
    }
    panels.querySelectorAll("[tabindex='0'][role=gridcell]").forEach((td) => (td.tabIndex = -1));
    body.rows[i].cells[j].tabIndex = 0;
    body.rows[i].cells[j].focus();
  });

  const axes = () => grid.options();
  function control() {
    const swap = (key, other) => (k) => {
      if (state[other] === k) state[other] = state[key];
      state[key] = k;
      control();
      draw();
    };
    controls.replaceChildren(
      ...(axes().length > 1 ? [choice("rows", axes(), state.rows, swap("rows", "columns")), choice("columns", axes(), state.columns, swap("columns", "rows"))] : []),
      choice("cells show", [["verdict", "verdict"], ...grid.quantities.map((q) => [q.name, q.label])], state.colour, (value) => ((state.colour = value), draw())),
    );
  }
  control();
  draw();
  grid.watchers.push(() => draw());
  PHONE.addEventListener("change", () => draw());
}

/** Which cell the figures are of, and what is known of it. */
function showChosen(grid, box) {
  const controls = make("div", { class: "controls" });
  const text = make("div", { class: "cell", "aria-live": "polite" });
  box.append(controls, text);
  const draw = () => {
    controls.replaceChildren(...grid.options().map(([k, name]) =>
      choice(name, grid.axes[k].words.map((word, i) => [i, word]), grid.chosen[k], (i) => {
        grid.choose(grid.with({ [k]: i }));
        controls.querySelectorAll("select")[grid.options().findIndex(([one]) => one === k)].focus();
      })));
    const cell = grid.flat(grid.chosen);
    const [head, ...rest] = lines(grid, cell);
    const typed = command(grid, grid.chosen);
    text.replaceChildren(
      make("p", {}, make("span", { class: `badge is-${grid.verdictOf(cell)}` }, grid.verdictOf(cell)), ` ${grid.words(grid.chosen)}: ${head}`),
      make("ul", {}, ...rest.map((line) => make("li", {}, line))),
      typed ? make("div", { class: "code" }, make("pre", {}, make("code", {}, typed)), copier("Copy", () => typed)) : "",
    );
  };
  draw();
  grid.watchers.push(draw);
}

function showCurve(grid, box) {
  const options = grid.options();
  const x = options.some(([k]) => k === grid.x) ? grid.x : options[0]?.[0] ?? 0;
  const other = options.map(([k]) => k).filter((k) => k !== x);
  const init = other.find((k) => grid.axes[k].name === "init");
  const state = { x, along: init ?? other.at(-1) ?? -1, name: grid.quantities[0].name, theory: true, bars: true };
  const controls = make("div", { class: "controls" });
  const holder = make("div");
  const note = make("p", { class: "note" });
  box.append(controls, holder, note);
  const drawing = figure(holder);
  let spec = null;
  const fill = below(holder, () => {
    const q = grid.quantities.find((one) => one.name === state.name);
    const rows = spec.series.flatMap((one) => one.points.map((p) => [one.name, grid.axes[state.x].words[p.place], p.y, p.low, p.high, ...(q.theory ? [p.theory] : [])]));
    const head = [state.along < 0 ? "cell" : grid.axes[state.along].name, grid.axes[state.x].name, "median", "10 %", "90 %", ...(q.theory ? ["theory"] : [])];
    return [`${q.label}; ${note.textContent}`, head, rows, { name: state.name }];
  });
  function draw() {
    const axis = grid.axes[state.x];
    const q = grid.quantities.find((one) => one.name === state.name);
    const along = state.along < 0 ? [null] : thin(grid.axes[state.along].words.length, MOST_SERIES, grid.chosen[state.along]);
    const values = axis.values ?? axis.words.map((_, i) => i);
    const series = along.map((i, place) => {
      const points = axis.words.map((_, j) => {
        const at = grid.with({ [state.x]: j, ...(i === null ? {} : { [state.along]: i }) });
        const cell = grid.flat(at);
        return {
          x: values[j], place: j, y: q.mid[cell], low: state.bars ? q.low[cell] : null, high: state.bars ? q.high[cell] : null,
          theory: q.theory?.[cell] ?? null, said: [grid.words(at), ...lines(grid, cell)], pick: () => grid.choose(at),
        };
      });
      const theory = state.theory && q.theory ? points.map((p) => ({ x: p.x, y: p.theory })).filter((t) => t.y !== null) : [];
      const name = i === null ? "measured" : grid.axes[state.along].words[i];
      return { name, at: place, points, bars: state.bars, theory, line: !theory.length, chosen: i === null || i === grid.chosen[state.along] ? grid.chosen[state.x] : -1 };
    });
    const fixed = grid.options().map(([k]) => k).filter((k) => k !== state.x && k !== state.along);
    const left = state.along >= 0 ? grid.axes[state.along].words.length - along.length : 0;
    note.textContent = [
      fixed.length ? `${grid.words(grid.chosen, fixed)} (the chosen cell's).` : "",
      `Points are medians over draws${state.bars ? ", bars the middle 80 %" : ""}${series.some((one) => one.theory.length) ? ", lines theory" : ""}.`,
      q.kind === "symlog" ? "Grey: stable." : "",
      left ? `${left} more values of ${grid.axes[state.along].name} are left out.` : "",
    ].join(" ").trim();
    spec = {
      name: `${q.label} against ${axis.name}`, picks: true, series,
      x: { label: axis.label, kind: axis.values ? (axis.log ? "log" : "linear") : "words", words: axis.words, marked: axis.values },
      y: { label: q.label, kind: q.kind }, bands: q.kind === "symlog" ? [{ from: -BOUND, to: BOUND }] : [],
    };
    drawing.show(spec);
    fill();
  }
  function control() {
    const others = grid.options().filter(([k]) => k !== state.x);
    controls.replaceChildren(
      choice("up", grid.quantities.map((q) => [q.name, q.label]), state.name, (name) => ((state.name = name), draw())),
      ...(options.length > 1 ? [
        choice("along", options, state.x, (k) => {
          if (state.along === k) state.along = state.x;
          state.x = k;
          control();
          draw();
        }),
        choice("lines", [[-1, "one line"], ...others], state.along, (k) => ((state.along = k), draw())),
      ] : []),
      tick("theory", state.theory, (on) => ((state.theory = on), draw())),
      tick("spread over draws", state.bars, (on) => ((state.bars = on), draw())),
    );
  }
  control();
  draw();
  grid.watchers.push(draw);
}

function showLayers(grid, box) {
  const { rows, layers, group } = grid.profiles;
  const state = { row: rows[0].name, along: -1, share: false, theory: true };
  const controls = make("div", { class: "controls" });
  const holder = make("div");
  const note = make("p", { class: "note" });
  box.append(controls, holder, note);
  const drawing = figure(holder);
  let series = [];
  const fill = below(holder, () => {
    const row = rows.find((one) => one.name === state.row);
    const lines = series.flatMap((one) => one.points.map((p) => [one.name, p.layer, p.y, p.low, p.high]));
    return [row.label, ["cell", "layer", row.parts === 3 ? "median" : "mean", row.parts === 3 ? "5 %" : "mean − std", row.parts === 3 ? "95 %" : "mean + std"], lines, { name: state.row }];
  });
  function draw() {
    const row = rows.find((one) => one.name === state.row);
    const along = state.along < 0 ? [null] : thin(grid.axes[state.along].words.length, MOST_SERIES, grid.chosen[state.along]);
    series = along.map((i, place) => {
      const at = grid.with(i === null ? {} : { [state.along]: i });
      const cell = grid.flat(at);
      const where = layers[group[cell]] ?? [];
      const last = where.at(-1) ?? 1;
      const values = row.values[cell];
      const points = !values ? [] : where.map((layer, j) => {
        const [mid, low, high] = [0, 1, 2].map((part) => values[part * where.length + j]);
        const said = [i === null ? grid.words(grid.chosen) : grid.axes[state.along].words[i], `layer ${layer} of ${last}: ${write(mid)} (${write(low)} to ${write(high)})`];
        return { x: state.share ? layer / last : layer, layer, y: mid, low, high, said, pick: () => grid.choose(at) };
      }).filter((p) => p.y !== null);
      const q = grid.quantities[0];
      const theory = [];
      if (state.theory && row.name === "log10_grad_activation" && q.theory && q.theory[cell] !== null && points.length) {
        const input = number(points.at(-1).y) + number(q.theory[cell]);
        const std = q.std && q.std[cell] !== null ? number(q.std[cell]) : NaN;
        theory.push({ x: 0, y: input, low: input - std, high: input + std });
      }
      const name = i === null ? grid.words(grid.chosen) : grid.axes[state.along].words[i];
      return { name, at: place, points, band: true, line: true, theory, chosen: -1 };
    });
    const none = series.filter((one) => !one.points.length).length;
    note.textContent = [
      state.along < 0 ? "" : `${grid.words(grid.chosen, grid.options().map(([k]) => k).filter((k) => k !== state.along))} (the chosen cell's).`,
      row.parts === 3 ? "Lines are medians over draws, bands the middle 90 %." : "Lines are means over draws, bands one standard deviation.",
      series.some((one) => one.theory.length) ? "Cross: theory at the input, a standard deviation either way." : "",
      none ? `${none} without numbers.` : "",
    ].join(" ").trim();
    drawing.show({
      name: `${row.label} against layer`, picks: state.along >= 0, series, y: { label: row.label, kind: "linear" },
      x: { label: state.share ? "share of the depth (0 is the input)" : grid.profiles.label, kind: "linear" },
    });
    fill();
  }
  controls.append(
    choice("up", rows.map((row) => [row.name, row.label]), state.row, (name) => ((state.row = name), draw())),
    choice("lines", [[-1, "the chosen cell"], ...grid.options()], state.along, (k) => ((state.along = k), draw())),
    tick("against the share of depth", state.share, (on) => ((state.share = on), draw())),
    ...(grid.quantities[0].theory ? [tick("theory", state.theory, (on) => ((state.theory = on), draw()))] : []),
  );
  draw();
  grid.watchers.push(draw);
}

function showCells(grid, box) {
  const details = make("details", {}, make("summary", {}, `All ${grid.verdict.length} cells`));
  details.addEventListener("toggle", () => {
    if (!details.open || details.childElementCount > 1) return;
    const head = [...grid.axes.map((axis) => axis.name), "verdict", "draws"];
    for (const q of grid.quantities) head.push(`${q.name} median`, "10 %", "90 %", ...(q.theory ? ["theory"] : []));
    if (grid.law) head.push("z of slope", "law");
    const size = grid.verdict.length;
    const rows = [...Array(size).keys()].map((cell) => {
      const at = grid.axes.map((axis, k) => Math.floor(cell / grid.strides[k]) % axis.words.length);
      const row = [...grid.axes.map((axis, k) => (axis.values ? axis.values[at[k]] : axis.words[at[k]])), grid.verdictOf(cell), grid.replicas[cell]];
      for (const q of grid.quantities) row.push(q.mid[cell], q.low[cell], q.high[cell], ...(q.theory ? [q.theory[cell]] : []));
      if (grid.law) row.push(grid.z[cell], grid.laws[grid.law[cell]]);
      return row;
    });
    details.append(table("Every cell: medians over draws, and between which values the middle 80 % lie", head, rows, { name: "cells", sortable: true }));
  });
  box.append(details);
}
