// ClientStore: models and telemetry.
#include <SQLiteCpp/SQLiteCpp.h>

#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::BindInPlace;
using store_internal::BlobOf;
using store_internal::CheckBlobSize;
using store_internal::GetMeta;
using store_internal::kMetaCrashes;
using store_internal::SetMeta;
using store_internal::TaskPlace;

namespace {

Bytes EncodeDoubles(std::span<const double> values) {
  Bytes out;
  for (const double value : values) AppendLe(out, value);
  return out;
}

Result<std::vector<double>> DecodeDoubles(ByteSpan bytes) {
  std::vector<double> values;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    SELVAGE_ASSIGN_OR_RETURN(const double value, reader.Read<double>("score"));
    values.push_back(value);
  }
  return values;
}

Status BindSealed(SQLite::Statement& statement, int index,
                  const ValueSeal& seal, const ValuePlace& place,
                  const std::optional<Bytes>& plain) {
  if (!plain.has_value()) {
    statement.bind(index);
    return OkStatus();
  }
  SELVAGE_ASSIGN_OR_RETURN(const Bytes sealed, seal.Seal(place, *plain));
  Bind(statement, index, sealed);
  return OkStatus();
}

void BindDigest(SQLite::Statement& statement, int index,
                const crypto::Digest& digest) {
  if (digest.empty()) {
    statement.bind(index);
  } else {
    Bind(statement, index, digest.span());
  }
}

Result<crypto::Digest> DigestOf(const SQLite::Column& column) {
  if (column.isNull()) return crypto::Digest{};
  return crypto::Digest::FromBytes(BlobOf(column));
}

Status PutGoodModel(SQLite::Database& db, const ValueSeal& seal,
                    const GoodModel& good) {
  SQLite::Statement insert(
      db,
      "INSERT OR REPLACE INTO good_model (task, version, plan, program, "
      "archive, personal, serving_values) VALUES (?, ?, ?, ?, ?, ?, ?)");
  insert.bind(1, good.task);
  insert.bind(2, static_cast<int64_t>(good.version));
  insert.bind(3, good.plan_json);
  Bind(insert, 4, good.program_digest.span());
  BindDigest(insert, 5, good.archive_digest);
  insert.bind(6, good.personal ? 1 : 0);
  SELVAGE_RETURN_IF_ERROR(BindSealed(
      insert, 7, seal, TaskPlace("good_model", "serving_values", good.task),
      good.values));
  insert.exec();
  return OkStatus();
}

void PutArtefact(SQLite::Database& db, const crypto::Digest& digest,
                 ByteSpan bytes) {
  SQLite::Statement insert(
      db, "INSERT OR IGNORE INTO artefact (digest, bytes) VALUES (?, ?)");
  Bind(insert, 1, digest.span());
  Bind(insert, 2, bytes);
  insert.exec();
}

Bytes EncodeCounters(
    std::span<const std::pair<std::string, uint64_t>> counters) {
  Bytes out;
  for (const auto& [name, value] : counters) {
    AppendLe(out, static_cast<uint32_t>(name.size()));
    AppendBytes(out, AsBytes(name));
    AppendLe(out, value);
  }
  return out;
}

Result<std::vector<std::pair<std::string, uint64_t>>> DecodeCounters(
    ByteSpan bytes) {
  std::vector<std::pair<std::string, uint64_t>> counters;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    SELVAGE_ASSIGN_OR_RETURN(const uint32_t size,
                             reader.Read<uint32_t>("counter"));
    SELVAGE_ASSIGN_OR_RETURN(const ByteSpan name,
                             reader.ReadBytes(size, "counter"));
    SELVAGE_ASSIGN_OR_RETURN(const uint64_t value,
                             reader.Read<uint64_t>("counter"));
    counters.emplace_back(ToString(name), value);
  }
  return counters;
}

}  // namespace

