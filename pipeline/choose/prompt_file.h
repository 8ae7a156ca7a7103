#pragma once
// The token ids that `kvc-eval compare` measures with, for another program that is to be judged on
// the same ones (bench/kvpress_table.py).

#include <cstdint>
#include <vector>

#include "core/io/json_fwd.h"
#include "eval/compare/needle.h"
#include "eval/compare/walk.h"

namespace kvc::choose {

// Returns
//   {"context", "decode", "samples": [[ids]], "question": "before" or "after",
//    "needles": [{"length", "depth", "context": [ids], "question": [ids], "lead", "answer": [ids],
//                 "value"}]}
// A needle's fields are those of eval/tasks/needle_task.h's NeedlePrompt.
[[nodiscard]] Json PromptsToJson(const eval::WalkOptions& walk,
                                 const std::vector<std::vector<int32_t>>& samples,
                                 const std::vector<eval::NeedleCell>& cells,
                                 bool question_before);

}  // namespace kvc::choose
