// SPDX-License-Identifier: BSD-3-Clause
// Where a value lies along an axis, which values get a tick, and how numbers are written.

const BOUND = 3; // decades of the verdict: within them a symmetric logarithm is nearly linear

/** A number of the data: null is none, "inf" and "-inf" (an exact zero in a log) are texts in JSON. */
const number = (value) => {
  if (value === null || value === undefined) return NaN;
  return value === "inf" ? Infinity : value === "-inf" ? -Infinity : value;
};

/** A number as people read it. */
function write(value) {
  const v = number(value);
  if (Number.isNaN(v)) return "–";
  if (!Number.isFinite(v)) return v > 0 ? "inf" : "−inf";
  if (v !== 0 && (Math.abs(v) < 1e-3 || Math.abs(v) >= 1e6)) return v.toExponential(2).replace("-", "−").replace("+", "");
  return String(Number(v.toPrecision(4))).replace("-", "−");
}

const SHAPES = {
  linear: (v) => v,
  log: (v) => Math.log10(v),
  symlog: (v) => Math.sign(v) * Math.log10(1 + Math.abs(v) / BOUND),
};

/** Round steps from low to high, about so many. */
function steps(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((k) => k * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Ticks of a symmetric logarithm: the verdict's bounds, powers of ten beyond, with threes where they are few. */
function symmetric(low, high) {
  const found = [0, BOUND, -BOUND];
  if (Math.max(Math.abs(low), Math.abs(high)) < BOUND) found.push(1, -1);
  const far = Math.max(Math.abs(low), Math.abs(high));
  for (let k = 1; 10 ** k <= far; k++) for (const d of far < 1000 ? [1, 3] : [1]) found.push(d * 10 ** k, -d * 10 ** k);
  return found.filter((v) => v >= low && v <= high).sort((a, b) => a - b);
}

/** Powers of ten, with twos and fives where they are few. */
function powers(low, high) {
  const found = [];
  const digits = Math.log10(high / low) < 1.5 ? [1, 2, 5] : [1];
  for (let k = Math.floor(Math.log10(low)); 10 ** k <= high; k++) for (const d of digits) found.push(d * 10 ** k);
  return found.filter((v) => v >= low * 0.999 && v <= high * 1.001);
}

/**
 * The scale of an axis.
 *   kind: "linear", "log", "symlog", or "words" (values are 0, 1, ... and words their names).
 *   values: all finite values that shall be seen.  marked: values to put ticks at, where they are few.
 * Returns {at: value -> 0 .. 1, ticks: [[value, text]], low, high}.
 */
function scale(kind, values, { words = null, marked = null } = {}) {
  if (kind === "words") {
    const ticks = words.map((word, i) => [i, word]);
    return { at: (v) => (v + 0.5) / words.length, ticks, low: 0, high: words.length - 1, words };
  }
  const shape = SHAPES[kind];
  const finite = values.filter((v) => Number.isFinite(v) && (kind !== "log" || v > 0));
  let low = Math.min(...finite);
  let high = Math.max(...finite);
  if (!finite.length) [low, high] = kind === "log" ? [1, 10] : [-1, 1];
  if (kind === "symlog") [low, high] = [Math.min(low * 1.15, -1), Math.max(high * 1.15, 1)];
  else if (low === high) [low, high] = kind === "log" ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
  const [a, b] = [shape(low), shape(high)];
  const gap = kind === "symlog" ? 0 : 0.04 * (b - a);
  const at = (v) => (shape(v) - a + gap) / (b - a + 2 * gap);
  const chosen = marked && marked.length <= 8 ? marked : { linear: () => steps(low, high, 7), log: () => powers(low, high), symlog: () => symmetric(low, high) }[kind]();
  const signed = (v) => (kind === "symlog" && v > 0 ? "+" : "") + write(v);
  return { at, ticks: chosen.map((v) => [v, signed(v)]), low, high, words: null };
}
