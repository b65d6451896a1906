// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The optimiser end to end on tiny models: budgets, what it says, what it leaves behind.
#include "compress/compressor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "model/exporter.h"

namespace winnow::compress::compressor_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using ::testing::ElementsAre;
using testing::file_bytes;
using ::testing::HasSubstr;
using testing::names_in;
using testing::random_windows;
using testing::TestLog;
using ::testing::UnorderedElementsAre;

model::Checkpoint tiny(const std::string& name) {
  return testing::open_tiny(WINNOW_SOURCE_DIR, name);
}

CompressOptions within(std::uint64_t bytes, unsigned threads = 1) {
  CompressOptions options;
  options.file_budget = Bytes{bytes};
  options.engine.threads = threads;
  return options;
}

CompressOptions at_bits(double bits) {
  CompressOptions options;
  options.bits_per_weight = bits;
  options.engine.threads = 1;
  return options;
}

/// The size that an impossible budget's message names.
std::uint64_t smallest_size(const std::string& message) {
  const std::string before = "possible file has ";
  return std::stoull(message.substr(message.find(before) + before.size()));
}

class Compress : public ::testing::Test {
 protected:
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  CompressResult run(const model::Checkpoint& source, const CompressOptions& options,
                     const metrics::WindowSet* text) {
    return compress_model(source, out(), text, options, log_);
  }
  std::uint64_t least(const model::Checkpoint& source) {
    return smallest_size(error_of([&] { run(source, within(1), nullptr); }, ErrorCode::kBudget));
  }
  /// Converts all matrices; the path of the file.
  std::filesystem::path write_as(const model::Checkpoint& source, const std::string& codec) {
    std::filesystem::path path = folder_.path() / (codec + ".gguf");
    model::ExportOptions options;
    options.codec = [&](model::Role, LayerId) -> const quant::Codec& {
      return *quant::find_codec(codec);
    };
    os::ThreadPool pool(1);
    model::export_model(source, path, options, pool, log_);
    return path;
  }
  TemporaryFolder folder_;
  TestLog log_;
  metrics::WindowSet text_ = random_windows(6, 30);
};

TEST_F(Compress, TheFileFitsEveryBudgetAndMoreBytesNeverPromiseMoreDivergence) {
  for (const char* name : {"plain", "dense-first"}) {
    const auto source = tiny(name);
    const std::uint64_t smallest = least(source);
    double last = INFINITY;
    std::uint64_t last_bytes = 0;
    for (std::uint64_t budget = smallest; budget < smallest + 120000; budget += 9973) {
      const CompressResult result = run(source, within(budget), &text_);
      EXPECT_LE(std::filesystem::file_size(out()), budget) << name;
      EXPECT_EQ(std::filesystem::file_size(out()), result.file_bytes.value) << name;
      const double sum = result.fit_record["predicted_kl"];  // what was minimised
      EXPECT_LE(sum, last * (1 + 1e-12)) << name << " " << budget;
      last = sum;
      last_bytes = result.file_bytes.value;
    }
    EXPECT_EQ(last, 0.0) << name << ": the last budget holds the model as it is";
    EXPECT_GT(last_bytes, smallest);
  }
}

TEST_F(Compress, ABudgetBelowTheSmallestIsRefusedWithTheSizeThatSucceeds) {
  for (const char* name : {"plain", "odd-sizes", "sparse-step-2"}) {
    const auto source = tiny(name);
    const std::uint64_t smallest = least(source);
    error_of([&] { run(source, within(smallest - 1), &text_); }, ErrorCode::kBudget);
    EXPECT_THAT(names_in(folder_.path()), ElementsAre()) << name;
    EXPECT_EQ(run(source, within(smallest), &text_).file_bytes.value, smallest) << name;
    std::filesystem::remove(out());
  }
}

TEST_F(Compress, AnImpossibleBudgetIsRefusedBeforeAnythingIsMeasured) {
  error_of([&] { run(tiny("plain"), within(1000), &text_); }, ErrorCode::kBudget);
  EXPECT_EQ(log_.asked, 0);  // no window was run, no tensor packed
}

