// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// An expert is absent, on its way, or resident; those that somebody waits for or holds are locked.
// Slots have one owner each: an expert, or the list of free ones of their class.
#include "experts/cached_store.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "base/error.h"
#include "experts/cache_entry.h"
#include "experts/cache_policy.h"
#include "experts/catalogue.h"
#include "experts/hot_set.h"
#include "experts/read_rate.h"
#include "experts/slot_layout.h"
#include "os/aligned_buffer.h"

namespace winnow::experts {
namespace {

class CachedBatch;

class CachedStore final : public ExpertStore, public PinOwner {
 public:
  CachedStore(const ExpertCatalogue& catalogue, const CacheOptions& options,
              const MakeReader& make_reader);

  void expect_again(std::span<const ExpertId> experts) override {
    expected_again_.emplace(experts.begin(), experts.end());
  }
  std::unique_ptr<Batch> request(LayerId layer, std::span<const ExpertId> experts,
                                 Priority priority) override;
  void begin_sequence() override {
    for (SlotPool& pool : pools_) pool.policy->begin_sequence();
  }
  void warm_up(std::span<const ExpertUses> hottest) override { hot_set_.warm_up(hottest); }
  std::vector<ExpertUses> hottest() const override { return hot_set_.hottest(); }
  void idle() override;
  Bytes memory() const override { return Bytes{arena_.size()} + constant_bytes(catalogue_); }
  Bytes absent_bytes(LayerId layer, ExpertId expert) const override;
  double read_rate() const override { return read_rate_.bytes_per_second(); }
  const CacheStatistics* statistics() const override { return &statistics_; }
  void unpin(std::uint64_t pin) noexcept override;

  // For batches.
  const ExpertCatalogue& catalogue() const { return catalogue_; }
  Entry& entry(ExpertKey key) { return entries_[index(key.layer)][index(key.expert)]; }
  SlotPool& pool_of(const Entry& entry) { return pools_[entry.slot_class]; }
  void begin_waiting(ExpertKey key);
  void stop_waiting(ExpertKey key);
  PinnedExpert hand_out(ExpertId name, ExpertKey key);
  /// Gives an absent expert a slot and appends its reads to `reads`. False when there is no slot.
  bool admit(ExpertKey key, Origin origin, std::vector<os::AsyncRead>& reads);
  void submit(std::span<const os::AsyncRead> reads, Priority priority);
  /// An expert that was perhaps only a guess is needed now.
  void hurry(ExpertKey key) { reader_->promote(shape_.number(key)); }
  /// Nobody wants what was only a guess: it is absent again if its reads have not begun.
  void drop_guess(ExpertKey key);
  /// Takes what has arrived.
  void collect();
  /// The same, after waiting for something to arrive. False when nothing is on its way.
  bool wait();

 private:
  void announce(LayerId layer, std::span<const ExpertKey> keys);
  /// Why the next request reads this expert.
  Origin origin_of(ExpertId expert) const;
  std::vector<ExpertKey> keys_of(LayerId layer, std::span<const ExpertId> experts) const;
  void take(const os::ReadResult& result);
  void check_bytes(ExpertKey key, Entry& expert);
  void release_slot(ExpertKey key, Entry& expert);
  void update_lock(ExpertKey key, Entry& expert);

  const ExpertCatalogue catalogue_;
  const SlotLayout layout_;
  const CacheShape shape_;
  std::vector<std::vector<Entry>> entries_;
  std::vector<SlotPool> pools_;
  std::uint64_t arrivals_ = 0;
  std::size_t reads_under_way_ = 0;
  bool waiting_ = false;  // for the reader
  ReadRate read_rate_;
  std::optional<LayerId> last_layer_;                    // that was asked for
  std::optional<std::vector<ExpertId>> expected_again_;  // of the next request
  CacheStatistics statistics_;
  HotSet hot_set_;
  os::AlignedBuffer arena_;
  std::unique_ptr<os::AsyncReader> reader_;  // after the memory that it writes to
};

/// Hands out what it waits for. Everything is the store's but the lists of names.
class CachedBatch final : public Batch {
 public:
  explicit CachedBatch(CachedStore& store) : store_(store) {}
  ~CachedBatch() override {
    for (const Wanted& wanted : waiting_) store_.stop_waiting(wanted.key);
  }

