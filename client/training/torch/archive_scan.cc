#include "client/training/torch/archive_scan.h"

#include <string_view>

namespace selvage::client::torch_engine {
namespace {

constexpr uint64_t kCompressedSizeMax = 16 << 20;
constexpr uint64_t kCompressedTotalMax = 64 << 20;
constexpr size_t kEndSize = 22;       // end of central directory, no comment
constexpr size_t kLocatorSize = 20;   // zip64 locator, before it
constexpr size_t kEnd64SizeMin = 56;  // zip64 end of central directory
constexpr size_t kEntrySizeMin = 46;  // entry of the central directory
constexpr uint32_t kMax32 = 0xffffffff;

// APPNOTE.TXT 6.3.9, sections 4.3.12 to 4.5.3. REQUIRES: the bytes are there.
template <typename T>
T At(ByteSpan bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

struct Directory {
  uint64_t count = 0;
  uint64_t size = 0;
  uint64_t offset = 0;
};

Result<Directory> FindDirectory(ByteSpan archive) {
  if (archive.size() < kEndSize || At<uint32_t>(archive, 0) != 0x04034b50) {
    return InvalidArgument("the archive is not a zip file");
  }
  // A comment would make the end ambiguous; PyTorch writes none.
  const size_t end = archive.size() - kEndSize;
  if (At<uint32_t>(archive, end) != 0x06054b50 ||
      At<uint16_t>(archive, end + 20) != 0) {
    return InvalidArgument("the archive does not end as a zip file does");
  }
  Directory out{.count = At<uint16_t>(archive, end + 10),
                .size = At<uint32_t>(archive, end + 12),
                .offset = At<uint32_t>(archive, end + 16)};
  if (end >= kLocatorSize &&
      At<uint32_t>(archive, end - kLocatorSize) == 0x07064b50) {
    const auto end64 = At<uint64_t>(archive, end - kLocatorSize + 8);
    if (end64 > archive.size() || archive.size() - end64 < kEnd64SizeMin ||
        At<uint32_t>(archive, end64) != 0x06064b50) {
      return InvalidArgument("the archive's zip64 record is not there");
    }
    out.count = At<uint64_t>(archive, end64 + 32);
    out.size = At<uint64_t>(archive, end64 + 40);
    out.offset = At<uint64_t>(archive, end64 + 48);
  }
  if (out.offset > archive.size() || out.size > archive.size() - out.offset ||
      out.count > out.size / kEntrySizeMin) {
    return InvalidArgument("the archive's directory is outside the file");
  }
  return out;
}

bool IsKnownRecord(std::string_view name) {
  return name == "data.pkl" || name == "constants.pkl" || name == "version" ||
         name == "byteorder" || name == ".data/serialization_id" ||
         name.starts_with("code/") || name.starts_with("data/") ||
         name.starts_with("constants/") || name.starts_with("extra/");
}

// The 64-bit size from the extra field (id 1: uncompressed size first).
Result<uint64_t> LongSize(ByteSpan extra) {
  while (extra.size() >= 4) {
    const auto id = At<uint16_t>(extra, 0);
    const auto size = At<uint16_t>(extra, 2);
    extra = extra.subspan(4);
    if (size > extra.size()) break;
    if (id == 1 && size >= 8) return At<uint64_t>(extra, 0);
    extra = extra.subspan(size);
  }
  return InvalidArgument("a record of the archive has no size");
}

}  // namespace

Result<std::map<std::string, ArchiveRecord>> ReadArchiveDirectory(
    ByteSpan archive) {
  SELVAGE_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(archive));
  ByteSpan rest = archive.subspan(directory.offset, directory.size);
  std::map<std::string, ArchiveRecord> records;
  std::string top;
  uint64_t stored_total = 0;
  uint64_t compressed_total = 0;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (rest.size() < kEntrySizeMin || At<uint32_t>(rest, 0) != 0x02014b50) {
      return InvalidArgument("the archive's directory is damaged");
    }
    const auto flags = At<uint16_t>(rest, 8);
    const auto method = At<uint16_t>(rest, 10);
    ArchiveRecord record{.size_bytes = At<uint32_t>(rest, 24),
                         .compressed = method != 0};
    const size_t name_size = At<uint16_t>(rest, 28);
    const size_t extra_size = At<uint16_t>(rest, 30);
    const size_t comment_size = At<uint16_t>(rest, 32);
    if (rest.size() - kEntrySizeMin < name_size + extra_size + comment_size) {
      return InvalidArgument("the archive's directory is damaged");
    }
    const std::string name = ToString(rest.subspan(kEntrySizeMin, name_size));
    if (record.size_bytes == kMax32) {
      SELVAGE_ASSIGN_OR_RETURN(
          record.size_bytes,
          LongSize(rest.subspan(kEntrySizeMin + name_size, extra_size)));
    }
    rest = rest.subspan(kEntrySizeMin + name_size + extra_size + comment_size);

    const size_t slash = name.find('/');
    const std::string folder = name.substr(0, slash);
    if (i == 0) top = folder;
    if (slash == std::string::npos || folder != top) {
      return InvalidArgument("the archive's record " + name +
                             " is not in its folder " + top);
    }
    const std::string inner = name.substr(slash + 1);
    if (!IsKnownRecord(inner)) {
      return InvalidArgument("the archive has a record " + inner +
                             ", which a TorchScript module does not have");
    }
    if ((flags & 1) != 0 || (method != 0 && method != 8)) {
      return InvalidArgument("the archive's record " + inner +
                             " is encrypted or packed in an unknown way");
    }
    const bool tensor =
        inner.starts_with("data/") || inner.starts_with("constants/");
    if (record.compressed && tensor) {
      return InvalidArgument("the archive's tensor " + inner +
                             " is compressed");
    }
    (record.compressed ? compressed_total : stored_total) +=
        std::min<uint64_t>(record.size_bytes, uint64_t{1} << 40);
    if (record.compressed && record.size_bytes > kCompressedSizeMax) {
      return InvalidArgument("the archive's record " + inner + " unpacks to " +
                             std::to_string(record.size_bytes) +
                             " bytes, over 16 MiB");
    }
    if (stored_total > archive.size() ||
        compressed_total > kCompressedTotalMax) {
      return InvalidArgument("the archive's records do not fit in it");
    }
    if (!records.emplace(inner, record).second) {
      return InvalidArgument("the archive has two records " + inner);
    }
  }
  return records;
}

}  // namespace selvage::client::torch_engine
