#include "client/base_file.h"

#include <span>
#include <string>
#include <utility>

#include "aggregation/codec/checkpoint_codec.h"

namespace selvage::client {

Result<std::unique_ptr<BaseFile>> BaseFile::Open(const crypto::Digest& digest,
                                                 plan::CodecName codec,
                                                 const plan::TensorTable& table,
                                                 BlobCache& cache) {
  std::unique_ptr<BaseFile> base(new BaseFile(codec, table));
  std::vector<aggregation::PartLayout> layout =
      aggregation::LayOutParts(codec, table);
  std::vector<aggregation::PartName> names;
  if (layout.size() == 1) {
    names.push_back({digest, layout.front().size});
  } else {
    SELVAGE_ASSIGN_OR_RETURN(const Bytes list,
                             cache.Get(digest, aggregation::kPartListSizeMax));
    SELVAGE_ASSIGN_OR_RETURN(names, aggregation::ParsePartList(layout, list));
  }
  for (size_t part = 0; part < layout.size(); ++part) {
    SELVAGE_ASSIGN_OR_RETURN(std::unique_ptr<ReadableFile> file,
                             cache.Open(names[part].digest, names[part].size));
    base->parts_.push_back(std::move(file));
    uint64_t at = 0;
    for (const size_t index : layout[part].entries) {
      const plan::TensorTable::Entry& entry = table.entries()[index];
      if (entry.spec.dtype != plan::DType::kFloat32) continue;
      base->places_[index] = {part, at};
      const size_t count = entry.count;
      at += aggregation::EncodedSize(codec, std::span(&count, 1));
    }
  }
  return base;
}

Status BaseFile::Read(size_t entry, std::vector<float>& out) {
  const size_t count = table_.entries()[entry].count;
  const Place& place = places_[entry];
  Bytes bytes(static_cast<size_t>(
      aggregation::EncodedSize(codec_, std::span(&count, 1))));
  for (size_t done = 0; done < bytes.size();) {
    SELVAGE_ASSIGN_OR_RETURN(
        const size_t read,
        parts_[place.part]->ReadAt(place.begin + done,
                                   std::span(bytes).subspan(done)));
    if (read == 0) {
      return DataLoss("the checkpoint ends before tensor " +
                      table_.entries()[entry].spec.name);
    }
    done += read;
  }
  SELVAGE_ASSIGN_OR_RETURN(
      out, aggregation::Decode(codec_, std::span(&count, 1), bytes));
  return OkStatus();
}

}  // namespace selvage::client
