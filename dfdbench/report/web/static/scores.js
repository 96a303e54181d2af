// The report's score table: what table.js draws, from the data and the reader's choices.
import { byId, el, number, options, signed } from "./util.js";
import { state, update, onChange } from "./state.js";
import { difference } from "./stats.js";
import { drawTable, drawTabs } from "./table.js";

const WATCHED = ["tab", "sort", "up", "base", "hide", "find"];
const [MEDIAN, SEEDS, PROMPTS, CLIPS, BEST] = [3, 4, 5, 6, 7]; // places in data.summary

export class Scores {
  constructor(data, open) {
    Object.assign(this, { data, open });
    this.tabs = [...new Set(data.metrics.flatMap((metric) => metric.groups))];
    options(
      byId("base"),
      [["", "none: the scores"], ...data.arms.map((arm) => [arm.id, arm.label])],
      state.base,
    );
    byId("base").addEventListener("change", (event) =>
      update({ base: event.target.value, sort: "", up: "" }),
    );
    byId("find").value = state.find;
    byId("find").addEventListener("input", (event) => update({ find: event.target.value }));
    onChange((changed) => {
      if (WATCHED.some((name) => changed.has(name))) this.draw();
    });
    this.draw();
  }

  get tab() {
    return this.tabs.includes(state.tab) ? state.tab : this.tabs[0];
  }

  get base() {
    return this.data.arms.findIndex((arm) => arm.id === state.base);
  }

  get hidden() {
    return new Set(state.hide.split(",").filter(Boolean));
  }

  draw() {
    byId("base").value = state.base;
    if (byId("find").value !== state.find) byId("find").value = state.find;
    drawTabs(byId("tabs"), this.tabs, this.tab, (tab) => update({ tab, sort: "", up: "" }));
    const inTab = this.data.metrics.filter((metric) => metric.groups.includes(this.tab));
    this.#chooser(inTab);
    const wanted = state.find.trim().toLowerCase();
    const fits = (arm) => !wanted || `${arm.label} ${arm.id}`.toLowerCase().includes(wanted);
    const rows = this.data.arms.map((arm, index) => ({ ...arm, index })).filter(fits);
    const model = {
      caption:
        this.base < 0
          ? `Scores: ${this.tab}`
          : `Paired differences to ${this.data.arms[this.base].label}: ${this.tab}`,
      rows: rows.map((row) => ({ ...row, note: sizeOf(row.n) })),
      columns: inTab.filter((metric) => !this.hidden.has(metric.id)),
      cell: (row, column) =>
        this.base < 0 ? this.#score(row, column) : this.#difference(row, column),
      sort: state.sort ? { column: state.sort, up: state.up === "1" } : null,
      zero: this.base >= 0,
    };
    drawTable(byId("score-table"), model, {
      sort: (column) => this.#sort(column),
      open: (row, column) => this.open(row.id, column.id),
      hint: (column, at) => this.#hint(column, at),
    });
    byId("score-note").textContent =
      this.base < 0
        ? ""
        : `Differences to ${this.data.arms[this.base].label}, paired over training seeds and common prompts, with 95 % t intervals from ${this.data.fewest} training seeds on. Bold where the interval excludes 0; this is description, not a test.`;
  }

  /** The better end first, then the other, then as in the report. */
  #sort(column) {
    const first = column.direction === "lower" ? "1" : "0";
    if (state.sort !== column.id) update({ sort: column.id, up: first });
    else if (state.up === first) update({ up: first === "1" ? "0" : "1" });
    else update({ sort: "", up: "" });
  }

  #score(row, column) {
    const own = this.data.summary[row.id]?.[column.id];
    if (!own) return null;
    const [value, low, high] = own;
    const size = low === null ? value : Math.max(Math.abs(low), Math.abs(high));
    return {
      value,
      low,
      high,
      text: number(value, size),
      best: own[BEST] === 1,
      limits: low === null ? "" : `[${number(low, size)}, ${number(high, size)}]`,
      hint: `median ${number(own[MEDIAN], size)}; ${sizeOf([own[SEEDS], own[PROMPTS], own[CLIPS]])}`,
    };
  }

  #difference(row, column) {
    if (row.index === this.base) return null;
    const own = difference(this.data, column.id, row.index, this.base);
    if (!own) return null;
    const { mean, low, high } = own;
    const size = low === null ? mean : Math.max(Math.abs(low), Math.abs(high));
    return {
      value: mean,
      low,
      high,
      text: signed(mean, size),
      best: low !== null && (low > 0 || high < 0),
      limits: low === null ? "" : `[${signed(low, size)}, ${signed(high, size)}]`,
      hint: own.paired ? sizeOf([own.seeds, own.prompts, 0]) : "of other prompts: not paired",
    };
  }

  #chooser(metrics) {
    const hidden = this.hidden;
    byId("columns").replaceChildren(
      ...metrics.map((metric) => {
        const box = el("input", { type: "checkbox", value: metric.id });
        box.checked = !hidden.has(metric.id);
        box.addEventListener("change", () => {
          if (box.checked) hidden.delete(metric.id);
          else hidden.add(metric.id);
          update({ hide: [...hidden].join(",") });
        });
        return el("label", {}, box, " ", metric.label);
      }),
    );
  }

  #hint(metric, at) {
    const box = byId("hint");
    box.hidden = !at;
    if (!at) return;
    box.replaceChildren(
      el("strong", {}, metric.id),
      el("p", {}, metric.definition),
      el(
        "p",
        {},
        `${metric.better}; ${metric.unit}${metric.primary ? `; tested as the primary “${metric.primary}”` : ""}`,
      ),
      el("p", { class: "source" }, metric.source),
    );
    const place = at.getBoundingClientRect();
    const left = Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8));
    const below = place.bottom + 6;
    const top = below + box.offsetHeight > innerHeight ? place.top - box.offsetHeight - 6 : below;
    Object.assign(box.style, { left: `${left}px`, top: `${Math.max(8, top)}px` });
  }
}

function sizeOf([seeds, prompts, clips]) {
  const part = (n, name) => (n ? [`${n} ${name}${n === 1 ? "" : "s"}`] : []);
  return [...part(seeds, "seed"), ...part(prompts, "prompt"), ...part(clips, "clip")].join(", ");
}
