#include "pipeline/recipe/recipe.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>

#include "core/base/error.h"
#include "core/io/file_kind.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/json_lines.h"

namespace kvc::recipe {
namespace {

constexpr int64_t kSchema = 1;

const std::set<std::string>& Commands() {
  static const std::set<std::string> commands = {
      "kvc-factorize",   "kvc-profile",    "kvc-export",     "kvc-train",
      "kvc-run",         "kvc-bench",      "kvc-eval ppl",   "kvc-eval kld",
      "kvc-eval needle", "kvc-eval ruler", "kvc-eval lines", "kvc-eval longbench",
      "kvc-eval compare"};
  return commands;
}

// Options that `kvc run` sets itself.
constexpr std::string_view kOwnOptions[] = {"json",   "dry-run", "o",    "out",
                                            "output", "force",   "quiet"};

bool IsName(const std::string& name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), good) && name != "report" &&
         name != "results" && name != "stages" && name.front() != '-';
}

// visit(value) for every argument and option's value.
template <class Visit>
void ForEachValue(const Stage& stage, const Visit& visit) {
  for (const std::string& value : stage.arguments) visit(value);
  for (const auto& [option, values] : stage.options) {
    for (const std::string& value : values) visit(value);
  }
}

// The keys that a stage or a recipe may have.
constexpr std::string_view kStageKeys[] = {"name", "command", "arguments", "options"};
// "$schema" is what editors find docs/formats/recipe.schema.json by.
constexpr std::string_view kRecipeKeys[] = {"$schema", "recipe",   "about",
                                            "inputs",  "launcher", "stages"};

// Reads a recipe and goes on behind what is wrong.
class Reader {
 public:
  Reader(const std::filesystem::path& file, const std::map<std::string, std::string>& replaced)
      : file_(file), replaced_(replaced) {}

  CheckedRecipe Read() {
    const std::string text = ReadFile(file_);
    RefuseKnownKind(text, file_.string(), "JSON");
    const Json json = ParseJson(text, file_.string());
    const JsonLines lines(text);
    lines_ = &lines;
    ReadRecipe(json);
    std::ranges::stable_sort(problems_, {}, &RecipeProblem::line);
    return {std::move(recipe_), std::move(problems_)};
  }

 private:
  template <class... Args>
  void Problem(const std::string& pointer, fmt::format_string<Args...> format, Args&&... args) {
    problems_.push_back(
        {lines_->LineOf(pointer), fmt::format(format, std::forward<Args>(args)...)});
  }

  // Names keys that are not among `known`; false where `json` is no object.
  bool CheckObject(const Json& json,
                   std::span<const std::string_view> known,
                   const std::string& pointer,
                   const std::string& where) {
    if (!json.is_object()) {
      Problem(pointer, "{}expected an object, got {}", where, json.type_name());
      return false;
    }
    for (const auto& [key, value] : json.items()) {
      if (std::ranges::find(known, key) != known.end()) continue;
      Problem(JsonPointer(pointer, key), "{}expected one of the keys {}, got \"{}\"", where,
              fmt::join(known, ", "), key);
    }
    return true;
  }

  void ReadRecipe(const Json& json) {
    if (!CheckObject(json, kRecipeKeys, "", "")) return;
    if (json.value("recipe", Json()) != Json(kSchema)) {
      Problem("/recipe", "recipe: expected {}, got {}", kSchema,
              json.contains("recipe") ? json["recipe"].dump() : "none");
    }
    for (const char* text : {"about", "$schema"}) {
      if (json.contains(text) && !json[text].is_string()) {
        Problem(JsonPointer("", text), "{}: expected text, got {}", text, json[text].dump());
      }
    }
    ReadInputs(json);
    ReadLauncher(json);
    const Json stages = json.value("stages", Json());
    if (!stages.is_array() || stages.empty()) {
      Problem("/stages", "stages: expected a list with at least one");
      return;
    }
    for (size_t i = 0; i < stages.size(); ++i) {
      ReadStage(stages[i], JsonPointer("/stages", static_cast<int64_t>(i)));
    }
  }