Status ClientStore::InstallModel(const StoredModel& model, ByteSpan program,
                                 ByteSpan archive, const GoodModel* good) {
  SELVAGE_RETURN_IF_ERROR(CheckBlobSize("the archive", archive));
  SELVAGE_RETURN_IF_ERROR(CheckBlobSize("the model", model.global_values));
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    PutArtefact(db, model.program_digest, program);
    if (!model.archive_digest.empty()) {
      PutArtefact(db, model.archive_digest, archive);
    }
    SQLite::Statement insert(
        db,
        "INSERT OR REPLACE INTO model (task, version, plan, program, archive, "
        "global_values, personal_values, alone_values, personal_serving, "
        "holdout_count, global_scores, personal_scores, global_digest, "
        "personal_digest, personal_version, alone_scores, personal_optimizer) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    insert.bind(1, model.task);
    insert.bind(2, static_cast<int64_t>(model.version));
    insert.bind(3, model.plan_json);
    Bind(insert, 4, model.program_digest.span());
    if (model.archive_digest.empty()) {
      insert.bind(5);
    } else {
      Bind(insert, 5, model.archive_digest.span());
    }
    // Not copied: it may be most of the memory that there is.
    BindInPlace(insert, 6, model.global_values);
    const ValueSeal& seal = impl_->seal;
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 7, seal, TaskPlace("model", "personal_values", model.task),
        model.personal_values));
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 8, seal, TaskPlace("model", "alone_values", model.task),
        model.alone_values));
    insert.bind(9, model.personal_serving ? 1 : 0);
    insert.bind(10, static_cast<int64_t>(model.holdout_count));
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 11, seal, TaskPlace("model", "global_scores", model.task),
        EncodeDoubles(model.global_scores)));
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 12, seal, TaskPlace("model", "personal_scores", model.task),
        EncodeDoubles(model.personal_scores)));
    BindDigest(insert, 13, crypto::Sha256(model.global_values));
    BindDigest(insert, 14,
               model.personal_values.has_value()
                   ? crypto::Sha256(*model.personal_values)
                   : crypto::Digest{});
    insert.bind(15, static_cast<int64_t>(model.personal_version));
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 16, seal, TaskPlace("model", "alone_scores", model.task),
        EncodeDoubles(model.alone_scores)));
    SELVAGE_RETURN_IF_ERROR(BindSealed(
        insert, 17, seal, TaskPlace("model", "personal_optimizer", model.task),
        model.personal_values.has_value() ? model.personal_optimizer
                                          : std::nullopt));
    insert.exec();
    SQLite::Statement over(db, "DELETE FROM tuning WHERE task = ?");
    over.bind(1, model.task);
    over.exec();
    if (good != nullptr) {
      SELVAGE_RETURN_IF_ERROR(PutGoodModel(db, seal, *good));
    }
    db.exec(
        "DELETE FROM artefact WHERE digest NOT IN (SELECT program FROM model) "
        "AND digest NOT IN (SELECT archive FROM model WHERE archive IS NOT "
        "NULL) AND digest NOT IN (SELECT program FROM good_model) AND digest "
        "NOT IN (SELECT archive FROM good_model WHERE archive IS NOT NULL)");
    transaction.commit();
    return OkStatus();
  });
}

Result<std::optional<StoredModel>> ClientStore::LoadModel(
    std::string_view task) {
  return impl_->Run([&](SQLite::Database& db)
                        -> Result<std::optional<StoredModel>> {
    SQLite::Statement query(
        db,
        "SELECT version, plan, program, archive, global_values, "
        "personal_values, alone_values, personal_serving, holdout_count, "
        "global_scores, personal_scores, global_digest, personal_digest, "
        "personal_version, alone_scores FROM model WHERE task = ?");
    query.bind(1, std::string(task));
    if (!query.executeStep()) return std::optional<StoredModel>();
    StoredModel model;
    model.task = task;
    model.version = static_cast<uint64_t>(query.getColumn(0).getInt64());
    model.plan_json = query.getColumn(1).getString();
    SELVAGE_ASSIGN_OR_RETURN(
        model.program_digest,
        crypto::Digest::FromBytes(BlobOf(query.getColumn(2))));
    if (!query.getColumn(3).isNull()) {
      SELVAGE_ASSIGN_OR_RETURN(
          model.archive_digest,
          crypto::Digest::FromBytes(BlobOf(query.getColumn(3))));
    }
    model.global_values = BlobOf(query.getColumn(4));
    const auto open = [&](const char* column, int index) {
      return impl_->OpenOrDrop(db, TaskPlace("model", column, task),
                               query.getColumn(index));
    };
    SELVAGE_ASSIGN_OR_RETURN(model.personal_values, open("personal_values", 5));
    SELVAGE_ASSIGN_OR_RETURN(model.alone_values, open("alone_values", 6));
    model.personal_serving =
        query.getColumn(7).getInt() != 0 && model.personal_values;
    model.holdout_count = static_cast<uint64_t>(query.getColumn(8).getInt64());
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<Bytes> global,
                             open("global_scores", 9));
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<Bytes> personal,
                             open("personal_scores", 10));
    SELVAGE_ASSIGN_OR_RETURN(model.global_scores,
                             DecodeDoubles(global.value_or(Bytes())));
    SELVAGE_ASSIGN_OR_RETURN(model.personal_scores,
                             DecodeDoubles(personal.value_or(Bytes())));
    SELVAGE_ASSIGN_OR_RETURN(model.global_digest,
                             DigestOf(query.getColumn(11)));
    SELVAGE_ASSIGN_OR_RETURN(model.personal_digest,
                             DigestOf(query.getColumn(12)));
    model.personal_version =
        static_cast<uint64_t>(query.getColumn(13).getInt64());
    SELVAGE_ASSIGN_OR_RETURN(const std::optional<Bytes> alone,
                             open("alone_scores", 14));
    SELVAGE_ASSIGN_OR_RETURN(model.alone_scores,
                             DecodeDoubles(alone.value_or(Bytes())));
    return std::optional<StoredModel>(std::move(model));
  });
}

