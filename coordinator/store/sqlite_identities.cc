// Requests, populations, tokens, devices, artefacts and reports of SqliteStore.
#include <SQLiteCpp/SQLiteCpp.h>

#include "coordinator/device_keys.h"
#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"
#include "coordinator/store/sqlite_connection.h"
#include "coordinator/store/sqlite_rows.h"
#include "coordinator/store/sqlite_sql.h"
#include "coordinator/store/sqlite_store.h"

namespace selvage::coordinator {
namespace {

const std::string kPopulation =
    "SELECT name, created, (SELECT COUNT(*) FROM device WHERE "
    "device.population "
    "= population.name) FROM population ";

const std::string kToken = Select(kTokenColumns, "token");

const std::string kDevice =
    Select(kDeviceColumns, "device") + "WHERE population = ? AND device_id = ?";

void CountCertificate(SqliteConnection& db) {
  Sql(db, "UPDATE meta SET certificates_issued = certificates_issued + 1")
      .Run();
}

}  // namespace

Result<uint64_t> SqliteStore::CertificatesIssued() {
  uint64_t count = 0;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db, "SELECT certificates_issued FROM meta");
    if (sql.Next()) sql.Columns(count);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return count;
}

Result<std::optional<RequestRow>> SqliteStore::FindRequest(
    const std::string& id) {
  std::optional<RequestRow> found;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT id, kind, fingerprint, resource, created FROM request "
            "WHERE id = ?",
            id);
    if (sql.Next()) {
      RequestRow row;
      sql.Columns(row.id, row.kind, row.fingerprint, row.resource, row.created);
      found = std::move(row);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Status InsertRequest(SqliteConnection& db, const RequestRow& request) {
  if (request.id.empty()) return OkStatus();
  const int inserted =
      Sql(db,
          "INSERT INTO request (id, kind, fingerprint, resource, created) "
          "VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
          request.id, request.kind, request.fingerprint, request.resource,
          request.created)
          .Run();
  return inserted == 1 ? OkStatus() : RequestTaken(request.id);
}

Status RequirePopulation(SqliteConnection& db, const std::string& name) {
  Sql sql(db, "SELECT 1 FROM population WHERE name = ?", name);
  return sql.Next() ? OkStatus() : NotFound("no population " + name);
}

Status SqliteStore::CreatePopulation(const PopulationRow& row,
                                     const RequestRow& request) {
  return Write([&](SqliteConnection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    const int inserted = Sql(db,
                             "INSERT INTO population (name, created) "
                             "VALUES (?, ?) ON CONFLICT DO NOTHING",
                             row.name, row.created)
                             .Run();
    if (inserted == 1) return OkStatus();
    return AlreadyExists("population " + row.name + " exists");
  });
}

Result<PopulationRow> SqliteStore::GetPopulation(const std::string& name) {
  PopulationRow row;
  const Status done = Read([&](SqliteConnection& db) -> Status {
    Sql sql(db, (kPopulation + "WHERE name = ?").c_str(), name);
    if (!sql.Next()) return NotFound("no population " + name);
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<PopulationRow>> SqliteStore::ListPopulations(
    const std::string& after, uint32_t limit) {
  std::vector<PopulationRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db, (kPopulation + "WHERE name > ? ORDER BY name LIMIT ?").c_str(),
            after, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Status SqliteStore::InsertToken(const TokenRow& row,
                                const RequestRow& request) {
  return Write([&](SqliteConnection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(RequirePopulation(db, row.population));
    const int inserted =
        Sql(db,
            "INSERT INTO token (id, population, secret_digest, created, "
            "expires, uses_max, uses, revoked) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            row.id, row.population, row.secret_digest, row.created, row.expires,
            row.uses_max, row.uses, row.revoked)
            .Run();
    if (inserted == 1) return OkStatus();
    return AlreadyExists("token " + row.id + " exists");
  });
}

Result<TokenRow> SqliteStore::GetToken(const std::string& id) {
  TokenRow row;
  const Status done = Read([&](SqliteConnection& db) -> Status {
    Sql sql(db, (kToken + "WHERE id = ?").c_str(), id);
    if (!sql.Next()) return NotFound("no token " + id);
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<TokenRow>> SqliteStore::ListTokens(
    const std::string& population, const std::string& after, uint32_t limit) {
  std::vector<TokenRow> rows;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            (kToken + "WHERE population = ? AND id > ? ORDER BY id LIMIT ?")
                .c_str(),
            population, after, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<TokenRow> SqliteStore::RevokeToken(const std::string& id) {
  const Status done = Write([&](SqliteConnection& db) -> Status {
    const int changed =
        Sql(db, "UPDATE token SET revoked = 1 WHERE id = ?", id).Run();
    return changed == 1 ? OkStatus() : NotFound("no token " + id);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return GetToken(id);
}

Result<DeviceRow> SqliteStore::EnrollDevice(const DeviceRow& row, Time now) {
  DeviceRow stored = row;
  const Status done = Write([&](SqliteConnection& db) -> Status {
    Sql find(db, kDevice.c_str(), row.population, row.device_id);
    if (find.Next()) {
      DeviceRow existing;
      ReadRow(find, existing);
      SELVAGE_RETURN_IF_ERROR(CheckSameKey(existing, row));
      if (existing.token_id == row.token_id) {
        stored = existing;
        return OkStatus();
      }
    }
    const int used = Sql(db,
                         "UPDATE token SET uses = uses + 1 WHERE id = ? AND "
                         "population = ? AND NOT revoked AND expires > ? AND "
                         "uses < uses_max",
                         row.token_id, row.population, now)
                         .Run();
    if (used != 1) return TokenRefused(row.token_id);
    Sql(db,
        "INSERT INTO device (population, device_id, key_digest, token_id, "
        "certificate_pem, certificate_expires, enrolled, nonce_made) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (population, device_id) DO UPDATE SET "
        "token_id = excluded.token_id, "
        "certificate_pem = excluded.certificate_pem, "
        "certificate_expires = excluded.certificate_expires, "
        "enrolled = excluded.enrolled, "
        "nonce_made = excluded.nonce_made",
        row.population, row.device_id, row.key_digest, row.token_id,
        row.certificate_pem, row.certificate_expires, row.enrolled,
        row.nonce_made)
        .Run();
    CountCertificate(db);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

Status SqliteStore::RenewDevice(const DeviceRow& row) {
  return Write([&](SqliteConnection& db) -> Status {
    Sql find(db, kDevice.c_str(), row.population, row.device_id);
    if (!find.Next()) {
      return NotFound("device " + row.device_id + " is not enrolled");
    }
    DeviceRow existing;
    ReadRow(find, existing);
    SELVAGE_RETURN_IF_ERROR(CheckSameKey(existing, row));
    SELVAGE_RETURN_IF_ERROR(CheckNewNonce(existing, row));
    Sql(db,
        "UPDATE device SET certificate_pem = ?, certificate_expires = ?, "
        "nonce_made = ? WHERE population = ? AND device_id = ?",
        row.certificate_pem, row.certificate_expires, row.nonce_made,
        row.population, row.device_id)
        .Run();
    CountCertificate(db);
    return OkStatus();
  });
}

Result<DeviceRow> SqliteStore::GetDevice(const std::string& population,
                                         const std::string& device_id) {
  DeviceRow row;
  const Status done = Read([&](SqliteConnection& db) -> Status {
    Sql sql(db, kDevice.c_str(), population, device_id);
    if (!sql.Next()) {
      return NotFound("device " + device_id + " is not enrolled");
    }
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<DeviceIdentity>> SqliteStore::ListDevices() {
  std::vector<DeviceIdentity> all;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db,
            "SELECT population, device_id FROM device "
            "ORDER BY population, device_id");
    while (sql.Next()) {
      DeviceIdentity& identity = all.emplace_back();
      sql.Columns(identity.population, identity.device_id);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return all;
}

Status InsertArtefact(SqliteConnection& db, const crypto::Digest& digest,
                      uint64_t size) {
  Sql(db,
      "INSERT INTO artefact (digest, size) VALUES (?, ?) "
      "ON CONFLICT DO NOTHING",
      digest, size)
      .Run();
  return OkStatus();
}

Status InsertReference(SqliteConnection& db, const std::string& population,
                       const crypto::Digest& digest) {
  Sql(db,
      "INSERT INTO reference (population, digest) VALUES (?, ?) "
      "ON CONFLICT DO NOTHING",
      population, digest)
      .Run();
  return OkStatus();
}

Status SqliteStore::PutArtefact(const crypto::Digest& digest, uint64_t size) {
  return Write(
      [&](SqliteConnection& db) { return InsertArtefact(db, digest, size); });
}

Result<bool> SqliteStore::HasArtefact(const crypto::Digest& digest) {
  bool found = false;
  const Status done = Read([&](SqliteConnection& db) {
    found = Sql(db, "SELECT 1 FROM artefact WHERE digest = ?", digest).Next();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::vector<crypto::Digest>> SqliteStore::ListArtefacts() {
  std::vector<crypto::Digest> all;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db, "SELECT digest FROM artefact ORDER BY digest");
    while (sql.Next()) sql.Columns(all.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return all;
}

Result<bool> SqliteStore::IsReferenced(const std::string& population,
                                       const crypto::Digest& digest) {
  bool found = false;
  const Status done = Read([&](SqliteConnection& db) {
    found =
        Sql(db, "SELECT 1 FROM reference WHERE population = ? AND digest = ?",
            population, digest)
            .Next();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Status SqliteStore::AddReport(const DeviceIdentity& device,
                              const std::string& report_id, Time at,
                              const std::map<std::string, uint64_t>& counters) {
  return Write([&](SqliteConnection& db) {
    const int inserted =
        Sql(db,
            "INSERT INTO report (population, device_id, report_id, created) "
            "VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            device.population, device.device_id, report_id, at)
            .Run();
    if (inserted == 0) return OkStatus();
    for (const auto& [name, value] : counters) {
      Sql(db,
          "INSERT INTO counter (population, name, value) VALUES (?, ?, ?) "
          "ON CONFLICT (population, name) "
          "DO UPDATE SET value = value + excluded.value",
          device.population, name, value)
          .Run();
    }
    return OkStatus();
  });
}

Result<std::map<std::string, uint64_t>> SqliteStore::ReportTotals(
    const std::string& population) {
  std::map<std::string, uint64_t> totals;
  const Status done = Read([&](SqliteConnection& db) {
    Sql sql(db, "SELECT name, value FROM counter WHERE population = ?",
            population);
    while (sql.Next()) {
      std::string name;
      uint64_t value = 0;
      sql.Columns(name, value);
      totals.emplace(name, value);
    }
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return totals;
}

}  // namespace selvage::coordinator
