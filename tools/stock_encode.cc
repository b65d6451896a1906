// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// stock_encode: rows of weights as the encoders with llama.cpp's bytes make them, for the peer test
// that compares the two.
//
//     stock_encode TYPE COLUMNS [IMPORTANCE] < weights > blocks
//
// Weights and importances are f32. IMPORTANCE is a file of one row for each matrix; all matrices
// have equally many rows.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "quant/stock_encoders.h"

namespace winnow::tools {
namespace {

std::vector<float> read_floats(std::istream& stream) {
  const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

std::vector<std::byte> encode(const quant::Codec& codec, const std::vector<float>& weights,
                              std::size_t columns, const std::vector<float>& importance) {
  const quant::EncodeRow encode_row = quant::find_stock_encoder(codec);
  if (encode_row == nullptr) fail(ErrorCode::kUsage, "{} has no such encoder", codec.name);
  const std::size_t rows = weights.size() / columns;
  const std::size_t matrices = importance.size() / columns;
  if (columns % codec.block_size != 0 || weights.size() != rows * columns ||
      importance.size() != matrices * columns || (matrices > 0 && rows % matrices != 0)) {
    fail(ErrorCode::kUsage, "{} weights and {} importances are no whole rows of {} columns",
         weights.size(), importance.size(), columns);
  }
  const std::size_t blocks = columns / codec.block_size;
  std::vector<std::byte> out(rows * blocks * codec.block_bytes);
  for (std::size_t r = 0; r < rows; ++r) {
    const float* of_row =
        matrices == 0 ? nullptr : importance.data() + r / (rows / matrices) * columns;
    encode_row(weights.data() + r * columns, blocks, of_row,
               out.data() + r * blocks * codec.block_bytes);
  }
  return out;
}

void run(int argc, char** argv) {
  if (argc < 3) fail(ErrorCode::kUsage, "stock_encode TYPE COLUMNS [IMPORTANCE]");
  const quant::Codec* codec = quant::find_codec(argv[1]);
  if (codec == nullptr) fail(ErrorCode::kUsage, "there is no type '{}'", argv[1]);
  const std::size_t columns = std::strtoull(argv[2], nullptr, 10);
  if (columns == 0) fail(ErrorCode::kUsage, "'{}' is no number of columns", argv[2]);
  std::vector<float> importance;
  if (argc > 3) {
    std::ifstream file(argv[3], std::ios::binary);
    importance = read_floats(file);
    if (importance.empty()) fail(ErrorCode::kBadData, "{}: has no importances", argv[3]);
  }
  const auto out = encode(*codec, read_floats(std::cin), columns, importance);
  std::cout.write(reinterpret_cast<const char*>(out.data()),
                  static_cast<std::streamsize>(out.size()));
}

}  // namespace
}  // namespace winnow::tools

int main(int argc, char** argv) {
  try {
    winnow::tools::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stock_encode: %s\n", error.what());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
