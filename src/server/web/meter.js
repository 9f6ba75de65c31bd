// The line below an answer: speed, acceptance, and the rhythm of its rounds.
import { element, svgElement } from "./dom.js";

const MAX_ROUNDS = 40;
const HEIGHT = 16;
const BAR = 3;
const STEP = 4;

const number = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

export class Meter {
  node = element("div", { className: "meter" });
  #outcome = element("span", { className: "outcome", hidden: true });
  #speed = element("span", { className: "speed" });
  #acceptance = element("span", { className: "acceptance", title: "Mean acceptance length: tokens that one check by the target gives" });
  #more = element("span");
  #chart = svgElement("svg", { height: HEIGHT, "aria-hidden": "true" });
  #drawn = 0;

  constructor() {
    this.node.append(this.#outcome, this.#speed, this.#acceptance, this.#chart, this.#more);
    this.#chart.setAttribute("hidden", "");
  }

  update(answer) {
    const speed = answer.tokensPerSecond;
    this.#speed.textContent = speed === null ? "" : `${number(speed, speed < 100 ? 1 : 0)} tokens/s`;
    const length = answer.acceptanceLength;
    this.#acceptance.textContent = length === null ? "" : `${number(length, 2)} tokens a round`;
    if (answer.rounds.length !== this.#drawn) this.#draw(answer.rounds);
  }

  // A bar for each of the last rounds: its height what was drafted, the full part what was accepted.
  #draw(rounds) {
    this.#drawn = rounds.length;
    const shown = rounds.slice(-MAX_ROUNDS);
    const most = Math.max(...shown.map((round) => round.drafted));
    const width = shown.length * STEP - (STEP - BAR);
    this.#chart.replaceChildren();
    for (const [i, round] of shown.entries()) {
      const bar = (count, className) => {
        const height = Math.max((count / most) * HEIGHT, 1);
        this.#chart.append(svgElement("rect", {
          class: className, x: i * STEP, y: HEIGHT - height, width: BAR, height, rx: 1, fill: "currentColor" }));
      };
      bar(round.drafted, "own");
      if (round.accepted > 0) bar(round.accepted, "accepted");
    }
    this.#chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.#chart.removeAttribute("hidden");
    this.#chart.setAttribute("width", width);
  }

  // `outcome`: a word when the answer did not end by itself.
  finish(answer, outcome, contextLength) {
    this.update(answer);
    this.#outcome.textContent = outcome;
    this.#outcome.hidden = outcome === "";
    const facts = [`${number(answer.numTokens, 0)} token${answer.numTokens === 1 ? "" : "s"}`];
    if (answer.secondsToFirst !== null) facts.push(`first after ${number(answer.secondsToFirst, 2)} s`);
    if (contextLength && answer.numPromptTokens)
      facts.push(`${number(answer.numPromptTokens + answer.numTokens, 0)} of ${number(contextLength, 0)} in use`);
    this.#more.replaceChildren(facts.join(", "));
    if (navigator.clipboard && answer.content.text) this.node.append(copyButton(answer.content.text));
  }
}

function copyButton(text) {
  const button = element("button", { type: "button", className: "quiet copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
}
