// The official suite as an oracle: a schema is refused by name, or no instance that the suite calls
// invalid is let through, as text and as tokens.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "tests/unit/text/grammar/support.h"

namespace tandem::text {
namespace {

struct Tally {
  int schemas = 0;
  int refused = 0;
  int valid = 0;           // instances of accepted schemas that the suite calls valid
  int valid_accepted = 0;  // of these
  int invalid = 0;
  int invalid_accepted = 0;
};

// Asserted formats; what the other folders beside this one hold is about annotations.
bool asserts(const std::filesystem::path& file) {
  return file.parent_path().filename() != "optional" || file.filename() == "non-bmp-regex.json" ||
         file.filename() == "ecmascript-regex.json";
}

void check_group(const std::string& file, const Json& group, Tally& tally) {
  ++tally.schemas;
  const auto text = json_schema_grammar(group["schema"], "schema");
  if (!text) {
    ++tally.refused;
    EXPECT_TRUE(text.error().message.starts_with("schema")) << text.error().message;
    return;
  }
  const GrammarRef grammar = compile(text);
  ASSERT_NE(grammar, nullptr) << group["schema"].dump();
  for (const Json& test : group["tests"]) {
    const bool valid = test["valid"].get<bool>();
    // A format that is only an annotation in the main files is asserted here.
    const std::string instance = test["data"].dump();
    const bool accepted = grammar->matches(instance);
    const std::vector<int32_t> ids = demo_tokenizer().encode(instance, SpecialTokens::kDisabled);
    EXPECT_EQ(follows(*grammar, ids), accepted) << instance;
    ++(valid ? tally.valid : tally.invalid);
    if (accepted) ++(valid ? tally.valid_accepted : tally.invalid_accepted);
    EXPECT_FALSE(accepted && !valid)
        << file << ": " << group["description"] << ": " << test["description"] << "\n"
        << group["schema"].dump() << " lets through " << instance << "\n"
        << text->ebnf;
  }
}

TEST(JsonSchemaSuite, NothingInvalidIsAccepted) {
  const std::filesystem::path folder = TANDEM_TEST_DATA "/data/json_schema/draft2020-12";
  Tally tally;
  int num_files = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".json" || !asserts(entry.path())) continue;
    ++num_files;
    std::ifstream stream(entry.path());
    for (const Json& group : Json::parse(stream))
      check_group(entry.path().filename().string(), group, tally);
  }
  RecordProperty("schemas", tally.schemas);
  fmt::print("{} files, {} schemas, {} refused; valid: {} of {} accepted; invalid: {} of {}\n",
             num_files, tally.schemas, tally.refused, tally.valid_accepted, tally.valid,
             tally.invalid_accepted, tally.invalid);
  EXPECT_GT(num_files, 50);
  EXPECT_EQ(tally.invalid_accepted, 0);
  // Refusing everything would be no art.
  EXPECT_GT(tally.schemas - tally.refused, 150);
  EXPECT_GT(tally.valid_accepted * 2, tally.valid);
  EXPECT_GT(tally.invalid, 300);
}

}  // namespace
}  // namespace tandem::text
