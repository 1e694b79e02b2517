// Sensor readings in, prediction out. usage: embed_cpp MODEL_DIR STATE_DIR
#include <fstream>
#include <iostream>
#include <iterator>
#include <selvage/selvage.hpp>
#include <string>
#include <vector>

static std::string Load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  const std::string model = argv[1];
  selvage::Options options;
  options.state_dir = argv[2];
  options.cache_dir = options.state_dir + "/cache";
  options.population = "wearables";
  selvage::Client client(options);
  client.InstallModel({Load(model + "/plan.json"),
                       Load(model + "/program.json"), "",
                       Load(model + "/model.safetensors")});
  client.DeclareCollection(
      "motion", {{{"reading", SELVAGE_F32, {4}}, {"activity", SELVAGE_I64}}});

  for (int i = 0; i < 90; ++i) {  // how this owner rests, walks and runs
    const std::int64_t what = i % 3;
    const float w = static_cast<float>(what);
    const float r = static_cast<float>(i % 10) / 20;
    const std::vector<float> reading = {w - 1 + r, r, -r, r - w};
    client.AddExample(
        "motion", {selvage::Tensor::Of(reading), selvage::Tensor::Of(what)});
  }
  client.TrainLocally("activity");  // or RunOnce(), to learn with the others

  const std::vector<float> now = {1.2F, 0.2F, -0.2F, -1.8F};
  const selvage::Prediction answer = client.Predict("activity", now);
  const char* const names[] = {"resting", "walking", "running"};
  for (int i = 0; i < 3; ++i) {
    std::cout << names[i] << " " << answer.values[static_cast<size_t>(i)]
              << "\n";
  }
  return 0;
} catch (const selvage::Error& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
