#include "client/store/client_store.h"

#include <SQLiteCpp/SQLiteCpp.h>

#include <algorithm>
#include <filesystem>
#include <new>

#include "client/store/client_schema.h"
#include "client/store/client_store_impl.h"
#include "client/store/quarantine.h"
#include "crypto/aead.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::BlobOf;
using store_internal::CheckBlobSize;
using store_internal::CountUp;
using store_internal::DropMeta;
using store_internal::DropOutbox;
using store_internal::GetMeta;
using store_internal::kMetaBundle;
using store_internal::kMetaChecked;
using store_internal::kMetaCrashes;
using store_internal::kMetaSession;
using store_internal::kMetaWrappedKey;
using store_internal::MetaPlace;
using store_internal::PutOutbox;
using store_internal::SetMeta;
using store_internal::TaskPlace;

namespace store_internal {

Status CaughtStatus() {
  try {
    throw;
  } catch (const SQLite::Exception& error) {
    const std::string message = std::string("store: ") + error.what();
    switch (error.getErrorCode() & 0xff) {
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

void BindInPlace(SQLite::Statement& statement, int index, ByteSpan bytes) {
  const void* data =
      bytes.empty() ? "" : static_cast<const void*>(bytes.data());
  statement.bindNoCopy(index, data, static_cast<int>(bytes.size()));
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

void DropMeta(SQLite::Database& db, const char* name) {
  SQLite::Statement drop(db, "DELETE FROM meta WHERE name = ?");
  drop.bind(1, name);
  drop.exec();
}

void ForgetCheck(SQLite::Database& db) {
  try {
    DropMeta(db, kMetaChecked);
  } catch (const SQLite::Exception&) {
    // Not even this table can be written: Open() will see that.
  }
}

namespace {

void Put(Bytes& out, ByteSpan bytes) {
  AppendLe(out, static_cast<uint32_t>(bytes.size()));
  AppendBytes(out, bytes);
}

Result<Bytes> Take(ByteReader& reader, std::string_view what) {
  SELVAGE_ASSIGN_OR_RETURN(const uint32_t size, reader.Read<uint32_t>(what));
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan bytes, reader.ReadBytes(size, what));
  return Bytes(bytes.begin(), bytes.end());
}

}  // namespace

ValuePlace MetaPlace(std::string_view name) {
  return {.table = "meta", .column = "value", .row = AsBytes(name)};
}

ValuePlace OutboxPlace(std::string_view column,
                       const std::string& assignment_id) {
  return {.table = "outbox", .column = column, .row = AsBytes(assignment_id)};
}

ValuePlace TaskPlace(std::string_view table, std::string_view column,
                     std::string_view task) {
  return {.table = table, .column = column, .row = AsBytes(task)};
}

ValuePlace AuditPlace(const Bytes& row) {
  return {.table = "audit", .column = "entry", .row = row};
}

Bytes AuditRow(int64_t id) {
  Bytes row;
  AppendLe(row, id);
  return row;
}

ValuePlace PlaceOf(const Bytes& example_row) {
  return {.table = "example", .column = "inputs", .row = example_row};
}

Bytes ExampleRow(int64_t id, std::string_view collection,
                 std::string_view layout, Time timestamp, bool consent) {
  Bytes row;
  AppendLe(row, id);
  Put(row, AsBytes(collection));
  Put(row, AsBytes(layout));
  AppendLe(row, ToMicros(timestamp));
  AppendLe(row, static_cast<uint8_t>(consent ? 1 : 0));
  return row;
}

ValuePlace PiecePlace(const Bytes& row) {
  return {.table = "outbox_piece", .column = "payload", .row = row};
}
Bytes PieceRow(const std::string& assignment_id, uint64_t number) {
  Bytes row;
  AppendLe(row, number);
  AppendBytes(row, AsBytes(assignment_id));
  return row;
}

Bytes EncodeAbout(const OutboxAbout& about) {
  Bytes out;
  Put(out, AsBytes(about.task));
  AppendLe(out, about.round);
  AppendLe(out, about.version);
  AppendLe(out, ToMicros(about.expires));
  AppendBytes(out, about.digest.span());
  AppendLe(out, static_cast<int32_t>(about.codec));
  AppendLe(out, about.weight);
  AppendLe(out, about.norm);
  Put(out, about.metrics);
  // It came later: what older versions wrote ends here, too.
  if (!about.scalars.empty()) {
    Put(out, AsBytes(std::span<const int64_t>(about.scalars)));
  }
  return out;
}

Result<OutboxAbout> DecodeAbout(ByteSpan bytes) {
  OutboxAbout about;
  ByteReader reader(bytes);
  SELVAGE_ASSIGN_OR_RETURN(const Bytes task, Take(reader, "task"));
  about.task = ToString(task);
  SELVAGE_ASSIGN_OR_RETURN(about.round, reader.Read<uint64_t>("round"));
  SELVAGE_ASSIGN_OR_RETURN(about.version, reader.Read<uint64_t>("version"));
  SELVAGE_ASSIGN_OR_RETURN(const int64_t expires,
                           reader.Read<int64_t>("expires"));
  about.expires = FromMicros(expires);
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan digest,
                           reader.ReadBytes(32, "digest"));
  SELVAGE_ASSIGN_OR_RETURN(about.digest, crypto::Digest::FromBytes(digest));
  SELVAGE_ASSIGN_OR_RETURN(about.codec, reader.Read<int32_t>("codec"));
  SELVAGE_ASSIGN_OR_RETURN(about.weight, reader.Read<uint32_t>("weight"));
  SELVAGE_ASSIGN_OR_RETURN(about.norm, reader.Read<double>("norm"));
  SELVAGE_ASSIGN_OR_RETURN(about.metrics, Take(reader, "metrics"));
  if (reader.remaining() == 0) return about;
  SELVAGE_ASSIGN_OR_RETURN(const Bytes scalars, Take(reader, "scalars"));
  ByteReader numbers(scalars);
  while (numbers.remaining() > 0) {
    SELVAGE_ASSIGN_OR_RETURN(const auto number,
                             numbers.Read<int64_t>("scalar"));
    about.scalars.push_back(number);
  }
  return about;
}

void CountUp(SQLite::Database& db, const std::string& name, uint64_t by) {
  if (by == 0) return;
  SQLite::Statement count(
      db,
      "INSERT INTO counter (name, value) VALUES (?, ?) "
      "ON CONFLICT DO UPDATE SET value = value + excluded.value");
  count.bind(1, name);
  count.bind(2, static_cast<int64_t>(by));
  count.exec();
}

}  // namespace store_internal

namespace {

// More settings and names.
constexpr const char* kPopulation = "population";
constexpr const char* kHoldoutSalt = "holdout_salt";
constexpr const char* kDeviceId = "device_id";
constexpr const char* kCertificate = "certificate";
constexpr const char* kIdentityKey = "identity_key";
constexpr const char* kNextReport = "next_report";

void Configure(SQLite::Database& database) {
  database.exec("PRAGMA journal_mode = WAL");
  database.exec("PRAGMA synchronous = FULL");
  database.exec("PRAGMA foreign_keys = ON");
  database.exec("PRAGMA secure_delete = ON");
  database.exec("PRAGMA trusted_schema = OFF");
}

// A check reads the whole file. A small one is checked at every Open(), a large
// one (half a second per GiB where it is cached) when there is a reason to.
constexpr int64_t kAlwaysCheckedBytes = int64_t{32} << 20;
constexpr Duration kCheckEvery = std::chrono::hours(24 * 7);

bool IsLarge(SQLite::Database& database) {
  return database.execAndGet("PRAGMA page_count").getInt64() *
             database.execAndGet("PRAGMA page_size").getInt64() >
         kAlwaysCheckedBytes;
}

bool WantsCheck(SQLite::Database& database, bool closed_cleanly, Time now) {
  if (!IsLarge(database) || !closed_cleanly || !database.tableExists("meta")) {
    return true;
  }
  const std::optional<Bytes> value = GetMeta(database, kMetaChecked);
  ByteReader reader(value.has_value() ? ByteSpan(*value) : ByteSpan());
  const Result<int64_t> micros = reader.Read<int64_t>(kMetaChecked);
  return !micros.ok() || FromMicros(*micros) > now ||
         now - FromMicros(*micros) >= kCheckEvery;
}

Status CheckIntegrity(SQLite::Database& database) {
  SQLite::Statement check(database, "PRAGMA quick_check(1)");
  const std::string found =
      check.executeStep() ? check.getColumn(0).getString() : "no answer";
  if (found == "ok") return OkStatus();
  return DataLoss("the store is damaged: " + found);
}

// The data key of a store that has one. Moves it from the file's storage key to
// the host's, once there is one.
Result<crypto::SecretBytes> LoadDataKey(SQLite::Database& database,
                                        StorageKeys& keys) {
  if (!database.tableExists("meta")) return DataLoss("the store has no table");
  const std::optional<Bytes> wrapped = GetMeta(database, kMetaWrappedKey);
  if (!wrapped.has_value()) return DataLoss("the store has no data key");
  SELVAGE_ASSIGN_OR_RETURN(const crypto::SecretBytes* key,
                           keys.Get(/*create=*/false));
  Result<crypto::SecretBytes> opened = UnwrapDataKey(*key, *wrapped);
  const bool other =
      !opened.ok() && opened.status().code() == StatusCode::kFailedPrecondition;
  if (other && keys.from_host()) {
    const Result<crypto::SecretBytes> before = keys.FromFile();
    if (!before.ok()) return opened.status();
    SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes data_key,
                             UnwrapDataKey(*before, *wrapped));
    SELVAGE_ASSIGN_OR_RETURN(const Bytes again, WrapDataKey(*key, data_key));
    SetMeta(database, kMetaWrappedKey, again);
    database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    opened = std::move(data_key);
  }
  // Also one that a power cut left behind.
  if (opened.ok() && keys.from_host()) {
    SELVAGE_RETURN_IF_ERROR(keys.RemoveFile());
  }
  return opened;
}

}  // namespace

Result<std::unique_ptr<ClientStore>> ClientStore::Open(
    const ClientStoreOptions& options) {
  try {
    // SQLite removes the log when a store is closed, not when a process dies.
    std::error_code no_log;
    const auto log_size =
        std::filesystem::file_size(options.path.string() + "-wal", no_log);
    const bool closed_cleanly = no_log || log_size == 0;
    auto owned = std::make_unique<SQLite::Database>(
        options.path.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE,
        /*busy timeout, ms*/ 5000, options.vfs);
    SQLite::Database& database = *owned;
    std::error_code ignored;  // the directory is 0700 anyway
    std::filesystem::permissions(options.path,
                                 std::filesystem::perms::owner_read |
                                     std::filesystem::perms::owner_write,
                                 ignored);
    Configure(database);
    const Time now = options.clock.Now();
    const bool check = WantsCheck(database, closed_cleanly, now);
    if (check) SELVAGE_RETURN_IF_ERROR(CheckIntegrity(database));
    SELVAGE_ASSIGN_OR_RETURN(const int version, ClientSchemaVersion(database));
    std::optional<ValueSeal> seal;
    Bytes wrapped;
    if (version < kSealedSchemaVersion) {
      OsRandom random;
      crypto::SecretBytes data_key = crypto::NewAeadKey(random);
      SELVAGE_ASSIGN_OR_RETURN(const crypto::SecretBytes* key,
                               options.keys.Get(/*create=*/true));
      SELVAGE_ASSIGN_OR_RETURN(wrapped, WrapDataKey(*key, data_key));
      seal.emplace(std::move(data_key));
    } else {
      SELVAGE_ASSIGN_OR_RETURN(crypto::SecretBytes data_key,
                               LoadDataKey(database, options.keys));
      seal.emplace(std::move(data_key));
    }
    try {
      SELVAGE_RETURN_IF_ERROR(
          MigrateClientSchema(database, *seal, wrapped, now));
    } catch (const SQLite::Exception& error) {
      // SQLITE_ERROR: a statement does not fit the tables, so they are not
      // those that the version says.
      if (error.getErrorCode() != 1) throw;
      return DataLoss(std::string("the store cannot be brought up to date: ") +
                      error.what());
    }
    if (check && IsLarge(database)) {
      Bytes when;
      AppendLe(when, ToMicros(now));
      SetMeta(database, kMetaChecked, when);
    }
    auto impl =
        std::make_unique<Impl>(std::move(owned), *std::move(seal), options);
    SELVAGE_RETURN_IF_ERROR(impl->LoadCollections(database));
    try {
      store_internal::DropLoosePieces(database);
    } catch (const SQLite::Exception&) {
      // A full disk, say: they go before the next update is written.
    }
    return std::unique_ptr<ClientStore>(new ClientStore(std::move(impl)));
  } catch (...) {
    return store_internal::CaughtStatus();
  }
}

void ClientStore::Impl::TellDamaged(SQLite::Database& database,
                                    const ValuePlace& place) {
  CountUp(database, "values_damaged", 1);
  events.Write(LogLevel::kWarning, "stored_value_damaged",
               {{"table", place.table}, {"column", place.column}});
}

Result<std::optional<Bytes>> ClientStore::Impl::OpenOrDrop(
    SQLite::Database& database, const ValuePlace& place,
    const SQLite::Column& column) {
  if (column.isNull()) return std::optional<Bytes>();
  Result<Bytes> plain = seal.Open(place, BlobOf(column));
  if (plain.ok()) return std::optional<Bytes>(*std::move(plain));
  TellDamaged(database, place);
  return std::optional<Bytes>();
}

ClientStore::ClientStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ClientStore::~ClientStore() = default;

void ClientStore::Close() {
  MutexLock lock(impl_->mu);
  impl_->db.reset();
}

const ExampleSource& ClientStore::source() const { return impl_->source; }

Status ClientStore::Count(const std::string& counter) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    CountUp(db, counter, 1);
    return OkStatus();
  });
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
        const std::optional<Bytes> sealed = GetMeta(db, kMetaBundle);
        if (!sealed.has_value()) return std::optional<std::string>();
        const Result<Bytes> bundle =
            impl_->seal.Open(MetaPlace(kMetaBundle), *sealed);
        if (bundle.ok()) return std::optional<std::string>(ToString(*bundle));
        impl_->TellDamaged(db, MetaPlace(kMetaBundle));
        return std::optional<std::string>();
      });
}

