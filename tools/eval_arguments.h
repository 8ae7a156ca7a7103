#pragma once
// What the subcommands of kvc-eval share in reading their arguments.

#include <memory>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/requests.h"
#include "eval/compare/walk.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// --decode-policy
void AddDecodePolicy(CLI::App& app, std::string& policy);

void AddNeedleOptions(CLI::App& app, eval::NeedleArguments& args);
// --question before|after
void AddQuestionOption(CLI::App& app, std::string& question);
void PrintCache(const Json& cache);

}  // namespace kvc::tools
