// The server's routes, and its faults in words that say what to do. Paths are relative: the page works behind a
// proxy that serves it under a folder.
import { events } from "./sse.js";

export class Trouble extends Error {
  // `needs`: "key", "settings", or nothing; then trying again may help if `again` is set.
  constructor(title, { advice = "", detail = "", needs = "", again = false } = {}) {
    super(title);
    this.title = title;
    this.advice = advice;
    this.detail = detail;
    this.needs = needs;
    this.again = again;
  }
}

const UNREACHABLE = new Trouble("The server cannot be reached", {
  advice: "Check that it is running and that this device is online, then try again.",
  again: true,
});

function headers(key) {
  const result = { "Content-Type": "application/json" };
  if (key) result.Authorization = `Bearer ${key}`;
  return result;
}

function busy(response) {
  const seconds = Number(response.headers.get("Retry-After")) || 1;
  const wait = seconds === 1 ? "a second" : `${seconds} seconds`;
  return new Trouble("The server is busy", { advice: `Its queue is full. Try again in ${wait}.`, again: true });
}

// What a reply that is not 200 means to somebody who only wants to chat.
async function troubleOf(response, hadKey) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    // A proxy's page, say: the status has to do.
  }
  const detail = typeof error.message === "string" ? error.message : `HTTP ${response.status}`;
  switch (response.status) {
    case 401:
      return hadKey
        ? new Trouble("The key was refused", { advice: "Check the API key in the settings.", needs: "key" })
        : new Trouble("This server asks for a key", { advice: "Enter the API key in the settings.", needs: "key" });
    case 429:
      return busy(response);
    case 503:
      return new Trouble("The server is not ready", {
        advice: "It is stopping or stuck. Try again in a moment.", detail, again: true });
    case 400:
    case 413:
      if (error.code === "context_length_exceeded" || response.status === 413)
        return new Trouble("The conversation is too long", {
          advice: "Start a new chat, or allow fewer tokens for an answer in the settings.", detail, needs: "settings" });
      return new Trouble("The server refused the request", {
        advice: "Check the settings; the server says what it did not like.", detail, needs: "settings" });
    case 502:
    case 504:
      return new Trouble("The server is not running", {
        advice: "The proxy in front of it got no answer. Try again in a moment.", detail, again: true });
    default:
      return new Trouble("The server could not answer", { advice: "Try again.", detail, again: true });
  }
}

async function ask(path, options) {
  try {
    return await fetch(path, { ...options, cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch (error) {
    throw error.name === "AbortError" ? error : UNREACHABLE;
  }
}

// The served model's entry: {id, max_model_len, ...}.
export async function firstModel(key) {
  const response = await ask("v1/models", { headers: headers(key) });
  if (!response.ok) throw await troubleOf(response, Boolean(key));
  return (await response.json()).data[0];
}

// Yields the chunks of a streamed chat completion.
export async function* streamChat(body, key, signal) {
  const response = await ask("v1/chat/completions", {
    method: "POST", headers: headers(key), body: JSON.stringify(body), signal });
  if (!response.ok) throw await troubleOf(response, Boolean(key));
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error)
        throw new Trouble("The answer broke off", {
          advice: "What came so far is kept. Try again.", detail: String(chunk.error.message ?? ""), again: true });
      yield chunk;
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof Trouble) throw error;
  }
  throw new Trouble("The connection broke off", { advice: "What came so far is kept. Try again.", again: true });
}
