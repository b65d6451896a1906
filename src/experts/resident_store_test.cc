// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>

#include "base/error.h"
#include "experts/store.h"

namespace winnow::experts::resident_store_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::size_t kHidden = 4;
constexpr std::size_t kInner = 2;
constexpr std::size_t kMatrixBytes = kHidden * kInner * sizeof(float);

/// Byte i of the file is i modulo 251; the `fails_at`-th read fails.
class NumberedFile final : public os::RandomAccessFile {
 public:
  explicit NumberedFile(std::size_t size, int fails_at = -1) : size_(size), left_(fails_at) {}
  const std::string& name() const override { return name_; }
  Bytes size() const override { return {size_}; }
  void read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    if (left_-- == 0) fail(ErrorCode::kSystem, "{}: offset {}: I/O error", name_, offset);
    if (offset + out.size() > size_) fail_data("{}: ends before offset {}", name_, offset);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<std::byte>((offset + i) % 251);
    }
  }

 private:
  std::string name_ = "experts.bin";
  std::size_t size_;
  mutable int left_;
};

/// Two layers of experts around one without; matrices follow each other in the file.
ExpertCatalogue catalogue(const os::RandomAccessFile& file, std::size_t experts) {
  const quant::Codec* f32 = quant::find_codec("F32");
  ExpertCatalogue result(3);
  std::uint64_t offset = 3;  // no matrix begins aligned in the file
  for (const std::size_t layer : {0, 2}) {
    for (std::size_t e = 0; e < experts; ++e) {
      const auto next = [&](std::size_t rows, std::size_t cols) {
        const MatrixLocation location{&file, offset, f32, rows, cols};
        offset += kMatrixBytes;
        return location;
      };
      const auto gate = next(kInner, kHidden);
      const auto up = next(kInner, kHidden);
      result[layer].push_back(ExpertLocation{gate, up, next(kHidden, kInner)});
    }
  }
  return result;
}

std::size_t file_size(std::size_t experts) { return 3 + 2 * experts * 3 * kMatrixBytes; }

void expect_bytes_from(const quant::PackedMatrix& matrix, std::uint64_t offset) {
  ASSERT_EQ(matrix.bytes().value, kMatrixBytes);
  for (std::size_t i = 0; i < kMatrixBytes; ++i) {
    ASSERT_EQ(static_cast<std::size_t>(matrix.data[i]), (offset + i) % 251);
  }
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(matrix.data) % 64, 0U);
}

TEST(ResidentStore, HandsOutEachRequestedExpertOnceWithItsBytes) {
  constexpr std::size_t kExperts = 5;
  const NumberedFile file(file_size(kExperts));
  const auto store = make_resident_store(catalogue(file, kExperts));
  const std::vector<ExpertId> wanted = {ExpertId{4}, ExpertId{0}, ExpertId{3}};
  const auto batch = store->request(LayerId{2}, wanted, Priority::kDemand);
  std::vector<std::uint32_t> got;
  while (batch->ready()) {
    const auto expert = batch->next_ready();
    ASSERT_TRUE(expert.has_value());
    got.push_back(index(expert->expert()));
    const auto& matrices = std::get<ExpertMatrices>(expert->form());
    const std::uint64_t first = 3 + (kExperts + got.back()) * 3 * kMatrixBytes;
    expect_bytes_from(matrices.gate_proj, first);
    expect_bytes_from(matrices.up_proj, first + kMatrixBytes);
    expect_bytes_from(matrices.down_proj, first + 2 * kMatrixBytes);
    EXPECT_EQ(matrices.down_proj.rows, kHidden);
    EXPECT_EQ(matrices.down_proj.cols, kInner);
  }
  EXPECT_THAT(got, ElementsAre(4, 0, 3));
  EXPECT_FALSE(batch->next_ready().has_value());
}

