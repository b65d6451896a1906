// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/text_data.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "os/file.h"

namespace winnow::metrics {
namespace {

constexpr Bytes kMaxFile{std::uint64_t{4} << 30};

void read_jsonl(const std::filesystem::path& path, std::string_view text,
                std::vector<Document>& documents) {
  std::size_t line_number = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = fmt::format("{}: line {}", path.string(), line_number);
    const Json value = parse_json(line, where);
    if (value.is_object() && value.contains("messages") && !value.contains("text")) {
      fail_data(
          "{}: 'messages' need the model's chat template, which is not applied to data; "
          "provide the rendered conversation as 'text'",
          where);
    }
    if (!value.is_object() || !value.contains("text") || !value["text"].is_string()) {
      fail_data("{}: expected an object with a string 'text'", where);
    }
    documents.push_back({path.stem().string(), where, value["text"].get<std::string>()});
  }
}

void read_file(const std::filesystem::path& path, std::vector<Document>& documents) {
  std::string text = os::read_text_file(path, kMaxFile);
  if (path.extension() == ".jsonl") {
    read_jsonl(path, text, documents);
  } else {
    documents.push_back({path.stem().string(), path.string(), std::move(text)});
  }
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const bool hidden = entry.path().filename().string().starts_with('.');
    if (entry.is_regular_file() && !hidden) files.push_back(entry.path());
  }
  if (error) fail(ErrorCode::kSystem, "{}: {}", folder.string(), error.message());
  std::sort(files.begin(), files.end());
  if (files.empty()) fail_data("{}: the folder holds no files", folder.string());
  return files;
}

std::optional<TokenId> start_token(const text::Tokenizer& tokenizer) {
  if (tokenizer.spec().bos) return tokenizer.spec().bos;
  const auto& tokens = tokenizer.spec().tokens;
  const auto found = std::find(tokens.begin(), tokens.end(), "<|endoftext|>");
  if (found == tokens.end()) return std::nullopt;
  return TokenId{static_cast<std::int32_t>(found - tokens.begin())};
}

/// Takes windows from the domains in turn until `max_tokens` are reached; the last one is cut.
void keep_tokens(WindowSet& set, std::uint64_t max_tokens) {
  std::vector<std::vector<std::size_t>> by_domain(set.domains.size());
  for (std::size_t i = 0; i < set.windows.size(); ++i) {
    by_domain[set.windows[i].domain].push_back(i);
  }
  std::vector<bool> keep(set.windows.size());
  std::uint64_t left = max_tokens;
  for (std::size_t round = 0; left > 0; ++round) {
    bool any = false;
    for (const auto& domain : by_domain) {
      if (round >= domain.size() || left == 0) continue;
      any = true;
      Window& window = set.windows[domain[round]];
      if (window.scored() > left) {
        window.tokens.resize(window.first_scored + static_cast<std::size_t>(left));
      }
      left -= window.scored();
      keep[domain[round]] = true;
    }
    if (!any) break;
  }
  std::vector<Window> kept;
  for (std::size_t i = 0; i < set.windows.size(); ++i) {
    if (keep[i]) kept.push_back(std::move(set.windows[i]));
  }
  set.windows = std::move(kept);
}

}  // namespace

std::vector<Document> read_documents(std::span<const std::string> paths) {
  std::vector<Document> documents;
  for (const std::string& path : paths) {
    if (std::filesystem::is_directory(path)) {
      for (const auto& file : files_of(path)) read_file(file, documents);
    } else {
      read_file(path, documents);
    }
  }
  if (documents.empty()) fail(ErrorCode::kUsage, "--data: there is no text to read");
  return documents;
}

std::uint64_t WindowSet::scored_tokens() const {
  std::uint64_t total = 0;
  for (const Window& window : windows) total += window.scored();
  return total;
}

WindowSet make_windows(const text::Tokenizer& tokenizer, std::span<const Document> documents,
                       const WindowOptions& options) {
  if (options.context < 2) {
    fail(ErrorCode::kUsage, "--context: {} is too short; at least 2 positions are needed",
         options.context);
  }
  const std::optional<TokenId> start = start_token(tokenizer);
  const std::size_t stretch = start ? options.context - 1 : options.context;
  WindowSet set;
  std::map<std::string, std::size_t> domain_index;
  for (const Document& document : documents) {
    const auto [at, added] = domain_index.emplace(document.domain, set.domains.size());
    if (added) set.domains.push_back(document.domain);
    const std::vector<TokenId> ids = with_context(document.source, [&] {
      return tokenizer.encode(document.text, text::SpecialTokens::kAsText);
    });
    for (std::size_t i = 0; i < ids.size(); i += stretch) {
      Window window;
      window.domain = at->second;
      if (start) window.tokens.push_back(*start);
      const std::size_t end = std::min(i + stretch, ids.size());
      window.tokens.insert(window.tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(i),
                           ids.begin() + static_cast<std::ptrdiff_t>(end));
      if (window.scored() > 0) set.windows.push_back(std::move(window));
    }
  }
  if (options.max_tokens != 0) keep_tokens(set, options.max_tokens);
  if (set.windows.empty()) fail(ErrorCode::kUsage, "--data: the texts hold no tokens to score");
  return set;
}

}  // namespace winnow::metrics