  // Inputs are found beside the recipe; replaced_ (--set) overrides some of them.
  void ReadInputs(const Json& json) {
    const std::filesystem::path folder = std::filesystem::absolute(file_).parent_path();
    const Json inputs = json.value("inputs", Json());
    if (!inputs.is_object()) {
      Problem("/inputs", "inputs: expected an object of names and paths");
      return;
    }
    for (const auto& [name, path] : inputs.items()) {
      if (!path.is_string()) {
        Problem(JsonPointer("/inputs", name), "inputs: {}: expected a path, got {}", name,
                path.dump());
        recipe_.inputs[name] = folder;  // no further problems because of this one
      } else {
        recipe_.inputs[name] = (folder / path.get<std::string>()).lexically_normal();
      }
    }
    for (const auto& [name, path] : replaced_) {
      KVC_CHECK(recipe_.inputs.contains(name), kUsage,
                "--set {}: expected an input of {}, got none of that name", name, file_.string());
      recipe_.inputs[name] = std::filesystem::absolute(path).lexically_normal();
    }
  }

  void ReadLauncher(const Json& json) {
    if (!json.contains("launcher")) return;
    const Json& words = json["launcher"];
    bool good = words.is_array() && !words.empty();
    for (size_t i = 0; good && i < words.size(); ++i) {
      good = words[i].is_string() && !words[i].get<std::string>().empty();
    }
    if (!good) {
      Problem("/launcher", "launcher: expected a list of words, [\"srun\", \"-n\", \"8\"], got {}",
              words.dump());
      return;
    }
    recipe_.launcher = words.get<std::vector<std::string>>();
  }

  // Returns the text under a key; none where there is none, which is a problem.
  std::optional<std::string> Text(const Json& json,
                                  const char* key,
                                  const std::string& pointer,
                                  const std::string& where) {
    if (json.contains(key) && json[key].is_string()) return json[key].get<std::string>();
    Problem(JsonPointer(pointer, key), "{}{}: expected text, got {}", where, key,
            json.contains(key) ? json[key].dump() : "none");
    return std::nullopt;
  }

  void ReadStage(const Json& json, const std::string& pointer) {
    if (!CheckObject(json, kStageKeys, pointer, "stage: ")) return;
    Stage stage;
    const std::optional<std::string> name = Text(json, "name", pointer, "stage: ");
    stage.name = name.value_or("");
    const std::string where = "stage \"" + stage.name + "\": ";
    const std::string name_place = JsonPointer(pointer, "name");
    if (name && !IsName(*name)) {
      Problem(name_place,
              "{}expected a name of small letters, digits and '-' other than report, results and "
              "stages",
              where);
    } else if (name && !names_.insert(*name).second) {
      Problem(name_place, "{}expected each name once", where);
    }
    const std::optional<std::string> command = Text(json, "command", pointer, where);
    stage.command = command.value_or("");
    if (command && !Commands().contains(*command)) {
      Problem(JsonPointer(pointer, "command"), "{}command: expected one of {}, got \"{}\"", where,
              fmt::join(Commands(), ", "), stage.command);
    }
    ReadArguments(json, pointer, where, stage);
    ReadOptions(json, pointer, where, stage);
    if (stage.writes_folder()) folders_.insert(stage.name);
    recipe_.stages.push_back(std::move(stage));
  }

  void ReadArguments(const Json& json,
                     const std::string& pointer,
                     const std::string& where,
                     Stage& stage) {
    if (!json.contains("arguments")) return;
    const std::string place = JsonPointer(pointer, "arguments");
    if (!json["arguments"].is_array()) {
      Problem(place, "{}arguments: expected a list, got {}", where, json["arguments"].dump());
      return;
    }
    stage.arguments = Scalars(json["arguments"], place, where + "arguments: ");
  }

