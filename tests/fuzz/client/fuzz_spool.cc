// What other programs put into a spool: a manifest, and by its means a table, a
// safetensors file, an image, or a request for a prediction. The first byte
// says which; a manifest in front ends with a zero byte.
#include <cstdint>
#include <string>

#include "base/check.h"
#include "client/agent/image.h"
#include "client/agent/manifest.h"
#include "client/agent/predict_protocol.h"
#include "client/agent/table.h"
#include "client/agent/tensor_file.h"

namespace {

using selvage::Bytes;
using selvage::ByteSpan;
using selvage::Result;
namespace agent = selvage::agent;

// A reader gives examples of exactly the declared sizes.
void Drain(const Result<std::unique_ptr<agent::ExampleReader>>& reader,
           const agent::Manifest& manifest) {
  if (!reader.ok()) return;
  for (int i = 0; i < 10'000; ++i) {
    const auto example = (*reader)->Next();
    if (!example.ok() || !example->has_value()) return;
    SELVAGE_CHECK((*example)->tensors.size() == manifest.tensors.size());
    for (size_t t = 0; t < manifest.tensors.size(); ++t) {
      SELVAGE_CHECK((*example)->tensors[t].size() ==
                    manifest.tensors[t].Size());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t kind = data[0];
  const ByteSpan rest(data + 1, size - 1);
  const std::string_view text = selvage::AsText(rest);
  if (kind == 'i') {
    const agent::ImageSpec spec{.width = 4, .height = 3, .channels = 3};
    const Result<Bytes> image = agent::DecodeImage(rest, spec);
    SELVAGE_CHECK(!image.ok() || image->size() == 36);
    return 0;
  }
  if (kind == 'p') {
    (void)agent::AnswerRequest(
        text, {"task"}, [](const std::string&, ByteSpan, size_t count) {
          return Result<selvage::host::Prediction>(
              selvage::host::Prediction{{static_cast<int64_t>(count)},
                                        std::vector<float>(count),
                                        1,
                                        false});
        });
    return 0;
  }
  const size_t end = text.find('\0');
  const Result<agent::Manifest> manifest =
      agent::ParseManifest(text.substr(0, end));
  if (!manifest.ok() || end == std::string_view::npos) return 0;
  const ByteSpan file = rest.subspan(end + 1);
  if (kind == 's') {
    const Result<agent::TensorFile> tensors = agent::TensorFile::Parse(file);
    if (tensors.ok()) Drain(tensors->Read(*manifest), *manifest);
    return 0;
  }
  Drain(
      agent::OpenTable(selvage::AsText(file), *manifest,
                       [&](const std::string&) {
                         return Result<Bytes>(Bytes(file.begin(), file.end()));
                       }),
      *manifest);
  return 0;
}
