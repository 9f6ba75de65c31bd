// Every broken or foreign tokenizer.json is refused with one readable line.
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>

#include "tests/unit/text/tiny_tokenizer.h"
#include "text/tokenizer.h"

namespace tandem::text {
namespace {

std::string refusal(std::string_view json) {
  const auto tokenizer = Tokenizer::parse(json);
  return tokenizer ? "" : tokenizer.error().message;
}

struct BrokenPart {
  const char* name;
  std::function<void(Document&)> damage;
  std::string message;
};

// JSON pointers keep the table short: set("/model/type", "Unigram").
std::function<void(Document&)> set(const char* pointer, Document value) {
  return [=](Document& document) { document[Document::json_pointer(pointer)] = value; };
}

std::function<void(Document&)> erase(const char* parent, const char* key) {
  return [=](Document& document) { document[Document::json_pointer(parent)].erase(key); };
}

const BrokenPart kModelParts[] = {
    {"no_model", erase("", "model"), "model: expected an object, got none"},
    {"unigram", set("/model/type", "Unigram"), "model.type: expected \"BPE\", got \"Unigram\""},
    {"word_piece", set("/model/type", "WordPiece"),
     "model.type: expected \"BPE\", got \"WordPiece\""},
    {"no_type", erase("/model", "type"), "model.type: expected \"BPE\", got null"},
    {"no_vocab", erase("/model", "vocab"), "model.vocab: expected an object, got none"},
    {"no_merges", erase("/model", "merges"), "model.merges: expected an array, got none"},
    {"byte_fallback_off", set("/model/byte_fallback", false),
     "model.byte_fallback: expected true, got false"},
    {"dropout", set("/model/dropout", 0.1), "model.dropout: expected null, got 0.1"},
    {"prefix", set("/model/continuing_subword_prefix", "##"),
     "model.continuing_subword_prefix: expected null, got \"##\""},
    {"suffix", set("/model/end_of_word_suffix", "</w>"),
     "model.end_of_word_suffix: expected null, got \"</w>\""},
    {"ignore_merges", set("/model/ignore_merges", true),
     "model.ignore_merges: expected false, got true"},
    {"missing_byte", erase("/model/vocab", "<0x0A>"),
     "model.vocab: expected the 256 byte tokens of byte_fallback, got no \"<0x0A>\""},
    {"duplicate_id", set("/model/vocab/x", 261),
     "model.vocab: expected each id once, got 261 for \"a\" and \"x\""},
    {"negative_id", set("/model/vocab/x", -1),
     "model.vocab: expected ids in [0, 4194304), got -1 for \"x\""},
    {"huge_id", set("/model/vocab/x", 1LL << 40),
     "model.vocab: expected ids in [0, 4194304), got 1099511627776 for \"x\""},
    {"empty_token", set("/model/vocab/", 300),
     "model.vocab: expected tokens of valid UTF-8, got \"\" with id 300"},
    {"unknown_left", set("/model/merges/0", {"q", "a"}),
     "model.merges[0]: expected tokens of model.vocab, got \"q\""},
    {"unknown_result", set("/model/merges/1", {"a", "e"}),
     "model.merges[1]: expected tokens of model.vocab, got \"ae\""},
    {"old_form_of_one", set("/model/merges/2", "ab"),
     "model.merges[2]: expected two tokens, got \"ab\""},
    {"old_form_of_three", set("/model/merges/2", "a b c"),
     "model.merges[2]: expected two tokens, got \"a b c\""},
    {"byte_merge", set("/model/merges/0", {"<0x41>", "a"}),
     "model.merges[0]: expected ordinary tokens, got the byte token \"<0x41>\""},
};

const BrokenPart kOtherParts[] = {
    {"added_not_array", set("/added_tokens", "x"), "added_tokens: expected an array, got \"x\""},
    {"added_other_id", set("/added_tokens/2/id", 9),
     "added_tokens: expected id 2 for \"<bos>\" as in model.vocab, got 9"},
    {"added_taken_id", set("/added_tokens/2/content", "<start>"),
     "added_tokens: expected an unused id for \"<start>\", got 2, which is \"<bos>\""},
    {"added_id_range", set("/added_tokens/2/id", 4194304),
     "added_tokens[2].id: expected an id in [0, 4194304), got 4194304"},
    {"added_lstrip", set("/added_tokens/1/lstrip", true),
     "added_tokens[1] \"<eos>\": expected lstrip false, got true"},
    {"added_single_word", set("/added_tokens/1/single_word", true),
     "added_tokens[1] \"<eos>\": expected single_word false, got true"},
    {"added_normalized_special", set("/added_tokens/1/normalized", true),
     "added_tokens[1] \"<eos>\": expected a special token with normalized false, got true"},
    {"normalizer_nfkc", set("/normalizer", {{"type", "NFKC"}}),
     "normalizer: expected Replace, Prepend or a Sequence of them, got NFKC"},
    {"normalizer_regex", set("/normalizer/pattern", {{"Regex", " +"}}),
     "normalizer: expected a Replace of a literal String pattern, got pattern"},
    {"pre_tokenizer_byte_level", set("/pre_tokenizer", {{"type", "ByteLevel"}}),
     "pre_tokenizer: expected null, or a Split at a character that the normalizer removes, got "
     "ByteLevel"},
    {"pre_tokenizer_that_fires", set("/pre_tokenizer/pattern", {{"String", "a"}}),
     "pre_tokenizer: expected null, or a Split at a character that the normalizer removes, got "
     "Split"},
    {"normalizer_gone", set("/normalizer", nullptr), "pre_tokenizer: expected null"},
    {"post_processor", set("/post_processor", {{"type", "BertProcessing"}}),
     "post_processor: expected null or a TemplateProcessing that adds no token, got "
     "BertProcessing"},
    {"decoder_missing", set("/decoder", nullptr),
     "decoder: expected a Sequence of Replace, ByteFallback and Fuse, got null"},
    {"decoder_strip", set("/decoder/decoders/2", {{"type", "Strip"}}),
     "decoder: expected a Sequence of Replace, ByteFallback and Fuse, got Strip"},
    {"decoder_without_bytes", set("/decoder/decoders", Document::array()),
     "decoder: expected a Sequence of Replace, ByteFallback and Fuse, got no ByteFallback"},
};

void expect_refusals(std::span<const BrokenPart> parts) {
  for (const BrokenPart& part : parts) {
    Document document = tiny_tokenizer();
    part.damage(document);
    const std::string message = refusal(document.dump());
    EXPECT_TRUE(message.starts_with("tokenizer.json: " + part.message))
        << part.name << ": " << message;
  }
}

TEST(TokenizerRefusal, ModelParts) {
  expect_refusals(kModelParts);
}
TEST(TokenizerRefusal, OtherParts) {
  expect_refusals(kOtherParts);
}

TEST(TokenizerRefusal, NotJson) {
  EXPECT_EQ(refusal(""), "tokenizer.json: byte 0: expected '{', got the end of the file");
  EXPECT_EQ(refusal("<html>"), "tokenizer.json: byte 0: expected '{', got '<'");
  EXPECT_EQ(refusal("{\"a\": 1} x"),
            "tokenizer.json: byte 9: expected the end of the file, got 'x'");
  EXPECT_EQ(refusal("version https://git-lfs.github.com/spec/v1"),
            "tokenizer.json: expected a JSON object, got a git-lfs pointer; download the file "
            "itself");
  const std::string deep(100000, '[');
  EXPECT_EQ(refusal("{\"x\":" + deep),
            "tokenizer.json: byte 69: expected at most 64 levels, got '['");
  EXPECT_NE(refusal(deep), "");
  EXPECT_NE(refusal("{\"normalizer\": {]}}"), "");
}

TEST(TokenizerRefusal, DuplicateKeysAndBadStrings) {
  std::string text = tiny_tokenizer().dump();
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    const size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return refusal(changed.replace(at, from.size(), to));
  };
  EXPECT_EQ(with("\"b\":262", "\"a\":262"),
            "tokenizer.json: model.vocab: expected each token once, got \"a\" twice");
  EXPECT_NE(with("\"b\":262", "\"b\":262.5"), "");
  EXPECT_NE(with("\"b\":262", "\"b\":\"262\""), "");
  EXPECT_NE(with("\"b\":262", "\"\\ud800\":262"), "");
  EXPECT_NE(with("\"b\":262", "\"\xFF\":262"), "");
  EXPECT_NE(with("\"b\":262", "\"\n\":262"), "");
  EXPECT_NE(with("\"vocab\":{", "\"vocab\":[{"), "");
  EXPECT_NE(with("\"merges\":[", "\"merges\":{"), "");
  EXPECT_NE(with("[\"a\",\"b\"]", "[\"a\"]"), "");
  EXPECT_NE(with("[\"a\",\"b\"]", "[\"a\",\"b\",\"c\"]"), "");
  EXPECT_EQ(with("\"b\":262", "\"\\u0062\":262"), "");
}

// Cut anywhere, or with one byte changed, the file is refused or understood, never worse.
TEST(TokenizerRefusal, TruncatedAndDamagedBytes) {
  const std::string text = tiny_tokenizer().dump();
  for (size_t size = 0; size < text.size(); size += 1 + size / 64)
    EXPECT_NE(refusal(std::string_view(text).substr(0, size)), "") << size;
  uint32_t random = 1;
  for (int i = 0; i < 3000; ++i) {
    std::string damaged = text;
    for (int k = 0; k < 2; ++k) {
      random = random * 1664525u + 1013904223u;
      damaged[random % damaged.size()] = static_cast<char>(random >> 24);
    }
    const auto tokenizer = Tokenizer::parse(damaged);
    if (tokenizer)
      tokenizer->decode(tokenizer->encode("abc de é<bos>", SpecialTokens::kEnabled), false);
  }
}

TEST(TokenizerRefusal, Files) {
  const std::filesystem::path folder = testing::TempDir();
  EXPECT_FALSE(Tokenizer::load(folder / "no_such_folder" / "tokenizer.json").has_value());
  EXPECT_FALSE(Tokenizer::load(folder).has_value());
}

}  // namespace
}  // namespace tandem::text
