// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Models whose experts vary are results of compressing, and no sources for it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/compressor.h"
#include "compress/profiler.h"
#include "formats/test_files.h"
#include "metrics/evaluation.h"
#include "model/varied_models.h"

namespace winnow::compress::varied_source_test {
namespace {

using ::testing::HasSubstr;

const quant::Codec& f16(model::Role /*role*/, LayerId /*layer*/, ExpertId /*expert*/) {
  return *quant::find_codec("F16");
}

TEST(VariedSource, IsRefusedWithTheWayOut) {
  const formats::testing::TemporaryFolder folder;
  const auto source = model::Checkpoint::open(model::testing::tiny_model("plain"));
  for (const auto& experts :
       {model::testing::every_kind(source.spec()), model::testing::shared_experts(source.spec())}) {
    const auto path = folder.path() / "varied.gguf";
    model::testing::write_varied(source, path, experts, f16);
    const auto varied = model::Checkpoint::open(path);
    Log log;
    const Error compressing = model::testing::error_of([&] {
      CompressOptions options;
      options.bits_per_weight = 4;
      compress_model(varied, folder.path() / "out.gguf", nullptr, options, log);
    });
    const Error profiling = model::testing::error_of(
        [&] { profile_model(varied, {}, folder.path() / "stats", {}, log); });
    for (const Error& error : {compressing, profiling}) {
      EXPECT_EQ(error.code(), ErrorCode::kBadData);
      EXPECT_THAT(error.what(), HasSubstr("original"));
    }
  }
}

}  // namespace
}  // namespace winnow::compress::varied_source_test
