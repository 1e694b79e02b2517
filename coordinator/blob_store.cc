#include "coordinator/blob_store.h"

namespace selvage::coordinator {

Status ReadExactly(ArtefactReader& reader, uint64_t offset,
                   std::span<uint8_t> out, std::string_view what) {
  while (!out.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(const size_t read, reader.ReadAt(offset, out));
    if (read == 0) {
      return DataLoss(std::string(what) + " ends after " +
                      std::to_string(offset) + " bytes, " +
                      std::to_string(out.size()) + " more are wanted");
    }
    offset += read;
    out = out.subspan(read);
  }
  return OkStatus();
}

}  // namespace selvage::coordinator
