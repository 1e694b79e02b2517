#include "client/store/quarantine.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <vector>

namespace selvage::client {
namespace {

constexpr size_t kKept = 2;

Status IgnoreMissing(Status status) {
  return status.code() == StatusCode::kNotFound ? OkStatus() : status;
}

Path WithSuffix(const Path& path, const std::string& suffix) {
  return path.parent_path() / (path.filename().string() + suffix);
}

std::string Suffix(uint64_t number) {
  return ".damaged-" + std::to_string(number);
}

// Ascending, each once.
Result<std::vector<uint64_t>> SetAsideNumbers(FileSystem& files,
                                              const Path& database) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                           files.List(database.parent_path()));
  const std::string prefix = database.filename().string() + ".damaged-";
  std::vector<uint64_t> numbers;
  for (const std::string& name : names) {
    if (name.rfind(prefix, 0) != 0) continue;
    uint64_t number = 0;
    const char* end = name.data() + name.size();
    const auto parsed =
        std::from_chars(name.data() + prefix.size(), end, number);
    if (parsed.ec != std::errc()) continue;
    const std::string_view rest(parsed.ptr,
                                static_cast<size_t>(end - parsed.ptr));
    if (rest.empty() || rest == "-wal") numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

Status RemoveNumber(FileSystem& files, const Path& database, uint64_t number) {
  SELVAGE_RETURN_IF_ERROR(
      IgnoreMissing(files.Remove(WithSuffix(database, Suffix(number)))));
  return IgnoreMissing(
      files.Remove(WithSuffix(database, Suffix(number) + "-wal")));
}

}  // namespace

Result<Path> SetAside(FileSystem& files, const Path& database) {
  SELVAGE_ASSIGN_OR_RETURN(std::vector<uint64_t> numbers,
                           SetAsideNumbers(files, database));
  const uint64_t next = numbers.empty() ? 1 : numbers.back() + 1;
  // The database first: without it its log is an orphan, but without its log
  // it could pass for an older, healthy one.
  const Path kept = WithSuffix(database, Suffix(next));
  SELVAGE_RETURN_IF_ERROR(files.Rename(database, kept));
  SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(database.parent_path()));
  SELVAGE_RETURN_IF_ERROR(IgnoreMissing(
      files.Rename(WithSuffix(database, "-wal"), WithSuffix(kept, "-wal"))));
  SELVAGE_RETURN_IF_ERROR(
      IgnoreMissing(files.Remove(WithSuffix(database, "-shm"))));
  for (size_t i = 0; i + (kKept - 1) < numbers.size(); ++i) {
    SELVAGE_RETURN_IF_ERROR(RemoveNumber(files, database, numbers[i]));
  }
  SELVAGE_RETURN_IF_ERROR(files.SyncDirectory(database.parent_path()));
  return kept;
}

Status RemoveSetAside(FileSystem& files, const Path& database) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<uint64_t> numbers,
                           SetAsideNumbers(files, database));
  if (numbers.empty()) return OkStatus();
  for (const uint64_t number : numbers) {
    SELVAGE_RETURN_IF_ERROR(RemoveNumber(files, database, number));
  }
  return files.SyncDirectory(database.parent_path());
}

Status RemoveOrphanedLog(FileSystem& files, const Path& database) {
  Result<std::unique_ptr<ReadableFile>> there = files.Open(database);
  if (there.ok() || there.status().code() != StatusCode::kNotFound) {
    return OkStatus();
  }
  SELVAGE_RETURN_IF_ERROR(
      IgnoreMissing(files.Remove(WithSuffix(database, "-wal"))));
  return IgnoreMissing(files.Remove(WithSuffix(database, "-shm")));
}

}  // namespace selvage::client
