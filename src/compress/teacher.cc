// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/teacher.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/statistics_file.h"
#include "metrics/distribution.h"

namespace winnow::compress {

void Teacher::add_window(const metrics::Window& window) {
  window_lengths.push_back(static_cast<std::int32_t>(window.tokens.size()));
  first_scored.push_back(static_cast<std::int32_t>(window.first_scored));
  for (const TokenId token : window.tokens) tokens.push_back(index(token));
}

void Teacher::add_logits(tensor::MatrixView<const float> logits) {
  top = std::min(kTeacherTop, logits.cols);
  std::vector<std::int32_t> order(logits.cols);
  for (std::size_t t = 0; t < logits.rows; ++t) {
    const auto row = logits.row(t);
    std::iota(order.begin(), order.end(), 0);
    const auto likelier = [&row](std::int32_t a, std::int32_t b) {
      const float at_a = row[static_cast<std::size_t>(a)];
      const float at_b = row[static_cast<std::size_t>(b)];
      return at_a != at_b ? at_a > at_b : a < b;
    };
    const auto end = order.begin() + static_cast<std::ptrdiff_t>(top);
    std::nth_element(order.begin(), end - 1, order.end(), likelier);
    std::sort(order.begin(), end, likelier);
    const double all = metrics::log_sum_exp(row);
    for (auto at = order.begin(); at != end; ++at) {
      top_tokens.push_back(*at);
      top_log_probs.push_back(static_cast<float>(double{row[static_cast<std::size_t>(*at)]} - all));
    }
    double rest = 0;
    const std::int32_t last = *(end - 1);  // the least likely of the top
    for (std::int32_t id = 0; static_cast<std::size_t>(id) < row.size(); ++id) {
      if (likelier(last, id)) rest += std::exp(double{row[static_cast<std::size_t>(id)]} - all);
    }
    rest_mass.push_back(static_cast<float>(rest));
  }
}

Bytes Teacher::memory() const {
  return {sizeof(std::int32_t) * (window_lengths.size() + first_scored.size() + tokens.size() +
                                  top_tokens.size() + top_log_probs.size() + rest_mass.size())};
}

void Teacher::write(const std::filesystem::path& path, const std::string& prefix) const {
  std::vector<StatisticsArray> arrays;
  if (!window_lengths.empty()) {
    const auto add = [&](const char* name, const char* type, std::vector<std::uint64_t> shape,
                         std::span<const std::byte> bytes) {
      arrays.push_back({prefix + name, type, std::move(shape), bytes});
    };
    const std::uint64_t positions = rest_mass.size();
    add("window_lengths", "I32", {window_lengths.size()}, std::as_bytes(std::span(window_lengths)));
    add("first_scored", "I32", {first_scored.size()}, std::as_bytes(std::span(first_scored)));
    add("tokens", "I32", {tokens.size()}, std::as_bytes(std::span(tokens)));
    add("top_tokens", "I32", {positions, top}, std::as_bytes(std::span(top_tokens)));
    add("top_log_probs", "F32", {positions, top}, std::as_bytes(std::span(top_log_probs)));
    add("rest_mass", "F32", {positions}, std::as_bytes(std::span(rest_mass)));
  }
  write_statistics(path, nullptr, arrays);
}

}  // namespace winnow::compress
