// Examples from a safetensors file (huggingface.co/docs/safetensors): each
// tensor holds one input of all examples, its first dimension counts them. The
// checkpoint's reader (plan/) is another: it knows every shape beforehand.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/status.h"
#include "client/agent/manifest.h"

namespace selvage::agent {

class TensorFile {
 public:
  // `bytes` must outlive the file. INVALID_ARGUMENT: truncated, a header over
  // 1 MiB or that is no JSON object of tensors, a dtype that is not F32, I64 or
  // U8, extents that overlap, leave holes or are not what dtype and shape say,
  // more than 64 tensors.
  static Result<TensorFile> Parse(ByteSpan bytes);

  // `__metadata__`'s "collection"; "" if it has none.
  const std::string& collection() const { return collection_; }

  // The tensors that `manifest` names, which must outlive the reader; beside
  // them only "timestamp_us" (I64 [n], microseconds since 1970) may be there.
  // With a shape of the manifest a tensor must have it after the first
  // dimension. `__metadata__`'s "local_only": "true" keeps all of them local.
  // INVALID_ARGUMENT names the tensor. Bound: 1,000,000 examples.
  Result<std::unique_ptr<ExampleReader>> Read(const Manifest& manifest) const;

  // A manifest of undeclared examples: these tensors as the file has them.
  // INVALID_ARGUMENT: one is missing.
  Result<Manifest> ManifestFor(const std::string& collection,
                               const std::vector<std::string>& inputs) const;

 private:
  struct Tensor {
    std::string name;
    int32_t dtype = 0;
    std::vector<int64_t> shape;
    ByteSpan data;
  };
  const Tensor* Find(const std::string& name) const;

  std::vector<Tensor> tensors_;
  std::string collection_;
  bool local_only_ = false;
};

}  // namespace selvage::agent
