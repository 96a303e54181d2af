// Clips of one prompt as a table: an arm a row, a seed a column; or two arms over each other.
import { el, number } from "./util.js";

const COLUMNS = 8;
const SMALL = 160; // pixels: clips up to this width are enlarged without smoothing
export const [ARM, PROMPT, TRAINING, SEED, FILE, FPS, FRAMES, WIDTH, HEIGHT] = [
  0, 1, 2, 3, 4, 5, 6, 7, 8,
];

/** Which clip stands where: {seeds, rows: [{arm, clips: [index or undefined]}]}. */
export function layout(data, prompt, training) {
  const own = data.clips
    .map((clip, index) => ({ clip, index }))
    .filter(({ clip }) => clip[PROMPT] === prompt && clip[ARM] >= 0)
    .filter(({ clip }) => clip[TRAINING] === training || clip[TRAINING] === -1);
  const seedsOf = (some) =>
    [...new Set(some.map(({ clip }) => clip[SEED]))].filter((s) => s !== null);
  const trained = own.filter(({ clip }) => clip[TRAINING] === training);
  const leading = seedsOf(trained).length ? seedsOf(trained) : seedsOf(own);
  const seeds = leading.sort((x, y) => x - y).slice(0, COLUMNS);
  const rows = data.arms
    .map((_, arm) => {
      const clips = own.filter(({ clip }) => clip[ARM] === arm);
      const fits = clips.some(({ clip }) => seeds.includes(clip[SEED]));
      const placed = fits
        ? seeds.map((seed) => clips.find(({ clip }) => clip[SEED] === seed)?.index)
        : clips.slice(0, COLUMNS).map(({ index }) => index);
      return { arm, clips: placed, shifted: !fits };
    })
    .filter(({ clips }) => clips.some((index) => index !== undefined));
  const width = Math.max(0, ...rows.map(({ clips }) => clips.length));
  return { seeds, width, rows, shifted: seeds.length > 0 && rows.some(({ shifted }) => shifted) };
}

/** Addresses of clips: those within the page by blob, the others in the folder beside it. */
export class Sources {
  #inside = new Map();

  constructor(videos, folder) {
    this.folder = folder;
    for (const video of videos) {
      const bytes = Uint8Array.from(atob(video.src.split(",")[1]), (sign) => sign.charCodeAt(0));
      const blob = new Blob([bytes], { type: "video/mp4" });
      this.#inside.set(video.dataset.file, URL.createObjectURL(blob));
    }
  }

  of(file) {
    return this.#inside.get(file) ?? `${this.folder}/${file}`;
  }
}

/** What a clip is, in words. */
export function clipName(data, index) {
  const clip = data.clips[index];
  const seed = clip[SEED] === null ? "" : `, seed ${clip[SEED]}`;
  const training = clip[TRAINING] === -1 ? "" : `, training seed ${clip[TRAINING]}`;
  return `${data.arms[clip[ARM]].label}${seed}${training}`;
}

/** A <video> of a clip, silent and without controls; `missing` is called where it cannot play. */
export function clipVideo(data, sources, index, missing) {
  const clip = data.clips[index];
  const video = el("video", {
    playsinline: true,
    preload: "auto",
    width: clip[WIDTH],
    height: clip[HEIGHT],
  });
  video.muted = true;
  if (clip[WIDTH] <= SMALL) video.classList.add("small");
  video.dataset.clip = index;
  video.tabIndex = -1;
  video.setAttribute("aria-label", `${clipName(data, index)}: ${data.prompts[clip[PROMPT]].text}`);
  video.addEventListener("error", () => {
    video.closest(".still")?.classList.add("missing");
    missing?.();
  });
  video.src = sources.of(clip[FILE]);
  return video;
}

/** The box of a clip: its still behind, then its videos. */
function stillBox(data, index, ...children) {
  const clip = data.clips[index];
  const sheet = data.sheets[clip[PROMPT]];
  const box = el("span", { class: "still" }, ...children);
  box.style.aspectRatio = `${clip[WIDTH]} / ${clip[HEIGHT]}`;
  const place = sheet ? sheet.clips.indexOf(index) : -1;
  if (place >= 0) {
    const [x, y, rows] = [
      place % sheet.columns,
      Math.floor(place / sheet.columns),
      sheet.clips.length / sheet.columns,
    ];
    const at = (i, n) => (n > 1 ? (100 * i) / (n - 1) : 0);
    box.style.backgroundImage = "var(--sheet)";
    box.style.backgroundSize = `${100 * sheet.columns}% ${100 * rows}%`;
    box.style.backgroundPosition = `${at(x, sheet.columns)}% ${at(y, rows)}%`;
  }
  return box;
}

