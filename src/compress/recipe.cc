// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/recipe.h"

#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>

#include "base/error.h"
#include "compress/expert_options.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr Bytes kLongestRecipe{std::uint64_t{1} << 20};
constexpr std::int64_t kVersion = 1;

/// A table, whose keys are asked for by name; all others are refused.
class Section {
 public:
  Section(const toml::table& table, std::string file, std::string name)
      : table_(table), file_(std::move(file)), name_(std::move(name)) {}

  void require_known(std::initializer_list<std::string_view> known) const {
    for (const auto& [key, node] : table_) {
      if (std::find(known.begin(), known.end(), key.str()) != known.end()) continue;
      std::string all;
      for (const std::string_view one : known) all.append(all.empty() ? "" : ", ").append(one);
      refuse(key.source().begin.line, fmt::format("there is no key '{}'", label(key.str())),
             "keys here are: " + all);
    }
  }

  /// Nothing when the key is absent. Throws when it has another type.
  template <typename T>
  std::optional<T> get(std::string_view key, std::string_view kind) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    std::optional<T> value = node->value_exact<T>();
    if (!value) refuse(line_of(key), fmt::format("'{}' must be {}", label(key), kind), "");
    return value;
  }
  std::optional<double> number(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    if (!node->is_number())
      refuse(line_of(key), fmt::format("'{}' must be a number", label(key)), "");
    return node->value<double>();
  }
  /// Texts, joined with commas.
  std::optional<std::string> list(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return std::nullopt;
    const toml::array* array = node->as_array();
    std::string joined;
    for (std::size_t i = 0; array != nullptr && i < array->size(); ++i) {
      const auto text = array->get(i)->value_exact<std::string>();
      if (!text) array = nullptr;
      if (text) joined += (joined.empty() ? "" : ",") + *text;
    }
    if (array == nullptr || joined.empty()) {
      refuse(line_of(key), fmt::format("'{}' must be a list of names in quotes", label(key)), "");
    }
    return joined;
  }
  const toml::table* section(std::string_view key) const {
    const toml::node* node = table_.get(key);
    if (node == nullptr) return nullptr;
    if (!node->is_table())
      refuse(line_of(key), fmt::format("'{}' must be a table", label(key)), "");
    return node->as_table();
  }

  unsigned line_of(std::string_view key) const { return table_.get(key)->source().begin.line; }
  [[noreturn]] void refuse(unsigned line, const std::string& what,
                           const std::string& remedy) const {
    fail(ErrorCode::kUsage, "{}:{}: {}{}{}", file_, line, what, remedy.empty() ? "" : "; ", remedy);
  }

 private:
  std::string label(std::string_view key) const {
    return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
  }

  const toml::table& table_;
  std::string file_;
  std::string name_;
};

/// Names are checked here, where the line is known.
std::optional<std::string> read_expert_options(const Section& section) {
  auto names = section.list("options");
  if (!names) return std::nullopt;
  try {
    expert_options_of_names(*names);
  } catch (const Error& error) {
    section.refuse(section.line_of("options"), error.message(), "");
  }
  return names;
}

std::optional<double> read_other_text(const Section& section, bool has_options) {
  const auto share = section.number("other_text");
  const auto refuse = [&](const char* problem, const char* remedy) {
    section.refuse(section.line_of("other_text"), problem, remedy);
  };
  if (share && !(*share >= 0 && *share <= 1)) {
    refuse("'experts.other_text' must be from 0 to 1", "");
  }
  if (share && !has_options) {
    refuse("'experts.other_text' without 'experts.options'", "say what may become of experts");
  }
  return share;
}

SelectionRequest read_selection(const Section& section, unsigned line) {
  SelectionRequest request;
  const auto keep = section.get<std::int64_t>("keep", "a whole number");
  const auto name = section.get<std::string>("select", "a name in quotes");
  if (!keep) section.refuse(line, "'experts.keep' is missing", "how many stay in each layer?");
  if (!name) {
    section.refuse(line, "'experts.select' is missing", "it is one of " + expert_selection_names());
  }
  if (*keep < 1) section.refuse(section.line_of("keep"), "'experts.keep' must be 1 or more", "");
  request.keep = static_cast<std::size_t>(*keep);
  request.selection = find_expert_selection(*name);
  if (request.selection == nullptr) {
    section.refuse(section.line_of("select"), fmt::format("no way to select is called '{}'", *name),
                   "there are " + expert_selection_names());
  }
  request.protects_super_experts =
      section.get<bool>("protect_super_experts", "true or false").value_or(true);
  return request;
}

toml::table parse(const std::filesystem::path& path) {
  const std::string text = os::read_text_file(path, kLongestRecipe);
  try {
    return toml::parse(text, path.string());
  } catch (const toml::parse_error& error) {
    fail(ErrorCode::kUsage, "{}:{}: is no TOML: {}", path.string(), error.source().begin.line,
         error.description());
  }
}

}  // namespace

Recipe read_recipe(const std::filesystem::path& path) {
  const toml::table table = parse(path);
  const Section top(table, path.string(), "");
  top.require_known({"version", "budget", "bits", "tolerance", "experts"});
  const auto version = top.get<std::int64_t>("version", "a whole number");
  if (!version || *version != kVersion) {
    top.refuse(version ? top.line_of("version") : 1,
               version ? fmt::format("version {} of recipes is unknown", *version)
                       : "'version' is missing",
               fmt::format("this program reads version = {}", kVersion));
  }
  Recipe recipe;
  recipe.budget = top.get<std::string>("budget", "a size in quotes: \"8GiB\", \"30%\"");
  recipe.bits = top.number("bits");
  recipe.tolerance = top.number("tolerance");
  if (recipe.budget && recipe.bits) {
    top.refuse(top.line_of("bits"), "'bits' contradicts 'budget'", "give one of them");
  }
  if (recipe.tolerance && (recipe.budget || recipe.bits)) {
    top.refuse(top.line_of("tolerance"), "'tolerance' contradicts 'budget' and 'bits'",
               "give one of them");
  }
  if (recipe.tolerance && !(*recipe.tolerance > 0)) {
    top.refuse(top.line_of("tolerance"), "'tolerance' must be above 0, in nats per token", "");
  }
  if (recipe.bits && !(*recipe.bits >= 0.1 && *recipe.bits <= 32)) {
    top.refuse(top.line_of("bits"), "'bits' must be from 0.1 to 32", "");
  }
  if (const toml::table* experts = top.section("experts")) {
    const Section section(*experts, path.string(), "experts");
    section.require_known({"keep", "select", "protect_super_experts", "options", "other_text"});
    recipe.expert_options = read_expert_options(section);
    if (recipe.expert_options) recipe.options_line = section.line_of("options");
    recipe.other_text = read_other_text(section, recipe.expert_options.has_value());
    const bool selects = experts->contains("keep") || experts->contains("select") ||
                         experts->contains("protect_super_experts");
    if (selects || !recipe.expert_options) {
      recipe.experts = read_selection(section, top.line_of("experts"));
      recipe.experts_line = section.line_of("keep");
    }
  }
  return recipe;
}

}  // namespace winnow::compress
