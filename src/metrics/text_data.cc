// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/text_data.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/json.h"
#include "os/file.h"
#include "text/utf8.h"

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
  std::filesystem::directory_iterator at(folder, error);
  for (; !error && at != std::filesystem::directory_iterator(); at.increment(error)) {
    std::error_code broken;  // of a link to nowhere, which is no file
    const bool hidden = at->path().filename().string().starts_with('.');
    if (!hidden && at->is_regular_file(broken)) files.push_back(at->path());
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

/// How many of `budget` tokens each domain gets: in proportion to its weight, except that what a
/// short domain cannot use is shared by the others; the rest of the division goes to the first
/// ones.
std::vector<std::uint64_t> fair_shares(std::span<const std::uint64_t> available,
                                       std::span<const double> weights, std::uint64_t budget) {
  std::vector<std::uint64_t> shares(available.size());
  std::uint64_t left = budget;
  for (;;) {
    double hungry = 0;
    for (std::size_t d = 0; d < shares.size(); ++d) {
      if (shares[d] < available[d]) hungry += weights[d];
    }
    if (!(hungry > 0) || left == 0) return shares;
    const std::uint64_t round = left;
    for (std::size_t d = 0; d < shares.size() && left > 0; ++d) {
      if (!(weights[d] > 0)) continue;
      const double part = static_cast<double>(round) * (weights[d] / hungry);
      const std::uint64_t each = std::max<std::uint64_t>(static_cast<std::uint64_t>(part), 1);
      const std::uint64_t more = std::min({each, available[d] - shares[d], left});
      shares[d] += more;
      left -= more;
    }
  }
}

/// Of each domain; 1 where none is given.
std::vector<double> weights_of(const WindowSet& set, const std::map<std::string, double>& given) {
  std::vector<double> weights(set.domains.size(), 1.0);
  for (const auto& [name, weight] : given) {
    const auto found = std::find(set.domains.begin(), set.domains.end(), name);
    if (found == set.domains.end()) {
      std::string all;
      for (const std::string& domain : set.domains) all += (all.empty() ? "" : ", ") + domain;
      fail(ErrorCode::kUsage, "--weight {}: there is no such domain; the text has {}", name, all);
    }
    weights[static_cast<std::size_t>(found - set.domains.begin())] = weight;
  }
  return weights;
}

/// Keeps the beginning of each domain, as long as its share of `max_tokens` (0: whole).
void keep_tokens(WindowSet& set, std::uint64_t max_tokens, std::span<const double> weights) {
  std::vector<std::uint64_t> left(set.domains.size());
  for (const Window& window : set.windows) left[window.domain] += window.scored();
  if (max_tokens != 0) {
    left = fair_shares(left, weights, max_tokens);
  } else {
    for (std::size_t d = 0; d < left.size(); ++d) left[d] = weights[d] > 0 ? left[d] : 0;
  }
  std::vector<Window> kept;
  for (Window& window : set.windows) {
    const std::uint64_t scored = std::min<std::uint64_t>(window.scored(), left[window.domain]);
    if (scored == 0) continue;
    left[window.domain] -= scored;
    window.tokens.resize(window.first_scored + static_cast<std::size_t>(scored));
    kept.push_back(std::move(window));
  }
  set.windows = std::move(kept);
}

}  // namespace

std::vector<Document> read_documents(std::span<const std::string> paths) {
  std::vector<Document> documents;
  for (const std::string& path : paths) {
    std::error_code error;  // of a path that cannot be looked at: opening it says why
    if (std::filesystem::is_directory(path, error)) {
      for (const auto& file : files_of(path)) read_file(file, documents);
    } else {
      read_file(path, documents);
    }
  }
  if (paths.empty()) fail(ErrorCode::kUsage, "--data: name a file or a folder to read");
  if (documents.empty()) fail_data("{}: there is no text to read", paths.front());
  return documents;
}

std::uint64_t WindowSet::scored_tokens() const {
  std::uint64_t total = 0;
  for (const Window& window : windows) total += window.scored();
  return total;
}

std::vector<Document> read_calibration(std::span<const std::string> paths) {
  constexpr std::size_t kMostStray = 100;  // one in so many
  std::vector<Document> documents = read_documents(paths);
  for (const Document& document : documents) {
    const std::string& content = document.text;
    const std::size_t zero = content.find('\0');
    if (zero != std::string::npos) {
      fail_data("{}: has a zero byte at offset {}; it is no text", document.source, zero);
    }
    const std::size_t stray = text::stray_bytes(content);
    if (stray * kMostStray > content.size()) {
      fail_data("{}: {} of its {} bytes are no UTF-8; is it text? Convert it to UTF-8",
                document.source, stray, content.size());
    }
  }
  return documents;
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
    const std::vector<TokenId> ids = with_context(document.source, [&] {
      return tokenizer.encode(document.text, text::SpecialTokens::kAsText);
    });
    for (std::size_t i = 0; i < ids.size(); i += stretch) {
      Window window;
      if (start) window.tokens.push_back(*start);
      const std::size_t end = std::min(i + stretch, ids.size());
      window.tokens.insert(window.tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(i),
                           ids.begin() + static_cast<std::ptrdiff_t>(end));
      if (window.scored() == 0) continue;
      // A domain without a token to score has no mean, so it begins with its first window.
      const auto [at, added] = domain_index.emplace(document.domain, set.domains.size());
      if (added) set.domains.push_back(document.domain);
      window.domain = at->second;
      set.windows.push_back(std::move(window));
    }
  }
  if (options.max_tokens != 0 || !options.weights.empty()) {
    keep_tokens(set, options.max_tokens, weights_of(set, options.weights));
  }
  if (set.windows.empty()) {
    fail_data("{}: holds no tokens to score; is the file empty?",
              documents.empty() ? std::string("--data") : documents.front().source);
  }
  return set;
}

}  // namespace winnow::metrics
