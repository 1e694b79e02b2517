#include "tests/unit/training/archive_tools.h"

#include <caffe2/serialize/inline_container.h>

#include <memory>

#include "client/training/torch/span_adapter.h"

namespace selvage::test {

std::map<std::string, std::string> UnpackArchive(ByteSpan archive) {
  caffe2::serialize::PyTorchStreamReader reader(
      std::make_shared<client::torch_engine::SpanAdapter>(archive));
  std::map<std::string, std::string> out;
  for (const std::string& name : reader.getAllRecords()) {
    if (name == "version") continue;
    const auto record = reader.getRecord(name);
    out[name].assign(static_cast<const char*>(std::get<0>(record).get()),
                     std::get<1>(record));
  }
  return out;
}

Bytes PackArchive(const std::map<std::string, std::string>& records,
                  bool compress_tensors) {
  Bytes out;
  caffe2::serialize::PyTorchStreamWriter writer(
      [&out](const void* data, size_t size) {
        AppendBytes(out, {static_cast<const uint8_t*>(data), size});
        return size;
      });
  for (const auto& [name, data] : records) {
    const bool compress = name.starts_with("code/") ||
                          (compress_tensors && name.starts_with("data/"));
    writer.writeRecord(name, data.data(), data.size(), compress);
  }
  writer.writeEndOfFile();
  return out;
}

}  // namespace selvage::test
