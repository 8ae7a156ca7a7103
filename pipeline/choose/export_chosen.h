#pragma once
// `kvc-export --method auto` as a whole: chooses a composition, then writes its bundle with the
// table of everything that was tried in the manifest.

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/io/json_fwd.h"
#include "export/bundle/export_bundle.h"
#include "pipeline/choose/choose_composition.h"

namespace kvc::choose {

struct ChosenExport {
  Choice choice;
  bundle::ExportPlan plan;
  bundle::ExportResult written;
};

// Returns the keys of a comparison (pipeline/choose/comparison_json.h), "screened" and "chosen".
[[nodiscard]] Json ToJson(const Choice& choice);

// Chooses among the candidates of `request`, whose model is the first, and exports the best with
// the options. What both have (budget, types, sinks, window, seed, threads) is taken from the
// options. Throws like ChooseComposition and ExportBundle, kUsage for an output that is not apart
// from what is read, and when ranks disagree about an input. Collective: all choose, rank 0 writes;
// `written` is empty on the others.
[[nodiscard]] ChosenExport ExportChosen(ChooseRequest request,
                                        const bundle::ExportOptions& options,
                                        Progress& progress,
                                        Ranks& ranks = OneRank());

}  // namespace kvc::choose
