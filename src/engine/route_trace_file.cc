// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/route_trace_file.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/array_file.h"
#include "formats/names.h"
#include "formats/safetensors.h"

namespace winnow::engine {
namespace {

using experts::RouteTrace;

constexpr const char* kHeaderKey = "winnow.trace";
/// Policies hold a few numbers for each (layer, expert), whether or not a trace uses it.
constexpr std::uint64_t kMostExperts = std::uint64_t{1} << 20;

Json to_json(const RecordedTrace& trace) {
  Json json;
  json["format_version"] = kRouteTraceVersion;
  json["version"] = trace.version;
  json["architecture"] = trace.architecture;
  json["source"] = trace.source;
  json["num_hidden_layers"] = trace.routes.num_layers;
  json["num_experts"] = trace.routes.num_experts;
  json["top_k"] = trace.routes.top_k;
  json["stored_experts"] = trace.routes.stored_experts;
  return json;
}

class Reader {
 public:
  explicit Reader(std::unique_ptr<os::RandomAccessFile> file) : file_(std::move(file)) {
    arrays_ = with_context("not a trace of winnow trace",
                           [&] { return formats::parse_safetensors_header(*file_); });
    const auto texts = formats::array_file_texts(*file_);
    const auto text = texts.find(kHeaderKey);
    if (text == texts.end()) {
      fail_data("{}: is no trace of winnow trace: it has no '{}'", name(), kHeaderKey);
    }
    header_ = parse_sorted_json(text->second, name() + ": header");
    if (!header_.is_object()) fail_data("{}: the trace's header is not an object", name());
  }

  RecordedTrace read() const {
    check_version();
    RecordedTrace trace{text("version"), text("architecture"), text("source"), {}};
    read_sizes(trace.routes);
    read_layers(trace.routes);
    read_experts(trace.routes);
    read_sequences(trace.routes);
    return trace;
  }

 private:
  const std::string& name() const { return file_->name(); }

  const SortedJson& at(const char* key) const {
    const auto found = header_.find(key);
    if (found == header_.end()) fail_data("{}: the header has no '{}'", name(), key);
    return *found;
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail_data("{}: '{}' is not a text", name(), key);
    return at(key).get<std::string>();
  }
  std::uint64_t number(const char* key, std::uint64_t least, std::uint64_t most) const {
    const SortedJson& value = at(key);
    const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() >= least &&
                      value.get<std::uint64_t>() <= most;
    if (!fits) {
      fail_data("{}: '{}' is {}, expected a whole number from {} to {}", name(), key,
                value.is_number() ? value.dump() : value.type_name(), least, most);
    }
    return value.get<std::uint64_t>();
  }

  void check_version() const {
    const SortedJson& version = at("format_version");
    if (version == kRouteTraceVersion) return;
    fail_data("{}: is a trace of version {}, this program reads version {}; record it again",
              name(), version.is_number() ? version.dump() : version.type_name(),
              kRouteTraceVersion);
  }

  void read_sizes(RouteTrace& routes) const {
    routes.num_layers = static_cast<std::uint32_t>(number("num_hidden_layers", 1, kMostExperts));
    const std::uint64_t most =
        std::min<std::uint64_t>(kMostExperts / routes.num_layers, RouteTrace::kNone - 1);
    routes.num_experts = static_cast<std::uint32_t>(number("num_experts", 1, most));
    routes.top_k = static_cast<std::uint32_t>(number("top_k", 1, routes.num_experts));
    routes.stored_experts =
        number("stored_experts", 1, std::uint64_t{routes.num_layers} * routes.num_experts);
  }

  /// The array's elements, whose number the file's size bounds.
  template <typename T>
  std::vector<T> values(const char* array, std::string_view type,
                        std::vector<std::uint64_t>& shape) const {
    const auto found = std::find_if(arrays_.begin(), arrays_.end(),
                                    [&](const auto& info) { return info.name == array; });
    if (found == arrays_.end()) fail_data("{}: has no array '{}'", name(), array);
    if (found->type_name != type) {
      fail_data("{}: array '{}' is of type {}, expected {}", name(), array, found->type_name, type);
    }
    const auto dims = found->shape.dims();
    shape.assign(dims.begin(), dims.end());
    std::vector<T> values(found->size.value / sizeof(T));
    file_->read_at(found->offset, std::as_writable_bytes(std::span(values)));
    return values;
  }

