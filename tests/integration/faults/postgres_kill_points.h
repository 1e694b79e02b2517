// Kill points around the commits of libpq: before COMMIT is sent, and when its
// answer is there. This program's PQsendQuery() and PQgetResult() come before
// those of the shared libpq and call them, so nothing that ships knows of it.
#pragma once

#include "tests/integration/faults/kill_points.h"

namespace selvage::test {

// Before any database is opened; once. `points` must live until the process
// ends. INTERNAL if libpq is not linked as a shared library.
Status InstallKillingLibpq(KillPoints& points);

}  // namespace selvage::test