Status ClientStore::SetBundle(const std::string& bundle_json) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        impl_->seal.Seal(MetaPlace(kMetaBundle), AsBytes(bundle_json)));
    SetMeta(db, kMetaBundle, sealed);
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
        if (const auto key = GetMeta(db, kIdentityKey); key.has_value()) {
          SELVAGE_ASSIGN_OR_RETURN(enrolment.identity_key,
                                   crypto::Digest::FromBytes(*key));
        }
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
    if (enrolment.identity_key.empty()) {
      DropMeta(db, kIdentityKey);
    } else {
      SetMeta(db, kIdentityKey, enrolment.identity_key.span());
    }
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

Status ClientStore::ForgetEnrolment() {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    for (const char* name : {kDeviceId, kCertificate, kIdentityKey}) {
      DropMeta(db, name);
    }
    db.exec("DELETE FROM plan_key");
    transaction.commit();
    return OkStatus();
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
    const std::optional<Bytes> sealed = GetMeta(db, kMetaSession);
    if (!sealed.has_value()) return std::optional<Bytes>();
    Result<Bytes> plain = impl_->seal.Open(MetaPlace(kMetaSession), *sealed);
    // Nothing is no session: it is set aside like any other that does not read.
    return std::optional<Bytes>(plain.ok() ? *std::move(plain) : Bytes());
  });
}

