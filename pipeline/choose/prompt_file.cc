#include "pipeline/choose/prompt_file.h"

#include "core/io/json.h"

namespace kvc::choose {

Json PromptsToJson(const eval::WalkOptions& walk,
                   const std::vector<std::vector<int32_t>>& samples,
                   const std::vector<eval::NeedleCell>& cells,
                   bool question_before) {
  Json json = {{"context", walk.context},
               {"decode", walk.decode},
               {"samples", samples},
               {"question", question_before ? "before" : "after"},
               {"needles", Json::array()}};
  for (const eval::NeedleCell& cell : cells) {
    for (const NeedlePrompt& prompt : cell.prompts) {
      json["needles"].push_back({{"length", cell.length},
                                 {"depth", cell.depth},
                                 {"context", prompt.context},
                                 {"question", prompt.question},
                                 {"lead", prompt.lead},
                                 {"answer", prompt.answer},
                                 {"value", prompt.value}});
    }
  }
  return json;
}

}  // namespace kvc::choose
