#include "tests/unit/training/programs.h"

#include <fstream>
#include <sstream>

#include "base/check.h"
#include "base/random.h"

namespace selvage::test {

plan::Program LinearProgram(const std::string& source,
                            std::vector<plan::TensorSpec> tensors) {
  plan::Program program;
  program.source = source;
  auto table = plan::TensorTable::Create(std::move(tensors));
  SELVAGE_CHECK(table.ok());
  program.table = *std::move(table);
  program.inputs = {{.name = "x", .shape = {}}, {.name = "y", .shape = {}}};
  program.metrics = {"a", "b"};
  return program;
}

plan::Program LinearProgram(const std::string& source) {
  return LinearProgram(
      source, {{.name = "w", .shape = {}}, {.name = "b", .shape = {}}});
}

plan::Program FashionProgram() {
  auto file = plan::ParseProgramFile(
      ReadSourceFile("examples/fashion/model.yaml"),
      [](const std::string& path) -> Result<std::string> {
        return ReadSourceFile("examples/fashion/" + path);
      });
  SELVAGE_CHECK(file.ok());
  return std::move(file->program);
}

client::ExampleSet LinearExamples(const std::vector<float>& x,
                                  const std::vector<float>& y) {
  client::ExampleSet out{.count = x.size(), .inputs = std::vector<Bytes>(2)};
  for (const float value : x) AppendLe(out.inputs[0], value);
  for (const float value : y) AppendLe(out.inputs[1], value);
  return out;
}

client::ExampleSet FashionExamples(size_t count, uint64_t seed) {
  SeededRandom random(seed);
  client::ExampleSet out{.count = count, .inputs = std::vector<Bytes>(2)};
  for (size_t i = 0; i < count; ++i) {
    const uint64_t label = UniformBelow(random, 10);
    for (size_t pixel = 0; pixel < 784; ++pixel) {
      const bool bright = pixel / 79 == label;
      out.inputs[0].push_back(
          static_cast<uint8_t>(UniformBelow(random, 100) + (bright ? 150 : 0)));
    }
    AppendLe(out.inputs[1], static_cast<int64_t>(label));
  }
  return out;
}

std::vector<size_t> AllTrainable(const plan::Program& program) {
  std::vector<size_t> out;
  for (size_t i = 0; i < program.table.entries().size(); ++i) {
    const plan::Role role = program.table.entries()[i].spec.role;
    if (role == plan::Role::kShared || role == plan::Role::kPersonal) {
      out.push_back(i);
    }
  }
  return out;
}

std::string ReadSourceFile(const std::string& path_in_repository) {
  std::ifstream in(std::string(SELVAGE_SOURCE_DIR) + "/" + path_in_repository,
                   std::ios::binary);
  SELVAGE_CHECK(in.good());
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

}  // namespace selvage::test
