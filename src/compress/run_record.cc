// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/run_record.h"

#include <string>

#include "compress/profile_plan.h"
#include "model/fingerprint.h"

namespace winnow::compress {

Json run_record(const model::Checkpoint& source, const CompressOptions& options,
                const CalibrationText* text, std::string_view isa, std::uint64_t budget) {
  Json run = options.run.is_object() ? options.run : Json::object();
  run["model"] = fmt::format("{:016x}", model::fingerprint(source.file()));
  run["isa"] = std::string(isa);
  run["hessians"] = std::string(to_string(options.hessians));
  run["probe_tokens"] = options.probe_tokens;
  if (options.corrections.rank != 0) run["correction_rank"] = options.corrections.rank;
  if (options.experts.any()) run["every_expert"] = "yes";
  run["text"] = "";
  if (text != nullptr) {
    run["text"] = fmt::format("{:016x}", text_fingerprint(text->calibration));
    run["held_out"] = fmt::format("{:016x}", text_fingerprint(text->held_out));
    run["probe"] = fmt::format("{:016x}", text_fingerprint(text->probe));
  }
  // What comes before a group decides its bytes, and what is wanted decides a layer's changes.
  if (options.sequential || options.transforms.any()) run["budget"] = budget;
  if (options.sequential) {
    run["allocation"] = dump_json({describe(options.allocation), options.experts.other_text});
  }
  return run;
}

}  // namespace winnow::compress
