#include "pipeline/recipe/recipe_run.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <optional>
#include <set>
#include <system_error>

#include "core/base/error.h"
#include "core/base/exit_code.h"
#include "core/base/version.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "pipeline/recipe/child_process.h"

namespace kvc::recipe {
namespace {

namespace fs = std::filesystem;

std::string Digest(const std::string& text) { return Sha256(std::as_bytes(std::span(text))); }

// Returns the files in a folder by their names below it; none if the folder does not exist.
std::map<std::string, fs::path> FilesIn(const fs::path& folder) {
  std::map<std::string, fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory() && !entry.is_symlink()) continue;
    files[entry.path().lexically_relative(folder).generic_string()] = entry.path();
  }
  return files;
}

// Returns the digest of a file's bytes, or of the names and bytes of all files in a folder.
std::string DigestOf(const fs::path& path) {
  if (!fs::is_directory(path)) return Sha256File(path);
  std::string lines;
  for (const auto& [name, file] : FilesIn(path)) {
    if (fs::is_regular_file(file)) lines += name + " " + Sha256File(file) + "\n";
  }
  return Digest(lines);
}

ErrorKind KindOf(int exit_code) {
  for (const ErrorKind kind :
       {ErrorKind::kUsage, ErrorKind::kBadInput, ErrorKind::kInfeasible, ErrorKind::kVerification,
        ErrorKind::kIo, ErrorKind::kDevice, ErrorKind::kInterrupted}) {
    if (ExitCode(kind) == exit_code) return kind;
  }
  return ErrorKind::kInternal;
}

std::string Quoted(const std::string& word) {
  return word.find_first_of(" \t\"'$&|;<>(){}*?") == std::string::npos && !word.empty()
             ? word
             : "'" + word + "'";
}

class Run {
 public:
  Run(const Recipe& recipe, const RecipeRunOptions& options, Progress& progress)
      : recipe_(recipe), options_(options), progress_(progress) {}

  RecipeResult All() {
    CheckApart();
    CheckInputsExist();
    std::optional<DirectoryLock> lock;
    if (!options_.dry_run) {
      std::error_code error;
      fs::create_directories(options_.output, error);
      KVC_CHECK(!error, kIo, "{}: expected to create the folder, got \"{}\"",
                options_.output.string(), error.message());
      lock.emplace(options_.output);
    }
    for (const Stage& stage : recipe_.stages) CheckIsOurs(stage);
    CheckLauncher();
    RecipeResult result;
    result.output = options_.output;
    const auto count = std::ssize(recipe_.stages);
    for (const Stage& stage : recipe_.stages) {
      const auto start = std::chrono::steady_clock::now();
      StageOutcome outcome{stage.name, stage.command, LaunchLineOf(stage), "", 0.0};
      outcome.state = options_.dry_run ? Plan(stage) : Do(stage);
      outcome.seconds =
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      result.stages.push_back(std::move(outcome));
      if (!options_.dry_run) {
        AddGates(stage, result);
        progress_.Report("stages", std::ssize(result.stages), count);
      }
    }
    return result;
  }

 private:
  [[nodiscard]] fs::path Folder(const std::string& stage) const { return options_.output / stage; }
  [[nodiscard]] fs::path ResultOf(const Stage& stage) const {
    return options_.output / "results" / (stage.name + ".json");
  }
  [[nodiscard]] fs::path RecordOf(const Stage& stage) const {
    return options_.output / "stages" / (stage.name + ".json");
  }

  // Returns the record of a stage that has one; null for one that was cut short or overwritten with
  // zeros, as a failing disk leaves it: its stage is run again.
  [[nodiscard]] Json ReadRecord(const Stage& stage) const {
    const std::string text = ReadFile(RecordOf(stage));
    if (text.empty() || text[0] == '\0') return {};
    try {
      return ParseJson(text, RecordOf(stage).string());
    } catch (const Error&) {
      if (text[0] == '{') return {};
      throw;
    }
  }

  // Checks that everything written lies apart from the recipe's inputs, with --force too.
  void CheckApart() const {
    std::vector<fs::path> inputs;
    for (const auto& [name, path] : recipe_.inputs) inputs.push_back(path);
    for (const char* own : {"results", "stages", "report.html"}) {
      CheckOutputApart(options_.output / own, inputs);
    }
    for (const Stage& stage : recipe_.stages) {
      if (stage.writes_folder()) CheckOutputApart(Folder(stage.name), inputs);
    }
  }

  // Checks, before anything is made, that what the stages read lies where the recipe says.
  void CheckInputsExist() const {
    const auto check = [this](const std::string& value) {
      if (value.starts_with('$')) CheckExists(value, Resolve(value));
    };
    for (const Stage& stage : recipe_.stages) {
      std::ranges::for_each(stage.arguments, check);
      for (const auto& [name, values] : stage.options) std::ranges::for_each(values, check);
    }
  }
  static void CheckExists(const std::string& value, const fs::path& path) {
    KVC_CHECK(fs::exists(path), kIo, "input {}: expected {}, got nothing there; see --set", value,
              path.string());
  }