TEST_F(Compress, BitsCountAllTensorBytesOverAllParameters) {
  const auto source = tiny("not-renormalised");
  for (const double bits : {5.2, 6.0, 8.5, 12.0}) {
    const CompressResult result = run(source, at_bits(bits), &text_);
    const auto file = formats::open_model(out());
    std::uint64_t bytes = 0;
    std::uint64_t parameters = 0;
    for (const auto& tensor : file->tensors()) {
      bytes += tensor.size.value;
      parameters += tensor.shape.elements();
    }
    EXPECT_EQ(result.tensor_bytes.value, bytes);
    EXPECT_EQ(result.num_parameters, parameters);
    EXPECT_LE(8.0 * static_cast<double>(bytes) / static_cast<double>(parameters), bits);
    // And from below within one step: no group has a better type that the rest would pay for.
    const auto all = static_cast<std::uint64_t>(bits / 8 * static_cast<double>(parameters));
    std::size_t better = 0;
    for (const TensorGroup& group : result.groups) {
      const GroupOption& chosen = group.options[group.chosen];
      for (const GroupOption& option : group.options) {
        if (!(option.predicted_kl < chosen.predicted_kl)) continue;
        ++better;
        EXPECT_GT(bytes + option.payload.value - chosen.payload.value, all)
            << group.name() << " as " << option.codec->name << " at " << bits;
      }
    }
    EXPECT_GT(better, 0U);
  }
}

TEST_F(Compress, TheBitsThatAnErrorNamesSucceed) {
  const auto source = tiny("plain");
  const std::string message =
      error_of([&] { run(source, at_bits(1), nullptr); }, ErrorCode::kBudget);
  const std::size_t end = message.find(" bits per weight");
  const double bits = std::stod(message.substr(message.rfind(' ', end - 1)));
  EXPECT_LE(8.0 * static_cast<double>(run(source, at_bits(bits), nullptr).tensor_bytes.value),
            bits * static_cast<double>(source.num_parameters()));
}

TEST_F(Compress, TheSameBytesComeOutAgainAndWithAnyNumberOfThreads) {
  const auto source = tiny("dense-first");
  const std::uint64_t budget = least(source) + 20000;
  const CompressResult first = run(source, within(budget), &text_);
  const std::string bytes = file_bytes(out());
  const Json record = to_json(first);
  for (const unsigned threads : {1U, 2U, 3U}) {
    const CompressResult again = run(source, within(budget, threads), &text_);
    EXPECT_EQ(file_bytes(out()), bytes) << threads;
    EXPECT_EQ(to_json(again), record) << threads;
  }
}

TEST_F(Compress, WithoutTextTheWeightsDecideAndNothingIsPredicted) {
  const auto source = tiny("plain");
  const std::uint64_t budget = least(source) + 20000;
  const CompressResult result = run(source, within(budget), nullptr);
  EXPECT_LE(result.file_bytes.value, budget);
  EXPECT_FALSE(result.measured.has_value());
  const Json record = to_json(result);
  EXPECT_EQ(record["calibration_tokens"], 0);
  for (const char* key : {"predicted_kl", "measured"}) EXPECT_FALSE(record.contains(key));
  for (const Json& group : record["groups"]) {
    EXPECT_FALSE(group.contains("kl_per_error"));
    for (const Json& option : group["options"]) EXPECT_FALSE(option.contains("predicted_kl"));
  }
}

TEST_F(Compress, ByStocksEncodersItMakesOnlyWhatTheyCanAndNamesTheRest) {
  const auto source = tiny("plain");
  CompressOptions options = within(least(source) + 20000);
  options.encoders = EncoderKind::kStock;
  for (const bool with_text : {true, false}) {
    log_.messages.clear();
    const CompressResult result = run(source, options, with_text ? &text_ : nullptr);
    ASSERT_EQ(log_.messages.size(), 1U);
    EXPECT_THAT(log_.messages[0], HasSubstr("MXFP4"));
    EXPECT_THAT(log_.messages[0], ::testing::Not(HasSubstr("Q4_0")));
    for (const TensorGroup& group : result.groups) {
      EXPECT_GT(group.options.size(), 3U);
      for (const GroupOption& option : group.options) EXPECT_NE(option.codec->name, "MXFP4");
    }
    EXPECT_EQ(result.measured.has_value(), with_text);
  }
}

TEST_F(Compress, TheRecordHoldsEveryOptionAndAddsUp) {
  const auto source = tiny("plain");
  const CompressResult result = run(source, within(least(source) + 30000), &text_);
  const Json record = to_json(result);
  double kl = 0;
  std::uint64_t weights = 0;
  for (const Json& group : record["groups"]) {
    weights += group["weights"].get<std::uint64_t>();
    int chosen = 0;
    for (const Json& option : group["options"]) {
      EXPECT_LE(option["tensor_bytes"], option["bytes"]);
      if (option["type"] != group["chosen"]) continue;
      ++chosen;
      kl += option["predicted_kl"].get<double>();
    }
    EXPECT_EQ(chosen, 1);
  }
  EXPECT_DOUBLE_EQ(record["predicted_kl"].get<double>(), kl * record["together"].get<double>());
  EXPECT_LT(weights, record["parameters"].get<std::uint64_t>());
  EXPECT_EQ(record["calibration_tokens"].get<int>() + record["probe_tokens"].get<int>(), 180);
  // What was measured is of the order of what was predicted; near zero both are.
  EXPECT_GT(record["measured"]["kl_divergence"], 0.0);
}

