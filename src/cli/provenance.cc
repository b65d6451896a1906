// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/provenance.h"

#include <filesystem>

#include "base/error.h"
#include "cli/build_info.h"
#include "model/fingerprint.h"

namespace winnow::cli {
namespace {

bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  std::error_code missing;  // of either: then they are not the same
  return std::filesystem::equivalent(a, b, missing) && !missing;
}

}  // namespace

std::vector<std::pair<std::string, formats::Value>> provenance(const model::Checkpoint& source,
                                                               const std::string& command) {
  return {{"winnow.version", std::string(version())},
          {"winnow.source", model::describe_source(source.file())},
          {"winnow.command", command}};
}

void check_output_path(const model::Checkpoint& source, const std::string& output, bool replace) {
  bool is_input = same_file(source.file().name(), output);
  for (const auto& file : source.file().files()) {
    is_input = is_input || same_file(file->name(), output);
  }
  if (is_input) fail(ErrorCode::kUsage, "{}: is the input; name another output", output);
  // Before hours of work, not after.
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(output).parent_path();
  if (output.empty()) fail(ErrorCode::kUsage, "--output: the name is empty");
  if (!folder.empty() && !std::filesystem::is_directory(folder, error)) {
    fail(ErrorCode::kSystem, "{}: there is no folder {}; make it first", output, folder.string());
  }
  if (!replace && std::filesystem::is_regular_file(output, error)) {
    fail(ErrorCode::kUsage, "{}: exists already; name another output, or add --force to replace it",
         output);
  }
}

}  // namespace winnow::cli