Result<std::optional<GoodModel>> ClientStore::LoadGoodModel(
    std::string_view task) {
  return impl_->Run([&](SQLite::Database& db)
                        -> Result<std::optional<GoodModel>> {
    SQLite::Statement query(
        db,
        "SELECT version, plan, program, archive, personal, serving_values "
        "FROM good_model WHERE task = ?");
    query.bind(1, std::string(task));
    if (!query.executeStep()) return std::optional<GoodModel>();
    GoodModel good;
    good.task = task;
    good.version = static_cast<uint64_t>(query.getColumn(0).getInt64());
    good.plan_json = query.getColumn(1).getString();
    SELVAGE_ASSIGN_OR_RETURN(good.program_digest, DigestOf(query.getColumn(2)));
    SELVAGE_ASSIGN_OR_RETURN(good.archive_digest, DigestOf(query.getColumn(3)));
    good.personal = query.getColumn(4).getInt() != 0;
    SELVAGE_ASSIGN_OR_RETURN(
        std::optional<Bytes> values,
        impl_->OpenOrDrop(db, TaskPlace("good_model", "serving_values", task),
                          query.getColumn(5)));
    if (!values.has_value()) return std::optional<GoodModel>();
    good.values = *std::move(values);
    return std::optional<GoodModel>(std::move(good));
  });
}

Result<std::optional<Bytes>> ClientStore::LoadCrashes() {
  return impl_->Run([](SQLite::Database& db) -> Result<std::optional<Bytes>> {
    return GetMeta(db, kMetaCrashes);
  });
}

Status ClientStore::SaveCrashes(ByteSpan ledger) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SetMeta(db, kMetaCrashes, ledger);
    return OkStatus();
  });
}

Result<std::vector<ModelVersion>> ClientStore::ListModels() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::vector<ModelVersion>> {
        SQLite::Statement query(
            db, "SELECT task, version FROM model ORDER BY task");
        std::vector<ModelVersion> models;
        while (query.executeStep()) {
          models.push_back({.task = query.getColumn(0).getString(),
                            .version = static_cast<uint64_t>(
                                query.getColumn(1).getInt64())});
        }
        return models;
      });
}

Result<Bytes> ClientStore::LoadArtefact(const crypto::Digest& digest) {
  return impl_->Run([&](SQLite::Database& db) -> Result<Bytes> {
    SQLite::Statement query(db, "SELECT bytes FROM artefact WHERE digest = ?");
    Bind(query, 1, digest.span());
    if (!query.executeStep()) {
      return NotFound("there is no artefact " + digest.ToHex());
    }
    Bytes bytes = BlobOf(query.getColumn(0));
    if (crypto::Sha256(bytes) != digest) {
      return DataLoss("artefact " + digest.ToHex() +
                      " does not have its digest");
    }
    return bytes;
  });
}

Result<std::optional<PendingReport>> ClientStore::TakeReport(
    const std::string& new_id) {
  return impl_->Run([&](SQLite::Database& db)
                        -> Result<std::optional<PendingReport>> {
    PendingReport report;
    {
      SQLite::Statement query(db, "SELECT report_id, counters FROM report");
      if (query.executeStep()) {
        report.report_id = query.getColumn(0).getString();
        SELVAGE_ASSIGN_OR_RETURN(report.counters,
                                 DecodeCounters(BlobOf(query.getColumn(1))));
        return std::optional<PendingReport>(std::move(report));
      }
    }
    SQLite::Transaction transaction(db);
    {
      SQLite::Statement query(db,
                              "SELECT name, value FROM counter ORDER BY name "
                              "LIMIT 64");
      while (query.executeStep()) {
        report.counters.emplace_back(
            query.getColumn(0).getString(),
            static_cast<uint64_t>(query.getColumn(1).getInt64()));
      }
    }
    if (report.counters.empty()) return std::optional<PendingReport>();
    report.report_id = new_id;
    SQLite::Statement insert(
        db, "INSERT INTO report (one, report_id, counters) VALUES (1, ?, ?)");
    insert.bind(1, new_id);
    Bind(insert, 2, EncodeCounters(report.counters));
    insert.exec();
    for (const auto& counter : report.counters) {
      SQLite::Statement remove(db, "DELETE FROM counter WHERE name = ?");
      remove.bind(1, counter.first);
      remove.exec();
    }
    transaction.commit();
    return std::optional<PendingReport>(std::move(report));
  });
}

Status ClientStore::ForgetReport(const std::string& report_id) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Statement remove(db, "DELETE FROM report WHERE report_id = ?");
    remove.bind(1, report_id);
    remove.exec();
    return OkStatus();
  });
}

}  // namespace selvage::client
