// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes GGUF v3 in one pass: the whole header is known before the first payload.
#include <fmt/format.h>

#include <bit>
#include <set>
#include <type_traits>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "formats/gguf.h"
#include "formats/names.h"
#include "formats/payload_progress.h"

namespace winnow::formats {
namespace {

// Stock readers keep tensor names in 64 bytes, the closing zero among them.
constexpr std::size_t kLongestTensorName = 63;

template <typename T>
requires std::is_arithmetic_v<T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put(std::string& out, std::string_view text) {
  put(out, std::uint64_t{text.size()});
  out.append(text);
}

void put(std::string& out, const Array& array) {
  const auto index = static_cast<std::uint32_t>(array.index());
  put(out, index < 9 ? index : index + 1);  // number 9 is the array itself
  std::visit(
      [&](const auto& elements) {
        using T = typename std::decay_t<decltype(elements)>::value_type;
        put(out, std::uint64_t{elements.size()});
        for (const auto& element : elements) {
          if constexpr (std::is_same_v<T, std::string>) {
            put(out, std::string_view(element));
          } else {
            put(out, static_cast<T>(element));  // vector<bool> yields proxies
          }
        }
      },
      array);
}

void put(std::string& out, const Value& value) {
  put(out, static_cast<std::uint32_t>(value.index()));
  std::visit(
      [&](const auto& held) {
        if constexpr (std::is_same_v<std::decay_t<decltype(held)>, std::string>) {
          put(out, std::string_view(held));
        } else {
          put(out, held);
        }
      },
      value);
}

void check_tensor(const std::filesystem::path& path, const PlannedTensor& tensor) {
  WINNOW_CHECK(tensor.codec != nullptr);
  std::string defect = name_defect(tensor.name);
  if (defect.empty() && tensor.name.size() > kLongestTensorName) {
    defect = fmt::format("is longer than the {} bytes that GGUF readers take", kLongestTensorName);
  }
  if (!defect.empty()) {
    fail_data("{}: the tensor name {} {}", path.string(), quote_name(tensor.name), defect);
  }
  for (const std::uint64_t dim : tensor.shape.dims()) {
    if (dim != 0) continue;
    fail_data("{}: tensor {} {} is empty, which GGUF has no place for", path.string(),
              quote_name(tensor.name), tensor.shape.to_string());
  }
}

std::string make_header(const std::filesystem::path& path, const Metadata& metadata,
                        const std::vector<PlannedTensor>& tensors,
                        const std::vector<std::uint64_t>& offsets) {
  constexpr std::string_view kAlignmentKey = "general.alignment";
  std::string header(kGgufMagic);
  put(header, std::uint32_t{3});
  put(header, std::uint64_t{tensors.size()});
  put(header, std::uint64_t{metadata.entries().size() - metadata.contains(kAlignmentKey)});
  for (const auto& [key, value] : metadata.entries()) {
    if (key == kAlignmentKey) continue;
    if (const std::string defect = name_defect(key); !defect.empty()) {
      fail_data("{}: the key {} {}", path.string(), quote_name(key), defect);
    }
    put(header, std::string_view(key));
    put(header, value);
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const auto dims = tensors[i].shape.dims();
    put(header, std::string_view(tensors[i].name));
    put(header, static_cast<std::uint32_t>(dims.size()));
    for (auto dim = dims.rbegin(); dim != dims.rend(); ++dim) put(header, *dim);
    put(header, tensors[i].codec->ggml_type);
    put(header, offsets[i]);
  }
  return header;
}

struct Layout {
  std::vector<std::uint64_t> offsets;  // of each payload, from the first one
  std::uint64_t end = 0;               // of the last payload's padding
};

Layout lay_out(const std::filesystem::path& path, const std::vector<PlannedPayload>& payloads) {
  Layout layout;
  for (const PlannedPayload& payload : payloads) {
    layout.offsets.push_back(layout.end);
    const auto end = checked_add(layout.end, payload.size.value);
    const auto next = end ? checked_align_up(*end, kGgufDefaultAlignment) : std::nullopt;
    if (!next) fail_data("{}: the tensors together overflow 2^64 bytes", path.string());
    layout.end = *next;
  }
  return layout;
}

class GgufWriter final : public ModelWriter {
 public:
  GgufWriter(const std::filesystem::path& path, const Metadata& metadata,
             std::vector<PlannedTensor> tensors, std::vector<std::uint64_t> offsets,
             std::vector<PlannedPayload> payloads)
      : tensors_(std::move(tensors)),
        offsets_(std::move(offsets)),
        file_(path),
        progress_(std::move(payloads)) {
    const std::string header = make_header(path, metadata, tensors_, offsets_);
    header_bytes_ = header.size();
    file_.append(header);
    pad();
  }

  void append(std::span<const std::byte> bytes) override {
    const bool tensor_is_whole = progress_.advance(bytes.size());
    file_.append(bytes);
    if (tensor_is_whole) pad();
  }

  void replace_metadata(const Metadata& metadata) override {
    const std::string header = make_header(file_.path(), metadata, tensors_, offsets_);
    WINNOW_CHECK(header.size() == header_bytes_);
    file_.overwrite(0, header);
  }

  void finish() override {
    progress_.check_finished();
    file_.commit();
  }

 private:
  void pad() {
    static constexpr std::array<std::byte, kGgufDefaultAlignment> kZeros{};
    const std::uint64_t rest = file_.position().value % kGgufDefaultAlignment;
    if (rest != 0) file_.append(std::span(kZeros).first(kGgufDefaultAlignment - rest));
  }

  const std::vector<PlannedTensor> tensors_;
  const std::vector<std::uint64_t> offsets_;  // of their payloads
  std::size_t header_bytes_ = 0;
  os::AtomicFile file_;
  PayloadProgress progress_;
};

}  // namespace

std::unique_ptr<ModelWriter> write_gguf(const std::filesystem::path& path, const Metadata& metadata,
                                        std::vector<PlannedTensor> tensors) {
  for (const PlannedTensor& tensor : tensors) check_tensor(path, tensor);
  std::vector<PlannedPayload> payloads = plan_payloads(path, tensors);
  Layout layout = lay_out(path, payloads);
  return std::make_unique<GgufWriter>(path, metadata, std::move(tensors), std::move(layout.offsets),
                                      std::move(payloads));
}

Bytes gguf_file_size(const Metadata& metadata, const std::vector<PlannedTensor>& tensors) {
  const std::filesystem::path path = metadata.source();
  const Layout layout = lay_out(path, plan_payloads(path, tensors));
  const std::string header = make_header(path, metadata, tensors, layout.offsets);
  const auto start = checked_align_up(header.size(), kGgufDefaultAlignment);
  const auto total = start ? checked_add(*start, layout.end) : std::nullopt;
  if (!total) fail_data("{}: the file would overflow 2^64 bytes", path.string());
  return {*total};
}

}  // namespace winnow::formats
