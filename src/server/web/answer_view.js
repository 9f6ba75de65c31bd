// An answer on the page: thoughts folded, text with its drafted runs tinted, tool calls, the meter.
import { appendRuns, element } from "./dom.js";
import { renderMarkup } from "./markup.js";
import { Meter } from "./meter.js";

export class AnswerView {
  node = element("article", { className: "message answer", "aria-label": "Answer" });
  #waiting = element("div", { className: "waiting", role: "img", "aria-label": "Waiting for the first token" },
    element("i"), element("i"), element("i"));
  #content = element("div", { className: "content" });
  #thinking = null;
  #calls = [];
  #meter = new Meter();
  #frame = 0;

  constructor(answer) {
    this.answer = answer;
    this.node.append(this.#waiting, this.#content, this.#meter.node);
  }

  // Draws at most once a frame, however fast tokens come.
  update(drawn) {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw(false);
      drawn();
    });
  }

  // `outcome`: "" or a word about why it ended.
  finish(outcome, contextLength) {
    cancelAnimationFrame(this.#frame);
    this.#draw(true);
    this.#waiting.remove();
    this.#meter.finish(this.answer, outcome, contextLength);
    if (!this.answer.content.text) this.#content.remove();
  }

  #draw(done) {
    const answer = this.answer;
    if (answer.numTokens > 0 || answer.content.text || answer.reasoning.text) this.#waiting.remove();
    if (answer.reasoning.text) this.#drawThinking(done);
    renderMarkup(this.#content, answer.content);
    answer.calls.forEach((call, i) => this.#drawCall(call, i));
    this.#meter.update(answer);
  }

  #drawThinking(done) {
    if (!this.#thinking) {
      const summary = element("summary");
      const body = element("div", { className: "thoughts" });
      this.#thinking = { summary, body, node: element("details", { className: "thinking" }, summary, body) };
      this.node.prepend(this.#thinking.node);
    }
    const over = done || this.answer.thoughtEnded > 0;
    const words = over ? `Thought for ${this.answer.thinkingSeconds.toFixed(1)} s` : "Thinking…";
    if (this.#thinking.summary.textContent !== words) this.#thinking.summary.textContent = words;
    const reasoning = this.answer.reasoning;
    if (this.#thinking.shown === reasoning.text.length) return;
    this.#thinking.shown = reasoning.text.length;
    this.#thinking.body.replaceChildren();
    appendRuns(this.#thinking.body, reasoning, 0, reasoning.text.length);
  }

  #drawCall(call, index) {
    if (!this.#calls[index]) {
      const name = element("code");
      const text = element("pre", { tabIndex: 0, "aria-label": "Arguments" });
      const node = element("section", { className: "call" }, element("h3", {}, "The model calls ", name), text);
      this.#calls[index] = { name, text, node };
      this.#meter.node.before(node);
    }
    this.#calls[index].name.textContent = call.name;
    this.#calls[index].text.textContent = pretty(call.arguments);
  }

  // Asks for the results of finished calls; `send` gets [{id, content}].
  askForResults(calls, send) {
    const fields = calls.map((call) => {
      const shown = this.#calls[this.answer.calls.findIndex((other) => other.id === call.id)];
      const id = `result-${call.id}`;
      const field = element("textarea", { id, rows: 2, spellcheck: false, placeholder: "What the tool would say" });
      shown.node.append(element("label", { htmlFor: id }, `Result of ${call.name}`), field);
      return { id: call.id, field };
    });
    const button = element("button", { type: "button", className: "send" },
      calls.length === 1 ? "Send the result" : "Send the results");
    const actions = element("div", { className: "call-actions" }, button);
    fields.at(-1).field.after(actions);
    const submit = () => {
      this.closeResults = () => {};
      for (const { field } of fields) field.readOnly = true;
      actions.remove();
      send(fields.map(({ id, field }) => ({ id, content: field.value })));
    };
    button.addEventListener("click", submit);
    for (const { field } of fields)
      field.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        submit();
      });
    // When the conversation goes on without them.
    this.closeResults = () => {
      for (const { field } of fields) field.readOnly = true;
      actions.remove();
    };
    return fields[0].field;
  }

  closeResults = () => {};
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text; // not complete yet
  }
}
