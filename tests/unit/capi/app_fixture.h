// An app on libselvage.so, of which it sees nothing but selvage.h and
// selvage.hpp.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>

#include "client/capi/selvage.h"
#include "client/capi/selvage.hpp"
#include "tests/unit/capi/tiny_engine.h"

namespace selvage::test {

class AppFixture : public ::testing::Test {
 protected:
  // Not ScratchFolder: an app sees nothing of ours but the API.
  AppFixture() {
    std::string name =
        (std::filesystem::temp_directory_path() / "selvage-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) std::abort();
    home_ = name;
    state_dir_ = (home_ / "state").string();
    cache_dir_ = (home_ / "cache").string();
    options_.struct_size = sizeof options_;
    options_.state_dir = state_dir_.c_str();
    options_.cache_dir = cache_dir_.c_str();
    options_.population = "demo";
    options_.engine = &engine_;
  }
  ~AppFixture() override {
    selvage_close(client_);
    std::error_code ignored;
    std::filesystem::remove_all(home_, ignored);
  }

  void Open() {
    ASSERT_EQ(selvage_open(&options_, &client_), SELVAGE_OK)
        << selvage_last_error();
  }
  // The same in C++, in a directory of its own.
  host::Options Options(const std::string& name) {
    host::Options options;
    options.state_dir = (home_ / name / "state").string();
    options.cache_dir = (home_ / name / "cache").string();
    options.population = "demo";
    options.engine = &engine_;
    return options;
  }
  static host::ModelFiles Model() {
    return {Load("plan.json"), Load("program.json"), "",
            Load("model.safetensors")};
  }
  // y = 3 x0 - 2 x1 + 1
  static void AddReadings(host::Client& client, int count) {
    for (int i = 0; i < count; ++i) {
      const std::vector<float> x = {static_cast<float>(i % 7) / 7,
                                    static_cast<float>(i % 5) / 5};
      const float y = 3 * x[0] - 2 * x[1] + 1;
      client.AddExample("readings", {host::Tensor::Of(x), host::Tensor::Of(y)});
    }
  }

  std::filesystem::path home_;
  std::string state_dir_;
  std::string cache_dir_;
  tiny_engine tiny_{};
  selvage_engine engine_ = tiny_engine_table(&tiny_);
  selvage_options options_{};
  selvage_client* client_ = nullptr;

 private:
  static std::string Load(const char* name) {
    std::ifstream in(std::filesystem::path(SELVAGE_TEST_MODEL) / name,
                     std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
};

}  // namespace selvage::test
