// The player: which prompt, which arms, one clock; all of it in the address.
import { byId, el, number, options } from "./util.js";
import { state, update, onChange } from "./state.js";
import { byPrompt, sortedPrompts } from "./stats.js";
import { Clock } from "./clock.js";
import {
  ARM,
  FPS,
  FRAMES,
  PROMPT,
  TRAINING,
  clipName,
  clipTable,
  clipVideo,
  layout,
  wipeTable,
} from "./grid.js";

const REDRAWN = ["prompt", "train", "mode", "a", "b", "score"];
const SPEEDS = ["1", "0.5", "0.25"];

export class Player {
  constructor(data, sources) {
    Object.assign(this, { data, sources, alone: [], closer: null });
    this.stage = byId("stage");
    this.withClips = [...new Set(data.clips.map((clip) => clip[PROMPT]))].sort((x, y) => x - y);
    this.clock = new Clock((clock) => this.#showTime(clock));
    this.#fill();
    this.#bind();
    onChange((changed) => this.#changed(changed));
    this.draw();
    this.clock.setRate(Number(state.speed));
    this.clock.loop = state.loop === "1";
    const seen = new IntersectionObserver(([entry]) => this.clock.hold(!entry.isIntersecting));
    seen.observe(byId("player"));
    if (!matchMedia("(prefers-reduced-motion: reduce)").matches) this.clock.play();
  }

  get prompt() {
    const index = this.data.prompts.findIndex((prompt) => prompt.id === state.prompt);
    return this.withClips.includes(index) ? index : this.data.first;
  }

  get trainings() {
    return [...new Set(this.data.clips.map((clip) => clip[TRAINING]))]
      .filter((seed) => seed !== -1)
      .sort((x, y) => x - y);
  }

  get training() {
    const wanted = Number(state.train);
    return state.train !== "" && this.trainings.includes(wanted)
      ? wanted
      : (this.trainings[0] ?? -1);
  }

  arm(name) {
    return this.data.arms.findIndex((arm) => arm.id === state[name]);
  }

  /** The prompts in the reader's order. */
  get order() {
    const differences = byPrompt(this.data, state.by, this.arm("a"), this.arm("b"));
    return sortedPrompts(this.withClips, differences, state.order);
  }

  #fill() {
    const { arms, metrics, scores } = this.data;
    const names = arms.map((arm) => [arm.id, arm.label]);
    for (const name of ["a", "b"]) options(byId(name), names, state[name]);
    options(
      byId("by"),
      metrics.filter((m) => m.level !== "pooled").map((m) => [m.id, `${m.label} ${m.arrow}`]),
      state.by,
    );
    options(
      byId("score"),
      [["", "none"], ...Object.keys(scores).map((id) => [id, id.replaceAll("_", " ")])],
      state.score,
    );
    options(
      byId("train"),
      this.trainings.map((seed) => [String(seed), String(seed)]),
      String(this.training),
    );
    byId("train").closest("label").hidden = this.trainings.length < 2;
    this.#listPrompts();
  }

  #listPrompts() {
    const differences = byPrompt(this.data, state.by, this.arm("a"), this.arm("b"));
    const text = (prompt) => {
      const value = differences.get(prompt);
      const short = this.data.prompts[prompt].text;
      const told =
        state.order === "suite" || value === undefined
          ? ""
          : `  (${value > 0 ? "+" : ""}${number(value)})`;
      return (short.length > 90 ? `${short.slice(0, 88)}…` : short) + told;
    };
    options(
      byId("prompt"),
      this.order.map((p) => [this.data.prompts[p].id, text(p)]),
      this.data.prompts[this.prompt].id,
    );
  }

  #bind() {
    for (const name of ["prompt", "train", "a", "b", "by", "score", "order"]) {
      byId(name).value =
        name === "prompt"
          ? byId(name).value
          : name === "train"
            ? String(this.training)
            : state[name];
      byId(name).addEventListener("change", (event) => update({ [name]: event.target.value }));
    }
    for (const button of document.querySelectorAll("#modes button")) {
      button.addEventListener("click", () => update({ mode: button.value }));
    }
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("play").addEventListener("click", () => this.clock.toggle());
    byId("back").addEventListener("click", () => this.frameStep(-1));
    byId("forward").addEventListener("click", () => this.frameStep(1));
    byId("scrub").addEventListener("input", (event) => {
      this.clock.playing = false;
      this.clock.seek(Number(event.target.value));
    });
    byId("speed").addEventListener("change", (event) => update({ speed: event.target.value }));
    byId("loop").addEventListener("change", (event) =>
      update({ loop: event.target.checked ? "1" : "0" }),
    );
    byId("wipe").addEventListener("input", (event) => update({ wipe: event.target.value }));
    this.stage.addEventListener("pointermove", (event) => this.#wipeAt(event));
    byId("closer-close").addEventListener("click", () => this.look(null));
  }