/** A button that shows one clip, with its score on it. */
function clipButton(data, index, score, box, choose) {
  const value = score && data.scores[score] ? data.scores[score][index] : null;
  const shown =
    value === null || value === undefined ? null : el("span", { class: "score" }, number(value));
  const label = `${clipName(data, index)}${shown ? `, ${score} ${shown.textContent}` : ""}: look closer`;
  return el(
    "button",
    {
      class: "clip",
      type: "button",
      "data-clip": index,
      "aria-label": label,
      onclick: () => choose(index),
    },
    box,
    shown,
  );
}

/** The table of clips; returns {table, videos}. */
export function clipTable(data, sources, prompt, shown, { score, choose, missing }) {
  const videos = [];
  const heads = Array.from({ length: shown.width }, (_, column) => {
    const seed = shown.seeds[column];
    return el("th", { scope: "col" }, seed === undefined ? "" : `seed ${seed}`);
  });
  const body = shown.rows.map(({ arm, clips }) => {
    const cells = Array.from({ length: shown.width }, (_, column) => {
      const index = clips[column];
      if (index === undefined)
        return el("td", { class: "empty" }, el("span", { class: "sr" }, "no clip"));
      const video = clipVideo(data, sources, index, missing);
      videos.push(video);
      return el("td", {}, clipButton(data, index, score, stillBox(data, index, video), choose));
    });
    return el("tr", { "data-arm": data.arms[arm].id }, armHead(data, arm), cells);
  });
  return {
    table: frame(data, prompt, el("thead", {}, el("tr", {}, el("td", {}), heads)), body),
    videos,
  };
}

function armHead(data, arm, ...more) {
  const dot = el("i", { class: "dot", "aria-hidden": "true" });
  dot.style.background = data.arms[arm].colour;
  return el("th", { scope: "row" }, dot, data.arms[arm].label, ...more);
}

function frame(data, prompt, head, body) {
  const caption = el(
    "caption",
    { class: "sr" },
    `Clips of the prompt: ${data.prompts[prompt].text}`,
  );
  const table = el("table", { class: "grid" }, caption, head, el("tbody", {}, body));
  const sheet = data.sheets[prompt];
  const first = data.clips.find((clip) => clip[PROMPT] === prompt);
  table.style.setProperty("--rows", body.length);
  table.style.setProperty("--columns", Math.max(1, body[0].children.length - 1));
  table.style.setProperty("--ratio", first[WIDTH] / first[HEIGHT]);
  if (sheet) table.style.setProperty("--sheet", `url("${sheet.src}")`);
  return table;
}

/** Two arms over each other, a seed a column: `--wipe` says how much of A is seen. */
export function wipeTable(data, sources, prompt, shown, { a, b, score, choose, missing }) {
  const [first, second] = [a, b].map((arm) => shown.rows.find((row) => row.arm === arm));
  const videos = [];
  const columns = first && second ? first.clips.map((index, i) => [index, second.clips[i]]) : [];
  const cells = columns.map(([left, right]) => {
    if (left === undefined || right === undefined)
      return el("td", { class: "empty" }, el("span", { class: "sr" }, "no pair of clips"));
    const over = clipVideo(data, sources, left, missing);
    const under = clipVideo(data, sources, right, missing);
    over.classList.add("over");
    videos.push(under, over);
    const line = el("span", { class: "line", "aria-hidden": "true" });
    return el(
      "td",
      {},
      clipButton(data, left, score, stillBox(data, right, under, over, line), choose),
    );
  });
  const heads = columns.map((_, i) =>
    el("th", { scope: "col" }, shown.seeds[i] === undefined ? "" : `seed ${shown.seeds[i]}`),
  );
  const names = el(
    "th",
    { scope: "row" },
    `${data.arms[a].label} (left) over ${data.arms[b].label} (right)`,
  );
  const table = frame(data, prompt, el("thead", {}, el("tr", {}, el("td", {}), heads)), [
    el("tr", {}, names, cells),
  ]);
  table.classList.add("wipe");
  return { table, videos };
}
