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

// Appends part of a MarkedText, drafted runs in spans of their own.
export function appendRuns(parent, marked, begin, end) {
  for (const run of marked.runs(begin, end))
    parent.append(run.drafted ? element("span", { className: "drafted" }, run.text) : run.text);
}
