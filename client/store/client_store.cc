#include "client/store/client_store.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <filesystem>
#include <new>

#include "client/store/client_schema.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::BlobOf;
using store_internal::CheckBlobSize;

namespace store_internal {

Status CaughtStatus() {
  try {
    throw;
  } catch (const SQLite::Exception& error) {
    const std::string message = std::string("store: ") + error.what();
    switch (error.getErrorCode()) {
      case 13:  // SQLITE_FULL
      case 18:  // SQLITE_TOOBIG
      case 7:   // SQLITE_NOMEM
        return ResourceExhausted(message);
      case 11:  // SQLITE_CORRUPT
      case 26:  // SQLITE_NOTADB
        return DataLoss(message);
      default:
        return Internal(message);
    }
  } catch (const std::bad_alloc&) {
    return ResourceExhausted("the store ran out of memory");
  }
}

void Bind(SQLite::Statement& statement, int index, ByteSpan bytes) {
  // A null pointer would bind NULL, not an empty blob.
  const void* data =
      bytes.empty() ? "" : static_cast<const void*>(bytes.data());
  statement.bind(index, data, static_cast<int>(bytes.size()));
}

Bytes BlobOf(const SQLite::Column& column) {
  const auto* data = static_cast<const uint8_t*>(column.getBlob());
  const auto size = static_cast<size_t>(column.getBytes());
  return data == nullptr ? Bytes() : Bytes(data, data + size);
}

Status CheckBlobSize(std::string_view what, ByteSpan bytes) {
  constexpr size_t kBlobSizeMax = 1'000'000'000;
  if (bytes.size() <= kBlobSizeMax) return OkStatus();
  return ResourceExhausted(std::string(what) + " (" +
                           std::to_string(bytes.size()) +
                           " bytes) is larger than the store can hold (" +
                           std::to_string(kBlobSizeMax) + ")");
}

}  // namespace store_internal

namespace {

// Settings and names, one row each.
constexpr const char* kPopulation = "population";
constexpr const char* kHoldoutSalt = "holdout_salt";
constexpr const char* kBundle = "bundle";
constexpr const char* kDeviceId = "device_id";
constexpr const char* kCertificate = "certificate";
constexpr const char* kSession = "session";
constexpr const char* kNextReport = "next_report";

std::optional<Bytes> GetMeta(SQLite::Database& db, const char* name) {
  SQLite::Statement query(db, "SELECT value FROM meta WHERE name = ?");
  query.bind(1, name);
  if (!query.executeStep()) return std::nullopt;
  return BlobOf(query.getColumn(0));
}

void SetMeta(SQLite::Database& db, const char* name, ByteSpan value) {
  SQLite::Statement query(db,
                          "INSERT INTO meta (name, value) VALUES (?, ?) "
                          "ON CONFLICT DO UPDATE SET value = excluded.value");
  query.bind(1, name);
  Bind(query, 2, value);
  query.exec();
}

std::string LayoutOf(std::span<const size_t> sizes) {
  std::string layout;
  for (const size_t size : sizes) {
    if (!layout.empty()) layout += ",";
    layout += std::to_string(size);
  }
  return layout;
}

Bytes EncodeMetrics(std::span<const aggregation::MetricValue> metrics) {
  Bytes out;
  for (const aggregation::MetricValue& metric : metrics) {
    AppendLe(out, metric.numerator);
    AppendLe(out, metric.count);
  }
  return out;
}

Result<std::vector<aggregation::MetricValue>> DecodeMetrics(ByteSpan bytes) {
  std::vector<aggregation::MetricValue> metrics;
  ByteReader reader(bytes);
  while (reader.remaining() > 0) {
    aggregation::MetricValue value;
    SELVAGE_ASSIGN_OR_RETURN(value.numerator, reader.Read<int64_t>("metric"));
    SELVAGE_ASSIGN_OR_RETURN(value.count, reader.Read<int64_t>("metric"));
    metrics.push_back(value);
  }
  return metrics;
}

}  // namespace

