// The rows of a board: what table.js draws of a measured entry and of a printed one.
import { el, number } from "./util.js";
import { state } from "./state.js";

export const FIRST = 8; // places of data.scores: rank's first, last, of, why
const [MEDIAN, SEEDS, PROMPTS, CLIPS, BEST] = [3, 4, 5, 6, 7];
export const FACTS = [
  ["model", "model", "The model that was distilled."],
  ["steps", "steps", "Network calls of the student a clip."],
  ["updates", "updates", "Updates of the student in one training, earlier stages too."],
  ["hours", "GPU-hours", "Wall time of one training times its GPUs; a dash: not recorded."],
  ["date", "date", "When the entry was made."],
  ["files", "files", "Recipe, evidence and paper."],
];
const RANK =
  "From one more than the methods that are better beyond doubt to the ranked methods less those worse beyond doubt.";

/** The columns of a tab, those of facts around them. */
export function columnsOf(data, tab, hidden) {
  const by = data.columns.find((column) => column.id === state.by);
  const fact = ([id, label, definition]) => ({ id, label, arrow: "", fact: true, definition });
  const columns = [
    fact(["compare", "compare", "Two to four methods beside each other."]),
    ...(by ? [fact(["rank", `rank by ${by.label}`, RANK])] : []),
    ...data.columns.filter((column) => column.groups.includes(tab)),
    ...FACTS.map(fact),
  ];
  return columns.filter((column) => !hidden.has(column.id));
}

/** A measured entry's row. */
export function rowOf(entry, chosen) {
  return {
    ...entry,
    href: `../${path(entry.page)}`,
    marks: marksOf(entry),
    tone: [entry.kind, chosen.includes(entry.id) ? "chosen" : ""].filter(Boolean).join(" "),
    note: "",
  };
}

export const path = (file) => file.split("/").map(encodeURIComponent).join("/");

/** Badges of an entry. */
function marksOf(entry) {
  const badge = (kind, text) => el("span", { class: `badge ${kind}` }, text);
  const tick = entry.faults
    ? el("span", { class: "tick bad", title: `${entry.faults} faults` }, "✗")
    : el("span", { class: "tick", title: "Every number follows from the evidence" }, "✓");
  tick.append(el("span", { class: "sr" }, entry.faults ? " not verified" : " verified"));
  const reference = entry.kind === "reference" ? [" ", badge("reference", "reference")] : [];
  return [badge("measured", "measured"), ...reference, " ", tick];
}

/** The cell of a fact; `calls.pick(id, on)` and `calls.play(id)` are what its controls do. */
export function factCell(data, row, column, chosen, calls) {
  if (column.id === "compare") return { value: null, plain: picker(row, chosen, calls) };
  if (column.id === "rank") return rankCell(data, row);
  if (column.id === "date") return { value: row.date, plain: [row.date] };
  if (column.id === "files") return { value: null, plain: [filesOf(row)] };
  const { text, value } = row.facts[column.id];
  return { value: value ?? null, plain: [text] };
}

function picker(row, chosen, calls) {
  const box = el("input", { type: "checkbox", value: row.id, "aria-label": `Compare ${row.label}` });
  box.checked = chosen.includes(row.id);
  box.addEventListener("change", () => calls.pick(row.id, box.checked));
  const play = el(
    "button",
    { type: "button", "aria-label": `Play clips of ${row.label}`, onclick: () => calls.play(row.id) },
    "▶",
  );
  const clips = Object.keys(row.clips).length > 0;
  return [el("span", { class: "pick" }, el("label", {}, box), clips ? play : null)];
}

function filesOf(row) {
  const links = Object.entries(row.links).map(([name, file]) =>
    el("a", { href: file.startsWith("https:") ? file : `../${path(file)}` }, name),
  );
  return el("span", { class: "links" }, links);
}

/** The rank by the chosen column: the range, and where it lies. */
function rankCell(data, row) {
  const own = data.scores[row.id]?.[state.by];
  if (!own) {
    const why = row.kind === "reference" ? "reference" : "no such score";
    return { value: null, plain: ["– ", el("span", { class: "why" }, why)] };
  }
  const [first, last, of, why] = own.slice(FIRST);
  if (!first) return { value: null, plain: ["– ", el("span", { class: "why" }, why)] };
  const line = el("i");
  line.style.left = `${(100 * (first - 1)) / of}%`;
  line.style.width = `${(100 * (last - first + 1)) / of}%`;
  const text = first === last ? String(first) : `${first}–${last}`;
  const shown = el("span", { class: "rank" }, text, " ", el("small", {}, `of ${of}`));
  const bar = el("span", { class: "rank-line", "aria-hidden": "true" }, line);
  return { value: first + last / 1e3 + ahead(data, own[0]) / 1e6, plain: [shown, bar] };
}

/** How many entries have a better mean by the chosen column: the order among equal ranks. */
function ahead(data, mean) {
  const { direction } = data.columns.find((column) => column.id === state.by);
  const turn = { higher: 1, lower: -1 }[direction] ?? 0; // what is near has no order of its own
  const means = Object.values(data.scores).flatMap((own) => own[state.by]?.[0] ?? []);
  return means.filter((other) => turn * (other - mean) > 0).length;
}

/** The cell of a score. */
export function scoreCell(data, row, column) {
  const own = data.scores[row.id]?.[column.id];
  if (!own) return null;
  const [value, low, high] = own;
  const size = low === null ? value : Math.max(Math.abs(low), Math.abs(high));
  const count = (n, name) => (n ? [`${n} ${name}${n === 1 ? "" : "s"}`] : []);
  const n = [
    ...count(own[SEEDS], "seed"),
    ...count(own[PROMPTS], "prompt"),
    ...count(own[CLIPS], "clip"),
  ];
  return {
    value,
    low,
    high,
    text: number(value, size),
    best: own[BEST] === 1,
    limits: low === null ? "" : `[${number(low, size)}, ${number(high, size)}]`,
    hint: `median ${number(own[MEDIAN], size)}; ${n.join(", ")}`,
  };
}

/** The model of the table of printed numbers. */
export function printedModel(data, sort) {
  return {
    caption: "Published numbers",
    rows: data.published.entries.map((entry) => ({
      ...entry,
      href: `../${path(entry.page)}`,
      marks: [el("span", { class: "badge published" }, "published")],
    })),
    columns: data.published.columns,
    cell: (row, column) => {
      const own = row.values[column.id];
      return own ? { value: own[0], plain: [own[1]] } : null;
    },
    sort,
  };
}
