// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// MoE-Infinity's cache (Xue et al.: arXiv:2401.14361): a text uses few of the experts, though all
// texts together use all. The uses of each text, a matrix [layers, experts], are kept; the former
// text nearest to the present one says what comes. The likeness is the cosine over the rows that
// the pass has reached; layer l + d of the prediction counts 1 - d / (layers + 1).
// Two differences: layers already passed count as those of the next token, instead of nothing, and
// the present text's own uses are added to the former's, which matters once it is long.
#include <algorithm>
#include <cmath>

#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

struct Options {
  std::size_t texts = 120;       ///< former texts that are remembered, >= 1; the paper's number
  double unused_worth = 0.0001;  ///< of an expert that neither text used, as a share of a row
};

/// A former text, and how it compares with the present one so far.
struct FormerText {
  std::vector<float> uses;           // [num_keys]
  std::vector<double> row_sums;      // [num_layers]
  std::vector<double> row_squares;   // [num_layers]
  std::vector<double> row_products;  // [num_layers], with the present text
  double squares = 0;                // over the rows that the pass has reached
  double products = 0;
};

class SequenceMatching final : public CachePolicy {
 public:
  SequenceMatching(const CacheShape& shape, const Options& options)
      : shape_(shape), options_(options), residents_(shape) {
    forget_present();
  }

  void begin_sequence() override {
    if (std::any_of(own_.begin(), own_.end(), [](float uses) { return uses > 0; })) remember();
    forget_present();
  }
  void begin_pass() override {
    own_squares_ = 0;
    for (FormerText& text : texts_) text.squares = text.products = 0;
    nearest_ = nullptr;
  }
  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    now_ = index(layer);
    for (const ExpertId expert : experts) use({layer, expert});
    own_squares_ += own_row_squares_[now_];
    for (FormerText& text : texts_) {
      text.squares += text.row_squares[now_];
      text.products += text.row_products[now_];
    }
    find_nearest();
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override { residents_.erase(key); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    return residents_.lowest(locked, [&](ExpertKey key) { return worth(key); });
  }

 private:
  void forget_present() {
    own_.assign(shape_.num_keys(), 0);
    own_row_sums_.assign(shape_.num_layers, 0);
    own_row_squares_.assign(shape_.num_layers, 0);
    for (FormerText& text : texts_) text.row_products.assign(shape_.num_layers, 0);
    begin_pass();
  }

  /// Once it is full, the text most like the present makes room, so that what is kept stays varied.
  void remember() {
    FormerText present{own_, own_row_sums_, own_row_squares_, {}, 0, 0};
    if (texts_.size() < options_.texts) {
      texts_.push_back(std::move(present));
      return;
    }
    const auto whole = [&](FormerText& text) {
      text.squares = text.products = 0;
      for (std::uint32_t l = 0; l < shape_.num_layers; ++l) {
        text.squares += text.row_squares[l];
        text.products += text.row_products[l];
      }
    };
    for (FormerText& text : texts_) whole(text);
    *std::max_element(texts_.begin(), texts_.end(), [](const FormerText& a, const FormerText& b) {
      return likeness(a) < likeness(b);
    }) = std::move(present);
  }

  void use(ExpertKey key) {
    const std::size_t number = shape_.number(key);
    const std::uint32_t row = index(key.layer);
    own_row_squares_[row] += 2 * double{own_[number]} + 1;
    own_row_sums_[row] += 1;
    own_[number] += 1;
    for (FormerText& text : texts_) text.row_products[row] += text.uses[number];
  }

  /// The cosine but for the present text's norm, which is the same for all.
  static double likeness(const FormerText& text) {
    return text.squares > 0 ? text.products / std::sqrt(text.squares) : 0;
  }
  void find_nearest() {
    nearest_ = nullptr;
    double best = 0;
    for (const FormerText& text : texts_) {
      if (!(likeness(text) > best)) continue;
      best = likeness(text);
      nearest_ = &text;
    }
    cosine_ = own_squares_ > 0 ? best / std::sqrt(own_squares_) : 0;
  }

  double worth(ExpertKey key) const {
    const std::size_t number = shape_.number(key);
    const std::uint32_t row = index(key.layer);
    double share = options_.unused_worth;
    if (own_row_sums_[row] > 0) share += own_[number] / own_row_sums_[row];
    if (nearest_ != nullptr && nearest_->row_sums[row] > 0) {
      share += cosine_ * nearest_->uses[number] / nearest_->row_sums[row];
    }
    return share * layer_decay(row);
  }
  double layer_decay(std::uint32_t layer) const {
    const double until = layer > now_ ? layer - now_ : layer + shape_.num_layers - now_;
    return 1 - until / (shape_.num_layers + 1.0);
  }

  CacheShape shape_;
  Options options_;
  ResidentKeys residents_;
  std::vector<FormerText> texts_;
  const FormerText* nearest_ = nullptr;  // among texts_
  double cosine_ = 0;                    // with the nearest
  std::vector<float> own_;               // [num_keys], of the present text
  std::vector<double> own_row_sums_;     // [num_layers]
  std::vector<double> own_row_squares_;  // [num_layers]
  double own_squares_ = 0;               // over the rows that the pass has reached
  std::uint32_t now_ = 0;                // the layer of the last request
};

}  // namespace

extern const PolicyEntry kSequenceMatching{
    "sequence-matching", "MoE-Infinity, arXiv:2401.14361",
    [](const CacheShape& shape, std::uint64_t) {
      return std::unique_ptr<CachePolicy>(new SequenceMatching(shape, Options{}));
    }};

}  // namespace winnow::experts