Result<std::unique_ptr<ClientStore>> ClientStore::Open(
    const ClientStoreOptions& options) {
  try {
    auto owned = std::make_unique<SQLite::Database>(
        options.path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
        /*busy timeout, ms*/ 5000, options.vfs);
    SQLite::Database& database = *owned;
    std::error_code ignored;  // the directory is 0700 anyway
    std::filesystem::permissions(options.path,
                                 std::filesystem::perms::owner_read |
                                     std::filesystem::perms::owner_write,
                                 ignored);
    database.exec("PRAGMA journal_mode = WAL");
    database.exec("PRAGMA synchronous = FULL");
    database.exec("PRAGMA foreign_keys = ON");
    database.exec("PRAGMA secure_delete = ON");
    database.exec("PRAGMA trusted_schema = OFF");
    SELVAGE_RETURN_IF_ERROR(MigrateClientSchema(database));
    return std::unique_ptr<ClientStore>(
        new ClientStore(std::make_unique<Impl>(std::move(owned))));
  } catch (...) {
    return store_internal::CaughtStatus();
  }
}

ClientStore::ClientStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClientStore::~ClientStore() = default;

void ClientStore::Close() {
  MutexLock lock(impl_->mu);
  impl_->db.reset();
}

// --------------------------------------------------------------- identity

Result<std::optional<StoreOwner>> ClientStore::Owner() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<StoreOwner>> {
        const std::optional<Bytes> population = GetMeta(db, kPopulation);
        const std::optional<Bytes> salt = GetMeta(db, kHoldoutSalt);
        if (!population.has_value()) return std::optional<StoreOwner>();
        StoreOwner owner;
        owner.population = ToString(*population);
        ByteReader reader(salt.has_value() ? ByteSpan(*salt) : ByteSpan());
        const Result<uint64_t> value = reader.Read<uint64_t>(kHoldoutSalt);
        if (!value.ok()) return DataLoss("the store has no holdout_salt");
        owner.holdout_salt = *value;
        return std::optional<StoreOwner>(owner);
      });
}

Status ClientStore::SetOwner(const StoreOwner& owner) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    Bytes salt;
    AppendLe(salt, owner.holdout_salt);
    SetMeta(db, kPopulation, AsBytes(owner.population));
    SetMeta(db, kHoldoutSalt, salt);
    transaction.commit();
    return OkStatus();
  });
}

Result<std::optional<std::string>> ClientStore::Bundle() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<std::string>> {
        const std::optional<Bytes> bundle = GetMeta(db, kBundle);
        if (!bundle.has_value()) return std::optional<std::string>();
        return std::optional<std::string>(ToString(*bundle));
      });
}

Status ClientStore::SetBundle(const std::string& bundle_json) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SetMeta(db, kBundle, AsBytes(bundle_json));
    return OkStatus();
  });
}

Result<std::optional<Enrolment>> ClientStore::LoadEnrolment() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<Enrolment>> {
        const std::optional<Bytes> id = GetMeta(db, kDeviceId);
        const std::optional<Bytes> certificate = GetMeta(db, kCertificate);
        if (!id.has_value() || !certificate.has_value()) {
          return std::optional<Enrolment>();
        }
        Enrolment enrolment;
        enrolment.device_id = ToString(*id);
        enrolment.certificate_pem = ToString(*certificate);
        SQLite::Statement keys(db, "SELECT public_key FROM plan_key");
        while (keys.executeStep()) {
          const Bytes key = BlobOf(keys.getColumn(0));
          crypto::Ed25519PublicKey out{};
          if (key.size() != out.size())
            return DataLoss("a plan key is damaged");
          std::copy(key.begin(), key.end(), out.begin());
          enrolment.plan_keys.push_back(out);
        }
        return std::optional<Enrolment>(enrolment);
      });
}

Status ClientStore::SaveEnrolment(const Enrolment& enrolment) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    SetMeta(db, kDeviceId, AsBytes(enrolment.device_id));
    SetMeta(db, kCertificate, AsBytes(enrolment.certificate_pem));
    db.exec("DELETE FROM plan_key");
    for (const crypto::Ed25519PublicKey& key : enrolment.plan_keys) {
      SQLite::Statement insert(
          db, "INSERT OR IGNORE INTO plan_key (public_key) VALUES (?)");
      Bind(insert, 1, key);
      insert.exec();
    }
    transaction.commit();
    return OkStatus();
  });
}

