// A table of scores: rows and columns that sort, tabs, a chooser of columns, bars of intervals.
// It knows no report: a model gives its rows, columns and cells, so that other pages can use it.
import { el } from "./util.js";

/**
 * Draw `model` into `place`.
 *
 * model.rows: [{id, label, colour, note, search}], and if there is more to them `href`, `marks`
 * (nodes below the name) and `tone` (a class). model.columns: [{id, label, arrow, hint}].
 * model.cell(row, column): {value, low, high, text, limits, best, hint} or null; or {value, plain}:
 * nodes that are no score, and what they sort by.
 * model.sort: {column, up}; model.zero: whether bars are about 0; model.opens: what a click shows.
 * calls.sort(column), calls.open(row, column): what clicks do; calls.hint(column, element | null).
 */
export function drawTable(place, model, calls) {
  const cells = new Map(
    model.columns.map((column) => [column.id, model.rows.map((row) => model.cell(row, column))]),
  );
  const order = sorted(model, cells);
  const ranges = new Map([...cells].map(([id, own]) => [id, rangeOf(own, model.zero)]));
  const head = el(
    "tr",
    {},
    rowHead(model),
    model.columns.map((column) => columnHead(model, column, calls)),
  );
  const body = order.map((i) => {
    const row = model.rows[i];
    const name = el(
      "th",
      { scope: "row" },
      dot(row),
      row.href ? el("a", { href: row.href }, row.label) : row.label,
      row.note || row.marks ? el("small", {}, row.marks, row.note) : null,
    );
    const own = model.columns.map((column) =>
      cellOf(
        cells.get(column.id)[i],
        ranges.get(column.id),
        () => calls.open(row, column),
        `${row.label}, ${column.label}`,
        model,
      ),
    );
    return el("tr", { "data-row": row.id, class: row.tone || null }, name, own);
  });
  const caption = el("caption", { class: "sr" }, model.caption);
  place.replaceChildren(
    el("table", { class: "scores" }, caption, el("thead", {}, head), el("tbody", {}, body)),
  );
}

function sorted({ rows, sort }, cells) {
  const order = rows.map((_, i) => i);
  const own = sort && cells.get(sort.column);
  if (!own) return order;
  const place = (i) => own[i]?.value ?? null;
  return order.sort((i, j) => {
    if (place(i) === null || place(j) === null)
      return (place(i) === null) - (place(j) === null) || i - j;
    return (sort.up ? 1 : -1) * compared(place(i), place(j)) || i - j;
  });
}

const compared = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en") : a - b);

/** The least and largest value or limit of a column. */
export function rangeOf(cells, zero) {
  const ends = cells
    .filter(Boolean)
    .flatMap(({ value, low, high }) => [value, low, high])
    .filter((x) => x !== null && x !== undefined);
  if (zero) ends.push(0);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const pad = 0.04 * (high - low || Math.abs(high) || 1);
  return { low: low - pad, high: high + pad };
}

const rowHead = (model) => el("th", { scope: "col" }, model.corner ?? "method");

function columnHead(model, column, calls) {
  const { sort } = model;
  const here = sort?.column === column.id;
  const hint = (event) =>
    calls.hint(
      column,
      event.type === "mouseleave" || event.type === "blur" ? null : event.currentTarget,
    );
  const button = el(
    "button",
    {
      type: "button",
      onclick: () => calls.sort(column),
      onmouseenter: hint,
      onmouseleave: hint,
      onfocus: hint,
      onblur: hint,
      "aria-describedby": `about-${column.id}`,
    },
    el("span", {}, column.label),
    " ",
    el("span", { class: "arrow" }, column.arrow),
    el("span", { class: "sorted", "aria-hidden": "true" }, here ? (sort.up ? "▲" : "▼") : ""),
  );
  return el(
    "th",
    {
      scope: "col",
      "aria-sort": here ? (sort.up ? "ascending" : "descending") : "none",
      "data-column": column.id,
    },
    button,
  );
}

/** The colour of a row. */
export function dot({ colour }) {
  if (!colour) return null;
  const made = el("i", { class: "dot", "aria-hidden": "true" });
  made.style.background = colour;
  return made;
}

function cellOf(cell, range, open, name, model) {
  if (!cell) return el("td", { class: "none" }, "—");
  if (cell.plain) return el("td", { class: "plain" }, cell.plain);
  const classes = [cell.best ? "best" : "", cell.tone ?? ""].filter(Boolean).join(" ");
  const text = [
    el("span", { class: "value" }, cell.text),
    cell.limits ? el("span", { class: "limits" }, cell.limits) : null,
  ];
  const button = el(
    "button",
    {
      type: "button",
      class: "cell",
      onclick: open,
      title: cell.hint ?? null,
      "aria-label": `${name}: ${cell.text} ${cell.limits ?? ""}${model.opens ?? ", by prompt"}`,
    },
    text,
    bar(cell, range, model),
  );
  return el("td", { class: classes || null }, button);
}

/** A value and its interval on a line, which `range` gives its ends. */
export function bar({ value, low, high }, range, { zero }) {
  const at = (x) => (100 * (x - range.low)) / (range.high - range.low);
  const line = el("span", { class: "bar", "aria-hidden": "true" });
  if (zero) line.append(mark("zero", at(0)));
  if (low !== null && low !== undefined) {
    const span = el("i", { class: "span" });
    Object.assign(span.style, { left: `${at(low)}%`, width: `${at(high) - at(low)}%` });
    line.append(span);
  }
  line.append(mark("mean", at(value)));
  return line;
}

function mark(name, place) {
  const made = el("i", { class: name });
  made.style.left = `${place}%`;
  return made;
}

/** A row of tabs; `choose(id)` is called with the one that is pressed. */
export function drawTabs(place, tabs, chosen, choose) {
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const at = tabs.findIndex((tab) => tab === chosen);
    choose(tabs[(at + step + tabs.length) % tabs.length]);
    place.querySelector('[aria-selected="true"]').focus();
  };
  place.replaceChildren(
    ...tabs.map((tab) =>
      el(
        "button",
        {
          type: "button",
          role: "tab",
          "aria-selected": String(tab === chosen),
          tabindex: tab === chosen ? "0" : "-1",
          "data-tab": tab,
          onclick: () => choose(tab),
          onkeydown: move,
        },
        tab,
      ),
    ),
  );
}
