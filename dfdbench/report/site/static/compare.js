// Two to four methods: their paired leads as a forest, and clips of one prompt and seed on one clock.
import { byId, el, number, options, signed } from "./util.js";
import { state, update } from "./state.js";
import { Clock } from "./clock.js";
import { bar, dot, rangeOf } from "./table.js";

export const MOST = 4;
const [WIDE, P, BETTER] = [3, 4, 5]; // places of data.leads: seeds, p, who is better

/** The entries that the reader has chosen, in the order of choice. */
export function chosenIds(data) {
  const known = new Set(data.entries.map((entry) => entry.id));
  return [...new Set(state.compare.split(" "))].filter((id) => known.has(id)).slice(0, MOST);
}

/** By how much `a` is better than `b`, or null where they cannot be tested in pairs. */
function leadOf(data, column, a, b) {
  const pairs = data.leads[column] ?? {};
  const own = pairs[`${a} ${b}`];
  if (own) return own;
  const turned = pairs[`${b} ${a}`];
  if (!turned) return null;
  const [mean, low, high, seeds, p, better] = turned;
  return [-mean, -high, -low, seeds, p, -better];
}

export class Compare {
  constructor(data) {
    this.data = data;
    this.clock = new Clock((clock) => this.#tick(clock));
    this.shown = "";
    byId("play").addEventListener("click", () => this.clock.toggle());
    byId("scrub").addEventListener("input", (event) => {
      this.clock.playing = false;
      this.clock.seek(Number(event.target.value));
    });
    byId("prompt").addEventListener("change", (event) =>
      update({ prompt: event.target.value, seed: "" }),
    );
    byId("seed").addEventListener("change", (event) => update({ seed: event.target.value }));
  }

  draw(columns, drop) {
    const ids = chosenIds(this.data);
    const entries = ids.map((id) => this.data.entries.find((entry) => entry.id === id));
    byId("compare-hint").hidden = ids.length > 1;
    byId("chosen").replaceChildren(
      ...entries.map((entry, i) =>
        el(
          "span",
          { class: "chip" },
          dot(entry),
          entry.label,
          i === 0 && ids.length > 1 ? el("small", {}, "the others against it") : null,
          el(
            "button",
            {
              type: "button",
              class: "plain",
              "aria-label": `Leave out ${entry.label}`,
              onclick: () => drop(entry.id),
            },
            "✕",
          ),
        ),
      ),
    );
    this.#forest(entries, columns);
    this.#clips(entries);
  }

  #forest(entries, columns) {
    if (entries.length < 2) return byId("forest").replaceChildren();
    const [base, ...others] = entries;
    const body = columns.flatMap((column) => this.#ofColumn(column, base, others));
    byId("forest").replaceChildren(
      el(
        "table",
        { class: "forest" },
        el("caption", { class: "sr" }, `Leads over ${base.label}`),
        el("tbody", {}, body),
      ),
      el(
        "p",
        { class: "note" },
        `By how much each method is better than ${base.label}, right of the line; of values that should be near the reference, how much nearer. Mean and 95 % t interval over common training seeds, on the prompts of both. Coloured where p is below 0.05 after Holm's correction over the pairs of the board.`,
      ),
    );
  }

  #ofColumn(column, base, others) {
    const own = others.map((entry) => leadOf(this.data, column.id, entry.id, base.id));
    if (!others.some((entry, i) => own[i] || this.#plain(column, entry, base) !== null)) return [];
    const cells = own.map((lead) => lead && { value: lead[0], low: lead[1], high: lead[2] });
    const range = cells.some(Boolean) ? rangeOf(cells, true) : null;
    const head = el(
      "tr",
      { class: "metric" },
      el("th", { scope: "colgroup", colspan: 3 }, column.label, " ", column.arrow),
    );
    const rows = others.map((entry, i) => {
      const name = el("th", { scope: "row" }, dot(entry), entry.label);
      const attributes = { "data-column": column.id, "data-row": entry.id };
      if (!own[i]) {
        const plain = this.#plain(column, entry, base);
        const text =
          plain === null
            ? "no score"
            : `${signed(plain)}, difference of means without a paired test`;
        return el("tr", attributes, name, el("td", { colspan: 2, class: "why" }, text));
      }
      const [mean, low, high] = own[i];
      const size = Math.max(Math.abs(low), Math.abs(high));
      const told = { 1: "better", "-1": "worse" }[own[i][BETTER]] ?? "";
      const text = `${signed(mean, size)} [${signed(low, size)}, ${signed(high, size)}]`;
      const hint = `${own[i][WIDE]} training seeds; p ${number(own[i][P])} (paired t, Holm)`;
      return el(
        "tr",
        attributes,
        name,
        el("td", {}, bar(cells[i], range, { zero: true })),
        el("td", { class: told || null, title: hint }, text),
      );
    });
    return [head, ...rows];
  }

  /** The difference of the means, null where one has no score. */
  #plain(column, entry, base) {
    const [a, b] = [entry, base].map((one) => this.data.scores[one.id]?.[column.id]?.[0]);
    return a === undefined || b === undefined || a === null || b === null ? null : a - b;
  }

  /** Clips of the first prompt and seed that all have, or of those chosen. */
  #clips(entries) {
    const filmed = entries.filter((entry) => Object.keys(entry.clips).length);
    const both = (sets) => sets.reduce((some, more) => some.filter((x) => more.includes(x)));
    const prompts = filmed.length ? both(filmed.map((entry) => Object.keys(entry.clips))) : [];
    const prompt = prompts.includes(state.prompt) ? state.prompt : prompts[0];
    const seeds = prompt ? both(filmed.map((entry) => Object.keys(entry.clips[prompt]))) : [];
    const seed = seeds.includes(state.seed) ? state.seed : seeds[0];
    byId("clips").hidden = seed === undefined;
    if (seed === undefined) {
      this.clock.show([], 8, 1);
      this.shown = "";
      return;
    }
    options(byId("prompt"), prompts.map((name) => [name, name]), prompt);
    options(byId("seed"), seeds.map((name) => [name, name]), seed);
    const files = filmed.map((entry) => entry.clips[prompt][seed]);
    if (this.shown === files.join(" ")) return;
    this.shown = files.join(" ");
    const videos = files.map((file, i) => videoOf(file, `${filmed[i].label}, ${prompt}, seed ${seed}`));
    byId("stage").replaceChildren(
      ...filmed.map((entry, i) =>
        el("figure", {}, videos[i], el("figcaption", {}, dot(entry), entry.label)),
      ),
    );
    const moves = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    Promise.all(videos.map(loaded)).then(() => {
      if (this.shown !== files.join(" ")) return;
      const lasts = videos.map((video) => video.duration).filter(Number.isFinite);
      const [fps, frames] = [this.data.fps, (s) => Math.max(1, Math.round(s * fps))];
      this.clock.show(videos, fps, frames(Math.max(0.1, ...lasts)));
      if (moves) this.clock.play();
    });
  }

  #tick(clock) {
    const play = byId("play");
    play.dataset.playing = clock.playing ? "1" : "0";
    play.setAttribute("aria-label", clock.playing ? "Pause" : "Play");
    Object.assign(byId("scrub"), { max: clock.frames - 1, value: clock.frame });
  }
}

function videoOf(file, name) {
  const video = el("video", { src: `../${file}`, playsinline: true, preload: "auto", "aria-label": name });
  video.muted = true;
  return video;
}

function loaded(video) {
  return new Promise((done) => {
    if (video.readyState > 0) done();
    video.addEventListener("loadedmetadata", done);
    video.addEventListener("error", done);
  });
}
