// Elements from values. Text becomes text nodes only; nothing here or elsewhere parses HTML.

export function element(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function svgElement(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

export const find = (id) => document.getElementById(id);

// Appends part of a MarkedText, drafted runs in spans of their own. The space that most tokens begin with is left
// untinted at the start of a run: tint looks like a word, not like a gap.
export function appendRuns(parent, marked, begin, end) {
  for (const run of marked.runs(begin, end)) {
    if (!run.drafted) {
      parent.append(run.text);
      continue;
    }
    const words = run.text.trimStart();
    const lead = run.text.slice(0, run.text.length - words.length);
    if (lead) parent.append(element("span", { className: "drafted lead" }, lead));
    if (words) parent.append(element("span", { className: "drafted" }, words));
  }
}
