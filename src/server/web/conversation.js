// What has been said, and the request that asks for the next answer. No DOM here.

export class Conversation {
  messages = [];

  ask(text) {
    this.#closeCalls();
    this.messages.push({ role: "user", content: text });
  }

  // Takes a finished or stopped answer into the history.
  keep(answer) {
    const message = { role: "assistant", content: answer.content.text };
    const calls = answer.calls.filter((call) => call?.name && isObject(call.arguments));
    if (calls.length > 0) {
      message.tool_calls = calls.map((call) => ({
        id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
      // A thought that led to a call is shown to the model again with the call's result.
      if (answer.reasoning.text) message.reasoning = answer.reasoning.text;
    }
    this.messages.push(message);
    return calls;
  }

  addResult(id, content) {
    this.messages.push({ role: "tool", tool_call_id: id, content });
  }

  // Calls that nobody answered: the template wants a result for each.
  #closeCalls() {
    const last = this.messages.findLastIndex((message) => message.role === "assistant");
    for (const call of this.messages[last]?.tool_calls ?? []) {
      if (this.messages.slice(last).some((message) => message.tool_call_id === call.id)) continue;
      this.addResult(call.id, "The user gave no result.");
    }
  }

  request(model, settings) {
    const system = settings.system.trim();
    const body = {
      model,
      messages: [...(system ? [{ role: "system", content: system }] : []), ...this.messages],
      stream: true,
      stream_options: { include_usage: true },
      return_draft_info: true,
      chat_template_kwargs: { enable_thinking: settings.thinking },
    };
    if (settings.temperature !== "") body.temperature = Number(settings.temperature);
    if (settings.maxTokens !== "") body.max_completion_tokens = Number(settings.maxTokens);
    const tools = parseTools(settings.tools).tools;
    if (tools?.length) body.tools = tools;
    return body;
  }
}

function isObject(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false; // stopped in the middle of a call
  }
}

// {tools} or {fault}.
export function parseTools(text) {
  if (text.trim() === "") return { tools: [] };
  try {
    const tools = JSON.parse(text);
    if (!Array.isArray(tools)) return { fault: "Expected a JSON list, such as [{\"type\": \"function\", ...}]." };
    if (tools.some((tool) => tool?.type !== "function" || typeof tool.function?.name !== "string"))
      return { fault: "Expected every tool to be {\"type\": \"function\", \"function\": {\"name\": ...}}." };
    return { tools };
  } catch (error) {
    return { fault: `Not valid JSON: ${error.message}` };
  }
}
