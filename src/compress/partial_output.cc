// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/partial_output.h"

#include <cerrno>

#include <sys/stat.h>

#include "base/error.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr Bytes kLongestRun{std::uint64_t{1} << 20};
constexpr const char* kRunFile = "run.json";
constexpr const char* kLockFile = "lock";

void require_same(const std::filesystem::path& folder, const Json& run, const Json& found) {
  for (const auto& [key, value] : run.items()) {
    if (found.is_object() && found.contains(key) && found[key] == value) continue;
    fail(ErrorCode::kUsage,
         "{}: holds an unfinished run with another {}; add --restart to begin anew, or remove the "
         "folder",
         folder.string(), key);
  }
}

/// What a killed process was about to write, and after --restart everything but the lock.
void sweep(const std::filesystem::path& folder, bool everything) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const bool unfinished = name.find(".partial-") != std::string::npos;
    if (name != kLockFile && (everything || unfinished)) {
      std::error_code error;
      std::filesystem::remove_all(entry.path(), error);  // hidden states lie in folders
      if (error) {
        fail(ErrorCode::kSystem, "{}: cannot remove: {}", entry.path().string(), error.message());
      }
    }
  }
}

}  // namespace

PartialOutput::PartialOutput(const std::filesystem::path& out, const Json& run, Start start)
    : folder_(out.string() + ".partial") {
  if (::mkdir(folder_.c_str(), 0755) != 0 && errno != EEXIST) {
    fail_system(errno, fmt::format("{}: cannot create the folder", folder_.string()));
  }
  lock_.emplace(folder_ / kLockFile);
  sweep(folder_, start == Start::kRestart);
  const auto path = folder_ / kRunFile;
  if (std::filesystem::exists(path)) {
    worth_keeping_ = true;
    require_same(folder_, run, parse_json(os::read_text_file(path, kLongestRun), path.string()));
    return;
  }
  try {
    os::write_text_file(path, dump_json(run, true) + "\n");
  } catch (...) {
    remove();
    throw;
  }
}

PartialOutput::~PartialOutput() {
  if (!worth_keeping_) remove();
}

bool PartialOutput::has(const std::string& piece) const {
  return std::filesystem::exists(folder_ / piece);
}

void PartialOutput::remove() {
  std::error_code ignored;  // what stays is swept by the next run
  std::filesystem::remove_all(folder_, ignored);
  worth_keeping_ = true;
}

}  // namespace winnow::compress
