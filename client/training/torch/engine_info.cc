#include <dlfcn.h>

#include <filesystem>
#include <system_error>

#include <torch/torch.h>
#include <torch/version.h>

#include "client/training/torch/torch_trainer.h"

namespace selvage::client {

TorchEngineInfo DescribeTorchEngine() {
  TorchEngineInfo out;
  out.version = TORCH_VERSION;
  out.threads = at::get_num_threads();
  out.build = torch::show_config();
  // Which libblas.so.3 the alternatives system chose is known only now.
  Dl_info info;
  void* gemm = dlsym(RTLD_DEFAULT, "sgemm_");
  if (gemm != nullptr && dladdr(gemm, &info) != 0 &&
      info.dli_fname != nullptr) {
    std::error_code error;
    const auto file = std::filesystem::canonical(info.dli_fname, error);
    out.blas_library = error ? info.dli_fname : file.string();
    out.openblas = out.blas_library.find("openblas") != std::string::npos;
  }
  return out;
}

}  // namespace selvage::client
