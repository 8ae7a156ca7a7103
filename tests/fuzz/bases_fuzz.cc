// bases.safetensors of a bundle.

#include "core/cache/cache_bases.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(bases) { (void)kvc::ReadBases(kvc::fuzz::WrittenFile("bases.safetensors", bytes)); }
