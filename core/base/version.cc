#include "core/base/version.h"

namespace kvc {

std::string_view Version() { return KVC_VERSION; }

}  // namespace kvc
