// Blind comparison: two clips of one prompt and seed without names; votes can be taken away as CSV.
import { byId, csvRow, download, el } from "./util.js";
import { state, update, onChange } from "./state.js";
import { SEED, TRAINING, clipVideo, layout } from "./grid.js";

const HEAD = ["suite", "prompt", "training_seed", "seed", "left", "right", "vote", "time"];

export class Blind {
  constructor(data, sources, player) {
    Object.assign(this, { data, sources, player, votes: [], pair: null });
    for (const button of document.querySelectorAll("#blind [data-vote]")) {
      button.addEventListener("click", () => this.vote(button.dataset.vote));
    }
    byId("export").addEventListener("click", () => this.save());
    byId("reveal").addEventListener("click", () => this.#tally(true));
    onChange((changed) => {
      if (
        state.mode === "blind" &&
        ["mode", "prompt", "a", "b", "train"].some((name) => changed.has(name))
      )
        this.begin();
    });
    addEventListener("beforeunload", (event) => {
      if (this.votes.some((vote) => !vote.saved)) event.preventDefault();
    });
    if (state.mode === "blind") this.begin();
  }

  /** All pairs of clips of the two arms, prompt by prompt. */
  #pairs() {
    const { player, data } = this;
    const arms = [player.arm("a"), player.arm("b")];
    return player.withClips.flatMap((prompt) => {
      const { rows } = layout(data, prompt, player.training);
      const [first, second] = arms.map((arm) => rows.find((row) => row.arm === arm)?.clips ?? []);
      return first
        .map((left, i) => ({ prompt, clips: [left, second[i]] }))
        .filter(
          ({ clips }) => clips.every((index) => index !== undefined) && clips[0] !== clips[1],
        );
    });
  }

  /** Show a pair at random that has no vote yet; the prompt that was chosen comes first. */
  begin() {
    const done = new Set(this.votes.map((vote) => vote.key));
    const open = this.#pairs().filter((pair) => !done.has(String(pair.clips)));
    const here = open.filter((pair) => pair.prompt === this.player.prompt);
    const among = here.length ? here : open;
    this.pair = among[Math.floor(Math.random() * among.length)] ?? null;
    this.left = open.length - 1;
    if (this.pair) this.#draw();
    else
      this.player.show(
        el(
          "p",
          { class: "note" },
          "No pair is left. Choose other arms A and B, or take your votes away.",
        ),
        [],
      );
    this.#tally(false);
  }

  #draw() {
    this.turned = Math.random() < 0.5;
    const order = this.turned ? [...this.pair.clips].reverse() : this.pair.clips;
    const videos = order.map((index) => clipVideo(this.data, this.sources, index));
    videos.forEach((video, i) => video.setAttribute("aria-label", i ? "right clip" : "left clip"));
    const boxes = videos.map((video, i) =>
      el("figure", { class: "pair" }, video, el("figcaption", {}, i ? "right" : "left")),
    );
    byId("prompt-text").textContent = this.data.prompts[this.pair.prompt].text;
    this.player.show(el("div", { class: "pairs" }, boxes), videos);
    this.player.clock.time = 0;
    this.player.clock.play();
  }

  vote(vote) {
    if (!this.pair) return;
    const [first, second] = this.pair.clips;
    const clip = this.data.clips[first];
    const names = [this.player.armOf(first), this.player.armOf(second)].map(
      (arm) => this.data.arms[arm].id,
    );
    const [left, right] = this.turned ? names.reverse() : names;
    this.votes.push({
      key: String(this.pair.clips),
      left,
      right,
      vote,
      saved: false,
      row: [
        this.data.suite,
        this.data.prompts[this.pair.prompt].id,
        clip[TRAINING] === -1 ? "" : clip[TRAINING],
        clip[SEED] ?? "",
        left,
        right,
        vote === "tie" ? "tie" : vote === "left" ? left : right,
        new Date().toISOString(),
      ],
    });
    this.begin();
  }

  #tally(revealed) {
    const votes = this.votes.length;
    let text = `${votes} ${votes === 1 ? "vote" : "votes"}, ${Math.max(0, this.left + 1)} pairs left.`;
    if (revealed) {
      const count = new Map();
      for (const { row } of this.votes) count.set(row[6], (count.get(row[6]) ?? 0) + 1);
      const label = (id) => this.data.arms.find((arm) => arm.id === id)?.label ?? id;
      text += ` ${[...count].map(([id, n]) => `${label(id)}: ${n}`).join(", ")}.`;
    }
    byId("tally").textContent = text;
    for (const name of ["export", "reveal"]) byId(name).disabled = !votes;
  }

  save() {
    download(
      "votes.csv",
      [csvRow(HEAD), ...this.votes.map(({ row }) => csvRow(row))].join("\n") + "\n",
      "text/csv",
    );
    for (const vote of this.votes) vote.saved = true;
  }

  /** Leave the blind comparison. */
  end() {
    update({ mode: "grid" });
  }
}
