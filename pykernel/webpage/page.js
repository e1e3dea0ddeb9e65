// SPDX-License-Identifier: BSD-3-Clause
// The page: its data put into its sections; the figures of one network, and the phase diagram.

/** Rows of one network against layer or block. */
function showNetwork(network, box) {
  const state = { row: network.rows[0].name, theory: true, band: true };
  const controls = make("div", { class: "controls" });
  const holder = make("div");
  const note = make("p", { class: "note" });
  box.append(controls, holder, note);
  const drawing = figure(holder);
  const rowOf = () => network.rows.find((one) => one.name === state.row);
  const fill = below(holder, () => {
    const row = rowOf();
    const theory = row.series.some((one) => one.theory);
    const lines = row.series.flatMap((one) => one.x.map((x, j) => [one.name, x, one.mid[j], one.low[j], one.high[j], ...(theory ? [one.theory?.[j] ?? null] : [])]));
    return [row.label, ["line", network.place, "median", "10 %", "90 %", ...(theory ? ["theory"] : [])], lines, { name: row.name }];
  });
  function draw() {
    const row = rowOf();
    const series = row.series.map((one, i) => ({
      name: one.name, at: i, line: true, band: state.band, chosen: -1,
      points: one.x.map((x, j) => ({
        x, y: one.mid[j], low: one.low[j], high: one.high[j],
        said: [`${one.name}, ${network.place} ${x}`, `${write(one.mid[j])} (${write(one.low[j])} to ${write(one.high[j])})`, ...(one.theory && one.theory[j] !== null ? [`theory ${write(one.theory[j])}`] : [])],
      })),
      theory: state.theory && one.theory ? one.x.map((x, j) => ({ x, y: one.theory[j], low: one.below?.[j] ?? null, high: one.above?.[j] ?? null })).filter((t) => t.y !== null) : [],
    }));
    const drawn = series.some((one) => one.theory.length);
    note.textContent = `${row.meaning}. Lines with marks are medians over ${network.replicas} draws${state.band ? ", bands the middle 80 %" : ""}${drawn ? `, dashes theory (${row.law})` : ""}.`;
    drawing.show({
      name: `${row.label} against ${network.place}`, series, y: { label: row.label, kind: "linear" },
      x: { label: network.label, kind: "linear" },
    });
    fill();
  }
  controls.append(
    choice("up", network.rows.map((row) => [row.name, row.label]), state.row, (name) => ((state.row = name), draw())),
    ...(network.rows.some((row) => row.series.some((one) => one.theory)) ? [tick("theory", state.theory, (on) => ((state.theory = on), draw()))] : []),
    tick("spread over draws", state.band, (on) => ((state.band = on), draw())),
  );
  draw();
}

function showPhases(phases, box, grid) {
  let at = 0;
  const controls = make("div", { class: "controls" });
  const holder = make("div");
  const key = make("p", { class: "key", "aria-hidden": "true" });
  const note = make("p", { class: "note" });
  box.append(controls, holder, key, note);
  const drawing = figure(holder);
  const fill = below(holder, () => {
    const one = phases[at];
    const rows = one.y.flatMap((b, i) => one.x.map((w, j) => [w, b, one.values[i][j]]));
    return [`${one.name}: decades a layer at the fixed point`, ["sigma_w", "sigma_b", "decades a layer"], rows, { name: "phases" }];
  });
  function draw() {
    const one = phases[at];
    const decades = (value) => (value === null ? "signals grow without end" : `${write(value)} decades a layer`);
    const series = one.points.map((p, i) => ({
      name: p.name, at: i, line: false, chosen: -1,
      points: p.x.map((x, j) => ({ x, y: p.y[j], said: [p.said[j], `sigma_w ${write(x)}, sigma_b ${write(p.y[j])}`, decades(p.values[j])] })),
    }));
    const critical = one.line.map((part, i) => ({
      name: i ? `critical line, part ${i + 1}` : "critical line", at: 4, line: true, unmarked: true, chosen: -1,
      points: part.map(([x, y]) => ({ x, y, said: ["critical: the gradient keeps its size", `sigma_w ${write(x)}, sigma_b ${write(y)}`] })),
    }));
    drawing.show({
      name: `Phase diagram of ${one.name}`, height: 420, series: [...critical, ...series],
      shades: { x: one.x, y: one.y, values: one.values, reach: one.reach },
      x: { label: "weight scale σw = standard deviation × √fan in", kind: "linear" }, y: { label: "bias standard deviation σb", kind: "linear" },
    });
    const ramp = [-1, -0.5, 0, 0.5, 1].map((share) => {
      const swatch = make("span", { class: "swatch" });
      swatch.style.background = shade(share);
      return make("span", {}, swatch, `${share > 0 ? "+" : ""}${write(share * one.reach)}`);
    });
    const away = one.values.some((row) => row.includes(null)) ? [make("span", {}, make("span", { class: "swatch away" }), "signals grow without end")] : [];
    key.replaceChildren("decades a layer: ", ...ramp, ...away);
    note.textContent = one.note;
    fill();
  }
  // The chosen cell's function comes first, and follows it.
  const follow = () => {
    const axis = grid ? grid.axes.findIndex((one) => one.name === "activation") : -1;
    const own = axis < 0 ? -1 : phases.findIndex((one) => one.name === grid.axes[axis].words[grid.chosen[axis]]);
    if (own >= 0) at = own;
    if (phases.length > 1) controls.replaceChildren(choice("activation", phases.map((one, i) => [i, one.name]), at, (i) => ((at = i), draw())));
    draw();
  };
  follow();
  grid?.watchers.push(follow);
}

{
  const data = JSON.parse(document.getElementById("data").textContent);
  const into = (name, show) => {
    const box = document.querySelector(`#${name} .here`);
    if (box) show(box);
  };
  const grid = data.grid ? new Grid(data.grid) : null;
  if (grid) {
    into("map", (box) => showMap(grid, box));
    into("chosen", (box) => showChosen(grid, box));
    into("curve", (box) => showCurve(grid, box));
    if (data.grid.profiles) into("profile", (box) => showLayers(grid, box));
    into("cells", (box) => showCells(grid, box));
  }
  if (data.network) into("network", (box) => showNetwork(data.network, box));
  if (data.phases) into("phases", (box) => showPhases(data.phases, box, grid));
  document.querySelectorAll("main .code").forEach((box) => {
    if (!box.querySelector("button")) box.append(copier("Copy", () => box.querySelector("pre").textContent));
  });
}
