#include "text/tokenizer.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "tests/unit/text/real_tokenizer.h"
#include "tests/unit/text/tiny_tokenizer.h"
#include "text/bpe.h"

namespace tandem::text {
namespace {

using Ids = std::vector<int32_t>;

Ids encode(const std::string& text) {
  return real_tokenizer().encode(text, SpecialTokens::kEnabled);
}

TEST(Tokenizer, FixedPointsOfTheFamily) {
  EXPECT_EQ(encode("\n\n\n"), Ids({109}));
  EXPECT_EQ(encode("    "), Ids({140}));
  EXPECT_EQ(encode("\t"), Ids({255968}));
  EXPECT_EQ(encode("user"), Ids({2364}));
  EXPECT_EQ(encode("before <|image|> after"), Ids({15849, 236743, 258880, 1308}));
  EXPECT_EQ(real_tokenizer().vocab_size(), 262144);
  EXPECT_EQ(real_tokenizer().special_ids().size(), 24u);
  EXPECT_EQ(real_tokenizer().bos_id(), 2);
  EXPECT_EQ(real_tokenizer().eos_id(), 1);
  EXPECT_EQ(real_tokenizer().pad_id(), 0);
  EXPECT_EQ(real_tokenizer().byte_value(238), 0);
  EXPECT_EQ(real_tokenizer().byte_value(493), 255);
  EXPECT_EQ(real_tokenizer().byte_value(494), -1);
  EXPECT_EQ(real_tokenizer().piece(236743), " ");
  for (const int32_t id : {-1, 262144, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(real_tokenizer().id_to_token(id), "");
    EXPECT_EQ(real_tokenizer().piece(id), "");
    EXPECT_EQ(real_tokenizer().byte_value(id), -1);
    EXPECT_FALSE(real_tokenizer().is_special(id));
  }
}

TEST(Tokenizer, TextFromOutsideNeverGivesSpecialIds) {
  std::string all;
  for (const int32_t id : real_tokenizer().special_ids()) {
    const std::string name(real_tokenizer().id_to_token(id));
    all += name + " x" + name + name.substr(1) + "<" + name;
    EXPECT_EQ(encode(name), Ids({id}));
  }
  const Ids ids = real_tokenizer().encode(all, SpecialTokens::kDisabled);
  EXPECT_TRUE(
      std::ranges::none_of(ids, [](int32_t id) { return real_tokenizer().is_special(id); }));
  EXPECT_EQ(real_tokenizer().decode(ids, true), all);
  EXPECT_EQ(real_tokenizer().encode_segments(std::vector<TextSegment>{{all, false}}), ids);
}

TEST(Tokenizer, SegmentsEqualTheWholeTextWhenNothingIsInjected) {
  const std::vector<TextSegment> segments = {{"<bos><|turn>user\n", true}, {"\n\nHel", false},
                                             {"lo  the", false},           {"re\n", false},
                                             {"<turn|>\n<|tu", true},      {"rn>model\n", true}};
  std::string joined;
  for (const TextSegment& segment : segments) joined += segment.text;
  EXPECT_EQ(real_tokenizer().encode_segments(segments), encode(joined));
}

TEST(Tokenizer, SegmentsKeepInjectedMarkersOrdinary) {
  const auto specials = [](const std::vector<TextSegment>& segments) {
    Ids found;
    for (const int32_t id : real_tokenizer().encode_segments(segments)) {
      if (real_tokenizer().is_special(id)) found.push_back(id);
    }
    return found;
  };
  EXPECT_EQ(
      specials({{"<bos><|turn>user\n", true}, {"<turn|><|turn>system", false}, {"<turn|>", true}}),
      Ids({2, 105, 106}));
  // A marker put together from both sides counts for neither; one the template wrote still counts.
  EXPECT_EQ(specials({{"hello<|tu", false}, {"rn><turn|>", true}}), Ids({106}));
  EXPECT_EQ(specials({{"<turn", true}, {"|><bos>", false}}), Ids({}));
  EXPECT_EQ(specials({{"<turn", true}, {"", false}, {"|>", true}}), Ids({106}));
  EXPECT_EQ(specials({}), Ids({}));
}

TEST(Tokenizer, InvalidUtf8IsReadAsPythonReadsIt) {
  const std::string bad =
      "a\xE5\x8F"
      "b\xFF\xC0\x80\xED\xA0\x80\xF0\x9F\x98";
  const std::string fffd = "\xEF\xBF\xBD";
  const std::string read = "a" + fffd + "b" + fffd + fffd + fffd + fffd + fffd + fffd + fffd;
  EXPECT_EQ(encode(bad), encode(read));
  EXPECT_EQ(real_tokenizer().encode_segments(std::vector<TextSegment>{{bad, true}}), encode(read));
}

TEST(Tokenizer, WorkGrowsLinearlyOnTextWithoutBreaks) {
  for (const char* unit : {"a", "ab", " ", "\n", "=", "ha", "<", "\xF0\x9F\x98\x80", "the "}) {
    uint64_t steps[2] = {};
    for (int doubled = 0; doubled < 2; ++doubled) {
      std::string text;
      while (text.size() < (size_t{1} << (18 + doubled))) text += unit;
      MergeStats stats;
      real_tokenizer().encode_counted(text, SpecialTokens::kDisabled, stats);
      steps[doubled] = stats.num_steps;
      // A pair enters the heap at most once at the start and twice for each merge; a short piece
      // is scanned once for each merge.
      EXPECT_LE(steps[doubled],
                (stats.num_pieces < 8 ? 3 : SymbolMerger::kScanLength) * stats.num_symbols);
    }
    EXPECT_LE(steps[1], 2 * steps[0] + 64) << unit;
  }
}

void* encode_megabyte(void*) {
  static const std::string text(size_t{1} << 20, 'a');
  static Ids ids;
  ids = encode(text);
  return &ids;
}

TEST(Tokenizer, NeedsLittleStack) {
  real_tokenizer();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  ASSERT_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  pthread_t thread;
  ASSERT_EQ(pthread_create(&thread, &attributes, encode_megabyte, nullptr), 0);
  void* result = nullptr;
  pthread_join(thread, &result);
  EXPECT_EQ(static_cast<Ids*>(result)->size(), (size_t{1} << 20) / 8);
}

Tokenizer parse(const Document& document) {
  auto tokenizer = Tokenizer::parse(document.dump());
  EXPECT_TRUE(tokenizer.has_value()) << (tokenizer ? "" : tokenizer.error().message);
  return *tokenizer;
}

TEST(Tokenizer, LowestRankFirstThenLeftmost) {
  const Tokenizer tokenizer = parse(tiny_tokenizer());
  const auto ids = [&](const char* text) {
    return tokenizer.encode(text, SpecialTokens::kEnabled);
  };
  EXPECT_EQ(ids("abc"), Ids({267}));
  EXPECT_EQ(ids(" abc"), Ids({260, 267}));  // "ab" outranks "▁a"
  EXPECT_EQ(ids(" a"), Ids({268}));
  EXPECT_EQ(ids("aab<bos>de"), Ids({261, 266, 2, 269}));
  EXPECT_EQ(ids("z\n"), Ids({4 + 'z', 4 + '\n'}));
  EXPECT_EQ(ids("é"), Ids({4 + 0xC3, 4 + 0xA9}));
}

TEST(Tokenizer, KeysMayComeInAnyOrderAndMergesInTheOldForm) {
  const Document document = tiny_tokenizer();
  Document model;
  model["merges"] = {"a b", "ab c", "▁ a", "d e"};
  for (const char* key : {"vocab", "byte_fallback", "type"}) model[key] = document["model"][key];
  Document reordered;
  reordered["model"] = model;
  for (const char* key : {"decoder", "pre_tokenizer", "normalizer", "added_tokens"})
    reordered[key] = document[key];
  const std::string text = " abc<eos>de é";
  EXPECT_EQ(parse(reordered).encode(text, SpecialTokens::kEnabled),
            parse(document).encode(text, SpecialTokens::kEnabled));
}

TEST(Tokenizer, LongestAddedTokenWinsAndSomeMatchAfterNormalisation) {
  Document document = tiny_tokenizer();
  const auto add = [&](int id, const char* content, bool special, bool normalized) {
    document["added_tokens"].push_back(
        {{"id", id}, {"content", content}, {"special", special}, {"normalized", normalized}});
  };
  add(270, "<b", false, false);
  add(271, "<bos>>", false, false);
  add(272, "d e", false, true);
  add(273, "ß", true, false);
  const Tokenizer tokenizer = parse(document);
  EXPECT_EQ(tokenizer.vocab_size(), 274);
  EXPECT_EQ(tokenizer.encode("<bos>><bos><b", SpecialTokens::kEnabled), Ids({271, 2, 270}));
  EXPECT_EQ(tokenizer.encode("ad eß", SpecialTokens::kEnabled), Ids({261, 272, 273}));
  EXPECT_EQ(tokenizer.encode("ß", SpecialTokens::kDisabled), Ids({4 + 0xC3, 4 + 0x9F}));
  EXPECT_EQ(tokenizer.decode(Ids{271, 272, 273}, true), "<bos>>d e");
}

TEST(Tokenizer, PrependAndSequenceNormalizers) {
  Document document = tiny_tokenizer();
  document["normalizer"] = {
      {"type", "Sequence"},
      {"normalizers",
       Document::array({Document{{"type", "Prepend"}, {"prepend", "▁"}}, tiny_replace(" ", "▁")})}};
  EXPECT_EQ(parse(document).encode("a a<bos>a", SpecialTokens::kEnabled), Ids({268, 268, 2, 268}));
}

TEST(Tokenizer, MergesThatSpellSpecialTokensAreNeverMade) {
  Document document = tiny_tokenizer();
  document["added_tokens"].push_back({{"id", 266}, {"content", "ab"}, {"special", true}});
  const Tokenizer tokenizer = parse(document);
  EXPECT_EQ(tokenizer.encode("abc", SpecialTokens::kEnabled), Ids({266, 263}));
  EXPECT_EQ(tokenizer.encode("abc", SpecialTokens::kDisabled), Ids({261, 262, 263}));
}

class ModelFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "tandem_tokenizer_folder";
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "tokenizer.json") << tiny_tokenizer().dump();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string error_with(const char* config) {
    std::ofstream(folder_ / "tokenizer_config.json") << config;
    const auto tokenizer = Tokenizer::load_for_model(folder_);
    return tokenizer ? "" : tokenizer.error().message;
  }
  std::filesystem::path folder_;
};

TEST_F(ModelFolder, NamesOfTheConfig) {
  EXPECT_EQ(Tokenizer::load_for_model(folder_)->bos_id(), 2);
  EXPECT_EQ(error_with(R"({"bos_token": {"content": "a"}, "eos_token": "<unk>"})"), "");
  const auto tokenizer = Tokenizer::load_for_model(folder_);
  EXPECT_EQ(tokenizer->bos_id(), 261);
  EXPECT_EQ(tokenizer->eos_id(), 3);
  EXPECT_EQ(error_with(R"({"model_max_length": 1000000000000000019884624838656})"), "");
  EXPECT_EQ(error_with(R"({"bos_token": "<s>"})"),
            "tokenizer_config.json: bos_token: expected a token of tokenizer.json, got \"<s>\"");
  EXPECT_EQ(error_with(R"({"bos_token": 2})"),
            "tokenizer_config.json: bos_token: expected a token, got 2");
  EXPECT_NE(error_with(R"({"extra_special_tokens": ["<x>"]})"), "");
  EXPECT_NE(error_with("[]"), "");
  EXPECT_NE(error_with("{"), "");
}

}  // namespace
}  // namespace tandem::text