Status ClientStore::SaveSession(const SessionChange& change) {
  if (change.outbox != nullptr) {
    SELVAGE_RETURN_IF_ERROR(
        CheckBlobSize("the update", change.outbox->update.encoded));
  }
  const ValueSeal& seal = impl_->seal;
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes session,
        seal.Seal(MetaPlace(kMetaSession), change.session));
    SetMeta(db, kMetaSession, session);
    if (change.crashes != nullptr) SetMeta(db, kMetaCrashes, *change.crashes);
    for (const AssignmentOutcome& outcome : change.outcomes) {
      if (outcome.state == OutcomeState::kPending) continue;
      SELVAGE_RETURN_IF_ERROR(store_internal::SettleResidual(
          *impl_, db, outcome.assignment_id,
          outcome.state == OutcomeState::kCommitted));
    }
    if (change.drop_outbox) {
      SELVAGE_RETURN_IF_ERROR(DropOutbox(*impl_, db, change.dropped));
    }
    if (change.outbox != nullptr) {
      SELVAGE_RETURN_IF_ERROR(PutOutbox(*impl_, db, *change.outbox));
    }
    if (change.residual != nullptr && change.outbox != nullptr) {
      SELVAGE_RETURN_IF_ERROR(store_internal::StageResidual(
          *impl_, db, change.outbox->assignment_id, *change.residual));
    }
    if (change.tensors != nullptr) {
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes sealed,
          seal.Seal(TaskPlace("tensors", "master_values", change.tensors->task),
                    change.tensors->master_values));
      SQLite::Statement insert(db,
                               "INSERT OR REPLACE INTO tensors (task, program, "
                               "master_values) VALUES (?, ?, ?)");
      insert.bind(1, change.tensors->task);
      Bind(insert, 2, change.tensors->program_digest.span());
      Bind(insert, 3, sealed);
      insert.exec();
    }
    for (const std::string& name : change.counters) CountUp(db, name, 1);
    transaction.commit();
    return OkStatus();
  });
}

