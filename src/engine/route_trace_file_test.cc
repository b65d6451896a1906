// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/route_trace_file.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "formats/array_file.h"
#include "formats/test_files.h"

namespace winnow::engine::route_trace_file_test {
namespace {

using experts::RouteTrace;
using formats::testing::memory_file;
using formats::testing::TemporaryFolder;

constexpr std::uint16_t kNone = RouteTrace::kNone;

/// A trace as it lies in a file, of which a test makes a part wrong: three tokens of two texts, two
/// of three layers have experts, of which a token uses two.
struct Parts {
  Json header = {{"format_version", 1},
                 {"version", "0.1.0"},
                 {"architecture", "qwen3moe"},
                 {"source", "tiny:0123"},
                 {"num_hidden_layers", 3},
                 {"num_experts", 8},
                 {"top_k", 2},
                 {"stored_experts", 16}};
  std::vector<std::uint64_t> sequences = {0, 2};
  std::vector<std::uint32_t> layers = {0, 2};
  std::vector<std::uint16_t> experts = {1, 7, 4, kNone, 0, 2, 3, 1, kNone, kNone, 5, 6};
  std::vector<std::uint64_t> shape = {3, 2, 2};
  std::string type = "U16";

  std::string bytes() const {
    const std::vector<formats::PlannedArray> arrays = {
        {"sequences", "U64", {sequences.size()}, sequences.size() * 8},
        {"layers", "U32", {layers.size()}, layers.size() * 4},
        {"experts", type, shape, experts.size() * 2}};
    const std::vector<std::pair<std::string, std::string>> texts = {
        {"winnow.trace", dump_json(header)}};
    std::string file = formats::array_file_header(texts, arrays);
    append(file, sequences);
    append(file, layers);
    append(file, experts);
    return file;
  }
  template <typename T>
  static void append(std::string& file, const std::vector<T>& values) {
    file.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
  }
};

RecordedTrace read(const Parts& parts) { return read_route_trace(memory_file("t", parts.bytes())); }

void expect_refused(const Parts& parts, std::string_view words) {
  try {
    read(parts);
    FAIL() << "accepted; expected " << words;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_NE(error.message().find(words), std::string::npos) << error.message();
    EXPECT_EQ(error.message().find("t: "), 0U) << error.message();
  }
}

TEST(RouteTraceFile, HoldsWhatWasWritten) {
  const TemporaryFolder folder;
  const RecordedTrace before = read(Parts{});
  write_route_trace(folder.path() / "trace", before);
  const RecordedTrace after = read_route_trace(folder.path() / "trace");
  EXPECT_EQ(after.source, "tiny:0123");
  EXPECT_EQ(after.architecture, "qwen3moe");
  EXPECT_EQ(after.routes.num_layers, 3U);
  EXPECT_EQ(after.routes.num_experts, 8U);
  EXPECT_EQ(after.routes.top_k, 2U);
  EXPECT_EQ(after.routes.stored_experts, 16U);
  EXPECT_EQ(after.routes.tokens(), 3U);
  EXPECT_EQ(after.routes.layers, before.routes.layers);
  EXPECT_EQ(after.routes.sequences, before.routes.sequences);
  EXPECT_EQ(after.routes.experts, before.routes.experts);
}

TEST(RouteTraceFile, RefusesSizesThatCannotBe) {
  const std::vector<std::tuple<std::string, Json, std::string>> wrong = {
      {"format_version", 2, "version 2"},
      {"num_hidden_layers", 0, "'num_hidden_layers' is 0"},
      {"num_hidden_layers", std::uint64_t{1} << 40, "'num_hidden_layers'"},
      {"num_experts", 400000, "'num_experts' is 400000"},
      {"num_experts", "many", "'num_experts' is string"},
      {"top_k", 9, "'top_k' is 9, expected a whole number from 1 to 8"},
      {"top_k", -1, "'top_k' is -1"},
      {"stored_experts", 25, "'stored_experts'"},
      {"source", 3, "'source' is not a text"},
  };
  for (const auto& [key, value, words] : wrong) {
    Parts parts;
    parts.header[key] = value;
    expect_refused(parts, words);
  }
  Parts parts;
  parts.header.erase("top_k");
  expect_refused(parts, "has no 'top_k'");
}

TEST(RouteTraceFile, RefusesArraysThatDoNotFit) {
  Parts parts;
  parts.shape = {3, 4};
  expect_refused(parts, "shape [3, 4], expected [tokens, 2, 2]");
  parts = {};
  parts.shape = {0, 2, 2};
  parts.experts.clear();
  expect_refused(parts, "shape [0, 2, 2]");
  parts = {};
  parts.type = "I16";
  expect_refused(parts, "type I16, expected U16");
  parts = {};
  parts.layers = {0, 3};
  expect_refused(parts, "'layers' is not a list of rising numbers below 3");
  parts = {};
  parts.layers = {2, 0};
  expect_refused(parts, "'layers'");
  parts = {};
  parts.layers.clear();
  expect_refused(parts, "'layers'");
}

TEST(RouteTraceFile, RefusesTextsThatAreNotInOrder) {
  for (const auto& sequences :
       std::vector<std::vector<std::uint64_t>>{{}, {0, 3}, {0, 0}, {0, 2, 1}, {~0ULL}}) {
    Parts parts;
    parts.sequences = sequences;
    expect_refused(parts, "'sequences' is not a list of rising numbers below 3");
  }
  Parts parts;
  parts.sequences = {1};
  expect_refused(parts, "begins at token 1");
}

TEST(RouteTraceFile, RefusesChoicesThatAreNone) {
  for (const auto& [place, expert] :
       std::vector<std::pair<std::size_t, std::uint16_t>>{{1, 1}, {1, 8}, {8, 65534}, {9, 3}}) {
    Parts parts;
    parts.experts[place] = expert;
    expect_refused(parts, "expected different numbers below 8, then 65535");
  }
}

TEST(RouteTraceFile, RefusesOtherFiles) {
  const std::string whole = Parts{}.bytes();
  for (const std::string& bytes :
       {std::string(), std::string("text"), whole.substr(0, whole.size() - 1)}) {
    try {
      read_route_trace(memory_file("t", bytes));
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadData);
      EXPECT_NE(error.message().find("not a trace of winnow trace"), std::string::npos);
    }
  }
  try {
    read_route_trace(memory_file("t", formats::array_file_header({}, {})));
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.message().find("has no 'winnow.trace'"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::engine::route_trace_file_test