  void add(ExpertKey key, Origin origin);
  /// Begins to read what is absent, as far as there are slots.
  void begin_reads();
  std::optional<PinnedExpert> next_ready() override;
  bool ready() const override;

 private:
  struct Wanted {
    ExpertId name;  ///< that the caller asked for
    ExpertKey key;  ///< whose bytes it has
    Origin origin;
  };
  std::vector<Wanted>::iterator first_arrived();
  bool holds_too_much(const Wanted& wanted) const;

  CachedStore& store_;
  std::vector<ExpertKey> without_bytes_;
  std::vector<Wanted> waiting_;  // resident, failed or on their way
  std::vector<Wanted> absent_;   // in the order asked for, until they get a slot
};

/// Begins to read, hands out nothing and keeps nothing in memory.
class GuessBatch final : public Batch {
 public:
  GuessBatch(CachedStore& store, LayerId layer, std::span<const ExpertId> experts) : store_(store) {
    std::vector<os::AsyncRead> reads;
    for (const ExpertId expert : experts) {
      const auto owner = owner_of(store.catalogue(), {layer, expert});
      if (!owner || store.entry(*owner).presence != Presence::kAbsent) continue;
      if (store.admit(*owner, Origin::kSpeculation, reads)) begun_.push_back(*owner);
    }
    store.submit(reads, Priority::kSpeculation);
  }
  ~GuessBatch() override {
    for (const ExpertKey key : begun_) store_.drop_guess(key);
  }
  std::optional<PinnedExpert> next_ready() override { return std::nullopt; }
  bool ready() const override { return false; }

