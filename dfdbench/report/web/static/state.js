// What the reader has chosen, kept in the address, so that a link shows the same again.

const APART = 300; // milliseconds: browsers refuse addresses that change all the time
const listeners = [];
let defaults = {};
let [written, pending] = [-APART, 0];

/** The choices: texts by name. */
export const state = {};

/** Set the names and what they are without an address; then read the address. */
export function begin(values) {
  defaults = { ...values };
  Object.assign(state, defaults, fromAddress());
  addEventListener("hashchange", () => {
    const next = { ...defaults, ...fromAddress() };
    const changed = Object.keys(next).filter((name) => next[name] !== state[name]);
    Object.assign(state, next);
    tell(changed);
  });
}

function fromAddress() {
  const text = location.hash.slice(1);
  if (!text.includes("=")) return {}; // the name of a section
  const read = [...new URLSearchParams(text)];
  return Object.fromEntries(read.filter(([name]) => Object.hasOwn(defaults, name)));
}

/** Change choices; listeners are told which, and the address follows. */
export function update(values) {
  const changed = Object.keys(values).filter((name) => state[name] !== String(values[name]));
  for (const name of changed) state[name] = String(values[name]);
  if (!changed.length) return;
  const wait = written + APART - performance.now();
  if (wait <= 0) write();
  else pending ||= setTimeout(write, wait);
  tell(changed);
}

function write() {
  clearTimeout(pending);
  [written, pending] = [performance.now(), 0];
  const kept = Object.entries(state).filter(([name, value]) => value !== defaults[name]);
  const text = new URLSearchParams(kept).toString();
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

function tell(changed) {
  if (changed.length) for (const listener of listeners) listener(new Set(changed));
}

/** Call `listener` with the set of changed names after each change. */
export function onChange(listener) {
  listeners.push(listener);
}

/** Let links to sections scroll without a change of the address, which holds the choices. */
export function keepAddress(selector) {
  for (const link of document.querySelectorAll(selector)) {
    link.addEventListener("click", (event) => {
      const target = document.getElementById(link.getAttribute("href").slice(1));
      if (!target) return;
      event.preventDefault();
      target.scrollIntoView();
      target.focus({ preventScroll: true });
    });
  }
}