  // Throws if the contents of a stage's place were not made by a run of this folder: a stage claims
  // its name in its record before it runs, and the record lists the files that it made.
  void CheckIsOurs(const Stage& stage) const {
    if (options_.force) return;
    const bool claimed = fs::exists(RecordOf(stage));
    const Json record = claimed ? ReadRecord(stage) : Json::object();
    const bool broken = record.is_null();
    KVC_CHECK(!claimed || broken || (record.is_object() && record.contains("kvc")), kUsage,
              "{}: expected the record of a run of this recipe, got another file; use --force to "
              "replace it, or another -o",
              RecordOf(stage).string());
    KVC_CHECK(claimed || !fs::exists(ResultOf(stage)), kUsage,
              "{}: expected a result that a run of this recipe made, got another file; use --force "
              "to replace it, or another -o",
              ResultOf(stage).string());
    if (!stage.writes_folder()) return;
    const fs::path folder = Folder(stage.name);
    KVC_CHECK(!fs::exists(folder) || fs::is_directory(folder), kUsage,
              "{}: expected a folder or nothing there, got a file; use another -o",
              folder.string());
    if (claimed && (broken || !record.contains("files"))) return;
    const Json made = record.value("files", Json::array());
    for (const auto& [name, path] : FilesIn(folder)) {
      KVC_CHECK(std::ranges::find(made, Json(name)) != made.end(), kUsage,
                "{}: expected only files that a run of this recipe made, got {}; use --force to "
                "replace them, or another -o",
                folder.string(), name);
    }
  }

  // Returns the words that come before the stage's command.
  [[nodiscard]] std::vector<std::string> LauncherOf(const Stage& stage) const {
    if (!stage.takes_ranks()) return {};
    return options_.launcher.value_or(recipe_.launcher);
  }

  // Checks, before anything is made, that the launcher is there.
  void CheckLauncher() const {
    for (const Stage& stage : recipe_.stages) {
      const std::vector<std::string> launcher = LauncherOf(stage);
      KVC_CHECK(launcher.empty() || IsProgram(launcher[0]), kUsage,
                "launcher: expected a program, got {}, which is not on the PATH; kvc run "
                "--launcher none starts every stage on this machine alone",
                launcher.empty() ? "" : launcher[0]);
    }
  }

  [[nodiscard]] std::string Resolve(const std::string& value) const {
    if (value.starts_with('$')) return recipe_.inputs.at(value.substr(1)).string();
    if (value.starts_with('@')) return Folder(value.substr(1)).string();
    return value;
  }

  // The command and its words, resolved.
  [[nodiscard]] std::vector<std::string> Words(const Stage& stage) const {
    const size_t space = stage.command.find(' ');
    std::vector<std::string> words = {
        (options_.programs / stage.command.substr(0, space)).string()};
    if (space != std::string::npos) words.push_back(stage.command.substr(space + 1));
    for (const std::string& argument : stage.arguments) words.push_back(Resolve(argument));
    for (const auto& [name, values] : stage.options) {
      const std::string option = (name.size() == 1 ? "-" : "--") + name;
      if (values.empty()) words.push_back(option);
      for (const std::string& value : values) {
        words.push_back(option);
        words.push_back(Resolve(value));
      }
    }
    if (stage.writes_folder()) {
      const fs::path folder = Folder(stage.name);
      words.insert(words.end(), {"-o", folder.string()});
      if (!FilesIn(folder).empty()) words.emplace_back("--force");  // CheckIsOurs has seen them
    }
    words.insert(words.end(), {"--json", "--seed", std::to_string(options_.seed)});
    words.insert(words.end(), {"--device", options_.device});
    if (options_.threads > 0) {
      words.insert(words.end(), {"--threads", std::to_string(options_.threads)});
    }
    if (options_.quiet) words.emplace_back("--quiet");
    return words;
  }
  // The words of the command after its launcher.
  [[nodiscard]] std::vector<std::string> LaunchWords(const Stage& stage) const {
    std::vector<std::string> words = LauncherOf(stage);
    const std::vector<std::string> own = Words(stage);
    words.insert(words.end(), own.begin(), own.end());
    return words;
  }
  [[nodiscard]] std::string LaunchLineOf(const Stage& stage) const {
    std::string line;
    for (const std::string& word : LauncherOf(stage)) line += Quoted(word) + " ";
    return line + LineOf(stage);
  }
  // The command's line, without its launcher and the --force that only says what an earlier run has
  // left: a record has the same bytes after a run that was killed.
  [[nodiscard]] std::string LineOf(const Stage& stage) const {
    std::string line;
    for (const std::string& word : Words(stage)) {
      if (word != "--force") line += (line.empty() ? "" : " ") + Quoted(word);
    }
    return line;
  }

  const std::string& InputDigest(const std::string& value) {
    const auto known = digests_.find(value);
    if (known != digests_.end()) return known->second;
    const fs::path path = Resolve(value);
    CheckExists(value, path);
    return digests_[value] = DigestOf(path);
  }

