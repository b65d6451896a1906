// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::model::exporter_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using testing::EditableModel;
using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_folder;
using testing::tiny_model;

const quant::Codec& codec(std::string_view name) { return *quant::find_codec(name); }

ExportOptions keep_types(const Checkpoint& source, OutputFormat format) {
  ExportOptions options;
  options.format = format;
  options.codec = [&source](Role role, LayerId layer) -> const quant::Codec& {
    return source.at(role, layer).codec();
  };
  return options;
}

ExportOptions one_type(std::string_view name, OutputFormat format = OutputFormat::kGguf) {
  ExportOptions options;
  options.format = format;
  options.codec = [&wanted = codec(name)](Role, LayerId) -> const quant::Codec& { return wanted; };
  options.nominal_codec = &codec(name);
  return options;
}

void write(const Checkpoint& source, const std::filesystem::path& path,
           const ExportOptions& options, unsigned threads = 2) {
  os::ThreadPool pool(threads);
  Log log;
  export_model(source, path, options, pool, log);
}

std::string bytes_of(const std::filesystem::path& path) {
  return os::read_text_file(path, {1 << 24});
}

std::vector<std::byte> packed(const Checkpoint& checkpoint, const TensorRef& ref) {
  std::vector<std::byte> bytes(ref.bytes().value);
  checkpoint.read_rows(ref, 0, ref.rows, bytes);
  return bytes;
}

/// Every tensor of `a` has the same type and bytes in `b`, and the other way round.
void expect_same_weights(const Checkpoint& a, const Checkpoint& b) {
  ASSERT_EQ(a.num_parameters(), b.num_parameters());
  a.for_each_role([&](Role role, LayerId layer) {
    for (std::uint32_t part = 0; part < a.part_count(role, layer); ++part) {
      const TensorRef x = a.at(role, layer, ExpertId{part});
      const TensorRef y = b.at(role, layer, ExpertId{part});
      EXPECT_EQ(x.codec().name, y.codec().name) << x.info->name;
      EXPECT_EQ(packed(a, x), packed(b, y)) << x.info->name;
    }
  });
}

class ExporterRoundTrip : public ::testing::TestWithParam<std::string> {};

TEST_P(ExporterRoundTrip, ThroughGgufKeepsEveryTensorTheSpecAndTheTokenizer) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_folder(GetParam()));
  write(source, folder.path() / "a.gguf", keep_types(source, OutputFormat::kGguf));
  const auto gguf = Checkpoint::open(folder.path() / "a.gguf");
  write(gguf, folder.path() / "back", keep_types(gguf, OutputFormat::kSafetensors));
  const auto back = Checkpoint::open(folder.path() / "back");
  expect_same_weights(source, back);
  EXPECT_EQ(back.tokenizer_spec(), source.tokenizer_spec());
  const ModelSpec& x = source.spec();
  const ModelSpec& y = back.spec();
  EXPECT_EQ(x.moe_layers, y.moe_layers);
  EXPECT_EQ(x.moe.top_k, y.moe.top_k);
  EXPECT_EQ(x.moe.renormalize_top_k, y.moe.renormalize_top_k);
  EXPECT_EQ(x.rope_theta, y.rope_theta);
  EXPECT_EQ(x.rms_norm_eps, y.rms_norm_eps);
  EXPECT_EQ(x.attention_bias, y.attention_bias);
  EXPECT_EQ(x.attention_output_bias, y.attention_output_bias);
  EXPECT_EQ(x.tie_word_embeddings, y.tie_word_embeddings);
  EXPECT_EQ(x.max_position_embeddings, y.max_position_embeddings);
}

TEST_P(ExporterRoundTrip, FromGgufToGgufIsByteForByteTheSame) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_folder(GetParam()));
  write(source, folder.path() / "a.gguf", one_type("Q4_0"));
  const auto first = Checkpoint::open(folder.path() / "a.gguf");
  auto options = keep_types(first, OutputFormat::kGguf);
  options.nominal_codec = &codec("Q4_0");
  write(first, folder.path() / "b.gguf", options);
  EXPECT_TRUE(bytes_of(folder.path() / "a.gguf") == bytes_of(folder.path() / "b.gguf"));
}

INSTANTIATE_TEST_SUITE_P(Models, ExporterRoundTrip, ::testing::ValuesIn(testing::tiny_models()),
                         testing::test_name);

TEST(Exporter, WritesTheSameBytesOnAnyNumberOfThreads) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_model("plain"));
  write(source, folder.path() / "1.gguf", one_type("Q4_0"), 1);
  write(source, folder.path() / "3.gguf", one_type("Q4_0"), 3);
  EXPECT_TRUE(bytes_of(folder.path() / "1.gguf") == bytes_of(folder.path() / "3.gguf"));
}

TEST(Exporter, PlansTheSizeThatTheFileThenHas) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_model("odd-sizes"));
  for (const char* type : {"BF16", "Q4_0", "Q4_K"}) {
    const auto path = folder.path() / (std::string(type) + ".gguf");
    write(source, path, one_type(type));
    EXPECT_EQ(planned_file_size(source, one_type(type)).value, std::filesystem::file_size(path));
  }
}

TEST(Exporter, FallsBackWhereBlocksDoNotDivideTheRows) {
  const auto source = Checkpoint::open(tiny_model("plain"));  // rows of 32 and 64
  for (const ExportTensor& tensor : plan_export(source, one_type("Q4_K"))) {
    if (!traits(tensor.role).is_matrix) continue;
    EXPECT_EQ(tensor.planned.codec->name, "Q5_0") << tensor.planned.name;
  }
}