// --------------------------------------------------------------- examples

Result<std::vector<int64_t>> ClientStore::AddExamples(
    std::string_view collection, std::span<const std::vector<Bytes>> examples) {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::vector<int64_t>> {
    std::vector<int64_t> ids;
    SQLite::Transaction transaction(db);
    SQLite::Statement insert(
        db,
        "INSERT INTO example (collection, layout, inputs) VALUES (?, ?, "
        "?)");
    for (const std::vector<Bytes>& inputs : examples) {
      std::vector<size_t> sizes;
      Bytes all;
      for (const Bytes& input : inputs) {
        sizes.push_back(input.size());
        AppendBytes(all, input);
      }
      insert.reset();
      insert.bind(1, std::string(collection));
      insert.bind(2, LayoutOf(sizes));
      Bind(insert, 3, all);
      insert.exec();
      ids.push_back(db.getLastInsertRowid());
    }
    transaction.commit();
    return ids;
  });
}

Status ClientStore::DeleteExample(int64_t id) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Statement remove(db, "DELETE FROM example WHERE id = ?");
    remove.bind(1, id);
    if (remove.exec() == 0) {
      return NotFound("there is no example " + std::to_string(id));
    }
    // secure_delete overwrote it in the pages; the log goes too.
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    return OkStatus();
  });
}

Result<uint64_t> ClientStore::CountExamples(std::string_view collection) {
  return impl_->Run([&](SQLite::Database& db) -> Result<uint64_t> {
    SQLite::Statement query(
        db, "SELECT count(*) FROM example WHERE collection = ?");
    query.bind(1, std::string(collection));
    query.executeStep();
    return static_cast<uint64_t>(query.getColumn(0).getInt64());
  });
}

Result<std::vector<int64_t>> ClientStore::ExampleIds(
    std::string_view collection, std::span<const size_t> input_sizes) {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::vector<int64_t>> {
    SQLite::Statement query(db,
                            "SELECT id FROM example WHERE collection = ? AND "
                            "layout = ? ORDER BY id");
    query.bind(1, std::string(collection));
    query.bind(2, LayoutOf(input_sizes));
    std::vector<int64_t> ids;
    while (query.executeStep()) ids.push_back(query.getColumn(0).getInt64());
    return ids;
  });
}

Result<ExampleSet> ClientStore::LoadExamples(
    std::span<const int64_t> ids, std::span<const size_t> input_sizes) {
  size_t total = 0;
  for (const size_t size : input_sizes) total += size;
  ExampleSet set;
  set.count = ids.size();
  set.inputs.resize(input_sizes.size());
  return impl_->Run([&](SQLite::Database& db) -> Result<ExampleSet> {
    for (size_t i = 0; i < input_sizes.size(); ++i) {
      set.inputs[i].reserve(ids.size() * input_sizes[i]);
    }
    SQLite::Statement query(db, "SELECT inputs FROM example WHERE id = ?");
    for (const int64_t id : ids) {
      query.reset();
      query.bind(1, id);
      if (!query.executeStep()) {
        return NotFound("there is no example " + std::to_string(id));
      }
      const SQLite::Column column = query.getColumn(0);
      const auto* data = static_cast<const uint8_t*>(column.getBlob());
      if (static_cast<size_t>(column.getBytes()) != total) {
        return DataLoss("example " + std::to_string(id) +
                        " does not have the size it was stored with");
      }
      for (size_t i = 0; i < input_sizes.size(); ++i) {
        AppendBytes(set.inputs[i], ByteSpan(data, input_sizes[i]));
        data += input_sizes[i];
      }
    }
    return std::move(set);
  });
}

// ------------------------------------------------------------ the session

Result<Time> ClientStore::NextReport() {
  return impl_->Run([&](SQLite::Database& db) -> Result<Time> {
    const std::optional<Bytes> value = GetMeta(db, kNextReport);
    if (!value.has_value()) return Time{};
    ByteReader reader(*value);
    SELVAGE_ASSIGN_OR_RETURN(const int64_t micros,
                             reader.Read<int64_t>(kNextReport));
    return FromMicros(micros);
  });
}

