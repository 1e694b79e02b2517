// ClientStore: the usage of the day, and a training that was interrupted.
#include <SQLiteCpp/SQLiteCpp.h>

#include "client/store/client_store.h"
#include "client/store/client_store_impl.h"

namespace selvage::client {

using store_internal::Bind;
using store_internal::CheckBlobSize;
using store_internal::GetMeta;
using store_internal::kMetaTraining;
using store_internal::kMetaUsage;
using store_internal::MetaPlace;
using store_internal::SetMeta;

namespace {

Bytes EncodeTraining(const StoredTraining& training) {
  Bytes out;
  AppendBytes(out, training.fingerprint.span());
  AppendLe(out, training.steps);
  AppendBytes(out, training.state);
  return out;
}

Result<StoredTraining> DecodeTraining(ByteSpan bytes) {
  ByteReader in(bytes);
  StoredTraining training;
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan digest,
                           in.ReadBytes(32, "fingerprint"));
  SELVAGE_ASSIGN_OR_RETURN(training.fingerprint,
                           crypto::Digest::FromBytes(digest));
  SELVAGE_ASSIGN_OR_RETURN(training.steps, in.Read<uint64_t>("steps"));
  SELVAGE_ASSIGN_OR_RETURN(const ByteSpan state,
                           in.ReadBytes(in.remaining(), "state"));
  training.state = Bytes(state.begin(), state.end());
  return training;
}

}  // namespace

Result<std::optional<Bytes>> ClientStore::LoadUsage() {
  return impl_->Run([](SQLite::Database& db) -> Result<std::optional<Bytes>> {
    return GetMeta(db, kMetaUsage);
  });
}

Status ClientStore::SaveUsage(ByteSpan ledger) {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SetMeta(db, kMetaUsage, ledger);
    return OkStatus();
  });
}

Result<std::optional<StoredTraining>> ClientStore::LoadTraining() {
  return impl_->Run(
      [&](SQLite::Database& db) -> Result<std::optional<StoredTraining>> {
        const std::optional<Bytes> sealed = GetMeta(db, kMetaTraining);
        if (!sealed.has_value()) return std::optional<StoredTraining>();
        const Result<Bytes> plain =
            impl_->seal.Open(MetaPlace(kMetaTraining), *sealed);
        if (!plain.ok()) {
          impl_->TellDamaged(db, MetaPlace(kMetaTraining));
          return std::optional<StoredTraining>();
        }
        SELVAGE_ASSIGN_OR_RETURN(StoredTraining training,
                                 DecodeTraining(*plain));
        return std::optional<StoredTraining>(std::move(training));
      });
}

Status ClientStore::SaveTraining(const StoredTraining& training) {
  SELVAGE_RETURN_IF_ERROR(
      CheckBlobSize("the training's checkpoint", training.state));
  return impl_->Run([&](SQLite::Database& db) -> Status {
    SELVAGE_ASSIGN_OR_RETURN(
        const Bytes sealed,
        impl_->seal.Seal(MetaPlace(kMetaTraining), EncodeTraining(training)));
    SetMeta(db, kMetaTraining, sealed);
    return OkStatus();
  });
}

Status ClientStore::DropTraining() {
  return impl_->Run([&](SQLite::Database& db) -> Status {
    // A statement that changes nothing writes nothing.
    SQLite::Statement drop(db, "DELETE FROM meta WHERE name = ?");
    drop.bind(1, std::string(kMetaTraining));
    drop.exec();
    return OkStatus();
  });
}

}  // namespace selvage::client
