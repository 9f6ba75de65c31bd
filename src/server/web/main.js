// The page: asks, streams, stops.
import { Answer } from "./answer.js";
import { AnswerView } from "./answer_view.js";
import { firstModel, streamChat, Trouble } from "./api.js";
import { Conversation } from "./conversation.js";
import { element, find } from "./dom.js";
import { Settings } from "./settings.js";

const OUTCOMES = { length: "Cut at the most tokens", stopped: "Stopped", broken: "Broken off" };
const NEAR_END = 60; // pixels from the end that still count as reading along

const log = find("log");
const scroller = find("scroller");
const question = find("question");
let conversation = new Conversation();
let model = null; // of /v1/models
let running = null; // {controller} while an answer streams
let lastView = null;
let follows = true; // the reader is at the end

const settings = new Settings(() => {
  question.focus();
  connect();
});

function announce(text) {
  find("announcer").textContent = text;
}

// Scrolling

function toEnd() {
  if (follows) scroller.scrollTop = scroller.scrollHeight;
}

scroller.addEventListener("scroll", () => {
  follows = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < NEAR_END;
  find("latest").hidden = follows;
});
find("latest").addEventListener("click", () => {
  follows = true;
  toEnd();
  question.focus();
});
new ResizeObserver(toEnd).observe(scroller);

// The message box

function fit() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
  find("send").disabled = question.value.trim() === "";
}

question.addEventListener("input", fit);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});

function submit() {
  const text = question.value.trim();
  if (text === "" || running) return;
  question.value = "";
  fit();
  ask(text);
}

// Answers

function ask(text) {
  lastView?.closeResults();
  conversation.ask(text);
  show(element("article", { className: "message question", "aria-label": "You" }, text));
  answer();
}

function show(node) {
  find("welcome").hidden = true;
  log.append(node);
  follows = true;
  toEnd();
}

function setRunning(value) {
  running = value;
  find("send").hidden = Boolean(value);
  find("stop").hidden = !value;
  log.setAttribute("aria-busy", String(Boolean(value)));
  find("new-chat").disabled = Boolean(value);
}

async function answer() {
  const mine = { controller: new AbortController() };
  const reply = new Answer();
  const view = new AnswerView(reply);
  lastView = view;
  show(view.node);
  setRunning(mine);
  announce("Answering");
  let trouble = null;
  let outcome = "";
  try {
    if (!model) await readModel();
    const body = conversation.request(model.id, settings.values);
    for await (const chunk of streamChat(body, settings.key, mine.controller.signal)) {
      reply.take(chunk);
      view.update(toEnd);
    }
    if (reply.finishReason === "length") outcome = OUTCOMES.length;
  } catch (error) {
    const stopped = error.name === "AbortError";
    outcome = stopped ? OUTCOMES.stopped : OUTCOMES.broken;
    if (!stopped) trouble = error instanceof Trouble ? error : unexpected(error);
  }
  setRunning(null);
  end(reply, view, outcome, trouble);
}

function unexpected(error) {
  return new Trouble("Something went wrong on this page", { advice: "Try again.", detail: String(error), again: true });
}

function end(reply, view, outcome, trouble) {
  const hasAnswer = reply.content.text || reply.reasoning.text || reply.calls.length > 0;
  if (!hasAnswer && trouble) view.node.remove();
  else view.finish(outcome, model?.max_model_len);
  // With trouble the question is asked again as it was: what came is shown, but is not part of the history.
  const calls = trouble || !hasAnswer ? [] : conversation.keep(reply);
  if (trouble) showTrouble(trouble);
  else announce(outcome || `Answered, ${reply.numTokens} tokens`);
  if (calls.length > 0) {
    const field = view.askForResults(calls, (results) => {
      for (const { id, content } of results) conversation.addResult(id, content);
      answer();
    });
    if (document.activeElement === document.body || document.activeElement === question) field.focus();
  }
  toEnd();
}

function showTrouble(trouble) {
  const actions = element("div", { className: "trouble-actions" });
  const card = element("article", { className: "message trouble", role: "alert" },
    element("h3", {}, trouble.title),
    trouble.advice ? element("p", {}, trouble.advice) : null,
    trouble.detail ? element("p", { className: "detail" }, trouble.detail) : null,
    actions);
  const add = (label, act) => {
    const button = element("button", { type: "button", className: "send" }, label);
    button.addEventListener("click", act);
    actions.append(button);
  };
  const waits = conversation.messages.at(-1) && conversation.messages.at(-1).role !== "assistant";
  if (trouble.needs) add("Open settings", () => settings.open(trouble.needs === "key" ? "api-key" : "system"));
  if (waits && (trouble.again || trouble.needs))
    add("Try again", () => {
      if (running) return;
      card.remove();
      answer();
      question.focus();
    });
  if (!actions.childElementCount) actions.remove();
  show(card);
}

// The bar

find("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !settings.isOpen && !event.isComposing) {
    event.preventDefault();
    stop();
  }
});

function stop() {
  running?.controller.abort();
  question.focus();
}

find("new-chat").addEventListener("click", () => {
  conversation = new Conversation();
  lastView = null;
  log.replaceChildren();
  find("welcome").hidden = false;
  announce("New chat");
  question.focus();
});
find("open-settings").addEventListener("click", () => settings.open());
find("tint").addEventListener("click", () => (settings.tint = !settings.values.tint));
for (const example of document.querySelectorAll(".example"))
  example.addEventListener("click", () => {
    if (running) return;
    question.focus();
    ask(example.textContent);
  });

// The server

async function readModel() {
  model = await firstModel(settings.key);
  find("model").textContent = model.id;
  find("model").title = `${model.id}, up to ${model.max_model_len.toLocaleString("en")} tokens`;
  document.title = `${model.id} · Tandem`;
}

// Tells early what is wrong, before the first question.
async function connect() {
  if (model) return;
  try {
    await readModel();
    log.querySelector(".trouble.early")?.remove();
  } catch (error) {
    if (!(error instanceof Trouble) || log.childElementCount > 0) return;
    showTrouble(error);
    log.lastElementChild.classList.add("early");
    find("welcome").hidden = false;
  }
}

fit();
connect();
if (matchMedia("(hover: hover)").matches) question.focus();
