// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/random_model.h"

#include <cmath>
#include <map>
#include <tuple>

#include "base/error.h"
#include "base/rng.h"
#include "speed_model/row_pool.h"
#include "speed_model/synthetic_tokenizer.h"
#include "speed_model/weight_stream.h"

namespace winnow::tools {
namespace {

using model::Role;

/// Standard deviation of a matrix's weights. 1 / sqrt(in_features) keeps the size of the input;
/// what attention and experts add to the residual stream is smaller by 1 / sqrt(2 * layers), as
/// GPT-2 begins: all together no more than the embedding, so that tokens stay different from each
/// other and the router spreads them. (With 1/2 in place of it, at 16 layers and 64 experts of
/// which 8 are chosen, one expert got 4.5 times the mean; so it is 1.5 times.)
double deviation(const SpecTensor& tensor, const model::ModelSpec& spec) {
  const double keeps_size = 1 / std::sqrt(static_cast<double>(tensor.shape.row_length()));
  switch (tensor.role) {
    case Role::kTokenEmbedding:
      return 1;
    case Role::kAttentionOutput:
    case Role::kDownProj:
    case Role::kExpertDownProj:
      return keeps_size / std::sqrt(2.0 * spec.num_hidden_layers);
    default:
      return keeps_size;
  }
}

/// Pools by role, since a row of the embedding that were also a row of a matrix would give one
/// huge product.
class Pools {
 public:
  /// All are borrowed.
  Pools(const model::ModelSpec& spec, const RandomModelOptions& options, os::ThreadPool& threads)
      : spec_(spec), rows_(options.pool_rows), seed_(options.seed), threads_(threads) {}

  const RowPool& at(const SpecTensor& tensor, const quant::Codec& codec) {
    const std::size_t cols = tensor.shape.row_length();
    const Key key{tensor.role, codec.name, cols};
    auto found = pools_.find(key);
    if (found == pools_.end()) {
      const std::uint64_t seed = seed_ + (pools_.size() + 1) * rows_;
      RowPool pool(codec, rows_, cols, deviation(tensor, spec_), seed, threads_);
      found = pools_.emplace(key, std::move(pool)).first;
    }
    return found->second;
  }

 private:
  using Key = std::tuple<Role, std::string_view, std::size_t>;
  const model::ModelSpec& spec_;
  std::size_t rows_;
  std::uint64_t seed_;
  os::ThreadPool& threads_;
  std::map<Key, RowPool> pools_;
};

/// Norms and the router: F32, no value drawn twice.
void write_values(const SpecTensor& tensor, const model::ModelSpec& spec, Rng& rng,
                  WeightStream& stream) {
  const bool router = tensor.role == Role::kRouter;
  std::vector<float> values(tensor.shape.row_length());
  const std::uint64_t rows = tensor.shape.rank() == 1 ? 1 : tensor.shape[0];
  for (std::uint64_t row = 0; row < rows; ++row) {
    for (float& value : values) {
      value = static_cast<float>(router ? deviation(tensor, spec) * rng.normal()
                                        : 1 + 0.1 * rng.normal());
    }
    stream.append(std::as_bytes(std::span(values)));
  }
}

void write_matrix(const SpecTensor& tensor, const RowPool& pool, Rng& rng, WeightStream& stream) {
  const std::uint64_t rows = tensor.parts * tensor.shape[0];
  for (std::uint64_t row = 0; row < rows; ++row) stream.append(pool.row(rng.below(pool.rows())));
}

const quant::Codec& codec_of(const SpecTensor& tensor, const RandomModelOptions& options) {
  if (!model::traits(tensor.role).is_matrix) return *quant::find_codec("F32");
  const quant::Codec* wanted = tensor.role == Role::kOutput ? options.output_codec : options.codec;
  return quant::codec_for_row(*wanted, tensor.shape.row_length());
}

}  // namespace

const quant::Codec& default_output_codec(const quant::Codec& codec) {
  return codec.bits_per_weight() < 6 ? *quant::find_codec("Q6_K") : codec;
}

void write_random_model(const std::filesystem::path& path, const model::ModelSpec& spec,
                        const RandomModelOptions& given, os::ThreadPool& threads, Log& log) {
  RandomModelOptions options = given;
  WINNOW_CHECK(options.codec != nullptr);
  if (options.output_codec == nullptr) options.output_codec = &default_output_codec(*options.codec);
  const std::vector<SpecTensor> tensors = spec_tensors(spec);
  std::vector<formats::PlannedTensor> plan;
  Bytes total;
  for (const SpecTensor& tensor : tensors) {
    plan.push_back(planned(tensor, codec_of(tensor, options)));
    total += quant::packed_size(*plan.back().codec, plan.back().shape).value();
  }
  formats::Metadata metadata =
      speed_metadata(spec, synthetic_tokenizer(spec.vocab_size), *options.codec);
  metadata.set("winnow.speed_model.seed", options.seed);
  const auto writer = formats::write_gguf(path, metadata, std::move(plan));
  WeightStream stream(*writer, total, log);
  Rng rng(options.seed);
  Pools pools(spec, options, threads);
  for (const SpecTensor& tensor : tensors) {
    if (model::traits(tensor.role).is_matrix) {
      write_matrix(tensor, pools.at(tensor, codec_of(tensor, options)), rng, stream);
    } else {
      write_values(tensor, spec, rng, stream);
    }
    stream.end_tensor();
  }
  writer->finish();
}

}  // namespace winnow::tools
