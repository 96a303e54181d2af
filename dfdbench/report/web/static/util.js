// Small helpers of every script of the page.

export const byId = (id) => document.getElementById(id);

/** An element with attributes (`on…` are listeners, null ones are left out) and children. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  assign(made, attributes);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(byId("namespace").namespaceURI, tag);
  assign(made, attributes);
  made.append(...children);
  return made;
}

function assign(made, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
}

/** Three decimals, or one where values of this size reach 10, as in the tables of the report. */
export function number(value, size = value) {
  const text = value.toFixed(Math.abs(size) >= 10 ? 1 : 3);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

/** `number` with a plus where more than 0 shows. */
export function signed(value, size = value) {
  const text = number(value, size);
  return value > 0 && Number(text) > 0 ? `+${text}` : text;
}

/** Fill a <select> with [value, text] pairs and choose one. */
export function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => el("option", { value }, text)));
  select.value = chosen;
}

/** Offer a text as a file. */
export function download(name, text, kind) {
  const address = URL.createObjectURL(new Blob([text], { type: kind }));
  const link = el("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** A row of CSV; a text that a spreadsheet would run begins with '. */
export function csvRow(values) {
  return values
    .map((value) => {
      let text = String(value ?? "");
      if (typeof value === "string" && /^[=+\-@＝＋－＠\t\r\n' ]/.test(text)) text = `'${text}`;
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    })
    .join(",");
}