  // Returns the key of everything that a stage's output depends on.
  std::string KeyOf(const Stage& stage) {
    const auto named = [&](const std::string& value) -> Json {
      const bool refers = value.starts_with('$') || value.starts_with('@');
      return refers ? Json{{"sha256", InputDigest(value)}} : Json(value);
    };
    Json key = {{"kvc", Version()},           {"command", stage.command},
                {"seed", options_.seed},      {"device", options_.device},
                {"arguments", Json::array()}, {"options", Json::array()}};
    for (const std::string& argument : stage.arguments) key["arguments"].push_back(named(argument));
    for (const auto& [name, values] : stage.options) {
      Json option = {name};
      for (const std::string& value : values) option.push_back(named(value));
      key["options"].push_back(std::move(option));
    }
    return Digest(key.dump());
  }

  // Returns true if the stage would make again what it made before.
  [[nodiscard]] bool IsKept(const Stage& stage, const std::string& key) const {
    if (options_.force || !fs::exists(RecordOf(stage)) || !fs::exists(ResultOf(stage)))
      return false;
    const Json record = ReadRecord(stage);
    const auto says = [&record](const char* name, const std::string& value) {
      return record.is_object() && record.contains(name) && record[name] == value;
    };
    if (!says("key", key) || !says("result_sha256", DigestOf(ResultOf(stage)))) return false;
    return !stage.writes_folder() || (fs::is_directory(Folder(stage.name)) &&
                                      says("output_sha256", DigestOf(Folder(stage.name))));
  }

  std::string Plan(const Stage& stage) {
    for (const std::string& needed : stage.needs()) {
      if (!to_run_.contains(needed)) continue;
      to_run_.insert(stage.name);
      return "to run after " + needed;
    }
    if (IsKept(stage, KeyOf(stage))) return "kept";
    to_run_.insert(stage.name);
    return "to run";
  }

  std::string Do(const Stage& stage) {
    const std::string key = KeyOf(stage);
    if (IsKept(stage, key)) {
      progress_.Log(stage.name + ": kept");
      return "kept";
    }
    CheckIsOurs(stage);  // much may have happened since the run began
    progress_.Log(stage.name + ": " + LaunchLineOf(stage));
    fs::create_directories(options_.output / "results");
    fs::create_directories(options_.output / "stages");
    Json record = {{"kvc", Version()}, {"command", LineOf(stage)}};
    WriteJsonFile(RecordOf(stage), record);  // the claim
    const fs::path printed = ResultOf(stage).string() + ".partial";
    const int code = RunChild(LaunchWords(stage), printed);
    const bool failed =
        code != kExitDone && !(code == kExitVerification && fs::file_size(printed) > 0);
    if (!failed) {
      fs::rename(printed, ResultOf(stage));
      record["key"] = key;
      record["result_sha256"] = DigestOf(ResultOf(stage));
    }
    if (stage.writes_folder()) RecordFolder(stage, failed, record);
    WriteJsonFile(RecordOf(stage), record);
    if (failed) {
      fs::remove(printed);
      detail::Throw(KindOf(code),
                    "stage {}: expected {} to succeed, got exit code {}; its own message stands "
                    "above",
                    stage.name, stage.command, code);
    }
    return "ran";
  }

  // Records the files of a stage's folder, and their digest unless a failed stage left them.
  void RecordFolder(const Stage& stage, bool failed, Json& record) {
    const fs::path folder = Folder(stage.name);
    if (!failed) record["output_sha256"] = digests_["@" + stage.name] = DigestOf(folder);
    record["files"] = Json::array();
    for (const auto& [name, path] : FilesIn(folder)) record["files"].push_back(name);
  }

  void AddGates(const Stage& stage, RecipeResult& result) const {
    const Json printed = ReadJsonFile(ResultOf(stage));
    for (const Json& gate : printed.value("gates", Json::array())) {
      result.gates.push_back(
          {stage.name, gate["name"], gate["passed"], gate["value"], gate["limit"], gate});
    }
    if (printed.value("gate", "passed") == "failed") result.gates_passed = false;
  }

  const Recipe& recipe_;
  const RecipeRunOptions& options_;
  Progress& progress_;
  std::map<std::string, std::string> digests_;  // of "$input" and "@stage"
  std::set<std::string> to_run_;                // dry run
};

}  // namespace

Json ToJson(const RecipeResult& result) {
  Json json = {{"output", result.output.string()}, {"stages", Json::array()}};
  for (const StageOutcome& stage : result.stages) {
    json["stages"].push_back({{"name", stage.name},
                              {"command", stage.command},
                              {"line", stage.line},
                              {"state", stage.state},
                              {"seconds", stage.seconds}});
  }
  if (result.gates.empty()) return json;
  json["gates"] = Json::array();
  for (const StageGate& gate : result.gates) {
    Json record = gate.record;
    record["stage"] = gate.stage;
    json["gates"].push_back(std::move(record));
  }
  json["gate"] = result.gates_passed ? "passed" : "failed";
  return json;
}

RecipeResult RunRecipe(const Recipe& recipe, const RecipeRunOptions& options, Progress& progress) {
  return Run(recipe, options, progress).All();
}

}  // namespace kvc::recipe
