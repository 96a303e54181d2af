// Behind a cell of the score table: a dot a prompt in every arm; a click plays the prompt's clips.
import { byId, number, svg } from "./util.js";
import { state, update, onChange } from "./state.js";
import { overSeeds, tableOf } from "./stats.js";

const [ROW, LEFT, RIGHT, TOP] = [34, 8, 12, 8];
const TABBED = 400; // dots up to which each is a stop of the tab key

export class Drill {
  constructor(data, player) {
    Object.assign(this, { data, player });
    byId("drill-close").addEventListener("click", () => update({ cell: "" }));
    onChange((changed) => changed.has("cell") && this.draw());
    addEventListener("resize", () => state.cell && this.draw());
    this.draw();
  }

  /** Open the dots of an arm and metric, and go there. */
  open(arm, metric) {
    update({ cell: `${metric}:${arm}` });
    byId("drill").scrollIntoView({ block: "nearest" });
    byId("drill-title").focus({ preventScroll: true });
  }

  draw() {
    const [name, ...rest] = state.cell.split(":");
    const [arm, metric] = [rest.join(":"), this.data.metrics.find((m) => m.id === name)];
    byId("drill").hidden = !metric;
    if (!metric) return;
    const rows = this.data.arms
      .map((own, index) => ({
        ...own,
        index,
        values: overSeeds(tableOf(this.data.cells[metric.id], index)),
      }))
      .map((own) => ({ ...own, values: [...own.values].filter(([prompt]) => prompt >= 0) }))
      .filter(({ values }) => values.length)
      .sort((x, y) => (y.id === arm) - (x.id === arm));
    const label = this.data.arms.find((own) => own.id === arm)?.label ?? "";
    byId("drill-title").textContent = `${metric.label} ${metric.arrow}: ${label}, prompt by prompt`;
    byId("drill-note").textContent = rows.length
      ? "A dot is a prompt, its mean over training seeds; the stroke is the mean. Click a dot to play its clips."
      : "This metric is over all clips at once; it has no value of a single prompt.";
    byId("drill-plot").replaceChildren(...(rows.length ? [this.#plot(rows, arm, metric)] : []));
  }

  #plot(rows, chosen, metric) {
    const width = Math.max(280, byId("drill").clientWidth - 34);
    const names = Math.min(150, Math.max(80, width * 0.22));
    const every = rows.flatMap(({ values }) => values.map(([, value]) => value));
    const [low, high] = [Math.min(...every), Math.max(...every)];
    const span = high - low || 1;
    const at = (value) => names + LEFT + ((value - low) / span) * (width - names - LEFT - RIGHT);
    const height = TOP + ROW * rows.length + 24;
    const plot = svg("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `${metric.label} of every prompt, a row an arm`,
    });
    rows.forEach((row, i) =>
      this.#row(plot, row, TOP + ROW * (i + 0.5), {
        at,
        names,
        width,
        chosen,
        metric,
        tabbed: every.length <= TABBED,
      }),
    );
    for (const value of [low, (low + high) / 2, high]) {
      const anchor = value === low ? "start" : value === high && span ? "end" : "middle";
      plot.append(
        svg(
          "text",
          { x: at(value), y: height - 6, "text-anchor": anchor, class: "tick" },
          number(value, Math.max(Math.abs(low), Math.abs(high))),
        ),
      );
    }
    return plot;
  }

  #row(plot, row, y, { at, names, width, chosen, metric, tabbed }) {
    plot.append(svg("line", { x1: names, x2: width - RIGHT, y1: y, y2: y, class: "rule" }));
    plot.append(
      svg(
        "text",
        { x: names - 6, y: y + 4, "text-anchor": "end", class: row.id === chosen ? "chosen" : "" },
        row.label,
      ),
    );
    const mean = row.values.reduce((sum, [, value]) => sum + value, 0) / row.values.length;
    plot.append(
      svg("line", { x1: at(mean), x2: at(mean), y1: y - 12, y2: y + 12, class: "stroke" }),
    );
    row.values.forEach(([prompt, value], i) => {
      const text = `${this.data.prompts[prompt].text}: ${number(value)}`;
      const play = () => this.player.playPrompt(prompt, row.id);
      const dot = svg(
        "circle",
        {
          cx: at(value),
          cy: y + (((i * 7) % 5) - 2) * 2.5,
          r: row.id === chosen ? 6 : 4,
          fill: row.colour,
          class: row.id === chosen ? "dot chosen" : "dot",
          role: "button",
          tabindex: tabbed ? "0" : "-1",
          "aria-label": `${row.label}, ${metric.label}, ${text}: play`,
          "data-prompt": this.data.prompts[prompt].id,
          onclick: play,
          onkeydown: (event) =>
            (event.key === "Enter" || event.key === " ") &&
            (event.preventDefault(), event.stopPropagation(), play()),
        },
        svg("title", {}, text),
      );
      plot.append(dot);
    });
  }
}
