// manifest.json of a bundle, and the bytes that follow from what it says.

#include "core/cache/cache_spec.h"
#include "core/cache/manifest.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(manifest) {
  kvc::fuzz::WrittenFile("manifest.json", bytes);
  const kvc::Manifest manifest = kvc::ReadManifest(kvc::fuzz::Directory());
  (void)kvc::PredictBytes(manifest.cache, manifest.model.context_length);
}
