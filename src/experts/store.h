// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The only way to an expert's bytes. The engine asks for a layer's chosen experts at once and works
// on whichever is ready; where the bytes come from (memory, disk) is the store's affair.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "base/units.h"
#include "os/file.h"
#include "os/mapped_files.h"
#include "quant/corrected_matrix.h"

namespace winnow::experts {

/// A feed-forward expert: y = down(silu(gate(x)) * up(x)).
struct ExpertMatrices {
  quant::CorrectedMatrix gate_proj;  ///< [moe_intermediate_size, hidden_size]
  quant::CorrectedMatrix up_proj;    ///< [moe_intermediate_size, hidden_size]
  quant::CorrectedMatrix down_proj;  ///< [hidden_size, moe_intermediate_size]
};

/// Zero-computation experts (MoE++, arXiv:2410.07348): y = 0, y = x, y = values.
struct ZeroExpert {};
struct IdentityExpert {};
struct ConstantExpert {
  std::span<const float> values;  ///< [hidden_size], the store's
};

/// What an expert is made of; further kinds are further alternatives. Experts may have the same
/// matrices.
using ExpertForm = std::variant<ExpertMatrices, ZeroExpert, IdentityExpert, ConstantExpert>;

/// Undoes a pin. Implemented by stores.
class PinOwner {
 public:
  virtual void unpin(std::uint64_t pin) noexcept = 0;

 protected:
  ~PinOwner() = default;
};

/// An expert in memory. While it lives, its bytes stay. Moves only.
class PinnedExpert {
 public:
  PinnedExpert(ExpertId expert, ExpertForm form, PinOwner* owner = nullptr, std::uint64_t pin = 0)
      : expert_(expert), form_(std::move(form)), owner_(owner), pin_(pin) {}
  PinnedExpert(PinnedExpert&& other) noexcept
      : expert_(other.expert_),
        form_(std::move(other.form_)),
        owner_(std::exchange(other.owner_, nullptr)),
        pin_(other.pin_) {}
  PinnedExpert& operator=(PinnedExpert&& other) noexcept {
    std::swap(expert_, other.expert_);
    std::swap(form_, other.form_);
    std::swap(owner_, other.owner_);
    std::swap(pin_, other.pin_);
    return *this;
  }
  PinnedExpert(const PinnedExpert&) = delete;
  PinnedExpert& operator=(const PinnedExpert&) = delete;
  ~PinnedExpert() {
    if (owner_ != nullptr) owner_->unpin(pin_);
  }

  ExpertId expert() const { return expert_; }
  const ExpertForm& form() const { return form_; }

 private:
  ExpertId expert_;
  ExpertForm form_;
  PinOwner* owner_;
  std::uint64_t pin_;
};

/// The answer to one request. Destroying it early cancels what has not arrived.
class Batch {
 public:
  virtual ~Batch() = default;
  /// The next expert that is in memory, in any order; blocks only when none is. Nothing once all
  /// have been handed out. Throws the error of an expert that could not be read (the others can
  /// still be taken by calling again).
  virtual std::optional<PinnedExpert> next_ready() = 0;
  /// Whether there is more to take before computing: `next_ready` would return at once, and nothing
  /// waits for the memory of what the caller holds.
  virtual bool ready() const = 0;
};

/// Demand is needed now. Speculation begins reads that never delay demand, hands nothing out, and
/// is dropped where there is no room; destroying its batch drops what has not begun.
enum class Priority : std::uint8_t { kDemand, kSpeculation };

/// What reading experts while running has come to.
struct CacheStatistics {
  std::uint64_t hits = 0;    ///< requested experts that had a slot
  std::uint64_t misses = 0;  ///< those that had none and were read
  std::uint64_t evictions = 0;
  std::uint64_t bytes_read = 0;
  std::uint64_t guessed_bytes = 0;  ///< of these, read before anybody asked
  double stall_seconds = 0;         ///< spent waiting for reads

