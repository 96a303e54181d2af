// A board's page: the table with its choices, the comparison, and the table of printed numbers.
import { byId, el, options } from "./util.js";
import { begin, keepAddress, state, update, onChange } from "./state.js";
import { drawTable, drawTabs } from "./table.js";
import { FIRST, columnsOf, factCell, printedModel, rowOf, scoreCell } from "./rows.js";
import { Compare, MOST, chosenIds } from "./compare.js";

const data = JSON.parse(byId("data").textContent);
const tabs = [...new Set(data.columns.flatMap((column) => column.groups))];
begin({
  by: data.by, tab: "", find: "", kind: "", model: "", hide: "", sort: "rank", up: "1",
  compare: "", prompt: "", seed: "", printed: "", printedUp: "",
});
document.documentElement.classList.add("js");

class Board {
  constructor() {
    this.compare = new Compare(data);
    const models = [...new Set(data.entries.map((entry) => entry.facts.model.value))];
    options(byId("by"), data.columns.map((column) => [column.id, column.label]), state.by);
    const kinds = [["", "all"], ["student", "students"], ["reference", "references"]];
    if (data.entries.some((entry) => Object.keys(entry.clips).length)) kinds.push(["clips", "with clips"]);
    options(byId("kind"), kinds, state.kind);
    options(byId("model"), [["", "all"], ...models.filter(Boolean).map((name) => [name, name])], "");
    byId("model-pick").hidden = models.length < 2;
    for (const name of ["by", "kind", "model"]) {
      byId(name).addEventListener("change", (event) => update({ [name]: event.target.value }));
    }
    byId("by").addEventListener("change", () => update({ sort: "rank", up: "1" }));
    byId("find").addEventListener("input", (event) => update({ find: event.target.value }));
    onChange(() => this.draw());
    this.draw();
  }

  get tab() {
    return tabs.includes(state.tab) ? state.tab : tabs[0];
  }

  draw() {
    if (!data.columns.some((column) => column.id === state.by)) state.by = data.by;
    for (const name of ["by", "kind", "model", "find"]) {
      if (byId(name).value !== state[name]) byId(name).value = state[name];
    }
    drawTabs(byId("tabs"), tabs, this.tab, (tab) => update({ tab }));
    const hidden = new Set(state.hide.split(" ").filter(Boolean));
    const columns = columnsOf(data, this.tab, hidden);
    this.#chooser(hidden);
    const chosen = chosenIds(data);
    const rows = data.entries.filter(fits).map((entry) => rowOf(entry, chosen));
    const calls = { pick: (id, on) => this.#pick(id, on), play: (id) => this.#play(id) };
    const model = {
      caption: `Methods of ${data.board}: ${this.tab}`,
      rows,
      columns,
      opens: ", entry",
      cell: (row, column) =>
        column.fact ? factCell(data, row, column, chosen, calls) : scoreCell(data, row, column),
      sort: state.sort ? { column: state.sort, up: state.up === "1" } : null,
    };
    const focus = document.activeElement;
    const again = byId("board-table").contains(focus) ? focus.getAttribute("aria-label") : null;
    drawTable(byId("board-table"), model, {
      sort: (column) => sort(column, "sort", "up"),
      open: (row) => location.assign(row.href),
      hint,
    });
    if (again) byId("board-table").querySelector(`[aria-label="${CSS.escape(again)}"]`)?.focus();
    byId("board-note").textContent = rows.length === data.entries.length
      ? note() : `${rows.length} of ${data.entries.length} methods. ${note()}`;
    const compared = data.columns.filter((column) => column.groups.includes(this.tab));
    this.compare.draw(compared, (id) => this.#pick(id, false));
  }

  #pick(id, on) {
    const chosen = chosenIds(data).filter((other) => other !== id);
    update({ compare: (on ? [...chosen.slice(0, MOST - 1), id] : chosen).join(" ") });
  }

  #play(id) {
    if (!chosenIds(data).includes(id)) this.#pick(id, true);
    byId("compare").scrollIntoView({ block: "start" });
  }

  #chooser(hidden) {
    if (byId("choose").contains(document.activeElement)) return;
    const boxes = columnsOf(data, this.tab, new Set()).map((column) => {
      const box = el("input", { type: "checkbox", value: column.id });
      box.checked = !hidden.has(column.id);
      box.addEventListener("change", () => {
        const now = new Set(state.hide.split(" ").filter(Boolean));
        if (box.checked) now.delete(column.id);
        else now.add(column.id);
        update({ hide: [...now].join(" ") });
      });
      return el("label", {}, box, " ", column.label);
    });
    byId("choose").replaceChildren(...boxes);
  }
}

function fits(entry) {
  const wanted = state.find.trim().toLowerCase();
  if (wanted && !entry.search.toLowerCase().includes(wanted)) return false;
  if (state.model && entry.facts.model.value !== state.model) return false;
  if (state.kind === "clips") return Object.keys(entry.clips).length > 0;
  return !state.kind || entry.kind === state.kind;
}

function note() {
  const ranked = data.entries.filter((entry) => data.scores[entry.id]?.[state.by]?.[FIRST]).length;
  return ranked ? "" : "No two methods can be tested in pairs by this metric, so none is ranked.";
}

/** The better end first, then the other, then none. */
function sort(column, name, way) {
  if (column.id === "compare" || column.id === "files") return;
  const down = column.direction === "higher" || column.direction === "nearest_reference";
  const first = down ? "0" : "1";
  if (state[name] !== column.id) update({ [name]: column.id, [way]: first });
  else if (state[way] === first) update({ [way]: first === "1" ? "0" : "1" });
  else update({ [name]: "", [way]: "" });
}

function hint(column, at) {
  const box = byId("hint");
  box.hidden = !at || !column.definition;
  if (box.hidden) return;
  const more = column.fact ? [] : [
    el("p", {}, `${column.better}; ${column.unit}`), el("p", { class: "source" }, column.source),
  ];
  box.replaceChildren(el("strong", {}, column.label), el("p", {}, column.definition), ...more);
  const place = at.getBoundingClientRect();
  const left = Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8));
  const below = place.bottom + 6;
  const top = below + box.offsetHeight > innerHeight ? place.top - box.offsetHeight - 6 : below;
  Object.assign(box.style, { left: `${left}px`, top: `${Math.max(8, top)}px` });
}

function drawPrinted() {
  const up = state.printedUp === "1";
  drawTable(
    byId("printed-table"),
    printedModel(data, state.printed ? { column: state.printed, up } : null),
    { sort: (column) => sort(column, "printed", "printedUp"), open: () => {}, hint: () => {} },
  );
}

if (data.entries.length) new Board();
if (data.published.entries.length) {
  onChange(drawPrinted);
  drawPrinted();
}
keepAddress('.sections a[href^="#"]');
