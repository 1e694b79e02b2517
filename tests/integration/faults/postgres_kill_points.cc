#include "tests/integration/faults/postgres_kill_points.h"

#include <dlfcn.h>

#include <set>
#include <string_view>

#include <libpq-fe.h>

#include "base/mutex.h"

namespace selvage::test {
namespace {

struct Libpq {
  KillPoints* points = nullptr;
  int (*send)(PGconn*, const char*) = nullptr;
  PGresult* (*result)(PGconn*) = nullptr;
  Mutex mu;
  std::set<PGconn*> committing SELVAGE_GUARDED_BY(mu);
};
// libpq's functions have no other place for it.
Libpq& Below() {
  static Libpq* const libpq = new Libpq;
  return *libpq;
}

}  // namespace

Status InstallKillingLibpq(KillPoints& points) {
  Libpq& below = Below();
  below.points = &points;
  below.send = reinterpret_cast<int (*)(PGconn*, const char*)>(
      dlsym(RTLD_NEXT, "PQsendQuery"));
  below.result =
      reinterpret_cast<PGresult* (*)(PGconn*)>(dlsym(RTLD_NEXT, "PQgetResult"));
  if (below.send == nullptr || below.result == nullptr) {
    return Internal("libpq is not a shared library");
  }
  return OkStatus();
}

}  // namespace selvage::test

extern "C" int PQsendQuery(PGconn* connection, const char* query) {
  selvage::test::Libpq& below = selvage::test::Below();
  if (std::string_view(query).ends_with("COMMIT")) {
    below.points->Reach("before.transaction.commit");
    const selvage::MutexLock lock(below.mu);
    below.committing.insert(connection);
  }
  return below.send(connection, query);
}

extern "C" PGresult* PQgetResult(PGconn* connection) {
  selvage::test::Libpq& below = selvage::test::Below();
  PGresult* const result = below.result(connection);
  bool committed = false;
  if (result == nullptr) {
    const selvage::MutexLock lock(below.mu);
    committed = below.committing.erase(connection) > 0;
  }
  if (committed) below.points->Reach("after.transaction.commit");
  return result;
}
