// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes importance matrices that llama.cpp's quantiser reads.
#include <algorithm>
#include <limits>

#include "base/checked.h"
#include "base/error.h"
#include "formats/imatrix.h"
#include "quant/codec.h"

namespace winnow::formats {
namespace {

/// Checks that calls follow the plan.
class Plan {
 public:
  explicit Plan(std::vector<PlannedImportance> planned) : planned_(std::move(planned)) {}
  const PlannedImportance& next(std::size_t sums, std::size_t counts) {
    WINNOW_CHECK(next_ < planned_.size());
    const PlannedImportance& plan = planned_[next_++];
    WINNOW_CHECK(counts == plan.matrices && sums == plan.matrices * plan.columns);
    return plan;
  }
  void check_finished() const { WINNOW_CHECK(next_ == planned_.size()); }
  const std::vector<PlannedImportance>& all() const { return planned_; }

 private:
  std::vector<PlannedImportance> planned_;
  std::size_t next_ = 0;
};

std::vector<PlannedTensor> tensors_of(const std::vector<PlannedImportance>& planned) {
  const quant::Codec* codec = quant::find_codec("F32");
  std::vector<PlannedTensor> tensors;
  for (const PlannedImportance& plan : planned) {
    tensors.push_back({plan.name + ".in_sum2", codec, {plan.matrices, plan.columns}});
    tensors.push_back({plan.name + ".counts", codec, {plan.matrices, 1}});
  }
  return tensors;
}

Metadata metadata_of(const std::filesystem::path& path, const ImatrixInfo& info) {
  Metadata metadata(path.string());
  metadata.set("general.type", std::string("imatrix"));
  metadata.set("imatrix.datasets", Array(info.datasets));
  metadata.set("imatrix.chunk_count", info.chunk_count);
  metadata.set("imatrix.chunk_size", info.chunk_size);
  return metadata;
}

class GgufForm final : public ImatrixWriter {
 public:
  GgufForm(const std::filesystem::path& path, const ImatrixInfo& info, Plan plan)
      : plan_(std::move(plan)),
        file_(write_gguf(path, metadata_of(path, info), tensors_of(plan_.all()))) {}

  void append(std::span<const double> sums, std::span<const std::uint64_t> counts) override {
    plan_.next(sums.size(), counts.size());
    append_as_floats(sums);
    append_as_floats(counts);
  }
  void finish() override { file_->finish(); }

 private:
  template <typename T>
  void append_as_floats(std::span<const T> values) {
    std::vector<float> floats(values.size());
    std::transform(values.begin(), values.end(), floats.begin(),
                   [](T value) { return static_cast<float>(value); });
    file_->append(std::as_bytes(std::span(floats)));
  }

  Plan plan_;
  std::unique_ptr<ModelWriter> file_;
};

class BinaryForm final : public ImatrixWriter {
 public:
  BinaryForm(const std::filesystem::path& path, ImatrixInfo info, Plan plan)
      : plan_(std::move(plan)), info_(std::move(info)), file_(path) {
    for (const PlannedImportance& entry : plan_.all()) {
      const auto values = checked_mul(entry.matrices, entry.columns);
      if (values) number(*values);  // refused before anything is computed
    }
    put(number(plan_.all().size()));
  }

  void append(std::span<const double> sums, std::span<const std::uint64_t> counts) override {
    const PlannedImportance& plan = plan_.next(sums.size(), counts.size());
    const std::uint64_t chunk = std::max<std::uint64_t>(info_.chunk_size, 1);
    const std::uint64_t most = *std::max_element(counts.begin(), counts.end());
    const std::uint64_t chunks = std::max<std::uint64_t>((most + chunk - 1) / chunk, 1);
    std::vector<float> values(sums.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint64_t count = counts[i / plan.columns];
      const double mean = count == 0 ? 1.0 : sums[i] / static_cast<double>(count);
      values[i] = static_cast<float>(mean * static_cast<double>(chunks));
    }
    put(plan.name);
    put(number(chunks));
    put(number(values.size()));
    file_.append(std::as_bytes(std::span(values)));
  }

  void finish() override {
    plan_.check_finished();
    put(number(info_.chunk_count));
    put(info_.datasets.empty() ? std::string() : info_.datasets.back());
    file_.commit();
  }

 private:
  std::int32_t number(std::uint64_t value) const {
    if (value <= std::uint64_t{std::numeric_limits<std::int32_t>::max()}) {
      return static_cast<std::int32_t>(value);
    }
    fail(ErrorCode::kUsage,
         "{}: the binary form of importance matrices counts to 2^31, not to {}; give the file a "
         "name that ends in .gguf",
         file_.path().string(), value);
  }
  void put(std::int32_t value) { file_.append(std::as_bytes(std::span(&value, 1))); }
  void put(const std::string& text) {
    put(number(text.size()));
    file_.append(text);
  }

  Plan plan_;
  ImatrixInfo info_;
  os::AtomicFile file_;
};

}  // namespace

std::unique_ptr<ImatrixWriter> write_imatrix(const std::filesystem::path& path, ImatrixForm form,
                                             const ImatrixInfo& info,
                                             std::vector<PlannedImportance> planned) {
  WINNOW_CHECK(!planned.empty());
  Plan plan(std::move(planned));
  if (form == ImatrixForm::kGguf) return std::make_unique<GgufForm>(path, info, std::move(plan));
  return std::make_unique<BinaryForm>(path, info, std::move(plan));
}

}  // namespace winnow::formats