 private:
  CachedStore& store_;
  std::vector<ExpertKey> begun_;
};

void CachedBatch::add(ExpertKey key, Origin origin) {
  const auto owner = owner_of(store_.catalogue(), key);
  if (!owner) {
    without_bytes_.push_back(key);
    return;
  }
  const Entry& entry = store_.entry(*owner);
  if (entry.presence == Presence::kAbsent) {
    absent_.push_back({key.expert, *owner, origin});
  } else {
    if (entry.presence == Presence::kOnItsWay) store_.hurry(*owner);
    store_.begin_waiting(*owner);
    waiting_.push_back({key.expert, *owner, origin});
  }
}

void CachedBatch::begin_reads() {
  std::vector<os::AsyncRead> reads;
  std::vector<Wanted> still_absent;
  for (const Wanted& wanted : absent_) {
    if (store_.entry(wanted.key).presence == Presence::kAbsent &&
        !store_.admit(wanted.key, wanted.origin, reads)) {
      still_absent.push_back(wanted);
      continue;
    }
    store_.begin_waiting(wanted.key);
    waiting_.push_back(wanted);
  }
  absent_ = std::move(still_absent);
  store_.submit(reads, Priority::kDemand);
}

std::vector<CachedBatch::Wanted>::iterator CachedBatch::first_arrived() {
  auto first = waiting_.end();
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    const Entry& entry = store_.entry(it->key);
    if (entry.presence == Presence::kOnItsWay) continue;
    if (first == waiting_.end() || entry.arrived < store_.entry(first->key).arrived) first = it;
  }
  return first;
}

std::optional<PinnedExpert> CachedBatch::next_ready() {
  if (!without_bytes_.empty()) {
    const ExpertKey key = without_bytes_.back();
    without_bytes_.pop_back();
    return PinnedExpert(key.expert, form_without_bytes(store_.catalogue(), key));
  }
  store_.collect();
  while (true) {
    begin_reads();
    if (waiting_.empty() && absent_.empty()) return std::nullopt;
    const auto found = first_arrived();
    if (found != waiting_.end()) {
      const Wanted wanted = *found;
      waiting_.erase(found);
      return store_.hand_out(wanted.name, wanted.key);
    }
    if (!store_.wait()) {
      fail(ErrorCode::kInternal,
           "an expert of layer {} waits for a slot, and all are held by who asks for it",
           index(absent_.front().key.layer));
    }
  }
}

bool CachedBatch::holds_too_much(const Wanted& wanted) const {
  const SlotPool& pool = store_.pool_of(store_.entry(wanted.key));
  return 2 * pool.pins >= pool.slots;
}

bool CachedBatch::ready() const {
  if (!without_bytes_.empty()) return true;
  store_.collect();
  if (!absent_.empty() && holds_too_much(absent_.front())) return false;
  return std::any_of(waiting_.begin(), waiting_.end(), [this](const Wanted& wanted) {
    return store_.entry(wanted.key).presence != Presence::kOnItsWay;
  });
}

CachedStore::CachedStore(const ExpertCatalogue& catalogue, const CacheOptions& options,
                         const MakeReader& make_reader)
    : catalogue_(catalogue),
      layout_(catalogue),
      shape_(shape_of(catalogue, options.top_k)),
      hot_set_(shape_) {
  if (options.slots < layout_.minimum(options.top_k)) {
    fail(ErrorCode::kBudget, "{} for experts are too few: the {} of a token's layer take {}",
         format_bytes(options.slots), options.top_k, format_bytes(layout_.minimum(options.top_k)));
  }
  const std::vector<SlotClass> classes = layout_.divide(options.slots, options.top_k);
  arena_ = os::AlignedBuffer(total_bytes(classes).value);
  const PolicyEntry& policy =
      options.policy.empty() ? *cache_policies().front() : find_cache_policy(options.policy);
  pools_ = make_slot_pools(classes, shape_, policy, options.seed, arena_.data());
  entries_ = experts::make_entries(layout_, classes);
  std::vector<std::unique_ptr<os::ReadSource>> sources;
  for (const os::RandomAccessFile* file : layout_.files()) {
    sources.push_back(os::make_read_source(*file, options.page_cache));
  }
  os::ReaderOptions reader = options.reader;
  reader.registered = {arena_.data(), arena_.size()};
  reader_ = make_reader ? make_reader(std::move(sources), reader)
                        : os::make_async_reader(std::move(sources), reader);
}

std::unique_ptr<Batch> CachedStore::request(LayerId layer, std::span<const ExpertId> experts,
                                            Priority priority) {
  WINNOW_CHECK(index(layer) < catalogue_.size());
  for (const ExpertId expert : experts) {
    WINNOW_CHECK(index(expert) < catalogue_[index(layer)].size());
  }
  collect();
  if (priority == Priority::kSpeculation) {
    return std::make_unique<GuessBatch>(*this, layer, experts);
  }
  announce(layer, keys_of(layer, experts));
  auto batch = std::make_unique<CachedBatch>(*this);
  for (const ExpertId expert : experts) batch->add({layer, expert}, origin_of(expert));
  expected_again_.reset();
  batch->begin_reads();
  idle();
  return batch;
}

void CachedStore::idle() {
  collect();
  while (reads_under_way_ == 0) {
    const auto key = hot_set_.next();
    if (!key) return;
    const auto owner = owner_of(catalogue_, *key);
    if (!owner || entry(*owner).presence != Presence::kAbsent) continue;
    if (pool_of(entry(*owner)).free.empty()) continue;  // nothing leaves for it
    std::vector<os::AsyncRead> reads;
    admit(*owner, Origin::kSpeculation, reads);
    submit(reads, Priority::kSpeculation);
  }
}

Origin CachedStore::origin_of(ExpertId expert) const {
  const bool passing =
      expected_again_ &&
      std::find(expected_again_->begin(), expected_again_->end(), expert) == expected_again_->end();
  return passing ? Origin::kPrefill : Origin::kDemand;
}

/// The experts whose bytes are asked for, each once.
std::vector<ExpertKey> CachedStore::keys_of(LayerId layer,
                                            std::span<const ExpertId> experts) const {
  std::vector<ExpertKey> keys;
  for (const ExpertId expert : experts) {
    if (const auto owner = owner_of(catalogue_, {layer, expert})) keys.push_back(*owner);
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

/// Counts, and tells the policies.
void CachedStore::announce(LayerId layer, std::span<const ExpertKey> keys) {
  const bool new_pass = !last_layer_ || layer <= *last_layer_;
  last_layer_ = layer;
  std::vector<std::vector<ExpertId>> chosen(pools_.size());
  for (const ExpertKey key : keys) {
    const Entry& expert = entry(key);
    const bool present =
        expert.presence == Presence::kResident || expert.presence == Presence::kOnItsWay;
    ++(present ? statistics_.hits : statistics_.misses);
    hot_set_.count(key);
    chosen[expert.slot_class].push_back(key.expert);
  }
  for (std::size_t pool = 0; pool < pools_.size(); ++pool) {
    if (new_pass) pools_[pool].policy->begin_pass();
    if (!chosen[pool].empty()) pools_[pool].policy->on_request(layer, chosen[pool]);
  }
}

void CachedStore::update_lock(ExpertKey key, Entry& expert) {
  KeySet& locked = pool_of(expert).locked;
  if (expert.in_use()) {
    locked.insert(key);
  } else {
    locked.erase(key);
  }
}

void CachedStore::begin_waiting(ExpertKey key) {
  Entry& expert = entry(key);
  ++expert.waiting;
  update_lock(key, expert);
}

void CachedStore::stop_waiting(ExpertKey key) {
  Entry& expert = entry(key);
  --expert.waiting;
  if (expert.presence == Presence::kFailed && expert.waiting == 0) {
    expert.presence = Presence::kAbsent;
    expert.error = nullptr;
  }
  update_lock(key, expert);
}

PinnedExpert CachedStore::hand_out(ExpertId name, ExpertKey key) {
  Entry& expert = entry(key);
  if (expert.presence == Presence::kFailed) {
    const std::exception_ptr error = expert.error;
    stop_waiting(key);
    with_context(fmt::format("expert {} of layer {}", index(name), index(key.layer)),
                 [&] { std::rethrow_exception(error); });
  }
  if (++expert.pins == 1) ++pool_of(expert).pins;
  --expert.waiting;
  const ExpertRecord& record = layout_.record(key.layer, key.expert);
  ExpertMatrices matrices;
  visit_matrices(
      std::get<ExpertLocation>(catalogue_[index(key.layer)][index(key.expert)]), matrices,
      [&](const MatrixLocation& from, quant::PackedMatrix& to) {
        to = {from.codec, expert.slot + layout_.position(record, from), from.rows, from.cols};
      });
  return PinnedExpert(name, std::move(matrices), this, shape_.number(key));
}

void CachedStore::unpin(std::uint64_t pin) noexcept {
  const ExpertKey key = shape_.key(pin);
  Entry& expert = entry(key);
  if (--expert.pins == 0) --pool_of(expert).pins;
  update_lock(key, expert);
}

void CachedStore::release_slot(ExpertKey key, Entry& expert) {
  SlotPool& pool = pool_of(expert);
  pool.free.push_back(std::exchange(expert.slot, nullptr));
  pool.policy->on_evict(key);
}

bool CachedStore::admit(ExpertKey key, Origin origin, std::vector<os::AsyncRead>& reads) {
  Entry& expert = entry(key);
  SlotPool& pool = pool_of(expert);
  if (pool.free.empty()) {
    const auto victim = pool.policy->victim(key, origin, pool.locked);
    if (!victim) return false;
    Entry& leaving = entry(*victim);
    WINNOW_CHECK(leaving.presence == Presence::kResident && !leaving.in_use() &&
                 leaving.slot_class == expert.slot_class);
    leaving.presence = Presence::kAbsent;
    release_slot(*victim, leaving);
    ++statistics_.evictions;
  }
  expert.slot = pool.free.back();
  pool.free.pop_back();
  expert.presence = Presence::kOnItsWay;
  pool.policy->on_admit(key, origin);
  update_lock(key, expert);
  const ExpertRecord& record = layout_.record(key.layer, key.expert);
  expert.reads_left = static_cast<std::uint32_t>(record.reads.size());
  for (const SlotRead& read : record.reads) {
    reads.push_back({read.file,
                     read.offset,
                     {expert.slot + read.position, read.size},
                     read.least,
                     shape_.number(key)});
  }
  return true;
}

Bytes CachedStore::absent_bytes(LayerId layer, ExpertId expert) const {
  const auto owner = owner_of(catalogue_, {layer, expert});
  if (!owner) return {};
  const Entry& entry = entries_[index(owner->layer)][index(owner->expert)];
  if (entry.presence != Presence::kAbsent) return {};
  return {layout_.record(owner->layer, owner->expert).bytes};
}

void CachedStore::drop_guess(ExpertKey key) {
  Entry& expert = entry(key);
  if (expert.presence != Presence::kOnItsWay || expert.waiting != 0) return;
  if (!reader_->cancel(shape_.number(key), expert.reads_left)) return;
  std::uint64_t bytes = 0;
  for (const SlotRead& read : layout_.record(key.layer, key.expert).reads) bytes += read.size;
  statistics_.bytes_read -= bytes;
  statistics_.guessed_bytes -= bytes;
  read_rate_.take_back(bytes);
  reads_under_way_ -= std::exchange(expert.reads_left, 0);
  expert.presence = Presence::kAbsent;
  release_slot(key, expert);
  update_lock(key, expert);
}

void CachedStore::submit(std::span<const os::AsyncRead> reads, Priority priority) {
  if (reads.empty()) return;
  std::uint64_t bytes = 0;
  for (const os::AsyncRead& read : reads) bytes += read.out.size();
  statistics_.bytes_read += bytes;
  if (priority == Priority::kSpeculation) statistics_.guessed_bytes += bytes;
  read_rate_.begin(bytes, reads_under_way_ == 0);
  reads_under_way_ += reads.size();
  reader_->submit(reads, priority == Priority::kSpeculation ? os::ReadPriority::kSpeculation
                                                            : os::ReadPriority::kDemand);
}

void CachedStore::take(const os::ReadResult& result) {
  if (--reads_under_way_ == 0) read_rate_.end(waiting_);
  const ExpertKey key = shape_.key(result.tag);
  Entry& expert = entry(key);
  if (result.error && !expert.error) expert.error = result.error;
  if (--expert.reads_left != 0) return;
  if (!expert.error && !expert.checked) check_bytes(key, expert);
  expert.arrived = ++arrivals_;
  expert.presence = Presence::kResident;
  if (expert.error) {
    expert.presence = expert.waiting == 0 ? Presence::kAbsent : Presence::kFailed;
    if (expert.waiting == 0) expert.error = nullptr;
    release_slot(key, expert);
  }
  update_lock(key, expert);
}

/// Once for each expert: it tells a damaged copy of the file, and later reads stay as fast as they
/// are.
void CachedStore::check_bytes(ExpertKey key, Entry& expert) {
  const auto& location = std::get<ExpertLocation>(catalogue_[index(key.layer)][index(key.expert)]);
  try {
    layout_.require_checksum(layout_.record(key.layer, key.expert), location, expert.slot);
    expert.checked = true;
  } catch (...) {
    expert.error = std::current_exception();
  }
}

void CachedStore::collect() {
  while (const auto result = reader_->poll()) take(*result);
}

bool CachedStore::wait() {
  if (reads_under_way_ == 0) return false;
  const auto start = std::chrono::steady_clock::now();
  waiting_ = true;
  take(reader_->wait());
  statistics_.stall_seconds +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  collect();
  waiting_ = false;
  return true;
}

}  // namespace

std::unique_ptr<ExpertStore> make_cached_store(const ExpertCatalogue& catalogue,
                                               const CacheOptions& options,
                                               const MakeReader& make_reader) {
  return std::make_unique<CachedStore>(catalogue, options, make_reader);
}

}  // namespace winnow::experts
