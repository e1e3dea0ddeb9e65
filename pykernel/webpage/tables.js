// SPDX-License-Identifier: BSD-3-Clause
// Tables of the page: numbers to read, sort, copy and save; and the small controls beside figures.

const MOST_LINES = 1000; // of a table on the page: a copy has all

/** Put a text into the clipboard; a page that is a file may have none, and then what is selected is copied. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "spoken" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** A button that copies what `text()` gives, and says so. */
function copier(words, text) {
  const said = make("span", { class: "said", role: "status" });
  const press = async () => {
    await copy(text());
    said.textContent = "copied";
    setTimeout(() => (said.textContent = ""), 2000);
  };
  return make("span", { class: "copier" }, make("button", { type: "button", onclick: press }, words), said);
}

const raw = (value) => (value === null || value === undefined ? "" : String(value));

/** Lines of text with a separator; with commas a cell that needs quotes has them. */
function separated(head, rows, separator) {
  const quoted = (value) => (separator === "," && /[",\n]/.test(raw(value)) ? `"${raw(value).replaceAll('"', '""')}"` : raw(value));
  return [head, ...rows].map((row) => row.map(quoted).join(separator)).join("\n") + "\n";
}

const isNumber = (value) => typeof value === "number" || value === "inf" || value === "-inf";

/** A table with its buttons. rows: arrays of numbers ("inf" and null among them) and texts. */
function table(caption, head, rows, { name = "table", sortable = false } = {}) {
  const body = make("tbody");
  const fill = (lines) =>
    body.replaceChildren(
      ...lines.slice(0, MOST_LINES).map((row) =>
        make("tr", {}, ...row.map((value, j) => {
          const numeric = isNumber(value) || value === null;
          return make(j ? "td" : "th", { class: numeric ? "number" : null, scope: j ? null : "row" }, numeric ? write(value) : value);
        })),
      ),
    );
  let order = null; // [column, 1 or -1]
  const sort = (j, heads) => {
    order = [j, order && order[0] === j ? -order[1] : 1];
    heads.forEach((th, k) => (k === j ? th.setAttribute("aria-sort", order[1] > 0 ? "ascending" : "descending") : th.removeAttribute("aria-sort")));
    const empty = (value) => value === null || Number.isNaN(number(value));
    const key = (value) => (isNumber(value) ? number(value) : value);
    fill([...rows].sort((a, b) => {
      const [u, v] = [a[j], b[j]];
      if (empty(u) || empty(v)) return empty(u) - empty(v);
      return order[1] * (key(u) < key(v) ? -1 : key(u) > key(v) ? 1 : 0);
    }));
  };
  const heads = head.map((text, j) => {
    const title = sortable ? make("button", { type: "button", onclick: () => sort(j, heads) }, text) : text;
    return make("th", { scope: "col" }, title);
  });
  fill(rows);
  const more = rows.length > MOST_LINES ? `; the first ${MOST_LINES} of ${rows.length} lines, a copy has all` : "";
  const save = () => {
    const link = make("a", { href: URL.createObjectURL(new Blob([separated(head, rows, ",")], { type: "text/csv" })), download: `${name}.csv` });
    link.click();
    URL.revokeObjectURL(link.href);
  };
  return make("div", {},
    make("p", { class: "buttons" },
      copier("Copy table", () => separated(head, rows, "\t")),
      make("button", { type: "button", onclick: save }, "Save as CSV")),
    make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": caption },
      make("table", {}, make("caption", {}, caption + more), make("thead", {}, make("tr", {}, ...heads)), body)));
}

/** A table below a figure, made when it is opened; `what()` gives the arguments of `table`. */
function below(figureBox, what) {
  const details = make("details", {}, make("summary", {}, "Numbers of this figure"));
  const fill = () => details.open && details.replaceChildren(details.firstChild, table(...what()));
  details.addEventListener("toggle", fill);
  figureBox.after(details);
  return fill;
}

/** A choice: options are [value, text]; `changed` is told the value. */
function choice(words, options, value, changed) {
  const list = make("select", { onchange: (event) => changed(options[event.target.selectedIndex][0]) });
  list.append(...options.map(([one, text]) => make("option", { selected: one === value }, text)));
  return make("label", {}, make("span", {}, words), list);
}

/** A box to tick. */
function tick(words, value, changed) {
  const box = make("input", { type: "checkbox", checked: value, onchange: (event) => changed(event.target.checked) });
  return make("label", { class: "tick" }, box, words);
}