TEST_F(Compress, ASingleWindowOfTextServesForBothMomentsAndDivergence) {
  const auto source = tiny("plain");
  const auto text = random_windows(1, 40);
  const CompressResult result = run(source, within(least(source) + 20000), &text);
  EXPECT_EQ(result.calibration_tokens, 40U);
  EXPECT_EQ(result.probe_tokens, 40U);
}

TEST_F(Compress, OfTwoWindowsOneIsHeldOut) {
  const auto source = tiny("plain");
  const auto text = random_windows(2, 40);
  const CompressResult result = run(source, within(least(source) + 20000), &text);
  EXPECT_EQ(result.calibration_tokens, 40U);
  EXPECT_EQ(result.probe_tokens, 40U);
}

TEST_F(Compress, MatricesWithoutAChoiceStayAsTheyAre) {
  // BF16 weights in rows of 20 and 12: every codec falls back to 16 bits, which are there already.
  const auto odd = tiny("odd-sizes");
  const auto path = write_as(odd, "BF16");
  const auto source = model::Checkpoint::open(path);
  const std::uint64_t smallest = least(source);
  const CompressResult result = run(source, within(smallest), &text_);
  for (const TensorGroup& group : result.groups) {
    EXPECT_EQ(group.options.size(), 1U) << group.name();
    EXPECT_EQ(group.options[0].codec->name, "BF16") << group.name();
  }
  EXPECT_EQ(result.predicted_kl, 0.0);
  EXPECT_EQ(result.measured->all.kl_divergence, 0.0);
}

TEST_F(Compress, EveryTinyModelCanBeCompressed) {
  for (const char* name : {"not-renormalised", "sparse-step-2", "attention-bias", "fused-experts",
                           "sharded", "odd-sizes"}) {
    const auto source = tiny(name);
    const std::uint64_t budget = least(source) + 10000;
    const CompressResult result = run(source, within(budget), &text_);
    EXPECT_LE(std::filesystem::file_size(out()), budget) << name;
    EXPECT_GE(result.measured->all.kl_divergence, 0.0) << name;
    EXPECT_LT(result.measured->all.kl_divergence, 0.5) << name;
  }
}

TEST_F(Compress, AQuantisedFileIsCompressedFurtherWithAWarningAndKeptTensorsAreCopied) {
  const auto original = tiny("plain");
  const auto path = write_as(original, "Q8_0");
  const auto source = model::Checkpoint::open(path);

  const CompressResult all = run(source, within(1 << 30), &text_);
  ASSERT_EQ(log_.warnings.size(), 1U);
  EXPECT_THAT(log_.warnings[0], HasSubstr("quantised already"));
  EXPECT_THAT(log_.warnings[0], HasSubstr("Q8_0"));
  EXPECT_EQ(all.predicted_kl, 0.0);
  EXPECT_EQ(all.measured->all.kl_divergence, 0.0);
  EXPECT_EQ(all.tensor_bytes, source.tensor_bytes());

  const CompressResult half = run(source, within(least(source) + 8000), &text_);
  EXPECT_LT(half.tensor_bytes, source.tensor_bytes());
  EXPECT_GT(half.measured->all.kl_divergence, 0.0);
}

TEST_F(Compress, WhereverItIsStoppedItGoesOnAndWritesTheSameBytes) {
  const auto source = tiny("plain");
  const std::uint64_t budget = least(source) + 20000;
  TestLog counting;
  compress_model(source, out(), &text_, within(budget), counting);
  const std::string bytes = file_bytes(out());
  std::filesystem::remove(out());
  int kept = 0;
  for (int calls = 0; calls < counting.asked; calls += 83) {
    TestLog stop(calls);
    error_of([&] { compress_model(source, out(), &text_, within(budget), stop); },
             ErrorCode::kInterrupted);
    // Only the last step, the measuring of the finished file, finds it there.
    if (std::filesystem::exists(out())) {
      EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
      EXPECT_EQ(file_bytes(out()), bytes);
      std::filesystem::remove(out());
      continue;
    }
    const auto left = names_in(folder_.path());
    if (!left.empty()) {
      EXPECT_THAT(left, ElementsAre("out.gguf.partial"));
      ++kept;
    }
    TestLog resumed;
    compress_model(source, out(), &text_, within(budget), resumed);
    EXPECT_EQ(file_bytes(out()), bytes) << "stopped after " << calls;
    EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
    EXPECT_LE(resumed.asked, counting.asked) << "what was done is not done again";
    std::filesystem::remove(out());
  }
  EXPECT_GT(kept, 3);
}

