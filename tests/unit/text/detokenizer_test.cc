#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/text/real_tokenizer.h"
#include "text/utf8.h"

namespace tandem::text {
namespace {

using Ids = std::vector<int32_t>;

int32_t byte_id(int byte) {
  return 238 + byte;
}

Ids byte_ids(std::string_view bytes) {
  Ids ids;
  for (const char c : bytes) ids.push_back(byte_id(static_cast<uint8_t>(c)));
  return ids;
}

const std::string kBad(kReplacementCharacter);

TEST(Detokenizer, WaitsForTheWholeCharacter) {
  Detokenizer detokenizer(real_tokenizer(), true);
  EXPECT_EQ(detokenizer.push(467), "");
  EXPECT_TRUE(detokenizer.has_pending());
  EXPECT_EQ(detokenizer.push(381), "");
  EXPECT_EQ(detokenizer.push(409), "叫");
  EXPECT_FALSE(detokenizer.has_pending());
  EXPECT_EQ(detokenizer.push(467), "");
  EXPECT_EQ(detokenizer.push(236746), kBad + "a");
  EXPECT_EQ(detokenizer.push(478), "");
  EXPECT_EQ(detokenizer.finish(), kBad);
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, TellsWhereTheTextOfAnIdBegins) {
  Detokenizer detokenizer(real_tokenizer(), true);
  const auto num_broken = [&](int32_t id) {
    detokenizer.push(id);
    return detokenizer.num_broken();
  };
  EXPECT_EQ(num_broken(467), 0);
  EXPECT_EQ(num_broken(381), 0);
  EXPECT_EQ(num_broken(236746), 2);  // U+FFFD twice, then its own "a"
  EXPECT_EQ(num_broken(236746), 0);
  EXPECT_EQ(num_broken(467), 0);
  EXPECT_EQ(num_broken(467), 1);
  EXPECT_EQ(num_broken(381), 0);
  EXPECT_EQ(num_broken(409), 0);  // a whole character
  EXPECT_EQ(num_broken(467), 0);
  EXPECT_EQ(num_broken(byte_id(0xFF)), 1);  // two U+FFFD, of which one is its own
}

TEST(Detokenizer, BadBytesBecomeOneReplacementEach) {
  const auto decode = [](std::string_view bytes) {
    return real_tokenizer().decode(byte_ids(bytes), true);
  };
  EXPECT_EQ(decode("\xE5\x8F"), kBad + kBad);
  EXPECT_EQ(decode("\xE5\x8F\xE5\x8F\xAB"), kBad + kBad + "叫");
  EXPECT_EQ(decode("\xC3\xA9\xC3"), "é" + kBad);
  EXPECT_EQ(decode("\xED\xA0\x80"), kBad + kBad + kBad);
  EXPECT_EQ(decode("\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);
  EXPECT_EQ(decode("\xC0\x80"
                   "A"),
            kBad + kBad + "A");
  EXPECT_EQ(decode(std::string_view("\0\xF0\x9F\x98\x80", 5)), std::string_view("\0😀", 5));
}

TEST(Detokenizer, SpecialTokens) {
  EXPECT_EQ(real_tokenizer().decode(Ids{2, 105, 2364, 107}, true), "user\n");
  EXPECT_EQ(real_tokenizer().decode(Ids{2, 105, 2364, 107}, false), "<bos><|turn>user\n");
  // A skipped token does not stand between the bytes of a character; a shown one does.
  EXPECT_EQ(real_tokenizer().decode(Ids{467, 381, 105, 409}, true), "叫");
  EXPECT_EQ(real_tokenizer().decode(Ids{467, 381, 105, 409}, false),
            kBad + kBad + "<|turn>" + kBad);
}

TEST(Detokenizer, IdsOutsideTheVocabularyAreIgnored) {
  EXPECT_EQ(real_tokenizer().decode(Ids{-1, 236746, 262144, INT32_MAX, 236763}, false), "ab");
}

// The prompt is pushed first when it is echoed: what it left unfinished is not written twice.
TEST(Detokenizer, GoesOnAfterAnEchoedPromptThatEndsInsideACharacter) {
  Detokenizer detokenizer(real_tokenizer(), true);
  const std::string echo = detokenizer.push(Ids{9259, 467, 381});
  EXPECT_EQ(echo, "Hello");
  EXPECT_EQ(detokenizer.push(Ids{409, 236746}), "叫a");
}

TEST(Detokenizer, AnyGroupingGivesTheWholeTextAndWholeCharacters) {
  std::mt19937 random(11);
  for (int round = 0; round < 3000; ++round) {
    Ids ids;
    for (int i = 0; i < 24; ++i) {
      const uint32_t kind = random() % 8;
      const int32_t any = static_cast<int32_t>(random() % 262144);
      if (kind < 4) {
        ids.push_back(byte_id(static_cast<int>(random() % 256)));
      } else if (kind < 5) {
        for (const int32_t id : byte_ids("😀")) ids.push_back(id);
      } else if (kind < 6) {
        ids.push_back(106);
      } else {
        ids.push_back(any);
      }
    }
    for (const bool skip : {false, true}) {
      const std::string whole = real_tokenizer().decode(ids, skip);
      Detokenizer detokenizer(real_tokenizer(), skip);
      std::string joined;
      for (size_t at = 0; at < ids.size();) {
        const size_t count = std::min<size_t>(1 + random() % 5, ids.size() - at);
        Detokenizer copy = detokenizer;
        const std::string delta = detokenizer.push(std::span(ids).subspan(at, count));
        ASSERT_EQ(copy.push(std::span(ids).subspan(at, count)), delta);
        ASSERT_TRUE(is_valid_utf8(delta));
        joined += delta;
        at += count;
      }
      joined += detokenizer.finish();
      ASSERT_EQ(joined, whole);
    }
  }
}

}  // namespace
}  // namespace tandem::text
