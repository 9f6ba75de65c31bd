#include "quantize/default_prompts.h"

#include <array>

namespace tandem::quantize {
namespace {

constexpr std::array<std::string_view, 32> kPrompts = {
    "What is 384 - 197? Show the steps, then give the answer on its own line.",
    "Write a short story about a lighthouse keeper who finds a letter addressed to the sea.",
    "Write a Python function that merges two sorted lists without using sort(), and explain its "
    "running time in one sentence.",
    "Return a JSON object with the fields name, age and languages for a fictional translator from "
    "Lisbon. Answer with the JSON only.",
    "Warum ist der Himmel am Abend rot? Erkläre es einem zehnjährigen Kind.",
    "Summarise the following text in two sentences.\n\nThe town of Harrow Bridge grew around a "
    "single mill. For almost two centuries the mill ground the wheat of every farm in the valley, "
    "and the bridge that gave the town its name was built so that carts could reach it in all "
    "seasons. When steam arrived, the owners bought an engine and kept the old wheel turning "
    "beside it, partly out of habit and partly because the river cost nothing. The engine is gone; "
    "the wheel still turns. Today it drives a small generator that lights the street along the "
    "water, and on Sundays the miller's great-granddaughter opens the doors and grinds a sack or "
    "two for visitors. She says that people come for the bread but stay for the sound.",
    "List the capital cities of France, Japan, Kenya and Peru as bullet points.",
    "A train leaves at 09:40 and travels 210 km at 84 km/h. At what time does it arrive? Think "
    "step by step.",
    "Translate into French: \"The meeting has been moved to Thursday because the room is being "
    "painted.\"",
    "Sort these words alphabetically: quartz, maple, anchor, velvet, ember, dune, island.",
    "Write a polite letter to a neighbour asking them to keep their music down after ten in the "
    "evening.",
    "用简单的语言解释什么是光合作用，并举一个日常生活中的例子。",
    "Explain the difference between a process and a thread to someone who has just learned to "
    "program.",
    "Fix the bug in this code and say what was wrong:\n\n```c\nint sum(const int* values, int n) "
    "{\n  int total;\n  for (int i = 0; i <= n; i++) total += values[i];\n  return total;\n}\n```",
    "Escribe un poema de ocho versos sobre una ciudad que despierta bajo la lluvia.",
    "Which is heavier, a kilogram of feathers or a kilogram of iron? Answer in one sentence.",
    "Extract every date and every amount of money from this message as a JSON array of objects "
    "with the keys kind and value: \"Hi Mara, the deposit of 450 euros arrived on 3 March. The "
    "second part, 1,200 euros, is due on 15 April, and the key will be ready on 1 May.\"",
    "Give me a recipe for a vegetable soup for four people, with quantities and numbered steps.",
    "東京から京都へ旅行する友人に、三日間の予定を提案してください。",
    "Write an SQL query that returns the five customers with the largest total of orders in 2024. "
    "The tables are customers(id, name) and orders(id, customer_id, placed_on, amount).",
    "Continue this sequence and say what the rule is: 2, 6, 12, 20, 30, ...",
    "Объясни, чем вулканические горы отличаются от складчатых, в трёх предложениях.",
    "You are a patient teacher. A pupil asks: why do we need fractions if we have decimals?",
    "Define the word resilience, use it in two sentences, and name one word with the opposite "
    "meaning.",
    "Rewrite this sentence so that it is formal: \"Hey, can't make it tomorrow, something came up, "
    "let's do next week instead?\"",
    "Quais são as vantagens e as desvantagens de trabalhar a partir de casa? Responde numa tabela "
    "com duas colunas.",
    "Compare bicycles and buses as means of transport in a large city. Consider cost, speed, "
    "weather, space and health, weigh the arguments against each other, and end with a "
    "recommendation for a city of half a million people with long winters.",
    "اكتب فقرة قصيرة عن أهمية القراءة للأطفال.",
    "Spell the word \"necessary\" backwards, then count its letters.",
    "Draft a regular expression that matches a 24-hour time such as 07:45 or 23:05, and list three "
    "strings it must reject.",
    "मेरे छोटे भाई को समझाइए कि चंद्रमा का आकार हर रात क्यों बदलता है।",
    "Write a dialogue between a robot that has never seen snow and a child who has never seen "
    "summer. They meet in a greenhouse. Keep it under three hundred words, and let the last line "
    "be a question.",
};

}  // namespace

std::span<const std::string_view> default_prompts() {
  return kPrompts;
}

}  // namespace tandem::quantize
