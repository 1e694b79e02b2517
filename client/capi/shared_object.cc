#include "client/capi/shared_object.h"

#include <dlfcn.h>

#include <filesystem>
#include <system_error>

namespace selvage::capi {
namespace {

std::string BesideThisCode(const std::string& file) {
  Dl_info self{};
  const auto address = reinterpret_cast<const void*>(&BesideThisCode);
  if (file.find('/') == std::string::npos && dladdr(address, &self) != 0 &&
      self.dli_fname != nullptr) {
    std::error_code error;
    const auto beside =
        std::filesystem::absolute(self.dli_fname, error).parent_path() / file;
    if (std::filesystem::exists(beside, error)) return beside.string();
  }
  return file;
}

}  // namespace

Result<void*> OpenSharedObject(const std::string& file, const char* symbol) {
  const std::string path = BesideThisCode(file);
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    return FailedPrecondition(why == nullptr ? "cannot open " + path : why);
  }
  void* address = dlsym(library, symbol);
  if (address == nullptr) {
    return FailedPrecondition(path + " has no " + symbol);
  }
  return address;
}

}  // namespace selvage::capi
