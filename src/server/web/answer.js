// An answer while it arrives. No DOM here.

// Text, and which ranges of it were drafted.
export class MarkedText {
  text = "";
  ranges = []; // [begin, end] of drafted text, ascending

  append(text, drafted) {
    const begin = this.text.length;
    this.text += text;
    if (!drafted || text === "") return;
    const last = this.ranges.at(-1);
    if (last && last[1] === begin) last[1] = this.text.length;
    else this.ranges.push([begin, this.text.length]);
  }

  // [{text, drafted}] of the part from begin to end.
  runs(begin, end) {
    const runs = [];
    let at = begin;
    const add = (to, drafted) => {
      if (to > at) runs.push({ text: this.text.slice(at, to), drafted });
      at = Math.max(at, to);
    };
    for (const [from, to] of this.ranges) {
      if (to <= begin) continue;
      if (from >= end) break;
      add(Math.min(Math.max(from, begin), end), false);
      add(Math.min(to, end), true);
    }
    add(end, false);
    return runs;
  }
}

export class Answer {
  content = new MarkedText();
  reasoning = new MarkedText();
  calls = []; // {id, name, arguments}
  finishReason = null;
  rounds = []; // {drafted, accepted} of every step that had a draft
  numTokens = 0;
  numPromptTokens = 0;
  began = performance.now();
  firstToken = 0;
  firstCount = 0; // tokens that came with the first chunk
  lastToken = 0;
  thoughtEnded = 0;

  take(chunk) {
    if (chunk.usage) this.numPromptTokens = chunk.usage.prompt_tokens ?? 0;
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const info = choice.draft_info;
    this.#count(info);
    this.#add(this.reasoning, choice.delta?.reasoning, info?.reasoning);
    this.#add(this.content, choice.delta?.content, info?.content);
    for (const call of choice.delta?.tool_calls ?? []) this.#addCall(call);
    if (!this.thoughtEnded && this.reasoning.text && (this.content.text || this.calls.length))
      this.thoughtEnded = performance.now();
    this.finishReason = choice.finish_reason ?? this.finishReason;
  }

  #count(info) {
    if (!info || info.num_tokens === 0) return;
    this.lastToken = performance.now();
    if (!this.firstToken) {
      this.firstToken = this.lastToken;
      this.firstCount = info.num_tokens;
    }
    this.numTokens += info.num_tokens;
    if (info.num_drafted > 0) this.rounds.push({ drafted: info.num_drafted, accepted: info.num_accepted });
  }

  #add(target, text, runs) {
    if (runs?.length) for (const run of runs) target.append(run.text, run.drafted);
    else if (text) target.append(text, false);
  }

  #addCall(call) {
    const entry = (this.calls[call.index] ??= { id: "", name: "", arguments: "" });
    entry.id += call.id ?? "";
    entry.name += call.function?.name ?? "";
    entry.arguments += call.function?.arguments ?? "";
  }

  // After the first chunk, which waits for the prompt; null while the time is too short to say.
  get tokensPerSecond() {
    const seconds = (this.lastToken - this.firstToken) / 1000;
    return seconds >= 0.05 ? (this.numTokens - this.firstCount) / seconds : null;
  }

  // Tokens a verified draft gave on average, the target's own included.
  get acceptanceLength() {
    if (this.rounds.length === 0) return null;
    return 1 + this.rounds.reduce((sum, round) => sum + round.accepted, 0) / this.rounds.length;
  }

  get secondsToFirst() {
    return this.firstToken ? (this.firstToken - this.began) / 1000 : null;
  }

  get thinkingSeconds() {
    return ((this.thoughtEnded || this.lastToken) - (this.firstToken || this.began)) / 1000;
  }
}
