// The options of kvc-export.

#include <CLI/CLI.hpp>

#include "tools/export_command.h"
#include "tools/number_checks.h"

namespace kvc::tools {
namespace {

void AddAutoOptions(CLI::App& app, AutoArguments& args) {
  const std::string group = "With --method auto";
  app.add_option("--candidate", args.candidates,
                 "CHECKPOINT[,PROFILE] to try beside MODEL, as one with thin keys; repeatable")
      ->group(group);
  app.add_option("--policy", args.policies,
                 "METHOD[/SCORER[/LOSS]][@TIERS] to try on every checkpoint; repeatable; default: "
                 "what the profile allows")
      ->group(group);
  app.add_option("--text", args.request.text, "Held-back text to judge by; repeatable")
      ->group(group);
  app.add_option("--haystack", args.request.haystack,
                 "Text that hides needles; default: none are asked")
      ->group(group);
  app.add_option("--context", args.context, "Tokens of a prompt and of a needle prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--decode", args.decode, "Tokens predicted after a prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--samples", args.request.samples, "Windows of text")
      ->check(AboveZero())
      ->capture_default_str()
      ->group(group);
  app.add_option("--needles", args.request.needles, "Needles at each of five depths")
      ->check(AboveZero())
      ->capture_default_str()
      ->group(group);
  app.add_option("--least-needles", args.request.least_needles,
                 "Share of the full cache's needles that a choice must find")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void AddExportOptions(CLI::App& app, ExportArguments& arguments) {
  AddAutoOptions(app, arguments.automatic);
  bundle::ExportOptions& options = arguments.options;
  bundle::OptionTexts& texts = options.texts;
  app.add_option("model", options.model, "Checkpoint directory, thin or not");
  app.add_option("-o,--out,--output", options.output, "Bundle directory to write");
  app.add_option("--verify", arguments.verify, "Check a bundle: hashes, structure, stored logits");
  app.add_option("--budget", texts.budget, "Cache budget: 25%, 512tok or 1GiB@128k")
      ->capture_default_str();
  app.add_option("--profile", options.profile,
                 "Profile directory (headkv, lukv, lukv-mixed and offline bases need it)");
  app.add_option(
      "--method", texts.method,
      "full, streaming, uniform, pyramid, ada, ada-model, headkv, lukv, lukv-mixed, or auto: "
      "the best of what is tried on held-back --text; default: full at 100%, with a profile "
      "lukv-mixed where its tiers are in few bits, else lukv, without one uniform");
  app.add_option(
         "--scorer", texts.scorer,
         "What ranks cached tokens: snapkv, expected-attention, keydiff, knorm, streaming or "
         "output-error; options as in output-error:prompt=1024; auto: the profile's first, else "
         "snapkv")
      ->capture_default_str();
  app.add_option("--loss", texts.loss,
                 "What lukv and lukv-mixed keep small: importance, output-error, which is "
                 "comparable over the whole model, or auto: output-error where tiers are in few "
                 "bits")
      ->capture_default_str();
  app.add_option("--tiers", texts.tiers,
                 "Shares of its width that a token may keep: 0,1/8,1/4,1, or "
                 "key=0,1/4,1;value=0,1/2,1; default: 0,1, with lukv-mixed "
                 "the profile's");
  app.add_option("--basis", texts.basis,
                 "Coordinates of narrow tiers: offline (the profile's) or prompt (found in each "
                 "prompt and held by the sequence)")
      ->capture_default_str();
  app.add_option("--recent", texts.recent,
                 "The newest rows: x8, x4 or x2 (bits, as a tier of --tiers keeps them), f32, f16, "
                 "bf16, int8 as the cache, or auto: as the widest such tier, else as the cache")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "First tokens that are never dropped")
      ->capture_default_str();
  app.add_option("--window", options.window,
                 "Newest tokens that are never dropped; default: 32, with tiers in few bits and a "
                 "score by the prompt's queries 12");
  app.add_option("--dtype", texts.dtype,
                 "Stored weights: f32, f16, bf16, or auto: as in the checkpoint")
      ->capture_default_str();
  app.add_option("--cache-dtype", texts.cache_dtype,
                 "Cached keys and values: f32, f16, bf16, int8 (a scale for each row), or auto: as "
                 "--dtype")
      ->capture_default_str();
  app.add_option("--reference-length", texts.reference_length,
                 "Tokens at which the budget is met; default: the profile's context, or 4k");
  app.add_flag("--no-verify", options.no_verify, "Do not run the bundle against its source");
  app.add_flag("--force", options.force, "Replace an existing output");
}

}  // namespace kvc::tools
