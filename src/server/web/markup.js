// The Markdown that models write, as elements: paragraphs, headings, lists, code, bold, italics. Links and images stay
// text: the page asks nobody but its server.
import { appendRuns, element } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)[^\n]*$/;
const HEADING = /^(#{1,6}) +/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)]) +/;
const INLINE = /`([^`\n]+)`|\*\*(?=\S)([^*\n]*\S)\*\*|\*(?=[^\s*])([^*\n]*[^\s*])\*(?!\*)/g;

// [{kind, begin, end, ...}]; begin and end are offsets of the text to show.
export function blocksOf(text) {
  const blocks = [];
  const lines = [];
  for (let at = 0; at <= text.length; ) {
    const end = text.indexOf("\n", at);
    const stop = end < 0 ? text.length : end;
    lines.push({ begin: at, end: stop, text: text.slice(at, stop) });
    at = stop + 1;
  }
  for (let i = 0; i < lines.length; ++i) {
    const line = lines[i];
    const fence = FENCE.exec(line.text);
    if (fence) {
      const mark = fence[1];
      let last = i + 1;
      while (last < lines.length && !(lines[last].text.trim().startsWith(mark) && FENCE.test(lines[last].text))) ++last;
      const begin = Math.min(line.end + 1, text.length);
      const end = last > i + 1 ? lines[Math.min(last, lines.length) - 1].end : begin;
      blocks.push({ kind: "code", begin, end });
      i = last;
    } else if (line.text.trim() !== "") {
      addLine(blocks, line, i > 0 && lines[i - 1].text.trim() !== "");
    }
  }
  return blocks;
}

function addLine(blocks, line, follows) {
  const heading = HEADING.exec(line.text);
  const item = ITEM.exec(line.text);
  const last = blocks.at(-1);
  if (heading) {
    blocks.push({ kind: "heading", level: heading[1].length, begin: line.begin + heading[0].length, end: line.end });
  } else if (item) {
    const ordered = /\d/.test(item[2]);
    const entry = { begin: line.begin + item[0].length, end: line.end, depth: Math.floor(item[1].length / 2) };
    if (last?.kind === "list" && (last.ordered === ordered || entry.depth > 0)) {
      last.items.push(entry);
      last.end = line.end;
    } else {
      blocks.push({ kind: "list", ordered, start: parseInt(item[2], 10), begin: line.begin, end: line.end, items: [entry] });
    }
  } else if (follows && last?.kind === "paragraph") {
    last.end = line.end;
  } else if (follows && last?.kind === "list") {
    last.end = last.items.at(-1).end = line.end;
  } else {
    blocks.push({ kind: "paragraph", begin: line.begin, end: line.end });
  }
}

function appendInline(parent, marked, begin, end) {
  const text = marked.text.slice(begin, end);
  let at = 0;
  for (const match of text.matchAll(INLINE)) {
    const [whole, code, bold, italic] = match;
    const width = code !== undefined ? 1 : bold !== undefined ? 2 : 1;
    const name = code !== undefined ? "code" : bold !== undefined ? "strong" : "em";
    appendRuns(parent, marked, begin + at, begin + match.index);
    const node = element(name);
    const inner = [begin + match.index + width, begin + match.index + width + (code ?? bold ?? italic).length];
    if (name === "strong") appendInline(node, marked, ...inner);
    else appendRuns(node, marked, ...inner);
    parent.append(node);
    at = match.index + whole.length;
  }
  appendRuns(parent, marked, begin + at, end);
}

function listNode(block, marked) {
  const root = element(block.ordered ? "ol" : "ul");
  if (block.ordered && block.start !== 1) root.start = block.start;
  const stack = [root];
  for (const item of block.items) {
    const depth = Math.min(item.depth, stack.length);
    while (stack.length > depth + 1) stack.pop();
    if (depth === stack.length && stack.at(-1).lastElementChild) {
      const inner = element("ul");
      stack.at(-1).lastElementChild.append(inner);
      stack.push(inner);
    }
    const node = element("li");
    appendInline(node, marked, item.begin, item.end);
    stack.at(-1).append(node);
  }
  return root;
}

function blockNode(block, marked) {
  if (block.kind === "list") return listNode(block, marked);
  if (block.kind === "code") {
    const code = element("code");
    appendRuns(code, marked, block.begin, block.end);
    return element("pre", { tabIndex: 0 }, code);
  }
  const node = element(block.kind === "heading" ? (block.level < 3 ? "h3" : "h4") : "p");
  appendInline(node, marked, block.begin, block.end);
  return node;
}

// Brings `parent` up to date with a text that has grown; blocks that are as they were stay.
export function renderMarkup(parent, marked) {
  const blocks = blocksOf(marked.text);
  const old = parent.blockKeys ?? [];
  const keys = blocks.map((block) => `${block.kind} ${block.begin} ${block.end} ${block.items?.length ?? 0}`);
  let same = 0;
  while (same < keys.length && keys[same] === old[same]) ++same;
  // The last block may have been a paragraph that turns out to be something else: compare, then replace the rest.
  while (parent.children.length > same) parent.lastElementChild.remove();
  for (const block of blocks.slice(same)) parent.append(blockNode(block, marked));
  parent.blockKeys = keys;
}
