// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_hessians.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <utility>

#include "compress/testing.h"

namespace winnow::compress::layer_hessians_test {
namespace {

using engine::Site;

constexpr LayerId kLayer{0};
constexpr std::array kSites = {Site::kAttentionInput, Site::kAttentionInner, Site::kExpertInput,
                               Site::kExpertInner};

class LayerHessians : public ::testing::Test {
 protected:
  using Seen = std::map<std::pair<Site, ExpertId>, std::vector<double>>;

  /// Every matrix that is visited, of the calibration and of the held-out text.
  Seen seen(const LayerHessianOptions& options) {
    WindowStream calibration(batches_, source_.spec().hidden_size, "");
    WindowStream held_out(held_out_batches_, source_.spec().hidden_size, "");
    calibration.embed(runner_, nullptr, log_);
    held_out.embed(runner_, nullptr, log_);
    Seen all;
    visit_layer_hessians(runner_, source_.spec(), kLayer, kSites, {calibration, &held_out}, options,
                         log_, [&](Site site, ExpertId expert, PreparedHessian& hessian) {
                           auto& values = all[{site, expert}];
                           EXPECT_TRUE(values.empty()) << "visited twice";
                           append(hessian.calibration(), values);
                           append(hessian.judge(), values);
                         });
    return all;
  }
  static void append(const Hessian& hessian, std::vector<double>& values) {
    for (std::size_t i = 0; i < hessian.size(); ++i) {
      for (std::size_t j = 0; j <= i; ++j) values.push_back(hessian.at(i, j));
    }
  }

  /// Of one expert's sums, of both texts.
  std::uint64_t bytes_of_an_expert() const {
    return 2 * (hessian_bytes(source_.spec(), Site::kExpertInput).value +
                hessian_bytes(source_.spec(), Site::kExpertInner).value);
  }

  testing::TestLog log_;
  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  metrics::WindowSet text_ = testing::random_windows(3, 40);
  metrics::WindowSet other_ = testing::random_windows(2, 40, 2);
  engine::LayerRunner runner_{source_, {2, ""}};
  WindowBatches batches_{text_.windows, 100};
  WindowBatches held_out_batches_{other_.windows, 100};
};

TEST_F(LayerHessians, EveryLimitOfMemoryGivesTheSameMatricesEachOnce) {
  runner_.load(kLayer);
  for (const HessianScope scope : {HessianScope::kExpert, HessianScope::kLayer}) {
    LayerHessianOptions options;
    options.scope = scope;
    const Seen all = seen(options);
    const std::size_t experts = source_.spec().moe.num_experts;
    ASSERT_EQ(all.size(), 2 + 2 * experts);
    // From less than one expert needs to more than everything does: also where the experts fit and
    // the layer's other sums do not fit beside them.
    const std::uint64_t step = bytes_of_an_expert() / 3;
    for (std::uint64_t limit = 0; limit < (experts + 4) * bytes_of_an_expert(); limit += step) {
      options.memory = Bytes{limit};
      for (const bool ahead : {false, true}) {
        options.run_ahead = ahead;
        EXPECT_EQ(seen(options), all) << limit << " bytes";
      }
    }
  }
}

}  // namespace
}  // namespace winnow::compress::layer_hessians_test
