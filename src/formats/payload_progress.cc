// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/payload_progress.h"

#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "formats/names.h"

namespace winnow::formats {

std::vector<PlannedPayload> plan_payloads(const std::filesystem::path& path,
                                          std::span<const PlannedTensor> tensors) {
  std::vector<PlannedPayload> payloads;
  std::set<std::string_view> names;
  for (const PlannedTensor& tensor : tensors) {
    WINNOW_CHECK(tensor.codec != nullptr);
    if (!names.insert(tensor.name).second) {
      fail_data("{}: tensor {} is to be written twice", path.string(), quote_name(tensor.name));
    }
    const auto size = quant::packed_size(*tensor.codec, tensor.shape);
    if (!size) {
      fail_data(
          "{}: tensor {} {} cannot be stored as {}: its rows do not divide into blocks of {}, "
          "or it is too large",
          path.string(), quote_name(tensor.name), tensor.shape.to_string(), tensor.codec->name,
          tensor.codec->block_size);
    }
    payloads.push_back({tensor.name, *size});
  }
  return payloads;
}

PayloadProgress::PayloadProgress(std::vector<PlannedPayload> payloads)
    : payloads_(std::move(payloads)) {
  skip_empty();
}

void PayloadProgress::skip_empty() {
  while (current_ < payloads_.size() && payloads_[current_].size.value == 0) ++current_;
}

bool PayloadProgress::advance(std::uint64_t bytes) {
  if (bytes == 0) return false;
  if (current_ == payloads_.size()) {
    fail(ErrorCode::kInternal, "{} bytes were written after the last planned tensor", bytes);
  }
  const PlannedPayload& tensor = payloads_[current_];
  if (bytes > tensor.size.value - written_) {
    fail(ErrorCode::kInternal, "tensor {}: {} bytes were written after {} of the {} planned",
         quote_name(tensor.name), bytes, written_, tensor.size.value);
  }
  written_ += bytes;
  if (written_ < tensor.size.value) return false;
  ++current_;
  written_ = 0;
  skip_empty();
  return true;
}

void PayloadProgress::check_finished() const {
  if (current_ == payloads_.size()) return;
  fail(ErrorCode::kInternal, "tensor {}: only {} of {} planned bytes were written",
       quote_name(payloads_[current_].name), written_, payloads_[current_].size.value);
}

}  // namespace winnow::formats
