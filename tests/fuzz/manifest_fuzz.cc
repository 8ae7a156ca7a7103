// manifest.json of a bundle.

#include "core/cache/manifest.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(manifest) {
  kvc::fuzz::WrittenFile("manifest.json", bytes);
  (void)kvc::ReadManifest(kvc::fuzz::Directory());
}
