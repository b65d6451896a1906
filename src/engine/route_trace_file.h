// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Traces of routes as files. docs/formats/trace.md describes them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "experts/route_trace.h"
#include "os/file.h"

namespace winnow::engine {

inline constexpr std::uint32_t kRouteTraceVersion = 1;

struct RecordedTrace {
  std::string version;       ///< of the program
  std::string architecture;  ///< as in GGUF's `general.architecture`
  std::string source;        ///< model::describe_source: "grain:0123456789abcdef"
  experts::RouteTrace routes;
};

/// Through an os::AtomicFile. The trace has at least one token.
void write_route_trace(const std::filesystem::path& path, const RecordedTrace& trace);

/// Throws Error{kBadData} that names file and array or key for anything that is not as
/// docs/formats/trace.md says. Holds the file's size in memory.
RecordedTrace read_route_trace(std::unique_ptr<os::RandomAccessFile> file);
RecordedTrace read_route_trace(const std::filesystem::path& path);

}  // namespace winnow::engine