  #wipeAt(event) {
    const still = state.mode === "wipe" && event.target.closest?.(".still");
    if (!still) return;
    const { left, width } = still.getBoundingClientRect();
    update({
      wipe: Math.round(Math.max(0, Math.min(100, (100 * (event.clientX - left)) / width))),
    });
  }

  #changed(changed) {
    if (["a", "b", "by", "order", "prompt"].some((name) => changed.has(name))) this.#listPrompts();
    if (changed.has("speed")) this.clock.setRate(Number(state.speed));
    if (changed.has("loop")) this.clock.loop = state.loop === "1";
    if (REDRAWN.some((name) => changed.has(name))) this.draw();
    this.#controls();
  }

  #controls() {
    for (const name of ["a", "b", "by", "score", "order"]) byId(name).value = state[name];
    byId("train").value = String(this.training);
    byId("speed").value = SPEEDS.includes(state.speed) ? state.speed : "1";
    byId("loop").checked = state.loop === "1";
    byId("wipe").value = state.wipe;
    byId("wipe-box").hidden = state.mode !== "wipe";
    this.stage.style.setProperty("--wipe", `${state.wipe}%`);
    for (const button of document.querySelectorAll("#modes button")) {
      button.setAttribute("aria-pressed", String(button.value === state.mode));
    }
    for (const card of document.querySelectorAll(".gallery button")) {
      card.setAttribute("aria-current", String(Number(card.value) === this.prompt));
    }
  }

  /** Draw the clips of the choice; blind.js draws its own. */
  draw() {
    const { data } = this;
    this.#controls();
    byId("prompt").value = data.prompts[this.prompt].id;
    byId("prompt-text").textContent = data.prompts[this.prompt].text;
    byId("missing").hidden = true;
    this.look(null);
    byId("blind").hidden = state.mode !== "blind";
    if (state.mode === "blind") return;
    const shown = layout(data, this.prompt, this.training);
    const choose = (index) => this.look(index);
    const missing = () => (byId("missing").hidden = false);
    const common = { score: state.score, choose, missing };
    const { table, videos } =
      state.mode === "wipe"
        ? wipeTable(data, this.sources, this.prompt, shown, {
            a: this.arm("a"),
            b: this.arm("b"),
            ...common,
          })
        : clipTable(data, this.sources, this.prompt, shown, common);
    byId("shifted").hidden = !shown.shifted;
    this.show(table, videos);
  }

  /** Put other clips on the stage and the clock. */
  show(content, videos) {
    this.stage.replaceChildren(content);
    this.alone = videos;
    const clips = videos.map((video) => this.data.clips[video.dataset.clip]);
    const fps = clips[0]?.[FPS] ?? 8;
    this.clock.show(
      videos,
      fps,
      Math.max(1, ...clips.map((clip) => Math.round((clip[FRAMES] / clip[FPS]) * fps))),
    );
    byId("scrub").max = this.clock.frames - 1;
    this.clock.setRate(Number(state.speed));
  }

  /** Show one clip large, with all of its scores; null: close it. */
  look(index) {
    const box = byId("closer");
    box.hidden = index === null;
    const rest = { fps: this.clock.fps, frames: this.clock.frames };
    for (const button of this.stage.querySelectorAll(".clip")) {
      button.classList.toggle("chosen", Number(button.dataset.clip) === index);
    }
    if (index === null) {
      if (this.closer) this.clock.show(this.alone, rest.fps, rest.frames);
      this.closer = null;
      byId("closer-clip").replaceChildren();
      return;
    }
    const video = clipVideo(this.data, this.sources, index);
    const { scores } = this.data;
    const rows = Object.keys(scores).filter((id) => scores[id][index] !== null);
    byId("closer-title").textContent = clipName(this.data, index);
    byId("closer-clip").replaceChildren(video);
    byId("closer-scores").replaceChildren(
      ...rows.map((id) =>
        el(
          "div",
          {},
          el("dt", {}, id.replaceAll("_", " ")),
          el("dd", {}, number(scores[id][index])),
        ),
      ),
    );
    this.closer = video;
    box.scrollIntoView({ block: "nearest" });
    this.clock.show([...this.alone, video], rest.fps, rest.frames);
  }

  /** Another prompt in the reader's order. */
  step(by) {
    const order = this.order;
    const at = order.indexOf(this.prompt);
    update({ prompt: this.data.prompts[order[(at + by + order.length) % order.length]].id });
  }

  frameStep(by) {
    this.clock.playing = false;
    this.clock.seek((this.clock.frame + by + this.clock.frames) % this.clock.frames);
  }

  /** Play what a dot of the drill-down stands for. */
  playPrompt(prompt, arm) {
    const modes = state.mode === "blind" ? { mode: "grid" } : {};
    update({ prompt: this.data.prompts[prompt].id, ...modes });
    for (const row of this.stage.querySelectorAll("tr[data-arm]")) {
      row.classList.toggle("chosen", row.dataset.arm === arm);
    }
    byId("player").scrollIntoView({ block: "start" });
    this.clock.play();
  }

  #showTime(clock) {
    byId("scrub").value = clock.frame;
    byId("scrub").setAttribute("aria-valuetext", `frame ${clock.frame + 1} of ${clock.frames}`);
    byId("time").textContent = `${clock.frame + 1} / ${clock.frames}`;
    const label = clock.playing ? "Pause" : "Play";
    if (byId("play").getAttribute("aria-label") !== label) {
      byId("play").setAttribute("aria-label", label);
      byId("play").dataset.playing = clock.playing ? "1" : "";
    }
  }

  /** The arm of a clip. */
  armOf(index) {
    return this.data.clips[index][ARM];
  }
}
