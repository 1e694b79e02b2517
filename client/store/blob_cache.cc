#include "client/store/blob_cache.h"

#include <algorithm>
#include <map>
#include <utility>

namespace selvage::client {
namespace {

constexpr std::string_view kOrderName = "order";
constexpr std::string_view kPartSuffix = ".part";
constexpr size_t kDigestTextSize = 64;
// Of the order that is kept: more artefacts than anyone's cache holds.
constexpr size_t kOrderCountMax = 4096;

// The artefact that a file of the cache belongs to; empty: to none.
std::string OwnerOf(const std::string& name) {
  std::string_view digest = name;
  if (digest.size() == kDigestTextSize + kPartSuffix.size() &&
      digest.substr(kDigestTextSize) == kPartSuffix) {
    digest.remove_suffix(kPartSuffix.size());
  }
  if (digest.size() != kDigestTextSize ||
      !crypto::Digest::FromHex(digest).ok()) {
    return "";
  }
  return std::string(digest);
}

}  // namespace

Path BlobCache::PathOf(const crypto::Digest& digest) const {
  return directory_ / digest.ToHex();
}
Path BlobCache::PartOf(const crypto::Digest& digest) const {
  return directory_ / (digest.ToHex() + std::string(kPartSuffix));
}

Result<Bytes> BlobCache::Get(const crypto::Digest& digest, uint64_t size_max) {
  Result<Bytes> bytes = ReadFile(files_, PathOf(digest), size_max);
  if (bytes.ok() && crypto::Sha256(*bytes) == digest) {
    used_.push_back(digest.ToHex());
    return bytes;
  }
  if (bytes.ok() || bytes.status().code() != StatusCode::kNotFound) {
    // Damaged, too large or unreadable: worth fetching again. If it cannot be
    // removed, Put() replaces it.
    (void)files_.Remove(PathOf(digest));
  }
  return NotFound("artefact " + digest.ToHex() + " is not in the cache");
}

Result<std::unique_ptr<ReadableFile>> BlobCache::Open(
    const crypto::Digest& digest, uint64_t size) {
  const Status missing =
      NotFound("artefact " + digest.ToHex() + " is not in the cache");
  Result<std::unique_ptr<ReadableFile>> file = files_.Open(PathOf(digest));
  if (!file.ok() || (*file)->size() != size) return missing;
  crypto::Sha256Hasher hasher;
  Bytes piece(size_t{1} << 20);
  for (uint64_t at = 0; at < size;) {
    const Result<size_t> read = (*file)->ReadAt(at, piece);
    if (!read.ok() || *read == 0) return missing;
    hasher.Update(ByteSpan(piece).first(*read));
    at += *read;
  }
  if (std::move(hasher).Finish() != digest) return missing;
  used_.push_back(digest.ToHex());
  return file;
}

Status BlobCache::Put(const crypto::Digest& digest, ByteSpan bytes) {
  if (crypto::Sha256(bytes) != digest) {
    return DataLoss("artefact " + digest.ToHex() +
                    " does not have its digest (" +
                    std::to_string(bytes.size()) + " bytes)");
  }
  SELVAGE_RETURN_IF_ERROR(files_.CreateDirectories(directory_));
  used_.push_back(digest.ToHex());
  MakeRoom(used_.back(), bytes.size());
  return WriteFileDurably(files_, PathOf(digest), bytes);
}

std::optional<crypto::Digest> BlobCache::NewestOfSize(uint64_t size) {
  const std::vector<std::string> order = ReadOrder();
  for (auto name = order.rbegin(); name != order.rend(); ++name) {
    const Result<crypto::Digest> digest = crypto::Digest::FromHex(*name);
    if (!digest.ok()) continue;
    const auto file = files_.Open(PathOf(*digest));
    if (file.ok() && (*file)->size() == size) return *digest;
  }
  return std::nullopt;
}

Bytes BlobCache::GetPart(const crypto::Digest& digest, uint64_t size_max) {
  Result<Bytes> bytes = ReadFile(files_, PartOf(digest), size_max);
  return bytes.ok() ? *std::move(bytes) : Bytes();
}

Status BlobCache::PutPart(const crypto::Digest& digest, ByteSpan bytes) {
  SELVAGE_RETURN_IF_ERROR(files_.CreateDirectories(directory_));
  used_.push_back(digest.ToHex());
  MakeRoom(PartOf(digest).filename().string(), bytes.size());
  return WriteFileDurably(files_, PartOf(digest), bytes);
}

void BlobCache::DropPart(const crypto::Digest& digest) {
  (void)files_.Remove(PartOf(digest));  // not there is as good
}

std::vector<std::string> BlobCache::ReadOrder() {
  const Result<Bytes> bytes = ReadFile(files_, directory_ / kOrderName,
                                       kOrderCountMax * (kDigestTextSize + 1));
  std::vector<std::string> order;
  if (!bytes.ok()) return order;
  std::string_view rest = AsText(*bytes);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    order.emplace_back(line);
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return order;
}

void BlobCache::MakeRoom(const std::string& new_name, uint64_t new_size) {
  const Result<std::vector<std::string>> names = files_.List(directory_);
  if (!names.ok()) return;
  struct Blob {
    size_t rank = 0;  // 0: nobody remembers when it was used
    std::string name;
    uint64_t size = 0;
  };
  std::map<std::string, size_t> ranks;
  const std::vector<std::string> order = ReadOrder();
  for (size_t i = 0; i < order.size(); ++i) ranks[order[i]] = i + 1;
  const std::set<std::string> used(used_.begin(), used_.end());
  std::vector<Blob> unused;
  uint64_t total = new_size;
  for (const std::string& name : *names) {
    const std::string owner = OwnerOf(name);
    if (owner.empty() || name == new_name) continue;
    uint64_t size = 0;
    if (const auto file = files_.Open(directory_ / name); file.ok()) {
      size = (*file)->size();
    }
    total += size;
    if (used.count(owner) > 0) continue;
    const auto rank = ranks.find(owner);
    unused.push_back({.rank = rank == ranks.end() ? 0 : rank->second,
                      .name = name,
                      .size = size});
  }
  std::stable_sort(
      unused.begin(), unused.end(),
      [](const Blob& a, const Blob& b) { return a.rank < b.rank; });
  for (const Blob& blob : unused) {
    if (total <= bytes_max_) return;
    if (files_.Remove(directory_ / blob.name).ok()) total -= blob.size;
  }
}

void BlobCache::BeginWork() { used_.clear(); }

void BlobCache::EndWork() {
  const Result<std::vector<std::string>> names = files_.List(directory_);
  if (!names.ok()) return;
  std::set<std::string> there;
  for (const std::string& name : *names) {
    const std::string owner = OwnerOf(name);
    if (!owner.empty()) {
      there.insert(owner);
    } else if (name != kOrderName) {
      (void)files_.Remove(directory_ / name);
    }
  }
  // The last use of each counts.
  std::vector<std::string> order = ReadOrder();
  order.insert(order.end(), used_.begin(), used_.end());
  std::set<std::string> seen;
  std::vector<std::string> newest;
  for (auto it = order.rbegin();
       it != order.rend() && newest.size() < kOrderCountMax; ++it) {
    if (there.count(*it) > 0 && seen.insert(*it).second) newest.push_back(*it);
  }
  std::string text;
  for (auto it = newest.rbegin(); it != newest.rend(); ++it) text += *it + "\n";
  (void)WriteFileDurably(files_, directory_ / kOrderName, AsBytes(text));
  MakeRoom("", 0);
}

}  // namespace selvage::client
