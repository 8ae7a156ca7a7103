// config.json of a model.

#include "core/checkpoint/model_config.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(model_config) {
  kvc::fuzz::WrittenFile("config.json", bytes);
  (void)kvc::ReadModelConfig(kvc::fuzz::Directory());
}