  double hit_rate() const {
    return hits + misses == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(hits + misses);
  }
};
inline CacheStatistics& operator+=(CacheStatistics& a, const CacheStatistics& b) {
  a.hits += b.hits;
  a.misses += b.misses;
  a.evictions += b.evictions;
  a.bytes_read += b.bytes_read;
  a.guessed_bytes += b.guessed_bytes;
  a.stall_seconds += b.stall_seconds;
  return a;
}
inline CacheStatistics operator-(CacheStatistics a, const CacheStatistics& b) {
  return {a.hits - b.hits,
          a.misses - b.misses,
          a.evictions - b.evictions,
          a.bytes_read - b.bytes_read,
          a.guessed_bytes - b.guessed_bytes,
          a.stall_seconds - b.stall_seconds};
}

struct ExpertUses {
  LayerId layer{};
  ExpertId expert{};
  std::uint64_t uses = 0;  ///< requests
  friend bool operator==(const ExpertUses&, const ExpertUses&) = default;
};

/// One per model; used by one engine thread at a time.
class ExpertStore {
 public:
  virtual ~ExpertStore() = default;
  /// A hint on the next request: of its experts only these are likely to be wanted again soon, as
  /// the last tokens of a prompt tell while the prompt streams through. Without it all are.
  virtual void expect_again(std::span<const ExpertId> /*experts*/) {}
  /// `experts` are distinct.
  virtual std::unique_ptr<Batch> request(LayerId layer, std::span<const ExpertId> experts,
                                         Priority priority) = 0;
  /// The next requests are of a text that has nothing to do with the former.
  virtual void begin_sequence() {}
  /// Reads these, hottest first, into memory that nobody has taken yet, one at a time and only
  /// while nothing else is on its way. Keys that it does not have are ignored.
  virtual void warm_up(std::span<const ExpertUses> /*hottest*/) {}
  /// How often each expert was asked for, hottest first; what it was warmed up with counts half.
  /// Those that never were are left out. Empty where all are held.
  virtual std::vector<ExpertUses> hottest() const { return {}; }
  /// Nobody waits for anything: goes on warming up.
  virtual void idle() {}
  /// Bytes of memory it holds.
  virtual Bytes memory() const = 0;
  /// What would be read for this expert; 0: it is in memory or on its way.
  virtual Bytes absent_bytes(LayerId /*layer*/, ExpertId /*expert*/) const { return {}; }
  /// Bytes per second of the reads that were waited for lately; 0: unknown.
  virtual double read_rate() const { return 0; }
  /// Null: it reads nothing after it was made.
  virtual const CacheStatistics* statistics() const { return nullptr; }
};

/// Where a packed matrix lies on disk.
struct MatrixLocation {
  const os::RandomAccessFile* file = nullptr;
  std::uint64_t offset = 0;
  const quant::Codec* codec = nullptr;
  std::size_t rows = 0;
  std::size_t cols = 0;
};
/// One matrix of an expert, with its correction where it has one: else those have no codec.
struct CorrectedLocation : MatrixLocation {
  CorrectedLocation() = default;
  // Implicit: a matrix without a correction is one. An aggregate would take the next matrices of a
  // list for its factors. NOLINTNEXTLINE(google-explicit-constructor)
  CorrectedLocation(const MatrixLocation& matrix) : MatrixLocation(matrix) {}
  MatrixLocation left, right;
};
struct ExpertLocation {
  CorrectedLocation gate_proj, up_proj, down_proj;
  /// Of the packed bytes of the three matrices, one after the other; nothing: unknown.
  std::optional<std::uint32_t> crc32c = std::nullopt;
};
/// The vector [hidden_size] of an expert that is a constant.
struct ConstantSource {
  std::vector<float> values;
};
/// An expert that uses the matrices of another of its layer, whose bytes are held once.
struct SharedSource {
  ExpertId owner{};  ///< its source is an ExpertLocation
};
/// Where an expert comes from.
using ExpertSource =
    std::variant<ExpertLocation, ZeroExpert, IdentityExpert, ConstantSource, SharedSource>;
/// [layer][expert]; layers without experts are empty.
using ExpertCatalogue = std::vector<std::vector<ExpertSource>>;

/// Holds all experts in memory and answers at once. Takes them from `mapped` (borrowed; null: none)
/// where it has their file, and reads the others once; the files are not needed afterwards. Mapped
/// matrices begin where they do in the file, others on cache lines. Throws Error{kBadData, kSystem}
/// as reading does.
std::unique_ptr<ExpertStore> make_resident_store(const ExpertCatalogue& catalogue,
                                                 const os::MappedFiles* mapped = nullptr);

}  // namespace winnow::experts
