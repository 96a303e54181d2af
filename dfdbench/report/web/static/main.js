// Begin: read the data, make player, table and drill-down, and listen to the keyboard.
import { byId } from "./util.js";
import { begin, keepAddress, state, update } from "./state.js";
import { Sources } from "./grid.js";
import { Player } from "./player.js";
import { Blind } from "./blind.js";
import { Scores } from "./scores.js";
import { Drill } from "./drill.js";

const data = JSON.parse(byId("data").textContent);
const [a, b] = data.pairs[0] ?? [data.arms.at(-1)?.id ?? "", data.arms[0]?.id ?? ""];
const primary =
  data.metrics.find((metric) => metric.primary === "diversity") ??
  data.metrics.find((metric) => metric.level !== "pooled");
const shownScore =
  ["saturation_mean", ...Object.keys(data.scores)].find((id) => id in data.scores) ?? "";
begin({
  prompt: data.prompts[data.first]?.id ?? "",
  order: "difference",
  by: primary?.id ?? "",
  a,
  b,
  train: "",
  score: shownScore,
  mode: "grid",
  speed: "1",
  loop: "1",
  wipe: "50",
  tab: "",
  sort: "",
  up: "",
  base: "",
  hide: "",
  find: "",
  cell: "",
});
document.documentElement.classList.add("js");

let player = null; // its clips are decoded once all else is there
if (data.clips.length) addEventListener("load", () => (player = startPlayer()));
const drill = new Drill(data, { playPrompt: (prompt, arm) => player?.playPrompt(prompt, arm) });
new Scores(data, (arm, metric) => drill.open(arm, metric));

function startPlayer() {
  const sources = new Sources(
    document.querySelectorAll("#stage video[data-file]"),
    byId("player").dataset.folder,
  );
  const made = new Player(data, sources);
  const blind = new Blind(data, sources, made);
  for (const card of document.querySelectorAll(".gallery button")) {
    card.addEventListener("click", () => {
      update({ prompt: data.prompts[Number(card.value)].id });
      byId("player").scrollIntoView({ block: "start" });
    });
  }
  addEventListener("keydown", (event) => keys(event, made, blind));
  return made;
}

function keys(event, made, blind) {
  const typing = event.target.closest?.("input, select, textarea, [role=tab]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && event.target.closest?.("button, summary, a, [role=button]")) return;
  const votes = { 1: "left", 2: "right", 0: "tie" };
  const actions = {
    " ": () => made.clock.toggle(),
    k: () => made.clock.toggle(),
    ArrowLeft: () => made.frameStep(-1),
    ArrowRight: () => made.frameStep(1),
    "[": () => made.step(-1),
    "]": () => made.step(1),
    s: () => update({ speed: { 1: "0.5", 0.5: "0.25", 0.25: "1" }[state.speed] ?? "1" }),
    l: () => update({ loop: state.loop === "1" ? "0" : "1" }),
    g: () => update({ mode: "grid" }),
    w: () => update({ mode: "wipe" }),
    b: () => update({ mode: "blind" }),
    Escape: () => made.look(null),
  };
  const action =
    state.mode === "blind" && votes[event.key]
      ? () => blind.vote(votes[event.key])
      : actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

keepAddress('a[href^="#"]');

byId("copy").addEventListener("click", async () => {
  await navigator.clipboard?.writeText(byId("command").textContent).catch(() => {});
  byId("copy").textContent = "copied";
});
