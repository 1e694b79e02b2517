#include "base/version.h"

#include <selvage_version.h>

namespace selvage {

std::string_view Version() { return SELVAGE_VERSION; }
std::string_view Commit() { return SELVAGE_COMMIT; }

}  // namespace selvage