TEST_F(Compress, AnUnfinishedRunWithOtherOptionsIsRefusedUntilToldToRestart) {
  const auto source = tiny("plain");
  CompressOptions options = within(least(source) + 20000);
  TestLog stop(500);
  error_of([&] { compress_model(source, out(), &text_, options, stop); }, ErrorCode::kInterrupted);
  ASSERT_THAT(names_in(folder_.path()), ElementsAre("out.gguf.partial"));
  options.hessians = HessianScope::kLayer;
  const std::string message = error_of([&] { run(source, options, &text_); }, ErrorCode::kUsage);
  EXPECT_THAT(message, HasSubstr("hessians"));
  EXPECT_THAT(message, HasSubstr("--restart"));
  // What a killed run with its hidden states on the disk leaves.
  const auto states = folder_.path() / "out.gguf.partial" / "states-calibration";
  std::filesystem::create_directory(states);
  std::ofstream(states / "states-00001.f32") << "old";
  options.restart = true;
  run(source, options, &text_);
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
}

TEST_F(Compress, AnotherBudgetUsesWhatAnUnfinishedRunHasMeasured) {
  const auto source = tiny("plain");
  TestLog counting, resumed;
  const CompressOptions wanted = within(least(source) + 30000);
  compress_model(source, out(), &text_, wanted, counting);
  const std::string bytes = file_bytes(out());
  std::filesystem::remove(out());
  TestLog stop(500);
  error_of([&] { compress_model(source, out(), &text_, within(least(source) + 9000), stop); },
           ErrorCode::kInterrupted);
  compress_model(source, out(), &text_, wanted, resumed);
  EXPECT_EQ(file_bytes(out()), bytes);
  EXPECT_LT(resumed.asked, counting.asked);
}

TEST_F(Compress, MeasurementsThatAreKeptServeAnotherBudget) {
  const auto source = tiny("plain");
  TestLog counting, again;
  const CompressOptions wanted = within(least(source) + 30000);
  compress_model(source, out(), &text_, wanted, counting);
  const std::string bytes = file_bytes(out());
  CompressOptions first = within(least(source) + 9000);
  first.keep_measurements = true;
  run(source, first, &text_);
  EXPECT_THAT(names_in(folder_.path()), UnorderedElementsAre("out.gguf", "out.gguf.partial"));
  EXPECT_NE(file_bytes(out()), bytes);
  compress_model(source, out(), &text_, wanted, again);
  EXPECT_EQ(file_bytes(out()), bytes);
  EXPECT_LT(again.asked, counting.asked / 2);
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf")) << "nobody asked to keep them";
}

TEST_F(Compress, EveryScopeOfHessiansGivesAFileOfTheSameSizeThatRuns) {
  const auto source = tiny("dense-first");
  CompressOptions options = within(least(source) + 20000);
  for (const HessianScope scope :
       {HessianScope::kExpert, HessianScope::kLayer, HessianScope::kDiagonal}) {
    options.hessians = scope;
    const CompressResult result = run(source, options, &text_);
    EXPECT_LE(result.file_bytes.value, options.file_budget->value) << to_string(scope);
    EXPECT_LT(result.measured->all.kl_divergence, 0.5) << to_string(scope);
  }
}

TEST_F(Compress, ALimitOfMemoryChangesNeitherTheBytesNorTheDivergence) {
  const auto source = tiny("plain");
  CompressOptions options = within(least(source) + 20000);
  const CompressResult free = run(source, options, &text_);
  const std::string bytes = file_bytes(out());
  const CompressResult limited = testing::with_least_memory([&](Bytes limit) {
    options.max_memory = limit;
    return run(source, options, &text_);
  });
  EXPECT_EQ(file_bytes(out()), bytes);
  ASSERT_TRUE(limited.measured_kl.has_value());
  EXPECT_NEAR(*limited.measured_kl, free.measured->all.kl_divergence, 1e-9);
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
}