TEST(ResidentStore, HandsOutExpertsWithoutMatricesBesideOthers) {
  const NumberedFile file(file_size(2));
  ExpertCatalogue locations = catalogue(file, 2);
  const Bytes without = make_resident_store(locations)->memory();
  locations[0].insert(locations[0].begin(), ZeroExpert{});
  locations[0].insert(locations[0].begin() + 2, ConstantSource{{1, 2, 3}});
  locations[0].emplace_back(IdentityExpert{});
  const auto store = make_resident_store(locations);
  locations.clear();  // constants are the store's own
  EXPECT_EQ(store->memory().value, without.value + 3 * sizeof(float));
  const std::vector<ExpertId> wanted = {ExpertId{0}, ExpertId{1}, ExpertId{2}, ExpertId{3},
                                        ExpertId{4}};
  const auto batch = store->request(LayerId{0}, wanted, Priority::kDemand);
  const auto next = [&] { return batch->next_ready(); };
  EXPECT_TRUE(std::holds_alternative<ZeroExpert>(next()->form()));
  const auto first = next();
  expect_bytes_from(std::get<ExpertMatrices>(first->form()).gate_proj, 3);
  const auto constant = next();
  EXPECT_THAT(std::get<ConstantExpert>(constant->form()).values, ElementsAre(1, 2, 3));
  const auto second = next();
  expect_bytes_from(std::get<ExpertMatrices>(second->form()).gate_proj, 3 + 3 * kMatrixBytes);
  EXPECT_TRUE(std::holds_alternative<IdentityExpert>(next()->form()));
}

TEST(ResidentStore, HoldsMatricesOfSharedExpertsOnce) {
  const NumberedFile file(file_size(2));
  ExpertCatalogue locations = catalogue(file, 2);
  const Bytes without = make_resident_store(locations)->memory();
  locations[0].insert(locations[0].begin(), SharedSource{ExpertId{2}});  // before its owner
  locations[0].emplace_back(SharedSource{ExpertId{2}});
  const auto store = make_resident_store(locations);
  EXPECT_EQ(store->memory(), without);
  const std::vector<ExpertId> wanted = {ExpertId{0}, ExpertId{2}, ExpertId{3}};
  const auto batch = store->request(LayerId{0}, wanted, Priority::kDemand);
  for (const ExpertId expert : wanted) {
    const auto pinned = batch->next_ready();
    ASSERT_TRUE(pinned.has_value());
    EXPECT_EQ(pinned->expert(), expert);
    const auto& matrices = std::get<ExpertMatrices>(pinned->form());
    expect_bytes_from(matrices.gate_proj, 3 + 3 * kMatrixBytes);
    expect_bytes_from(matrices.up_proj, 3 + 4 * kMatrixBytes);
    expect_bytes_from(matrices.down_proj, 3 + 5 * kMatrixBytes);
  }
}

TEST(ResidentStore, HandsOutTheFactorsOfACorrectionWithItsMatrixAlone) {
  const NumberedFile file(file_size(1));
  ExpertCatalogue locations = catalogue(file, 1);
  const Bytes without = make_resident_store(locations)->memory();
  auto& corrected = std::get<ExpertLocation>(locations[0][0]);
  const auto& elsewhere = std::get<ExpertLocation>(locations[2][0]);
  corrected.down_proj.left = elsewhere.gate_proj;  // any places in the file will do
  corrected.down_proj.right = elsewhere.up_proj;
  const auto store = make_resident_store(locations);
  const std::vector<ExpertId> wanted = {ExpertId{0}};
  const auto expert = store->request(LayerId{0}, wanted, Priority::kDemand)->next_ready();
  ASSERT_TRUE(expert.has_value());
  const auto& matrices = std::get<ExpertMatrices>(expert->form());
  EXPECT_FALSE(matrices.gate_proj.corrected());
  EXPECT_FALSE(matrices.up_proj.corrected());
  ASSERT_TRUE(matrices.down_proj.corrected());
  EXPECT_EQ(matrices.down_proj.rank(), kInner);
  expect_bytes_from(matrices.down_proj, 3 + 2 * kMatrixBytes);
  expect_bytes_from(matrices.down_proj.left, 3 + 3 * kMatrixBytes);
  expect_bytes_from(matrices.down_proj.right, 3 + 4 * kMatrixBytes);
  EXPECT_GE(store->memory(), without);
}

TEST(ResidentStore, NeedsTheFileNoLongerOnceItIsMade) {
  std::unique_ptr<ExpertStore> store;
  {
    const NumberedFile file(file_size(1));
    store = make_resident_store(catalogue(file, 1));
  }
  const std::vector<ExpertId> wanted = {ExpertId{0}};
  const auto expert = store->request(LayerId{0}, wanted, Priority::kDemand)->next_ready();
  ASSERT_TRUE(expert.has_value());
  expect_bytes_from(std::get<ExpertMatrices>(expert->form()).gate_proj, 3);
}

