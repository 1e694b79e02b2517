// What libselvage-torch.so exports: the reference engine, with the native
// architectures that come with it.
#include <exception>
#include <memory>

#include "client/capi/engine/engine_adapter.h"
#include "client/training/torch/lenet5.h"
#include "client/training/torch/torch_trainer.h"

namespace selvage::client {
namespace {

constexpr uint32_t MajorOf(uint32_t abi_version) { return abi_version >> 16; }

Status Export(uint32_t abi_version, selvage_engine* engine) {
  if (MajorOf(abi_version) != MajorOf(SELVAGE_ABI_VERSION) ||
      engine->struct_size < sizeof *engine) {
    return FailedPrecondition(
        "libselvage has ABI version " + std::to_string(abi_version) +
        ", this engine is for " + std::to_string(SELVAGE_ABI_VERSION));
  }
  capi::ExportTrainer(std::make_unique<TorchTrainer>(TorchTrainerOptions{
                          .native = {{"lenet5", LeNet5Factory()}}}),
                      engine);
  return OkStatus();
}

}  // namespace
}  // namespace selvage::client

extern "C" SELVAGE_API selvage_code selvage_engine_plugin(
    uint32_t abi_version, selvage_engine* engine, selvage_engine_error* error) {
  try {
    return selvage::capi::ReportTo(
        error, selvage::client::Export(abi_version, engine));
  } catch (const std::exception& exception) {
    return selvage::capi::ReportTo(error, selvage::Internal(exception.what()));
  }
}
