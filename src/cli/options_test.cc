// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>

#include "base/error.h"
#include "cli/reference.h"

namespace winnow::cli::options_test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// All kinds of options, as a command would declare them.
struct Values {
  std::string model;
  std::vector<std::string> data;
  std::optional<Bytes> budget;
  unsigned threads = 0;
  double temperature = 0.8;
  std::optional<int> count;
  std::string isa = "auto";
  std::optional<std::string> json;
  bool portable = false;
  std::uint64_t seed = 1;
};

class OptionsTest : public testing::Test {
 protected:
  OptionsTest() : app_("test", "test") {
    add_model(app_, values_.model);
    add_data(app_, values_.data);
    add_bytes(app_, {"--budget", "BYTES", "size of the result"}, values_.budget);
    add_threads(app_, values_.threads);
    add_real(app_, {"--temp", "T", "temperature"}, values_.temperature, 0, 10);
    add_whole(app_, {"-n,--count", "N", "tokens"}, values_.count, 1, 100);
    add_choice(app_, {"--isa", "", "instruction set"}, {"auto", "scalar"}, values_.isa);
    add_json(app_, values_.json);
    add_flag(app_, "--portable", values_.portable, "for stock readers");
    add_seed(app_, values_.seed);
  }
  void parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());
    app_.parse(arguments);
  }
  /// The message of the usage error that `arguments` cause.
  std::string refusal(const std::vector<std::string>& arguments) {
    try {
      parse(arguments);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      return error.message();
    }
    return "accepted";
  }

  Values values_;
  CLI::App app_;
};

TEST_F(OptionsTest, ReadsEveryKindOfValue) {
  parse({"m.gguf", "--budget", "2KiB", "-t", "3", "--temp", "0.5", "-n", "7", "--isa", "scalar",
         "--json", "-", "--portable", "--seed", "9223372036854775807"});
  EXPECT_EQ(values_.model, "m.gguf");
  EXPECT_EQ(values_.budget, Bytes{2048});
  EXPECT_EQ(values_.threads, 3u);
  EXPECT_EQ(values_.temperature, 0.5);
  EXPECT_EQ(values_.count, 7);
  EXPECT_EQ(values_.isa, "scalar");
  EXPECT_EQ(values_.json, "-");
  EXPECT_TRUE(values_.portable);
  EXPECT_EQ(values_.seed, 9223372036854775807u);
}

TEST_F(OptionsTest, LeavesDefaultsWhenNothingIsGiven) {
  parse({"m"});
  EXPECT_EQ(values_.temperature, 0.8);
  EXPECT_FALSE(values_.budget.has_value());
  EXPECT_EQ(values_.isa, "auto");
}

TEST_F(OptionsTest, CollectsDataFromRepeatedFlagsAndLists) {
  parse({"m", "--data", "a", "b", "--data", "c"});
  EXPECT_THAT(values_.data, ElementsAre("a", "b", "c"));
}

TEST_F(OptionsTest, TakesTheLastWhenAnOptionIsRepeated) {
  parse({"m", "-n", "1", "-n", "2"});
  EXPECT_EQ(values_.count, 2);
}

TEST_F(OptionsTest, AcceptsValuesThatBeginWithADash) {
  std::string text;
  add_text(app_, {"-p,--prompt", "TEXT", "prompt"}, text);
  parse({"m", "-p", "- a list"});
  EXPECT_EQ(text, "- a list");
}

TEST_F(OptionsTest, RefusesWrongValuesWithTheFlagAndWhatToWrite) {
  EXPECT_THAT(refusal({"m", "--budget", "8Gigs"}), HasSubstr("--budget: '8Gigs' is not a size"));
  EXPECT_EQ(refusal({"m", "-n", "0"}), "--count: '0' is not a whole number from 1 to 100");
  EXPECT_EQ(refusal({"m", "-n", "1.5"}), "--count: '1.5' is not a whole number from 1 to 100");
  EXPECT_EQ(refusal({"m", "-t", "-1"}), "--threads: '-1' is not a whole number from 0 to 1024");
  EXPECT_EQ(refusal({"m", "--temp", "nan"}), "--temp: 'nan' is not a number from 0 to 10");
  EXPECT_EQ(refusal({"m", "--temp", "1x"}), "--temp: '1x' is not a number from 0 to 10");
  EXPECT_EQ(refusal({"m", "--isa", "avx9"}), "--isa: 'avx9' is not one of: auto, scalar");
}

TEST_F(OptionsTest, DescribesItselfForHelp) {
  const CommandReference reference = describe(app_, "", "");
  EXPECT_EQ(usage_line(reference), "winnow test MODEL [options]");
  const std::string help = help_text(reference);
  EXPECT_THAT(help, HasSubstr("--temp T                      temperature (default: 0.8)\n"));
  EXPECT_THAT(help, HasSubstr("--isa auto|scalar             instruction set (default: auto)\n"));
  EXPECT_THAT(help, HasSubstr("--data PATH..."));
  EXPECT_THAT(help, HasSubstr("--portable                    for stock readers\n"));
}

}  // namespace
}  // namespace winnow::cli::options_test
