// ClientStore: trainings of a task's slots that go on, and the optimizer that a
// personal slot goes on with.
#include <SQLiteCpp/SQLiteCpp.h>

#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::CheckBlobSize;
using store_internal::TaskPlace;

namespace {

// As the table names them; never change one.
const char* NameOf(TuningPart part) {
  switch (part) {
    case TuningPart::kPersonal:
      return "personal";
    case TuningPart::kAlone:
      return "alone";
    case TuningPart::kAloneHoldout:
      return "alone_holdout";
  }
  return "";
}

Bytes EncodeTuning(const StoredTuning& tuning) {
  Bytes out;
  AppendBytes(out, tuning.fingerprint.span());
  AppendLe(out, tuning.examples);
  AppendLe(out, tuning.steps);
  AppendLe(out, static_cast<uint8_t>(tuning.done ? 1 : 0));
  AppendLe(out, static_cast<uint64_t>(tuning.state.size()));
  AppendBytes(out, tuning.state);
  AppendBytes(out, tuning.optimizer);
  return out;
}

Result<StoredTuning> DecodeTuning(ByteSpan bytes) {
  ByteReader in(bytes);
  StoredTuning tuning;
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan digest,
                           in.ReadBytes(32, "fingerprint"));
  SELVAGE_ASSIGN_OR_RETURN(tuning.fingerprint,
                           crypto::Digest::FromBytes(digest));
  SELVAGE_ASSIGN_OR_RETURN(tuning.examples, in.Read<uint64_t>("examples"));
  SELVAGE_ASSIGN_OR_RETURN(tuning.steps, in.Read<uint64_t>("steps"));
  SELVAGE_ASSIGN_OR_RETURN(const auto done, in.Read<uint8_t>("done"));
  tuning.done = done != 0;
  SELVAGE_ASSIGN_OR_RETURN(const auto size, in.Read<uint64_t>("size"));
  if (size > in.remaining()) return DataLoss("the training is cut off");
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan state, in.ReadBytes(size, "state"));
  tuning.state.assign(state.begin(), state.end());
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan optimizer,
                           in.ReadBytes(in.remaining(), "optimizer"));
  tuning.optimizer.assign(optimizer.begin(), optimizer.end());
  return tuning;
}

}  // namespace

Result<std::optional<Bytes>> ClientStore::LoadOptimizer(std::string_view task) {
  return impl_->Run([&](SQLite::Database& db) -> Result<std::optional<Bytes>> {
    SQLite::Statement query(
        db, "SELECT personal_optimizer FROM model WHERE task = ?");
    query.bind(1, std::string(task));
    if (!query.executeStep()) return std::optional<Bytes>();
    return impl_->OpenOrDrop(db, TaskPlace("model", "personal_optimizer", task),
                             query.getColumn(0));
  });
}

Result<std::optional<StoredTuning>> ClientStore::LoadTuning(
    std::string_view task, TuningPart part) {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<StoredTuning>> {
        SQLite::Statement query(
            db, "SELECT training FROM tuning WHERE task = ? AND part = ?");
        query.bind(1, std::string(task));
        query.bind(2, std::string(NameOf(part)));
        if (!query.executeStep()) return std::optional<StoredTuning>();
        const ValuePlace place = TaskPlace("tuning", NameOf(part), task);
        SELVAGE_ASSIGN_OR_RETURN(
            const std::optional<Bytes> plain,
            impl_->OpenOrDrop(db, place, query.getColumn(0)));
        if (!plain.has_value()) return std::optional<StoredTuning>();
        Result<StoredTuning> tuning = DecodeTuning(*plain);
        if (tuning.ok()) return std::optional<StoredTuning>(*std::move(tuning));
        impl_->TellDamaged(db, place);
        return std::optional<StoredTuning>();
      });
}

Status ClientStore::SaveTuning(std::string_view task, TuningPart part,
                               const StoredTuning& tuning) {
  Bytes plain = EncodeTuning(tuning);
  SELVAGE_RETURN_IF_ERROR(CheckBlobSize("the training's checkpoint", plain));
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        impl_->seal.Seal(TaskPlace("tuning", NameOf(part), task), plain));
    SQLite::Statement insert(
        db,
        "INSERT OR REPLACE INTO tuning (task, part, training) "
        "VALUES (?, ?, ?)");
    insert.bind(1, std::string(task));
    insert.bind(2, std::string(NameOf(part)));
    Bind(insert, 3, sealed);
    insert.exec();
    return OkStatus();
  });
}

}  // namespace selvage::client