Status ClientStore::SetNextReport(Time when) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    Bytes value;
    AppendLe(value, ToMicros(when));
    SetMeta(db, kNextReport, value);
    return OkStatus();
  });
}

Result<std::optional<Bytes>> ClientStore::LoadSession() {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::optional<Bytes>> {
    return GetMeta(db, kSession);
  });
}

Status ClientStore::SaveSession(const SessionChange& change) {
  if (change.outbox != nullptr) {
    SELVAGE_RETURN_IF_ERROR(
        CheckBlobSize("the update", change.outbox->update.encoded));
  }
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    SetMeta(db, kSession, change.session);
    if (change.drop_outbox) db.exec("DELETE FROM outbox");
    if (change.outbox != nullptr) {
      const BuiltUpdate& update = change.outbox->update;
      SQLite::Statement insert(
          db,
          "INSERT OR REPLACE INTO outbox (one, assignment_id, digest, codec, "
          "weight, metrics, payload) VALUES (1, ?, ?, ?, ?, ?, ?)");
      insert.bind(1, change.outbox->assignment_id);
      Bind(insert, 2, update.digest.span());
      insert.bind(3, static_cast<int>(update.codec));
      insert.bind(4, static_cast<int64_t>(update.weight));
      Bind(insert, 5, EncodeMetrics(update.metrics));
      Bind(insert, 6, update.encoded);
      insert.exec();
    }
    if (change.tensors != nullptr) {
      SQLite::Statement insert(db,
                               "INSERT OR REPLACE INTO tensors (task, program, "
                               "master_values) VALUES (?, ?, ?)");
      insert.bind(1, change.tensors->task);
      Bind(insert, 2, change.tensors->program_digest.span());
      Bind(insert, 3, change.tensors->master_values);
      insert.exec();
    }
    for (const std::string& name : change.counters) {
      SQLite::Statement count(db,
                              "INSERT INTO counter (name, value) VALUES (?, 1) "
                              "ON CONFLICT DO UPDATE SET value = value + 1");
      count.bind(1, name);
      count.exec();
    }
    transaction.commit();
    return OkStatus();
  });
}

Result<std::optional<OutboxEntry>> ClientStore::LoadOutbox() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<OutboxEntry>> {
        SQLite::Statement query(db,
                                "SELECT assignment_id, digest, codec, weight, "
                                "metrics, payload FROM outbox");
        if (!query.executeStep()) return std::optional<OutboxEntry>();
        OutboxEntry entry;
        entry.assignment_id = query.getColumn(0).getString();
        SELVAGE_ASSIGN_OR_RETURN(
            entry.update.digest,
            crypto::Digest::FromBytes(BlobOf(query.getColumn(1))));
        const int codec = query.getColumn(2).getInt();
        if (codec < 0 || codec > static_cast<int>(plan::CodecName::kFloat16)) {
          return DataLoss("the outbox names codec " + std::to_string(codec));
        }
        entry.update.codec = static_cast<plan::CodecName>(codec);
        entry.update.weight =
            static_cast<uint32_t>(query.getColumn(3).getInt64());
        SELVAGE_ASSIGN_OR_RETURN(entry.update.metrics,
                                 DecodeMetrics(BlobOf(query.getColumn(4))));
        entry.update.encoded = BlobOf(query.getColumn(5));
        if (crypto::Sha256(entry.update.encoded) != entry.update.digest) {
          return DataLoss("the update in the outbox does not have its digest");
        }
        return std::optional<OutboxEntry>(std::move(entry));
      });
}

Result<std::optional<PersonalTensors>> ClientStore::LoadTensors(
    std::string_view task) {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<PersonalTensors>> {
        SQLite::Statement query(
            db, "SELECT program, master_values FROM tensors WHERE task = ?");
        query.bind(1, std::string(task));
        if (!query.executeStep()) return std::optional<PersonalTensors>();
        PersonalTensors tensors;
        tensors.task = task;
        SELVAGE_ASSIGN_OR_RETURN(
            tensors.program_digest,
            crypto::Digest::FromBytes(BlobOf(query.getColumn(0))));
        tensors.master_values = BlobOf(query.getColumn(1));
        return std::optional<PersonalTensors>(std::move(tensors));
      });
}

}  // namespace selvage::client
