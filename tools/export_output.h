#pragma once
// Output of kvc-export as text: what it planned, wrote, chose and checked.

#include "export/bundle/export_bundle.h"
#include "pipeline/choose/choose_composition.h"

namespace kvc::tools {

void PrintPlan(const bundle::ExportPlan& plan);
void PrintWritten(const bundle::ExportResult& written);
void PrintCheck(const bundle::CheckResult& checked);
void PrintChoice(const choose::Choice& choice);

}  // namespace kvc::tools