TEST(Exporter, KeepsNormsAndRoutersInF32InGguf) {
  const auto source = Checkpoint::open(tiny_model("plain"));
  for (const ExportTensor& tensor : plan_export(source, one_type("Q4_0"))) {
    const std::string_view expected = traits(tensor.role).is_matrix ? "Q4_0" : "F32";
    EXPECT_EQ(tensor.planned.codec->name, expected) << tensor.planned.name;
  }
}

TEST(Exporter, LeavesAVectorInF32ThatHasNoExactNarrowForm) {
  const TemporaryFolder folder;
  EditableModel model("plain");
  auto& norm = model.tensor("model.norm.weight");
  const std::vector<float> values(32, 1.0F + 0x1p-20F);
  norm.dtype = "F32";
  norm.bytes.assign(reinterpret_cast<const char*>(values.data()), 32 * sizeof(float));
  model.write(folder.path() / "m");
  const auto source = Checkpoint::open(folder.path() / "m");
  write(source, folder.path() / "a.gguf", keep_types(source, OutputFormat::kGguf));
  const auto gguf = Checkpoint::open(folder.path() / "a.gguf");
  write(gguf, folder.path() / "back", keep_types(gguf, OutputFormat::kSafetensors));
  const auto back = Checkpoint::open(folder.path() / "back");
  EXPECT_EQ(back.at(Role::kOutputNorm).codec().name, "F32");
  expect_same_weights(source, back);
}

TEST(Exporter, SaysInTheConfigurationWhichTypeTheWeightsNowHave) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_model("plain"));
  write(source, folder.path() / "f16", one_type("F16", OutputFormat::kSafetensors));
  const Json config = parse_json(bytes_of(folder.path() / "f16/config.json"), "config.json");
  EXPECT_EQ(config["torch_dtype"], "float16");
  EXPECT_EQ(config["num_experts"], 8);
}

TEST(Exporter, RefusesAQuantisedTypeInSafetensors) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_model("plain"));
  const Error error = error_of(
      [&] { write(source, folder.path() / "out", one_type("Q4_0", OutputFormat::kSafetensors)); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.message(), AllOf(HasSubstr("Q4_0"), HasSubstr(".gguf")));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(Exporter, RefusesToDropATensorThatNoRoleCovers) {
  const TemporaryFolder folder;
  EditableModel model("plain");
  model.tensors.push_back({"model.extra.weight", "F32", {2}, std::string(8, '\0')});
  model.write(folder.path() / "m");
  const auto source = Checkpoint::open(folder.path() / "m");
  const Error error =
      error_of([&] { write(source, folder.path() / "out.gguf", one_type("BF16")); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), HasSubstr("model.extra.weight"));
  EXPECT_FALSE(std::filesystem::exists(folder.path() / "out.gguf"));
}

TEST(Exporter, LeavesNothingBehindWhenTheWeightsAreDamaged) {
  const TemporaryFolder folder;
  EditableModel model("plain");
  auto& tensor = model.tensor("model.layers.1.mlp.experts.7.down_proj.weight");
  const std::uint16_t infinity = 0x7f80;  // of BF16
  std::memcpy(tensor.bytes.data(), &infinity, sizeof infinity);
  model.write(folder.path() / "m");
  const auto source = Checkpoint::open(folder.path() / "m");
  std::filesystem::create_directory(folder.path() / "out");
  const Error error =
      error_of([&] { write(source, folder.path() / "out/a.gguf", one_type("Q8_0")); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), HasSubstr(tensor.name));
  EXPECT_TRUE(std::filesystem::is_empty(folder.path() / "out"));
}

class Stopped final : public Log {
 public:
  bool stop_requested() const override { return ++questions_ > 10; }

 private:
  mutable int questions_ = 0;
};

TEST(Exporter, LeavesNothingBehindWhenItIsInterrupted) {
  const TemporaryFolder folder;
  const auto source = Checkpoint::open(tiny_model("plain"));
  os::ThreadPool pool(1);
  for (const char* name : {"a.gguf", "folder"}) {
    Stopped log;
    const bool gguf = std::string_view(name) == "a.gguf";
    const auto options = one_type("BF16", gguf ? OutputFormat::kGguf : OutputFormat::kSafetensors);
    const Error error =
        error_of([&] { export_model(source, folder.path() / name, options, pool, log); });
    EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path())) << name;
  }
}

TEST(EncodeRows, GivesImportanceToColumnsOfEveryRow) {
  // With importance on the first half only, its error must shrink.
  constexpr std::size_t kRows = 4;
  constexpr std::size_t kCols = 32;
  std::vector<float> weights(kRows * kCols);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::sin(static_cast<float>(i)) * (i % kCols < kCols / 2 ? 0.1F : 1.0F);
  }
  std::vector<float> importance(kCols, 0.0F);
  std::fill_n(importance.begin(), kCols / 2, 1.0F);
  os::ThreadPool pool(2);
  const auto error = [&](std::span<const float> with) {
    std::vector<std::byte> out(kRows * codec("Q4_0").block_bytes);
    encode_rows(codec("Q4_0"), weights, kRows, kCols, with, out, pool);
    std::vector<float> decoded(weights.size());
    codec("Q4_0").decode(out.data(), kRows, decoded.data());
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (i % kCols < kCols / 2) sum += std::pow(double{decoded[i]} - weights[i], 2);
    }
    return sum;
  };
  EXPECT_LT(error(importance), 0.5 * error({}));
}

}  // namespace
}  // namespace winnow::model::exporter_test
