#pragma once
// The token ids that `kvc-eval compare` measures with, for another program that is to be judged on
// the same ones (bench/kvpress_table.py).

#include <cstdint>
#include <vector>

#include "core/json.h"
#include "eval/needle.h"
#include "eval/walk.h"

namespace kvc::tools {

// {"context", "decode", "samples": [[ids]], "question": "before" or "after",
//  "needles": [{"length", "depth", "context": [ids], "question": [ids], "lead", "answer": [ids],
//               "value"}]}
// A needle's fields are those of core/needle_task.h's NeedlePrompt.
[[nodiscard]] Json PromptsToJson(const eval::WalkOptions& walk,
                                 const std::vector<std::vector<int32_t>>& samples,
                                 const std::vector<eval::NeedleCell>& cells,
                                 bool question_before);

}  // namespace kvc::tools
