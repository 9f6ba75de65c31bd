// The settings dialog and what it keeps. The API key lives as long as the tab, the rest in this browser.
import { parseTools } from "./conversation.js";
import { find } from "./dom.js";

const STORE = "tandem.settings";
const KEY = "tandem.key";
const DEFAULTS = { system: "", temperature: "", maxTokens: "", thinking: false, tools: "", theme: "auto", tint: true };
const EXAMPLE_TOOLS = [{
  type: "function",
  function: {
    name: "get_weather",
    description: "Get the current weather of a city.",
    parameters: {
      type: "object",
      properties: { city: { type: "string", description: "The city" } },
      required: ["city"],
    },
  },
}];

// Storage may be forbidden; then everything lasts as long as the page.
function load(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return null;
  }
}

function save(storage, name, value) {
  try {
    window[storage].setItem(name, value);
  } catch {
    // See above.
  }
}

function stored() {
  try {
    const value = JSON.parse(load("localStorage", STORE) ?? "{}");
    const known = Object.entries(value).filter(([name, v]) => name in DEFAULTS && typeof v === typeof DEFAULTS[name]);
    return { ...DEFAULTS, ...Object.fromEntries(known) };
  } catch {
    return { ...DEFAULTS };
  }
}

export class Settings {
  values = stored();
  key = load("sessionStorage", KEY) ?? "";
  #dialog = find("settings");
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    this.#fill();
    this.#apply();
    for (const id of ["system", "temperature", "max-tokens", "thinking", "tools", "theme", "api-key"])
      find(id).addEventListener("input", () => this.#read());
    find("tools-example").addEventListener("click", () => {
      find("tools").value = JSON.stringify(EXAMPLE_TOOLS, null, 2);
      this.#read();
      find("tools").focus();
      find("tools").setSelectionRange(0, 0);
      find("tools").scrollTop = 0;
    });
    find("settings-form").addEventListener("submit", (event) => {
      if (this.toolsFault() === "") return;
      event.preventDefault();
      find("tools").focus();
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // the backdrop
    });
    this.#dialog.addEventListener("close", () => this.#onChange());
  }

  open(focus = "system") {
    if (!this.#dialog.open) this.#dialog.showModal();
    find(focus).focus();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  set tint(value) {
    this.values.tint = value;
    save("localStorage", STORE, JSON.stringify(this.values));
    this.#apply();
  }

  toolsFault() {
    return parseTools(this.values.tools).fault ?? "";
  }

  #fill() {
    find("system").value = this.values.system;
    find("temperature").value = this.values.temperature;
    find("max-tokens").value = this.values.maxTokens;
    find("thinking").checked = this.values.thinking;
    find("tools").value = this.values.tools;
    find("theme").value = this.values.theme;
    find("api-key").value = this.key;
  }

  #read() {
    const valid = (id) => (find(id).validity.valid ? find(id).value : "");
    Object.assign(this.values, {
      system: find("system").value,
      temperature: valid("temperature"),
      maxTokens: valid("max-tokens"),
      thinking: find("thinking").checked,
      tools: find("tools").value,
      theme: find("theme").value,
    });
    this.key = find("api-key").value.trim();
    save("localStorage", STORE, JSON.stringify(this.values));
    save("sessionStorage", KEY, this.key);
    this.#apply();
  }

  #apply() {
    const fault = this.toolsFault();
    find("tools-fault").textContent = fault;
    find("tools").setAttribute("aria-invalid", String(fault !== ""));
    if (this.values.theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = this.values.theme;
    document.body.classList.toggle("tint-off", !this.values.tint);
    find("tint").setAttribute("aria-pressed", String(this.values.tint));
  }
}