Status ClientStore::Forget(ByteSpan session, const ForgetOptions& options) {
  const ValueSeal& seal = impl_->seal;
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SQLite::Transaction transaction(db);
    SELVAGE_ASSIGN_OR_RETURN(const Bytes sealed,
                             seal.Seal(MetaPlace(kMetaSession), session));
    SetMeta(db, kMetaSession, sealed);
    SELVAGE_RETURN_IF_ERROR(DropOutbox(*impl_, db, AuditResult::kWithdrawn));
    if (options.audit) db.exec("DELETE FROM audit");
    db.exec("DELETE FROM example");
    db.exec("DELETE FROM usage");
    DropMeta(db, store_internal::kMetaTraining);
    db.exec("DELETE FROM tuning");
    db.exec("DELETE FROM tensors");
    db.exec("DELETE FROM residual");
    db.exec("DELETE FROM good_model WHERE personal = 1");
    std::vector<std::string> tasks;
    {
      SQLite::Statement query(db, "SELECT task FROM model");
      while (query.executeStep())
        tasks.push_back(query.getColumn(0).getString());
    }
    for (const std::string& task : tasks) {
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes global,
          seal.Seal(TaskPlace("model", "global_scores", task), {}));
      SELVAGE_ASSIGN_OR_RETURN(
          const Bytes personal,
          seal.Seal(TaskPlace("model", "personal_scores", task), {}));
      SQLite::Statement clear(
          db,
          "UPDATE model SET personal_serving = 0, personal_values = NULL, "
          "personal_digest = NULL, personal_optimizer = NULL, alone_values = "
          "NULL, alone_scores = NULL, "
          "holdout_count = 0, global_scores = ?, personal_scores = ? "
          "WHERE task = ?");
      Bind(clear, 1, global);
      Bind(clear, 2, personal);
      clear.bind(3, task);
      clear.exec();
    }
    transaction.commit();
    // secure_delete overwrote it in the pages; the log goes too.
    db.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    return OkStatus();
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
        SELVAGE_ASSIGN_OR_RETURN(
            std::optional<Bytes> values,
            impl_->OpenOrDrop(db, TaskPlace("tensors", "master_values", task),
                              query.getColumn(1)));
        if (!values.has_value()) return std::optional<PersonalTensors>();
        tensors.master_values = *std::move(values);
        return std::optional<PersonalTensors>(std::move(tensors));
      });
}

}  // namespace selvage::client