  void ReadOptions(const Json& json,
                   const std::string& pointer,
                   const std::string& where,
                   Stage& stage) {
    if (!json.contains("options")) return;
    const std::string place = JsonPointer(pointer, "options");
    if (!json["options"].is_object()) {
      Problem(place, "{}options: expected an object, got {}", where, json["options"].dump());
      return;
    }
    for (const auto& [name, value] : json["options"].items()) {
      const std::string own = JsonPointer(place, name);
      if (std::ranges::find(kOwnOptions, name) != std::end(kOwnOptions)) {
        Problem(own, "{}options: expected none that kvc run sets itself, got {}", where, name);
      }
      const bool flag = value.is_boolean();
      if (flag && !value.get<bool>()) continue;
      stage.options.emplace_back(
          name, flag ? std::vector<std::string>{} : Scalars(value, own, where + name + ": "));
    }
  }

  std::vector<std::string> Scalars(const Json& value,
                                   const std::string& pointer,
                                   const std::string& where) {
    if (!value.is_array()) return {Scalar(value, pointer, where)};
    std::vector<std::string> values;
    for (size_t i = 0; i < value.size(); ++i) {
      values.push_back(Scalar(value[i], JsonPointer(pointer, static_cast<int64_t>(i)), where));
    }
    return values;
  }

  // A value as it goes to a command; checks what it refers to.
  std::string Scalar(const Json& value, const std::string& pointer, const std::string& where) {
    if (value.is_number()) return value.dump();
    if (!value.is_string()) {
      Problem(pointer, "{}expected a string, a number, true, or a list of the first two, got {}",
              where, value.dump());
      return {};
    }
    auto text = value.get<std::string>();
    if (text.starts_with('$') && !recipe_.inputs.contains(text.substr(1))) {
      Problem(pointer, "{}expected an input, got {}", where, text);
    }
    if (text.starts_with('@') && !folders_.contains(text.substr(1))) {
      Problem(pointer, "{}expected a folder that an earlier stage writes, got {}", where, text);
    }
    return text;
  }

  const std::filesystem::path& file_;
  const std::map<std::string, std::string>& replaced_;
  const JsonLines* lines_ = nullptr;
  std::set<std::string> names_;
  std::set<std::string> folders_;  // stages so far that write one
  Recipe recipe_;
  std::vector<RecipeProblem> problems_;
};

}  // namespace

bool Stage::writes_folder() const {
  return command == "kvc-factorize" || command == "kvc-profile" || command == "kvc-export" ||
         command == "kvc-train";
}

bool Stage::takes_ranks() const {
  if (command != "kvc-export") {
    return command == "kvc-factorize" || command == "kvc-profile" || command == "kvc-train" ||
           command.starts_with("kvc-eval ");
  }
  const auto is_auto = [](const auto& option) {
    return option.first == "method" && option.second == std::vector<std::string>{"auto"};
  };
  return std::ranges::any_of(options, is_auto);
}

std::vector<std::string> Stage::needs() const {
  std::vector<std::string> needed;
  ForEachValue(*this, [&](const std::string& value) {
    if (!value.starts_with('@')) return;
    const std::string other = value.substr(1);
    if (std::find(needed.begin(), needed.end(), other) == needed.end()) needed.push_back(other);
  });
  return needed;
}

CheckedRecipe CheckRecipe(const std::filesystem::path& file,
                          const std::map<std::string, std::string>& replaced) {
  return Reader(file, replaced).Read();
}

Recipe ReadRecipe(const std::filesystem::path& file,
                  const std::map<std::string, std::string>& replaced) {
  CheckedRecipe checked = CheckRecipe(file, replaced);
  if (checked.problems.empty()) return std::move(checked.recipe);
  const RecipeProblem& first = checked.problems[0];
  KVC_THROW(kBadInput, "{}:{}: {}{}", file.string(), first.line, first.text,
            checked.problems.size() > 1
                ? fmt::format(" (and {} more: kvc run --check)", checked.problems.size() - 1)
                : "");
}

}  // namespace kvc::recipe
