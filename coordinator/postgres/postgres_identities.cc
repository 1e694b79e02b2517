// Requests, populations, tokens, devices, artefacts and reports of
// PostgresStore.
#include "coordinator/device_keys.h"
#include "coordinator/postgres/postgres_rows.h"
#include "coordinator/postgres/postgres_sql.h"
#include "coordinator/postgres/postgres_store.h"
#include "coordinator/store/row_columns.h"
#include "coordinator/store/row_text.h"

namespace selvage::coordinator {
namespace {

const std::string kPopulation =
    "SELECT name, created, (SELECT COUNT(*) FROM selvage.device d WHERE "
    "d.population = p.name) FROM selvage.population p ";

const std::string kToken = Select(kTokenColumns, "selvage.token");

const std::string kDevice = Select(kDeviceColumns, "selvage.device") +
                            "WHERE population = $1 AND device_id = $2";

void CountCertificate(Connection& db) {
  PostgresSql(db,
              std::string("INSERT INTO selvage.issued AS i (shard, count) "
                          "VALUES (") +
                  kRandomShard +
                  ", 1) ON CONFLICT (shard) DO UPDATE SET count = i.count + 1");
}

}  // namespace

Result<uint64_t> PostgresStore::CertificatesIssued() {
  uint64_t count = 0;
  const Status done = Read("the certificates issued", [&](Connection& db) {
    PostgresSql sql(
        db, "SELECT COALESCE(SUM(count), 0)::bigint FROM selvage.issued");
    if (sql.Next()) sql.Columns(count);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return count;
}

Result<std::optional<RequestRow>> PostgresStore::FindRequest(
    const std::string& id) {
  std::optional<RequestRow> found;
  const Status done = Read("request " + id, [&](Connection& db) {
    PostgresSql sql(
        db,
        "SELECT id, kind, fingerprint, resource, created FROM selvage.request "
        "WHERE id = $1",
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

Status InsertRequest(Connection& db, const RequestRow& request) {
  if (request.id.empty()) return OkStatus();
  const int64_t inserted =
      PostgresSql(db,
                  "INSERT INTO selvage.request (id, kind, fingerprint, "
                  "resource, created) "
                  "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
                  request.id, request.kind, request.fingerprint,
                  request.resource, request.created)
          .affected();
  return inserted == 1 ? OkStatus() : RequestTaken(request.id);
}

Status RequirePopulation(Connection& db, const std::string& name) {
  PostgresSql sql(db, "SELECT 1 FROM selvage.population WHERE name = $1", name);
  return sql.Next() ? OkStatus() : NotFound("no population " + name);
}

Status PostgresStore::CreatePopulation(const PopulationRow& row,
                                       const RequestRow& request) {
  return Write("population " + row.name, [&](Connection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    const int64_t inserted =
        PostgresSql(db,
                    "INSERT INTO selvage.population (name, created) "
                    "VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    row.name, row.created)
            .affected();
    if (inserted == 1) return OkStatus();
    return AlreadyExists("population " + row.name + " exists");
  });
}

Result<PopulationRow> PostgresStore::GetPopulation(const std::string& name) {
  PopulationRow row;
  const Status done = Read("population " + name, [&](Connection& db) -> Status {
    PostgresSql sql(db, kPopulation + "WHERE name = $1", name);
    if (!sql.Next()) return NotFound("no population " + name);
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<PopulationRow>> PostgresStore::ListPopulations(
    const std::string& after, uint32_t limit) {
  std::vector<PopulationRow> rows;
  const Status done = Read("the populations", [&](Connection& db) {
    rows.clear();
    PostgresSql sql(db,
                    (kPopulation + "WHERE name > $1 ORDER BY name LIMIT $2"),
                    after, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Status PostgresStore::InsertToken(const TokenRow& row,
                                  const RequestRow& request) {
  return Write("token " + row.id, [&](Connection& db) -> Status {
    SELVAGE_RETURN_IF_ERROR(InsertRequest(db, request));
    SELVAGE_RETURN_IF_ERROR(RequirePopulation(db, row.population));
    const int64_t inserted =
        PostgresSql(db,
                    "INSERT INTO selvage.token (id, population, secret_digest, "
                    "created, "
                    "expires, uses_max, uses, revoked) VALUES ($1, $2, $3, $4, "
                    "$5, $6, $7, $8) "
                    "ON CONFLICT DO NOTHING",
                    row.id, row.population, row.secret_digest, row.created,
                    row.expires, row.uses_max, row.uses, row.revoked)
            .affected();
    if (inserted == 1) return OkStatus();
    return AlreadyExists("token " + row.id + " exists");
  });
}

Result<TokenRow> PostgresStore::GetToken(const std::string& id) {
  TokenRow row;
  const Status done = Read("token " + id, [&](Connection& db) -> Status {
    PostgresSql sql(db, kToken + "WHERE id = $1", id);
    if (!sql.Next()) return NotFound("no token " + id);
    ReadRow(sql, row);
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<TokenRow>> PostgresStore::ListTokens(
    const std::string& population, const std::string& after, uint32_t limit) {
  std::vector<TokenRow> rows;
  const Status done = Read("the tokens of " + population, [&](Connection& db) {
    rows.clear();
    PostgresSql sql(
        db, (kToken + "WHERE population = $1 AND id > $2 ORDER BY id LIMIT $3"),
        population, after, limit);
    while (sql.Next()) ReadRow(sql, rows.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return rows;
}

Result<TokenRow> PostgresStore::RevokeToken(const std::string& id) {
  const Status done = Write("token " + id, [&](Connection& db) -> Status {
    const int64_t changed =
        PostgresSql(db, "UPDATE selvage.token SET revoked = 1 WHERE id = $1",
                    id)
            .affected();
    return changed == 1 ? OkStatus() : NotFound("no token " + id);
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return GetToken(id);
}

Result<DeviceRow> PostgresStore::EnrollDevice(const DeviceRow& row, Time now) {
  DeviceRow stored = row;
  const Status done =
      Write("device " + row.device_id, [&](Connection& db) -> Status {
        stored = row;
        // A device that is not there yet has no row to lock.
        PostgresSql(db,
                    "SELECT pg_advisory_xact_lock(hashtextextended("
                    "'device ' || $1::text || ' ' || $2::text, 0))",
                    row.population, row.device_id);
        PostgresSql find(db, kDevice, row.population, row.device_id);
        if (find.Next()) {
          DeviceRow existing;
          ReadRow(find, existing);
          SELVAGE_RETURN_IF_ERROR(CheckSameKey(existing, row));
          if (existing.token_id == row.token_id) {
            stored = existing;
            return OkStatus();
          }
        }
        const int64_t used =
            PostgresSql(
                db,
                "UPDATE selvage.token SET uses = uses + 1 WHERE id = $1 AND "
                "population = $2 AND revoked = 0 AND expires > $3 AND "
                "uses < uses_max",
                row.token_id, row.population, now)
                .affected();
        if (used != 1) return TokenRefused(row.token_id);
        PostgresSql(
            db,
            "INSERT INTO selvage.device (population, device_id, "
            "key_digest, token_id, "
            "certificate_pem, certificate_expires, enrolled, nonce_made) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8) "
            "ON CONFLICT (population, device_id) DO UPDATE SET "
            "token_id = excluded.token_id, "
            "certificate_pem = excluded.certificate_pem, "
            "certificate_expires = excluded.certificate_expires, "
            "enrolled = excluded.enrolled, "
            "nonce_made = excluded.nonce_made",
            row.population, row.device_id, row.key_digest, row.token_id,
            row.certificate_pem, row.certificate_expires, row.enrolled,
            row.nonce_made);
        CountCertificate(db);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return stored;
}

Status PostgresStore::RenewDevice(const DeviceRow& row) {
  return Write("device " + row.device_id, [&](Connection& db) -> Status {
    PostgresSql find(db, kDevice + " FOR NO KEY UPDATE", row.population,
                     row.device_id);
    if (!find.Next()) {
      return NotFound("device " + row.device_id + " is not enrolled");
    }
    DeviceRow existing;
    ReadRow(find, existing);
    SELVAGE_RETURN_IF_ERROR(CheckSameKey(existing, row));
    SELVAGE_RETURN_IF_ERROR(CheckNewNonce(existing, row));
    PostgresSql(db,
                "UPDATE selvage.device SET certificate_pem = $1, "
                "certificate_expires = $2, "
                "nonce_made = $3 WHERE population = $4 AND device_id = $5",
                row.certificate_pem, row.certificate_expires, row.nonce_made,
                row.population, row.device_id);
    CountCertificate(db);
    return OkStatus();
  });
}

Result<DeviceRow> PostgresStore::GetDevice(const std::string& population,
                                           const std::string& device_id) {
  DeviceRow row;
  const Status done =
      Read("device " + device_id, [&](Connection& db) -> Status {
        PostgresSql sql(db, kDevice, population, device_id);
        if (!sql.Next()) {
          return NotFound("device " + device_id + " is not enrolled");
        }
        ReadRow(sql, row);
        return OkStatus();
      });
  SELVAGE_RETURN_IF_ERROR(done);
  return row;
}

Result<std::vector<DeviceIdentity>> PostgresStore::ListDevices() {
  std::vector<DeviceIdentity> all;
  const Status done = Read("the devices", [&](Connection& db) {
    all.clear();
    PostgresSql sql(db,
                    "SELECT population, device_id FROM selvage.device "
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

void InsertArtefacts(
    Connection& db,
    std::span<const std::pair<crypto::Digest, uint64_t>> artefacts) {
  PostgresArray digests;
  PostgresArray sizes;
  for (const auto& [digest, size] : artefacts) {
    digests.Add(digest);
    sizes.Add(size);
  }
  PostgresSql(db,
              "INSERT INTO selvage.artefact (digest, size) "
              "SELECT d, s FROM unnest($1::text[], $2::bigint[]) AS a (d, s) "
              "ORDER BY d ON CONFLICT DO NOTHING",
              digests, sizes);
}

void InsertReferences(Connection& db, const std::string& population,
                      std::span<const crypto::Digest> digests) {
  PostgresArray wanted;
  for (const crypto::Digest& digest : digests) wanted.Add(digest);
  PostgresSql(db,
              "INSERT INTO selvage.reference (population, digest) "
              "SELECT $1, d FROM unnest($2::text[]) AS r (d) ORDER BY d "
              "ON CONFLICT DO NOTHING",
              population, wanted);
}

Status PostgresStore::PutArtefact(const crypto::Digest& digest, uint64_t size) {
  return Write("artefact " + digest.ToHex(), [&](Connection& db) {
    const std::pair<crypto::Digest, uint64_t> one(digest, size);
    InsertArtefacts(db, {&one, 1});
    return OkStatus();
  });
}

Result<bool> PostgresStore::HasArtefact(const crypto::Digest& digest) {
  bool found = false;
  const Status done = Read("artefact " + digest.ToHex(), [&](Connection& db) {
    found = PostgresSql(db, "SELECT 1 FROM selvage.artefact WHERE digest = $1",
                        digest)
                .Next();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Result<std::vector<crypto::Digest>> PostgresStore::ListArtefacts() {
  std::vector<crypto::Digest> all;
  const Status done = Read("the artefacts", [&](Connection& db) {
    all.clear();
    PostgresSql sql(db, "SELECT digest FROM selvage.artefact ORDER BY digest");
    while (sql.Next()) sql.Columns(all.emplace_back());
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return all;
}

Result<bool> PostgresStore::IsReferenced(const std::string& population,
                                         const crypto::Digest& digest) {
  bool found = false;
  const Status done = Read("artefact " + digest.ToHex(), [&](Connection& db) {
    found = PostgresSql(db,
                        "SELECT 1 FROM selvage.reference WHERE population = $1 "
                        "AND digest = $2",
                        population, digest)
                .Next();
    return OkStatus();
  });
  SELVAGE_RETURN_IF_ERROR(done);
  return found;
}

Status PostgresStore::AddReport(
    const DeviceIdentity& device, const std::string& report_id, Time at,
    const std::map<std::string, uint64_t>& counters) {
  return Write("report " + report_id, [&](Connection& db) {
    const int64_t inserted =
        PostgresSql(db,
                    "INSERT INTO selvage.report (population, device_id, "
                    "report_id, created) "
                    "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                    device.population, device.device_id, report_id, at)
            .affected();
    if (inserted == 0) return OkStatus();
    PostgresArray names;
    PostgresArray values;
    for (const auto& [name, value] : counters) {
      names.Add(name);
      values.Add(value);
    }
    PostgresSql(db,
                std::string("INSERT INTO selvage.counter AS c (population, "
                            "name, shard, value) SELECT $1, n, ") +
                    kRandomShard +
                    ", v FROM unnest($2::text[], $3::bigint[]) AS t (n, v) "
                    "ORDER BY n ON CONFLICT (population, name, shard) "
                    "DO UPDATE SET value = c.value + excluded.value",
                device.population, names, values);
    return OkStatus();
  });
}

Result<std::map<std::string, uint64_t>> PostgresStore::ReportTotals(
    const std::string& population) {
  std::map<std::string, uint64_t> totals;
  const Status done = Read("the reports of " + population, [&](Connection& db) {
    totals.clear();
    PostgresSql sql(db,
                    "SELECT name, SUM(value)::bigint FROM selvage.counter "
                    "WHERE population = $1 GROUP BY name",
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