TEST(ResidentStore, TakesExpertsFromMappedFilesWhereTheyLieAndReadsTheOthers) {
  constexpr std::size_t kExperts = 2;
  const auto path =
      std::filesystem::temp_directory_path() / fmt::format("winnow-resident-store-{}", ::getpid());
  std::string text(file_size(kExperts), '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i % 251);
  os::write_text_file(path, text);
  std::vector<std::unique_ptr<os::RandomAccessFile>> files;
  files.push_back(os::open_file(path));
  const os::MappedFiles mapped(files, os::MappedFiles::Move::kStay);
  std::filesystem::remove(path);

  ExpertCatalogue locations = catalogue(*files[0], kExperts);
  const NumberedFile other(file_size(kExperts));
  locations[2] = catalogue(other, kExperts)[2];
  const auto store = make_resident_store(locations, &mapped);
  const std::vector<ExpertId> wanted = {ExpertId{1}};
  const auto first = store->request(LayerId{0}, wanted, Priority::kDemand)->next_ready();
  const auto& in_file = std::get<ExpertMatrices>(first->form()).up_proj;
  EXPECT_EQ(in_file.data, mapped.find(*files[0], 3 + 4 * kMatrixBytes, kMatrixBytes));
  EXPECT_EQ(static_cast<std::size_t>(in_file.data[0]), (3 + 4 * kMatrixBytes) % 251);
  const auto second = store->request(LayerId{2}, wanted, Priority::kDemand)->next_ready();
  expect_bytes_from(std::get<ExpertMatrices>(second->form()).up_proj, 3 + 10 * kMatrixBytes);
  EXPECT_GE(store->memory().value, 4 * 3 * kMatrixBytes);
}

TEST(ResidentStore, CountsTheMemoryItHolds) {
  const NumberedFile file(file_size(5));
  const auto store = make_resident_store(catalogue(file, 5));
  EXPECT_GE(store->memory().value, 2 * 5 * 3 * kMatrixBytes);
  EXPECT_LE(store->memory().value, 2 * 5 * 3 * (kMatrixBytes + 63));
}

TEST(ResidentStore, PassesOnTheFailureOfEachRead) {
  constexpr int kReads = 2 * 2 * 3;
  for (int read = 0; read < kReads; ++read) {
    const NumberedFile file(file_size(2), read);
    try {
      make_resident_store(catalogue(file, 2));
      FAIL() << "read " << read;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kSystem);
      EXPECT_THAT(error.message(), HasSubstr("experts.bin"));
    }
  }
  const NumberedFile file(file_size(2), kReads);
  EXPECT_NO_THROW(make_resident_store(catalogue(file, 2)));
}

TEST(ResidentStore, RefusesAFileThatHasBecomeShorter) {
  const NumberedFile file(file_size(2) - 1);
  try {
    make_resident_store(catalogue(file, 2));
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
  }
}

TEST(ResidentStore, RefusesALayerOrAnExpertThatDoesNotExist) {
  const NumberedFile file(file_size(2));
  const auto store = make_resident_store(catalogue(file, 2));
  const std::vector<ExpertId> beyond = {ExpertId{2}};
  const auto batch = store->request(LayerId{0}, beyond, Priority::kDemand);
  EXPECT_THROW(batch->next_ready(), Error);
  EXPECT_THROW(store->request(LayerId{3}, beyond, Priority::kDemand), Error);
}

class Unpinned final : public PinOwner {
 public:
  void unpin(std::uint64_t pin) noexcept override { pins.push_back(pin); }
  std::vector<std::uint64_t> pins;
};

TEST(PinnedExpert, IsReleasedOnceHoweverOftenItIsMoved) {
  Unpinned owner;
  {
    PinnedExpert first(ExpertId{1}, ExpertMatrices{}, &owner, 17);
    PinnedExpert second = std::move(first);
    PinnedExpert third(ExpertId{2}, ExpertMatrices{}, &owner, 18);
    third = std::move(second);
    EXPECT_EQ(index(third.expert()), 1U);
  }
  EXPECT_THAT(owner.pins, ::testing::UnorderedElementsAre(17, 18));
}

}  // namespace
}  // namespace winnow::experts::resident_store_test
