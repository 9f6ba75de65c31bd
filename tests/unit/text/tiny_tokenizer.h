// A tokenizer.json of the family's schema, small enough to break in a test.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>

namespace tandem::text {

using Document = nlohmann::ordered_json;

inline Document tiny_replace(const char* pattern, const char* content) {
  return {{"type", "Replace"}, {"pattern", {{"String", pattern}}}, {"content", content}};
}

// Ids: 0..3 <pad> <eos> <bos> <unk>, 4..259 bytes, then "▁" 260, "a".."e" 261..265, merged tokens
// "ab" 266, "abc" 267, "▁a" 268, "de" 269.
inline Document tiny_tokenizer() {
  Document vocab, added = Document::array();
  int id = 0;
  for (const char* name : {"<pad>", "<eos>", "<bos>", "<unk>"}) {
    added.push_back({{"id", id},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
    vocab[name] = id++;
  }
  for (int byte = 0; byte < 256; ++byte) vocab[fmt::format("<0x{:02X}>", byte)] = id++;
  for (const char* text : {"▁", "a", "b", "c", "d", "e", "ab", "abc", "▁a", "de"})
    vocab[text] = id++;
  Document document;
  document["version"] = "1.0";
  document["truncation"] = nullptr;
  document["padding"] = nullptr;
  document["added_tokens"] = added;
  document["normalizer"] = tiny_replace(" ", "▁");
  document["pre_tokenizer"] = {{"type", "Split"},
                               {"pattern", {{"String", " "}}},
                               {"behavior", "MergedWithPrevious"},
                               {"invert", false}};
  document["post_processor"] = nullptr;
  document["decoder"] = {
      {"type", "Sequence"},
      {"decoders", Document::array({tiny_replace("▁", " "), Document{{"type", "ByteFallback"}},
                                    Document{{"type", "Fuse"}}})}};
  Document& model = document["model"];
  model["type"] = "BPE";
  model["dropout"] = nullptr;
  model["unk_token"] = "<unk>";
  model["continuing_subword_prefix"] = nullptr;
  model["end_of_word_suffix"] = nullptr;
  model["fuse_unk"] = true;
  model["byte_fallback"] = true;
  model["ignore_merges"] = false;
  model["vocab"] = vocab;
  model["merges"] = Document::array({{"a", "b"}, {"ab", "c"}, {"▁", "a"}, {"d", "e"}});
  return document;
}

}  // namespace tandem::text
