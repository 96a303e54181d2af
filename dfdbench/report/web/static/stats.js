// Paired differences of two arms from the cells, as the report's summary.py computes them.

/** Of one metric and arm: training seed → (prompt → value). */
export function tableOf(cells, arm) {
  const table = new Map();
  cells.arm.forEach((own, i) => {
    if (own !== arm || cells.value[i] === null) return;
    if (!table.has(cells.training[i])) table.set(cells.training[i], new Map());
    table.get(cells.training[i]).set(cells.prompt[i], cells.value[i]);
  });
  return table;
}

/** The prompts that have a value at every training seed. */
export function complete(table) {
  const columns = [...table.values()];
  if (!columns.length) return [];
  return [...columns[0].keys()].filter((prompt) => columns.every((column) => column.has(prompt)));
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Prompt → mean over training seeds, of the prompts that every one has. */
export function overSeeds(table) {
  const columns = [...table.values()];
  return new Map(complete(table).map((p) => [p, mean(columns.map((column) => column.get(p)))]));
}

/**
 * Mean over training seeds of a − b over common prompts, with its 95 % t interval (null below
 * `data.fewest` seeds); null where nothing can be paired. `paired` is false without a common prompt.
 */
export function difference(data, metric, a, b) {
  const cells = data.cells[metric];
  if (!cells) return null;
  let [left, right] = [tableOf(cells, a), tableOf(cells, b)];
  if (!left.size || !right.size) return null;
  if (!shared(promptsOf(left), promptsOf(right)).length) return unpaired(left, right);
  let seeds = shared([...left.keys()], [...right.keys()]);
  const alone = (table) => table.size === 1 && table.has(-1);
  if (!seeds.length) {
    if (!alone(left) && !alone(right)) return null;
    if (data.arms[a].reference || data.arms[b].reference) {
      seeds = [...(alone(left) ? right : left).keys()];
      const repeat = (table) => new Map(seeds.map((seed) => [seed, table.get(-1)]));
      if (alone(left)) left = repeat(left);
      if (alone(right)) right = repeat(right);
    } else {
      [left, right] = [left, right].map((table) => new Map([[-1, overSeeds(table)]]));
      seeds = [-1];
    }
  }
  const has = (table, prompt) => seeds.every((seed) => table.get(seed).has(prompt));
  const both = promptsOf(left).filter((prompt) => has(left, prompt) && has(right, prompt));
  if (!both.length) return null;
  const bySeed = seeds.map((seed) =>
    mean(both.map((prompt) => left.get(seed).get(prompt) - right.get(seed).get(prompt))),
  );
  const prompts = both.filter((prompt) => prompt >= 0).length;
  const trained = seeds.filter((seed) => seed !== -1).length;
  return { mean: mean(bySeed), ...limits(data, bySeed), seeds: trained, prompts, paired: true };
}

function unpaired(left, right) {
  const means = [left, right].map((table) => [...overSeeds(table).values()]);
  if (!means.every((values) => values.length)) return null;
  const prompts = Math.min(...means.map((values) => values.length));
  const value = mean(means[0]) - mean(means[1]);
  return { mean: value, low: null, high: null, seeds: 0, prompts, paired: false };
}

function limits(data, values) {
  if (values.length < data.fewest) return { low: null, high: null };
  const center = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - center) ** 2, 0);
  const error = Math.sqrt(squares / (values.length - 1) / values.length);
  const half = data.quantiles[values.length - 2] * error;
  return { low: center - half, high: center + half };
}

function promptsOf(table) {
  return [...new Set([...table.values()].flatMap((column) => [...column.keys()]))];
}

function shared(some, others) {
  const known = new Set(others);
  return some.filter((item) => known.has(item));
}

/** Prompt → a − b of one metric, over the training seeds of each arm. */
export function byPrompt(data, metric, a, b) {
  const cells = data.cells[metric];
  if (!cells) return new Map();
  const [left, right] = [overSeeds(tableOf(cells, a)), overSeeds(tableOf(cells, b))];
  const both = shared([...left.keys()], [...right.keys()]).filter((prompt) => prompt >= 0);
  return new Map(both.map((prompt) => [prompt, left.get(prompt) - right.get(prompt)]));
}

/** Prompts in the order of the suite, of the largest difference, or of the most typical one. */
export function sortedPrompts(prompts, differences, order) {
  const known = prompts.filter((prompt) => differences.has(prompt));
  const rest = prompts.filter((prompt) => !differences.has(prompt));
  const values = known.map((prompt) => differences.get(prompt)).sort((x, y) => x - y);
  const middle = values.length
    ? (values[(values.length - 1) >> 1] + values[values.length >> 1]) / 2
    : 0;
  const far = {
    difference: (prompt) => -Math.abs(differences.get(prompt)),
    typical: (prompt) => Math.abs(differences.get(prompt) - middle),
  }[order];
  return far ? [...known.sort((x, y) => far(x) - far(y) || x - y), ...rest] : prompts;
}
