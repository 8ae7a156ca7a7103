#include "pipeline/recipe/recipe.h"

#include <algorithm>
#include <set>

#include "core/base/error.h"
#include "core/io/json.h"

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

std::string Scalar(const Json& value, const std::string& origin) {
  if (value.is_string()) return value.get<std::string>();
  KVC_CHECK(value.is_number(), kBadInput,
            "{}: expected a string, a number, true, or a list of the first two, got {}", origin,
            value.dump());
  return value.dump();
}

std::vector<std::string> Scalars(const Json& value, const std::string& origin) {
  if (!value.is_array()) return {Scalar(value, origin)};
  std::vector<std::string> values;
  for (const Json& one : value) values.push_back(Scalar(one, origin));
  return values;
}

Stage ReadStage(const Json& json, const std::string& origin) {
  CheckKeys(json, {"name", "command", "arguments", "options"}, origin);
  Stage stage;
  stage.name = GetString(json, "name", origin);
  const std::string where = origin + " \"" + stage.name + "\"";
  KVC_CHECK(
      IsName(stage.name), kBadInput,
      "{}: expected a name of small letters, digits and '-' other than report, results and stages",
      where);
  stage.command = GetString(json, "command", where);
  std::string known;
  for (const std::string& name : Commands()) known += (known.empty() ? "" : ", ") + name;
  KVC_CHECK(Commands().contains(stage.command), kBadInput,
            "{}: command: expected one of {}, got \"{}\"", where, known, stage.command);
  if (json.contains("arguments")) {
    stage.arguments = Scalars(GetArray(json, "arguments", where), where + ": arguments");
  }
  if (!json.contains("options")) return stage;
  for (const auto& [name, value] : GetObject(json, "options", where).items()) {
    KVC_CHECK(std::ranges::find(kOwnOptions, name) == std::end(kOwnOptions), kBadInput,
              "{}: options: expected none that kvc run sets itself, got {}", where, name);
    const bool flag = value.is_boolean();
    if (flag && !value.get<bool>()) continue;
    stage.options.emplace_back(
        name, flag ? std::vector<std::string>{} : Scalars(value, where + ": " + name));
  }
  return stage;
}

// visit(value) for every argument and option's value.
template <class Visit>
void ForEachValue(const Stage& stage, const Visit& visit) {
  for (const std::string& value : stage.arguments) visit(value);
  for (const auto& [option, values] : stage.options) {
    for (const std::string& value : values) visit(value);
  }
}

// Returns the recipe's inputs, found beside its file; `replaced` (--set) overrides some of them.
std::map<std::string, std::filesystem::path> ReadInputs(
    const Json& json,
    const std::filesystem::path& file,
    const std::map<std::string, std::string>& replaced) {
  const std::string origin = file.string();
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  std::map<std::string, std::filesystem::path> inputs;
  for (const auto& [name, path] : GetObject(json, "inputs", origin).items()) {
    KVC_CHECK(path.is_string(), kBadInput, "{}: inputs: {}: expected a path", origin, name);
    inputs[name] = (folder / path.get<std::string>()).lexically_normal();
  }
  for (const auto& [name, path] : replaced) {
    KVC_CHECK(inputs.contains(name), kUsage,
              "--set {}: expected an input of {}, got none of that name", name, origin);
    inputs[name] = std::filesystem::absolute(path).lexically_normal();
  }
  return inputs;
}

}  // namespace

bool Stage::writes_folder() const {
  return command == "kvc-factorize" || command == "kvc-profile" || command == "kvc-export" ||
         command == "kvc-train";
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

Recipe ReadRecipe(const std::filesystem::path& file,
                  const std::map<std::string, std::string>& replaced) {
  const Json json = ReadJsonFile(file);
  const std::string origin = file.string();
  KVC_CHECK(json.is_object(), kBadInput, "{}: expected an object", origin);
  CheckKeys(json, {"recipe", "about", "inputs", "stages"}, origin);
  KVC_CHECK(GetInt(json, "recipe", origin) == kSchema, kBadInput, "{}: recipe: expected {}, got {}",
            origin, kSchema, json["recipe"].dump());
  Recipe recipe;
  recipe.inputs = ReadInputs(json, file, replaced);
  std::set<std::string> before;
  for (const Json& entry : GetArray(json, "stages", origin)) {
    const Stage stage = ReadStage(entry, origin + ": stage");
    const std::string where = origin + ": stage \"" + stage.name + "\"";
    ForEachValue(stage, [&](const std::string& value) {
      KVC_CHECK(!value.starts_with('$') || recipe.inputs.contains(value.substr(1)), kBadInput,
                "{}: expected an input, got {}", where, value);
      KVC_CHECK(!value.starts_with('@') || before.contains(value.substr(1)), kBadInput,
                "{}: expected a folder that an earlier stage writes, got {}", where, value);
    });
    const bool is_new = std::none_of(recipe.stages.begin(), recipe.stages.end(),
                                     [&](const Stage& other) { return other.name == stage.name; });
    KVC_CHECK(is_new, kBadInput, "{}: expected each name once", where);
    if (stage.writes_folder()) before.insert(stage.name);
    recipe.stages.push_back(stage);
  }
  KVC_CHECK(!recipe.stages.empty(), kBadInput, "{}: stages: expected at least one", origin);
  return recipe;
}

}  // namespace kvc::recipe