TEST_F(Compress, ChangesOfTheLayersAreMadeInTheFileAndResume) {
  const auto source = tiny("plain");
  CompressOptions options = within(least(source) + 20000);
  options.transforms = wishes_of_names(
      "inner-order,inner-scales,value-scales,value-rotation,attention-input,ffn-input");
  options.transforms.least_gain = -1;  // whatever they bring
  TestLog counting;
  const CompressResult result = compress_model(source, out(), &text_, options, counting);
  const std::string bytes = file_bytes(out());
  EXPECT_LT(result.measured->all.kl_divergence, 0.5);
  // Norms were folded: they are not those of the source any more.
  const auto changed = model::Checkpoint::open(out());
  std::vector<float> before(source.spec().hidden_size), after(before.size());
  source.read_floats(source.at(model::Role::kFfnNorm, LayerId{1}), 0, 1, before);
  changed.read_floats(changed.at(model::Role::kFfnNorm, LayerId{1}), 0, 1, after);
  EXPECT_NE(before, after);
  std::filesystem::remove(out());
  TestLog stop(counting.asked * 3 / 4);
  error_of([&] { compress_model(source, out(), &text_, options, stop); }, ErrorCode::kInterrupted);
  options.engine.threads = 2;
  run(source, options, &text_);
  EXPECT_EQ(file_bytes(out()), bytes);
}

TEST_F(Compress, EveryChangeAloneLeavesAModelOfEnoughBitsAsItWas) {
  const auto source = tiny("plain");
  for (const char* name : {"inner-order", "inner-scales", "value-scales", "value-rotation",
                           "attention-input", "ffn-input"}) {
    CompressOptions options = within(1 << 30);  // every group stays in 16 bits
    options.transforms = wishes_of_names(name);
    options.transforms.least_gain = -1;
    const CompressResult result = run(source, options, &text_);
    EXPECT_LT(result.measured->all.kl_divergence, 1e-4) << name;
    std::filesystem::remove(out());
  }
}

TEST_F(Compress, QuantisingInSequenceIsDeterministicAndResumesToo) {
  const auto source = tiny("plain");
  CompressOptions options = within(least(source) + 20000);
  options.sequential = true;
  TestLog counting;
  compress_model(source, out(), &text_, options, counting);
  const std::string bytes = file_bytes(out());
  std::filesystem::remove(out());
  TestLog stop(counting.asked * 4 / 5);
  error_of([&] { compress_model(source, out(), &text_, options, stop); }, ErrorCode::kInterrupted);
  options.engine.threads = 3;
  run(source, options, &text_);
  EXPECT_EQ(file_bytes(out()), bytes);
}

TEST_F(Compress, AnOutputThatCannotBeCreatedIsReportedBeforeMeasuring) {
  const auto source = tiny("plain");
  const auto nowhere = folder_.path() / "absent" / "out.gguf";
  const std::string message = error_of(
      [&] { compress_model(source, nowhere, &text_, within(1 << 30), log_); }, ErrorCode::kSystem);
  EXPECT_THAT(message, HasSubstr("absent"));
  EXPECT_EQ(log_.asked, 0);
}

/// Adds a tensor that no architecture knows to a safetensors file of one shard.
void add_unknown_tensor(const std::filesystem::path& path) {
  std::string bytes = file_bytes(path);
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  Json header = parse_json(std::string_view(bytes).substr(8, length), "header");
  const std::string payload = bytes.substr(8 + length);
  header["model.layers.0.mystery.weight"] = {
      {"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {payload.size(), payload.size() + 4}}};
  const std::string text = dump_json(header);
  length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), sizeof length);
  file << text << payload << std::string(4, '\0');
}

TEST_F(Compress, ATensorThatWouldBeLostIsRefusedBeforeMeasuring) {
  const auto copy = folder_.path() / "model";
  std::filesystem::copy(tiny("plain").file().name(), copy);
  add_unknown_tensor(copy / "model.safetensors");
  const auto source = model::Checkpoint::open(copy);
  EXPECT_THAT(error_of([&] { run(source, within(1 << 30), &text_); }),
              HasSubstr("model.layers.0.mystery.weight"));
  EXPECT_EQ(log_.asked, 0);
}

TEST_F(Compress, AnExistingFileStaysUntilTheNewOneIsWhole) {
  const auto source = tiny("plain");
  std::ofstream(out()) << "precious";
  TestLog stop(60);
  error_of([&] { compress_model(source, out(), &text_, within(1 << 30), stop); },
           ErrorCode::kInterrupted);
  EXPECT_EQ(file_bytes(out()), "precious");
  EXPECT_THAT(names_in(folder_.path()), ::testing::Contains("out.gguf"));
}

}  // namespace
}  // namespace winnow::compress::compressor_test