  void read_layers(RouteTrace& routes) const {
    std::vector<std::uint64_t> shape;
    const auto layers = values<std::uint32_t>("layers", "U32", shape);
    require_rising(layers, routes.num_layers, "layers");
    for (const std::uint32_t layer : layers) routes.layers.push_back(LayerId{layer});
  }

  void read_sequences(RouteTrace& routes) const {
    std::vector<std::uint64_t> shape;
    routes.sequences = values<std::uint64_t>("sequences", "U64", shape);
    require_rising(routes.sequences, routes.tokens(), "sequences");
    if (routes.sequences.front() != 0) {
      fail_data("{}: the first of 'sequences' begins at token {}, expected 0", name(),
                routes.sequences.front());
    }
  }

  template <typename T>
  void require_rising(const std::vector<T>& numbers, std::uint64_t end, const char* array) const {
    bool is_rising = !numbers.empty() && numbers.back() < end;
    for (std::size_t i = 1; i < numbers.size(); ++i) {
      is_rising = is_rising && numbers[i - 1] < numbers[i];
    }
    if (is_rising) return;
    fail_data("{}: array '{}' is not a list of rising numbers below {}", name(), array, end);
  }

  void read_experts(RouteTrace& routes) const {
    std::vector<std::uint64_t> shape;
    routes.experts = values<std::uint16_t>("experts", "U16", shape);
    const bool fits = shape.size() == 3 && shape[0] > 0 && shape[1] == routes.layers.size() &&
                      shape[2] == routes.top_k;
    if (!fits) {
      fail_data("{}: array 'experts' has the shape [{}], expected [tokens, {}, {}]", name(),
                fmt::join(shape, ", "), routes.layers.size(), routes.top_k);
    }
    std::vector<std::size_t> last_row(routes.num_experts);  // 1 + the last row that named it
    for (std::size_t row = 0; row * routes.top_k < routes.experts.size(); ++row) {
      check_row(std::span(routes.experts).subspan(row * routes.top_k, routes.top_k), row, last_row);
    }
  }

  void check_row(std::span<const std::uint16_t> choices, std::size_t row,
                 std::vector<std::size_t>& last_row) const {
    bool has_ended = false;
    for (const std::uint16_t expert : choices) {
      if (expert == RouteTrace::kNone) {
        has_ended = true;
        continue;
      }
      if (has_ended || expert >= last_row.size() || last_row[expert] == row + 1) {
        fail_data("{}: row {} of 'experts' has {}, expected different numbers below {}, then {}",
                  name(), row, expert, last_row.size(), RouteTrace::kNone);
      }
      last_row[expert] = row + 1;
    }
  }

  std::unique_ptr<os::RandomAccessFile> file_;
  std::vector<formats::TensorInfo> arrays_;
  SortedJson header_;
};

}  // namespace

void write_route_trace(const std::filesystem::path& path, const RecordedTrace& trace) {
  const RouteTrace& routes = trace.routes;
  WINNOW_CHECK(routes.tokens() > 0);
  std::vector<std::uint32_t> layers;
  for (const LayerId layer : routes.layers) layers.push_back(index(layer));
  const auto sequences = std::as_bytes(std::span(routes.sequences));
  const auto layer_bytes = std::as_bytes(std::span(layers));
  const auto experts = std::as_bytes(std::span(routes.experts));
  const std::array arrays = {
      formats::PlannedArray{"sequences", "U64", {routes.sequences.size()}, sequences.size()},
      formats::PlannedArray{"layers", "U32", {layers.size()}, layer_bytes.size()},
      formats::PlannedArray{
          "experts", "U16", {routes.tokens(), layers.size(), routes.top_k}, experts.size()}};
  const std::vector<std::pair<std::string, std::string>> texts = {
      {"format", "winnow-trace"}, {kHeaderKey, dump_json(to_json(trace))}};
  os::AtomicFile file(path);
  file.append(formats::array_file_header(texts, arrays));
  for (const auto bytes : {sequences, layer_bytes, experts}) file.append(bytes);
  file.commit();
}

RecordedTrace read_route_trace(std::unique_ptr<os::RandomAccessFile> file) {
  return Reader(std::move(file)).read();
}

RecordedTrace read_route_trace(const std::filesystem::path& path) {
  return read_route_trace(os::open_file(path));
}

}  // namespace winnow::engine
