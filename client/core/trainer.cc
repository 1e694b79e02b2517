#include "client/core/trainer.h"

namespace selvage::client {

Status ValidateExamples(const plan::Program& program,
                        const ExampleSet& examples) {
  if (examples.inputs.size() != program.inputs.size()) {
    return InvalidArgument(
        "examples have " + std::to_string(examples.inputs.size()) +
        " inputs, the program takes " + std::to_string(program.inputs.size()));
  }
  for (size_t i = 0; i < examples.inputs.size(); ++i) {
    const size_t wanted = examples.count * program.inputs[i].SizeBytes();
    if (examples.inputs[i].size() != wanted) {
      return InvalidArgument("input " + program.inputs[i].name + " has " +
                             std::to_string(examples.inputs[i].size()) +
                             " bytes for " + std::to_string(examples.count) +
                             " examples, not " + std::to_string(wanted));
    }
  }
  return OkStatus();
}

}  // namespace selvage::client
